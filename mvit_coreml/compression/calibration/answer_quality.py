"""How close a function's answers are to what they were with its stored constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.mil.parallel import parallel_map

_MICRO_BATCH = 8


@dataclass(frozen=True)
class Quality:
    """How close answers are to those they are compared with.

    Attributes:
        snr: of the raw scores, in dB, all images together.
        agreement: part of the images, or of the positions of maps, with the same best class;
            ``None`` for features.
        divergence: mean Kullback-Leibler divergence of the class probabilities in nats; for
            features the squared error relative to the signal.
    """

    snr: float
    agreement: float | None
    divergence: float

    def __str__(self) -> str:
        same = "" if self.agreement is None else f"{self.agreement:.1%} agreement, "
        return f"{same}{self.snr:.1f} dB"


def scores(
    function: DifferentiableFunction, pixels: Tensor, constants: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the raw scores of many images, (N, ...) fp32, without gradients.

    Args:
        function: to execute.
        pixels: (N, 3, height, width).
        constants: in the place of stored ones, by name.
    """

    def run(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return function(batch, constants)

    return torch.cat(list(parallel_map(run, torch.split(pixels, _MICRO_BATCH))))


def compare_scores(answers: Tensor, reference: Tensor, of_classes: bool) -> Quality:
    """Compare the scores of the same images.

    Args:
        answers: (N, ...), of classes along axis 1 if ``of_classes``.
        reference: what they should be.
        of_classes: whether they are scores of classes.
    """
    error = (answers - reference).double().square().sum()
    signal = reference.double().square().sum()
    ratio = float(error / signal.clamp(min=1e-300))
    snr = math.inf if ratio == 0 else -10 * math.log10(ratio)
    if not of_classes:
        return Quality(snr, None, ratio)
    agreement = float((answers.argmax(1) == reference.argmax(1)).double().mean())
    return Quality(snr, agreement, float(divergence(answers, reference, of_classes)))


def divergence(answers: Tensor, reference: Tensor, of_classes: bool) -> Tensor:
    """Return what :class:`Quality` calls so, differentiable in ``answers``."""
    if not of_classes:
        return (answers - reference).square().sum() / reference.square().sum().clamp(min=1e-30)
    by_class = F.kl_div(
        answers.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True
    )
    return by_class.sum(1).mean()


def combined_snr(first: float, second: float) -> float:
    """Return the SNR in dB of two independent errors together."""
    noise = 10 ** (-first / 10) + 10 ** (-second / 10)
    return -10 * math.log10(noise) if noise > 0 else math.inf
