"""Tuning keeps what is closest on images that it was not fitted to, and ends when it should."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from functions import function_of, pictures, small
from torch import Tensor

from mvit_coreml.compression.calibration import tuner as tuning
from mvit_coreml.compression.calibration.differentiable import Quality
from mvit_coreml.compression.calibration.reconstruction import TunedWeights
from mvit_coreml.compression.calibration.tuner import Tuned, Tuner, split_images
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.evaluation.metrics import MAX_DB

pytestmark = pytest.mark.fast

CHOICES = {
    "stem_weight": Choice(2),
    "grouped_weight": Choice(2, 3),
    "expand_weight": UNCOMPRESSED,
    "head_weight": Choice(2),
}


@pytest.fixture(scope="module")
def tuner() -> Tuner:
    function = function_of(small())
    pixels = function.pixels(pictures(36))
    return Tuner(function, pixels[:24], pixels[24:])


@pytest.fixture(scope="module")
def tuned(tuner: Tuner) -> Tuned:
    return tuner.reconstruct(CHOICES)


def divergence(tuner: Tuner, tensors: dict[str, Tensor]) -> float:
    """Return that of the answers on the held-out images, from the module itself."""
    pixels = tuner.held_out
    parameters = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    with torch.no_grad():
        before = small()(pixels).double()
        after = torch.func.functional_call(small(), parameters, (pixels,)).double()
    p = before.softmax(1)
    return float((p * (before.log_softmax(1) - after.log_softmax(1))).sum(1).mean())


@pytest.mark.parametrize(("count", "held_out"), [(16, 4), (100, 37), (5000, 200), (4, 0)])
def test_as_many_images_as_asked_for_are_held_out_at_random(count: int, held_out: int) -> None:
    fitting, judging = split_images(count, held_out)
    assert len(judging) == held_out
    assert sorted([*fitting, *judging]) == list(range(count))
    assert judging == sorted(judging)
    assert fitting != sorted(fitting)
    assert split_images(count, held_out) == (fitting, judging)
    assert split_images(count, held_out, seed=1) != (fitting, judging)


def test_reconstruction_is_judged_on_the_held_out_images(tuner: Tuner, tuned: Tuned) -> None:
    function = tuner.function
    jobs = {
        name: ClusterJob(function.constants[name].numpy(), choice)
        for name, choice in CHOICES.items()
        if choice != UNCOMPRESSED
    }
    alone = {
        name: torch.from_numpy(palette.decode()) for name, palette in cluster_weights(jobs).items()
    }
    assert set(tuned.weights.palettes) == set(jobs)
    assert not tuned.is_plain
    assert tuned.plain.divergence == pytest.approx(divergence(tuner, alone), rel=1e-3)
    found = divergence(tuner, tuned.weights.tensors())
    assert tuned.quality.divergence == pytest.approx(found, rel=1e-3)
    assert found < 0.7 * tuned.plain.divergence


def test_k_means_is_kept_where_reconstruction_is_worse(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = {"head_bias": np.full(5, [9.0, 0, 0, 0, 0], np.float32)}
    monkeypatch.setattr(tuning, "reconstruct", lambda *given, **options: TunedWeights({}, spoilt))
    found = tuner.reconstruct(CHOICES)
    assert found.is_plain
    assert not found.weights.constants
    assert found.quality == found.plain
    wanted = divergence(tuner, found.weights.tensors())
    assert found.quality.divergence == pytest.approx(wanted, rel=1e-3)
    values = tuner.function.constants["stem_weight"].numpy()
    alone = cluster_weights({"": ClusterJob(values, Choice(2))})[""]
    np.testing.assert_array_equal(found.weights.palettes["stem_weight"].decode(), alone.decode())


def test_views_take_part_when_asked_for(tuner: Tuner, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []

    def watched(function: Any, pixels: Tensor, *given: Any, **options: Any) -> TunedWeights:
        seen.append(pixels)
        return TunedWeights()

    monkeypatch.setattr(tuning, "reconstruct", watched)
    monkeypatch.setattr(tuning, "_VIEWS", 60)
    tuner.reconstruct(CHOICES)
    tuner.reconstruct(CHOICES, views=True)
    original = tuner.pixels
    assert torch.equal(seen[0], original)
    assert seen[1].shape == (60, *original.shape[1:])
    images = {view.numpy().tobytes() for view in seen[1]}
    assert len(images) == 60
    assert {image.numpy().tobytes() for image in original} < images
    # In another order, as every fourth micro-batch judges.
    assert not torch.equal(seen[1][:24], original)
    held_out = {image.numpy().tobytes() for image in tuner.held_out}
    assert not held_out & images


def test_a_draft_sees_a_quarter_of_the_images_and_fewer_samples(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, int]] = []

    def watched(function: Any, pixels: Tensor, *given: Any, **options: Any) -> TunedWeights:
        seen.append((pixels, options["samples"]))
        return TunedWeights()

    monkeypatch.setattr(tuning, "reconstruct", watched)
    few = function_of(small())
    many = Tuner(few, few.pixels(pictures(48)), tuner.held_out)
    for each in (tuner, many):
        each.reconstruct(CHOICES, draft=True)
        each.reconstruct(CHOICES)
    # Eight at least.
    assert [len(pixels) for pixels, _ in seen] == [8, 24, 12, 48]
    for (drafted, fewer), (whole, samples) in zip(seen[::2], seen[1::2], strict=True):
        assert torch.equal(drafted, whole[: len(drafted)])
        assert fewer < samples


def test_a_draft_is_judged_like_any_other(tuner: Tuner) -> None:
    found = tuner.reconstruct(CHOICES, draft=True)
    wanted = divergence(tuner, found.weights.tensors())
    assert found.quality.divergence == pytest.approx(wanted, rel=1e-3)


class Scripted:
    """Stands for the fine-tuner: each state is a number, which names its divergence."""

    def __init__(self, after: Callable[[int], None] = lambda steps: None) -> None:
        self.after, self.steps = after, 0

    def __call__(self, *given: Any) -> Scripted:
        return self

    def step(self) -> None:
        self.steps += 1
        self.after(self.steps)

    def weights(self) -> TunedWeights:
        return TunedWeights({}, {"steps": np.array([self.steps])})


@pytest.fixture
def script(tuner: Tuner, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scripted]:
    """Let fine-tuning go through given divergences, one for each judgement."""

    def install(
        divergences: list[float], after: Callable[[int], None] = lambda steps: None
    ) -> Scripted:
        stand_in = Scripted(after)

        def judge(answers: torch.Tensor) -> Quality:
            return Quality(10.0, 9.0, 0.5, divergences[int(answers) // 10 - 1])

        monkeypatch.setattr(tuning, "FineTuner", stand_in)
        monkeypatch.setattr(tuner, "answers", lambda weights: weights.tensors()["steps"])
        monkeypatch.setattr(tuner, "judge", judge)
        return stand_in

    return install


def kept(tuned: Tuned) -> int:
    return int(tuned.weights.constants["steps"][0])


def begun(tuned: Tuned) -> Tuned:
    return Tuned(tuned.weights, tuned.plain, Quality(10.0, 9.0, 0.5, 1.0), tuned.answers)


def test_fine_tuning_keeps_the_best_state_and_ends_when_it_no_longer_helps(
    tuner: Tuner, tuned: Tuned, script: Callable[..., Scripted]
) -> None:
    stand_in = script([0.9, 1.1, 0.8, 0.85, 0.5, 0.6, 0.6, 0.6, 0.6, 0.1])
    reports: list[str] = []
    found = tuner.fine_tune(begun(tuned), math.inf, reports.append)
    assert kept(found) == 50
    assert found.quality.divergence == 0.5
    assert found.plain is tuned.plain
    # Four judgements without a better state.
    assert stand_in.steps == 90
    assert len(reports) == 9
    assert reports[-1].startswith("step 90, held out: ")


def test_fine_tuning_that_never_helps_gives_back_the_start(
    tuner: Tuner, tuned: Tuned, script: Callable[..., Scripted]
) -> None:
    stand_in = script([1.0, 1.5, math.nan, 1.2, 0.1])
    start = begun(tuned)
    assert tuner.fine_tune(start, math.inf) is start
    assert stand_in.steps == 40


def test_fine_tuning_stops_at_the_deadline(
    tuner: Tuner, tuned: Tuned, script: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = script([0.5] + [0.4] * 100)
    # A clock that every step moves on by a second.
    monkeypatch.setattr(tuning.time, "monotonic", lambda: 1000.0 + stand_in.steps)
    found = tuner.fine_tune(begun(tuned), 1017.0)
    assert stand_in.steps == 17
    assert kept(found) == 10
    stand_in = script([0.5] * 100)
    start = begun(tuned)
    assert tuner.fine_tune(start, 999.0) is start
    assert stand_in.steps == 0


def test_minutes_are_counted_from_now(
    tuner: Tuner, tuned: Tuned, script: Callable[..., Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = script([1 / (judgement + 2) for judgement in range(100)])
    monkeypatch.setattr(tuning.time, "monotonic", lambda: 1000.0 + stand_in.steps)
    assert kept(tuner.fine_tune(begun(tuned), tuning.deadline_in(0.5))) == 30


def test_an_interruption_keeps_the_best(
    tuner: Tuner, tuned: Tuned, script: Callable[..., Scripted]
) -> None:
    def interrupt(steps: int) -> None:
        if steps == 25:
            raise KeyboardInterrupt

    script([0.7, 0.9], interrupt)
    reports: list[str] = []
    found = tuner.fine_tune(begun(tuned), math.inf, reports.append)
    assert kept(found) == 10
    assert reports[-1].startswith("stopped; the best is kept: 50.0% agreement")


@pytest.mark.parametrize("weights", ["none", "perfect"])
def test_where_nothing_is_lost_nothing_is_fine_tuned(
    weights: str, tuner: Tuner, tuned: Tuned, script: Callable[..., Scripted]
) -> None:
    stand_in = script([0.0] * 9)
    perfect = Quality(MAX_DB, MAX_DB, 1.0, 0.0)
    start = (
        Tuned(TunedWeights(), tuned.plain, tuned.quality, tuned.answers)
        if weights == "none"
        else Tuned(tuned.weights, tuned.plain, perfect, tuned.answers)
    )
    assert tuner.fine_tune(start, math.inf) is start
    assert stand_in.steps == 0


def test_tuning_reconstructs_and_fine_tunes_if_there_are_minutes(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_VIEWS", 40)
    monkeypatch.setattr(tuning, "_STEPS", 1)
    fine_tuned: list[Tuned] = []
    original = Tuner.fine_tune

    def watched(self: Tuner, tuned: Tuned, *given: Any) -> Tuned:
        fine_tuned.append(tuned)
        return original(self, tuned, *given)

    monkeypatch.setattr(Tuner, "fine_tune", watched)
    reports: list[str] = []
    without = tuner.tune(CHOICES, report=reports.append)
    assert not fine_tuned
    assert without.quality.divergence < without.plain.divergence
    assert any(line.startswith("held out: ") for line in reports)
    found = tuner.tune(CHOICES, minutes=1 / 60, report=reports.append)
    assert len(fine_tuned) == 1
    assert found.quality.divergence <= fine_tuned[0].quality.divergence
    wanted = divergence(tuner, found.weights.tensors())
    assert found.quality.divergence == pytest.approx(wanted, rel=1e-3)
