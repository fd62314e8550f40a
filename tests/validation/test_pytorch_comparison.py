"""Answers compared: consistency by hand or by torch; judging many packages asks PyTorch once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from packages import converted, image, small_checkpoint

from mvit_coreml import ValidateOptions, validate
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.validation import pytorch_comparison
from mvit_coreml.validation.pytorch_comparison import Judge, consistent_share

pytestmark = pytest.mark.fast

SCORES = torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))


class CountingReference(ReferenceTarget):
    """Counts the images that it was asked about."""

    asked = 0

    def answer(self, images: Iterable[Any]) -> Any:
        listed = list(images)
        self.asked += len(listed)
        return super().answer(listed)


# Of an image, seven probabilities and seven scores in single precision: 56 bytes.
@pytest.mark.parametrize(("room", "asked"), [(1_000_000, 5), (0, 10), (2 * 56 + 4, 8)])
def test_the_reference_answers_once_as_far_as_its_answers_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, room: int, asked: int
) -> None:
    monkeypatch.setattr(pytorch_comparison, "_KEPT_BYTES", room)
    checkpoint = small_checkpoint("mobilenet_v2")
    package, _ = converted("mobilenet_v2")
    target = PackageTarget(Predictor(package.path, engine="portable"))
    reference = CountingReference(checkpoint, target.roles)
    images = [image((64, 64), seed) for seed in range(5)]
    judge = Judge(reference, images)
    first, second = judge.judge(target), judge.judge(target)
    assert first == second
    assert reference.asked == asked
    report = validate(package.path, checkpoint, images, ValidateOptions(structure=False))
    assert first.snr == pytest.approx(report.scores.snr, rel=1e-9)
    assert first.agreement == report.agreement["top1"]


def test_features_are_judged_by_their_ratio_alone() -> None:
    checkpoint = small_checkpoint("mobilenet_v2")
    package, _ = converted("mobilenet_v2", output="features")
    target = PackageTarget(Predictor(package.path, engine="portable"))
    images = [image((64, 64), seed) for seed in range(3)]
    found = Judge(ReferenceTarget(checkpoint, target.roles), images).judge(target)
    report = validate(package.path, checkpoint, images, ValidateOptions(structure=False))
    assert found.snr == pytest.approx(report.scores.snr, rel=1e-9)
    assert (found.agreement, found.kl, found.accuracy) == (None, None, None)


def test_segmenters_are_judged_by_their_pixels() -> None:
    checkpoint = small_checkpoint("mobilenet_v2", "semantic-segmentation")
    package, _ = converted("mobilenet_v2", "semantic-segmentation", bits=4)
    target = PackageTarget(Predictor(package.path, engine="portable"))
    images = [image((64, 64), seed) for seed in range(3)]
    reference = ReferenceTarget(checkpoint, target.roles, fit="pad")
    found = Judge(reference, images).judge(target)
    report = validate(package.path, checkpoint, images, ValidateOptions(structure=False))
    assert 0.05 < report.agreement["pixels"] < 0.999
    assert found.agreement == pytest.approx(report.agreement["pixels"], rel=1e-9)
    assert found.snr == pytest.approx(report.scores.snr, rel=1e-9)
    assert (found.kl, found.accuracy) == (None, None)


def test_probabilities_of_a_classifier() -> None:
    scores = np.array([[1.0, 3.0, 2.0]], np.float16)
    right = np.array([0.09, 0.665, 0.245], np.float32)
    assert consistent_share(scores, {"probabilities": right}) == 1
    assert consistent_share(scores, {"probabilities": np.ones(3)}) == 0
    assert consistent_share(scores, {"probabilities": right[[0, 2, 1]]}) == pytest.approx(1 / 3)


def test_maps_of_a_segmenter() -> None:
    scores = SCORES.numpy()
    classes = SCORES.argmax(1)[0].numpy()
    assert consistent_share(scores, {"classes": classes}) == 1
    assert consistent_share(scores, {"classes": classes + 1}) == 0
    assert consistent_share(scores, {"probabilities": SCORES.softmax(1).numpy()}) == 1
    assert consistent_share(scores, {"probabilities": SCORES.softmax(2).numpy()}) < 0.2
    wrong = classes.copy()
    wrong[0, :3] = (wrong[0, :3] + 1) % 5
    assert consistent_share(scores, {"classes": wrong}) == pytest.approx(21 / 24)


def test_nothing_is_said_where_nothing_follows() -> None:
    assert consistent_share(SCORES.numpy(), {"logits": SCORES.numpy()}) is None
    assert consistent_share(SCORES.numpy(), {"classes": np.zeros((8, 12))}) is None
    assert consistent_share(SCORES.numpy(), {}) is None


def test_scores_that_are_not_numbers_give_nothing_consistent() -> None:
    scores = np.array([[np.nan, 1.0]], np.float16)
    assert consistent_share(scores, {"probabilities": np.full(2, np.nan)}) == 0
