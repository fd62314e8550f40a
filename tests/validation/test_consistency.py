"""Whether outputs follow from the scores, on answers worked out by hand or by torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mvit_coreml.validation.consistency import consistent_share

SCORES = torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(0))


def test_probabilities_of_a_classifier():
    scores = np.array([[1.0, 3.0, 2.0]], np.float16)
    right = np.array([0.09, 0.665, 0.245], np.float32)
    assert consistent_share(scores, {"probabilities": right}) == 1
    assert consistent_share(scores, {"probabilities": np.ones(3)}) == 0
    assert consistent_share(scores, {"probabilities": right[[0, 2, 1]]}) == pytest.approx(1 / 3)


def test_maps_of_a_segmenter():
    scores = SCORES.numpy()
    classes = SCORES.argmax(1)[0].numpy()
    assert consistent_share(scores, {"classes": classes}) == 1
    assert consistent_share(scores, {"classes": classes + 1}) == 0
    assert consistent_share(scores, {"probabilities": SCORES.softmax(1).numpy()}) == 1
    assert consistent_share(scores, {"probabilities": SCORES.softmax(2).numpy()}) < 0.2
    wrong = classes.copy()
    wrong[0, :3] = (wrong[0, :3] + 1) % 5
    assert consistent_share(scores, {"classes": wrong}) == pytest.approx(21 / 24)


def test_nothing_is_said_where_nothing_follows():
    assert consistent_share(SCORES.numpy(), {"logits": SCORES.numpy()}) is None
    assert consistent_share(SCORES.numpy(), {"classes": np.zeros((8, 12))}) is None
    assert consistent_share(SCORES.numpy(), {}) is None


def test_scores_that_are_not_numbers_give_nothing_consistent():
    scores = np.array([[np.nan, 1.0]], np.float16)
    assert consistent_share(scores, {"probabilities": np.full(2, np.nan)}) == 0
