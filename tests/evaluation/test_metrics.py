"""How close two answers are, against numbers worked out by hand, torch and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, jaccard_score

from mvit_coreml.evaluation.metrics import (
    MAX_DB,
    ClosenessMeter,
    ConfusionMatrix,
    kl_divergence,
    snr,
    softmax,
    top_k,
    wilson_interval,
)

pytestmark = pytest.mark.fast


def closeness(*pairs):
    meter = ClosenessMeter()
    for value, reference in pairs:
        meter.add(np.asarray(value, np.float32), np.asarray(reference, np.float32))
    return meter.result()


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [
        # A tenth of the amplitude is a hundredth of the power.
        ([0.9, -1.8, 2.7], [1, -2, 3], 20),
        ([1, -2, 3], [1, -2, 3], MAX_DB),
        ([0, 0], [0, 0], MAX_DB),
        ([0, 0], [3, 4], 0),
        ([1, 0], [0, 0], -MAX_DB),
        ([math.nan, 1], [1, 1], -MAX_DB),
        ([math.inf, 1], [1, 1], -MAX_DB),
    ],
)
def test_signal_to_noise(value, reference, expected):
    found = snr(np.array(value, np.float32), np.array(reference, np.float32))
    assert found == pytest.approx(expected, abs=1e-4)


def test_images_add_up_as_if_they_were_one():
    generator = np.random.default_rng(0)
    references = generator.normal(size=(3, 5, 4, 6)).astype(np.float32)
    values = references + 0.01 * generator.normal(size=references.shape).astype(np.float32)
    # Maps of five classes, side by side in one.
    whole = (np.concatenate(values, 1), np.concatenate(references, 1))
    assert vars(closeness(*zip(values, references, strict=True))) == pytest.approx(
        vars(closeness(whole))
    )


@pytest.mark.parametrize(
    ("shape", "about"),
    # Vectors by element; maps (C, H, W) by class, over rows and columns too; and one map alone.
    [((30, 5), (0,)), ((4, 5, 6, 7), (0, 2, 3)), ((1, 5, 6, 7), (0, 2, 3))],
)
def test_variation_is_the_sample_variance_of_each_class(shape, about):
    generator = np.random.default_rng(0)
    shared = 10 * np.arange(5).reshape((1, 5) + (1,) * (len(shape) - 2))
    references = generator.normal(size=shape) + shared
    noise = 0.1 * generator.normal(size=shape)
    found = closeness(*zip(references + noise, references, strict=True))
    ratio = references.var(about, ddof=1).mean() / (noise**2).mean()
    assert found.variation_snr == pytest.approx(10 * math.log10(ratio), abs=1e-3)
    # What all images share is worth 60 times as much as what varies.
    assert found.snr - found.variation_snr == pytest.approx(
        10 * math.log10((references**2).mean() / references.var(about, ddof=1).mean()), abs=1e-3
    )
    assert found.snr > found.variation_snr + 15


@pytest.mark.parametrize("rounding", [0.0, 1e-7])
def test_a_reference_that_does_not_vary_is_judged_by_all_of_it(rounding: float):
    found = closeness(([3, 4.5], [3, 4]), ([3, 4], [3, 4 + rounding]))
    # 50 against 0.25.
    assert not found.varies
    assert found.variation_snr == found.snr == pytest.approx(10 * math.log10(200))
    # A thousandth of the scores is more than rounding.
    small = closeness(([3, 4.5], [3, 4]), ([3, 4], [3, 4.004]))
    assert small.varies
    assert small.variation_snr < 0
    # Equal ones, though, are equal.
    assert closeness(([3, 4], [3, 4]), ([3, 4], [3, 4])).variation_snr == MAX_DB


def test_a_single_vector_varies_by_all_of_it():
    found = closeness(([3, 4.5], [3, 4]))
    # 25 against 0.25.
    assert found.variation_snr == found.snr == pytest.approx(20)


def test_figures_of_one_answer():
    found = closeness(([1, 2, 5], [1, 2, 4]))
    assert found.max_error == 1
    assert found.max_reference == 4
    # Peak 4 - 1 over three values, against an error of 1: 10 log10(27).
    assert found.psnr == pytest.approx(10 * math.log10(27))
    assert found.cosine == pytest.approx(25 / math.sqrt(30 * 21))


def test_what_is_not_finite_is_the_worst_there_is():
    found = closeness(([math.nan, 1], [1, 1]))
    assert (found.max_error, found.cosine) == (math.inf, 0)


def test_cosines_of_zero():
    assert closeness(([0, 0], [0, 0])).cosine == 1
    assert closeness(([0, 0], [1, 0])).cosine == 0
    assert closeness(([-2, 0], [1, 0])).cosine == -1


def test_softmax_and_divergence_are_those_of_torch():
    logits = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32) * 30
    first, second = softmax(logits)
    ours = torch.from_numpy(logits).double().softmax(-1)
    assert np.allclose(softmax(logits), ours.numpy(), atol=1e-12)
    assert np.allclose(softmax(logits, axis=0).sum(axis=0), 1)
    mild = softmax(logits / 30)
    expected = torch.nn.functional.kl_div(
        torch.from_numpy(mild[0]).log(), torch.from_numpy(mild[1]), reduction="sum"
    )
    assert kl_divergence(mild[0], mild[1]) == pytest.approx(float(expected))
    assert kl_divergence(first, first) == 0
    # Rounded to half precision they add up to more than one.
    assert kl_divergence(1.001 * first, first) == pytest.approx(0.001 - math.log(1.001), rel=1e-6)
    assert math.isfinite(kl_divergence(np.array([1.0, 0.0]), np.array([0.0, 1.0])))
    assert second.sum() == pytest.approx(1)


def test_the_first_of_equal_scores_comes_first():
    assert top_k(np.array([1, 3, 2, 3], np.float32), 3) == [1, 3, 2]


def test_accuracy_and_intersections_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, (2, 10, 10))
    matrix = ConfusionMatrix(4)
    for row in range(10):
        matrix.add(predicted[row], truth[row])
    expected = jaccard_score(truth.ravel(), predicted.ravel(), average=None)
    assert np.allclose(matrix.ious(), expected)
    assert matrix.mean_iou() == pytest.approx(expected.mean())
    assert matrix.accuracy() == pytest.approx(accuracy_score(truth.ravel(), predicted.ravel()))


def test_ignored_pixels_and_absent_classes_do_not_count():
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([0, 1, 2, 1]), np.array([0, 1, 255, 0]))
    assert matrix.accuracy() == pytest.approx(2 / 3)
    # Class 0: one of two; class 1: one of two; class 2 never occurs in what counts.
    assert np.array_equal(matrix.ious(), [0.5, 0.5, np.nan], equal_nan=True)
    assert matrix.mean_iou() == 0.5
    assert ConfusionMatrix(2).mean_iou() == ConfusionMatrix(2).accuracy() == 1


@pytest.mark.parametrize(
    ("hits", "total", "interval"),
    # Brown, Cai and DasGupta (2001) and the formula with z = 1.96, by hand.
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (0, 0, (0, 1))],
)
def test_confidence_intervals(hits, total, interval):
    assert wilson_interval(hits, total) == pytest.approx(interval, abs=1e-4)
