"""Quality figures against formulas written out in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from functions import function_of, parameter_names, pictures, small

from mvit_coreml.compression.calibration.differentiable import (
    Quality,
    combined_snr,
    compare_scores,
    divergence,
    scores,
)
from mvit_coreml.evaluation.metrics import MAX_DB, ClosenessMeter
from mvit_coreml.models.config import HeadActivation

pytestmark = pytest.mark.fast


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return 3 * np.random.default_rng(seed).standard_normal(shape)


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))


def probabilities(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(40, 6), (3, 6, 5, 4)])
def test_scores_of_classes_are_compared_by_hand(shape: tuple[int, ...]) -> None:
    reference = drawn(*shape)
    found = reference + 0.7 * drawn(*shape, seed=1)
    quality = compare_scores(tensor(found), tensor(reference), "softmax")
    snr = 10 * np.log10((reference**2).sum() / ((found - reference) ** 2).sum())
    same = (found.argmax(1) == reference.argmax(1)).mean()
    p, q = probabilities(reference), probabilities(found)
    kl = (p * np.log(p / q)).sum(1).mean()
    assert 0 < same < 1
    assert quality.snr == pytest.approx(snr, abs=1e-3)
    assert quality.agreement == pytest.approx(same, abs=1e-9)
    assert quality.divergence == pytest.approx(kl, rel=1e-4)


@pytest.mark.parametrize(
    ("shape", "activation", "about"),
    [
        ((40, 6), "softmax", (0,)),
        ((40, 6), "sigmoid", (0,)),
        # A class of a map varies between positions and images.
        ((3, 6, 5, 4), "softmax", (0, 2, 3)),
        # One map is enough for that.
        ((1, 6, 5, 4), "softmax", (0, 2, 3)),
        ((40, 6), "none", (0,)),
    ],
)
def test_what_all_images_share_is_no_signal_of_the_variation(
    shape: tuple[int, ...], activation: HeadActivation, about: tuple[int, ...]
) -> None:
    shared = 20 * np.arange(6).reshape((1, 6) + (1,) * (len(shape) - 2))
    reference = drawn(*shape) + shared
    noise = 0.3 * drawn(*shape, seed=1)
    found = compare_scores(tensor(reference + noise), tensor(reference), activation)
    # The sample variance of every class, against the noise of as many values.
    variation = reference.var(about, ddof=1).mean() / (noise**2).mean()
    assert found.variation_snr == pytest.approx(10 * np.log10(variation), abs=1e-2)
    assert found.snr > found.variation_snr + 10
    # What validation reports of the same answers.
    meter = ClosenessMeter()
    for one, other in zip(reference + noise, reference, strict=True):
        meter.add(one, other)
    assert found.variation_snr == pytest.approx(meter.result().variation_snr, abs=1e-2)


def test_a_single_vector_varies_by_all_of_it() -> None:
    found = compare_scores(torch.tensor([[3.0, 4.5]]), torch.tensor([[3.0, 4.0]]), "softmax")
    # 25 against 0.25.
    assert found.snr == found.variation_snr == pytest.approx(20)


def test_features_are_compared_by_their_relative_error() -> None:
    reference = drawn(4, 6, 3)
    found = reference + drawn(4, 6, 3, seed=1)
    quality = compare_scores(tensor(found), tensor(reference), "none")
    ratio = ((found - reference) ** 2).sum() / (reference**2).sum()
    assert quality.agreement is None
    assert quality.divergence == pytest.approx(ratio, rel=1e-5)
    assert quality.snr == pytest.approx(-10 * np.log10(ratio), abs=1e-3)
    loss = divergence(tensor(found), tensor(reference), "none")
    assert float(loss) == pytest.approx(ratio, rel=1e-5)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_equal_scores_have_no_noise(activation: HeadActivation) -> None:
    found = compare_scores(tensor(drawn(4, 3)), tensor(drawn(4, 3)), activation)
    assert found == Quality(MAX_DB, MAX_DB, None if activation == "none" else 1.0, 0.0)
    silent = compare_scores(torch.ones(2, 3), torch.zeros(2, 3), "none")
    assert silent.snr == silent.variation_snr == -MAX_DB


def test_the_gradient_of_the_divergence_is_the_difference_of_probabilities() -> None:
    reference, found = drawn(5, 4), drawn(5, 4, seed=1)
    at = tensor(found).requires_grad_()
    divergence(at, tensor(reference), "softmax").backward()
    wanted = (probabilities(found) - probabilities(reference)) / 5
    assert at.grad is not None
    np.testing.assert_allclose(at.grad.numpy(), wanted, atol=1e-6)


def test_several_labels_are_compared_one_by_one() -> None:
    reference = drawn(40, 6)
    found = reference + 0.3 * drawn(40, 6, seed=1)
    quality = compare_scores(tensor(found), tensor(reference), "sigmoid")
    p, q = 1 / (1 + np.exp(-reference)), 1 / (1 + np.exp(-found))
    kl = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum(1).mean()
    same = ((p > 0.5) == (q > 0.5)).all(1).mean()
    assert 0 < same < 1
    assert quality.agreement == pytest.approx(same, abs=1e-9)
    assert quality.divergence == pytest.approx(kl, rel=1e-4)
    at = tensor(found).requires_grad_()
    divergence(at, tensor(reference), "sigmoid").backward()
    assert at.grad is not None
    np.testing.assert_allclose(at.grad.numpy(), (q - p) / 40, atol=1e-6)


def test_quality_reads_as_agreement_and_decibels() -> None:
    assert str(Quality(12.34, 5.0, 0.875, 0.1)) == "87.5% agreement, 12.3 dB"
    assert str(Quality(12.34, 5.0, None, 0.1)) == "12.3 dB"


def test_scores_of_many_images_come_in_order_and_without_gradients() -> None:
    function = function_of(small())
    pixels = function.pixels(pictures(19))
    found = scores(function, pixels)
    assert not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(found, small()(pixels), rtol=1e-4, atol=1e-5)
        name = parameter_names(function, small())["head.weight"]
        replaced = scores(function, pixels, {name: torch.zeros(5, 16)})
    bias = small().get_parameter("head.bias").detach()
    torch.testing.assert_close(replaced, bias.expand(19, 5))


def test_two_errors_together_add_their_noise() -> None:
    first, second = np.random.default_rng(0).standard_normal((2, 400_000)) * [[0.1], [0.05]]
    apart = [-10 * math.log10((error**2).mean()) for error in (first, second)]
    together = -10 * math.log10(((first + second) ** 2).mean())
    assert combined_snr(*apart) == pytest.approx(together, abs=0.05)
    assert combined_snr(math.inf, 7.0) == pytest.approx(7.0)
    assert combined_snr(math.inf, math.inf) == math.inf
