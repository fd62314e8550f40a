"""How close two answers are. All functions take arrays of equal shape unless they say otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

# What a perfect match is reported as: float64 holds no larger ratio of powers anyway.
MAX_DB = 300.0

# What varies between images by less than this part of the signal's power is rounding of fp32.
_ROUNDING_POWER = 1e-10


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """How close the values of an output are to the reference's.

    Attributes:
        snr: signal to noise in dB: the reference's power over that of the difference.
        variation_snr: the same with only what varies as the signal: the reference's power about
            the mean of each class (of each element, where there are no maps) over all images and
            positions. What all images share says nothing of how well they are told apart. Of a
            single vector, and of a reference that does not vary, it is ``snr``.
        psnr: in dB, with the reference's range as the peak.
        max_error: largest absolute difference.
        max_reference: largest absolute value of the reference.
        cosine: cosine of the angle between the two.
        varies: whether the reference's values differ between images by more than rounding.
    """

    snr: float
    variation_snr: float
    psnr: float
    max_error: float
    max_reference: float
    cosine: float
    varies: bool = True


class ClosenessMeter:
    """Accumulates :class:`Closeness` over images without keeping them."""

    def __init__(self) -> None:
        self._signal = self._noise = self._dot = self._power = 0.0
        self._max_error = self._max_reference = 0.0
        self._low, self._high, self._count = math.inf, -math.inf, 0
        self._sums: NDArray[np.float64] | float = 0.0
        self._samples = 0

    def add(self, value: Floats, reference: Floats) -> None:
        """Take in one image's output and its reference."""
        # The classes of a map lie before its rows and columns.
        is_map = reference.ndim >= 3
        by_class = reference.astype(np.float64).reshape(
            (reference.shape[-3], -1) if is_map else (-1, 1)
        )
        self._sums = self._sums + by_class.sum(1)
        self._samples += by_class.shape[1]
        value, reference = value.astype(np.float64).ravel(), by_class.ravel()
        error = value - reference
        self._signal += float(reference @ reference)
        self._noise += float(error @ error) if np.isfinite(error).all() else math.inf
        self._dot += float(value @ reference)
        self._power += float(value @ value)
        largest = float(np.abs(error).max(initial=0.0))
        # The maximum of a number and NaN is whichever comes first.
        self._max_error = max(self._max_error, math.inf if math.isnan(largest) else largest)
        self._max_reference = max(self._max_reference, float(np.abs(reference).max(initial=0.0)))
        self._low = min(self._low, float(reference.min(initial=math.inf)))
        self._high = max(self._high, float(reference.max(initial=-math.inf)))
        self._count += reference.size

    def result(self) -> Closeness:
        """Return the figures over everything taken in so far."""
        peak = (self._high - self._low) ** 2 * self._count
        variation = self._variation()
        varies = varies_in_fp32(self._signal, variation)
        return Closeness(
            snr=decibels(self._signal, self._noise),
            variation_snr=decibels(variation if varies else self._signal, self._noise),
            psnr=decibels(peak, self._noise),
            max_error=self._max_error,
            max_reference=self._max_reference,
            cosine=self._cosine(),
            varies=varies,
        )

    def _variation(self) -> float:
        """Return the reference's power about the means, as large a sample's would be."""
        if self._samples < 2:
            return self._signal
        shared = float(np.square(self._sums).sum()) / self._samples
        return max(0.0, self._signal - shared) * self._samples / (self._samples - 1)

    def _cosine(self) -> float:
        norms = math.sqrt(self._signal * self._power)
        if not math.isfinite(norms):
            return 0.0
        return self._dot / norms if norms else float(self._signal == self._power)


def varies_in_fp32(signal: float, variation: float) -> bool:
    """Whether the power of what varies is more than the rounding of the whole signal."""
    return signal == 0.0 or variation > _ROUNDING_POWER * signal


def decibels(signal: float, noise: float) -> float:
    """Ratio of two powers in dB, within ±:data:`MAX_DB`; an undefined noise is the worst."""
    if not math.isfinite(noise):
        return -MAX_DB
    if noise == 0.0:
        return MAX_DB
    if signal <= 0.0:
        return -MAX_DB
    return max(-MAX_DB, min(MAX_DB, 10 * math.log10(signal / noise)))


def closeness(value: Floats, reference: Floats) -> Closeness:
    """How close one array is."""
    meter = ClosenessMeter()
    meter.add(value, reference)
    return meter.result()


def snr(value: Floats, reference: Floats) -> float:
    """Signal to noise ratio of one array in dB."""
    return closeness(value, reference).snr


def kl_divergence(probabilities: Floats, reference: Floats) -> float:
    """Kullback-Leibler divergence of (C,) probabilities from the reference's, in nats.

    Probabilities in half precision need not add up to one: this is the form for measures (Csiszár,
    1991, Ann. Statist. 19, 2032-2066), which is never negative and otherwise the same.
    """
    p = np.clip(reference.astype(np.float64), 1e-12, None)
    q = np.clip(probabilities.astype(np.float64), 1e-12, None)
    return max(0.0, float(np.sum(p * (np.log(p) - np.log(q)) - p + q)))


def softmax(logits: Floats, axis: int = -1) -> Floats:
    """Probabilities of logits, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=axis, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=axis, keepdims=True)


def sigmoid(logits: Floats) -> Floats:
    """Probabilities of logits that stand alone, in float64."""
    # Written so that no exponential overflows.
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def average_precision(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
    """Area under the precision-recall curve, as the mean precision at each gain of recall.

    Images of one score enter the curve together, as in scikit-learn; nothing is interpolated.

    Args:
        scores: (N,) of the images.
        truth: (N,) whether each has the label.
        weights: (R, N) how often each counts, for every one of R samples.

    Returns:
        (R,) values from 0 to 1; NaN where no image has the label.
    """
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    counted = weights[:, order]
    hits = np.cumsum(counted * truth[order], axis=1)[:, ends]
    seen = np.cumsum(counted, axis=1)[:, ends]
    gained = np.diff(hits, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        return (gained * hits / np.maximum(seen, 1e-12)).sum(1) / hits[:, -1]


def top_k(scores: Floats, k: int) -> list[int]:
    """Indices of the ``k`` largest of (C,) scores, the first of equals first."""
    return np.argsort(-scores.astype(np.float64), kind="stable")[:k].tolist()


class ConfusionMatrix:
    """Counts of (true, predicted) classes, for segmentation and classification.

    Args:
        num_classes: number of classes.
        ignore: true class that is not counted.
    """

    def __init__(self, num_classes: int, ignore: int = 255) -> None:
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.ignore = ignore

    def add(self, predicted: Ints, truth: Ints) -> None:
        """Take in class indices of any shape; a truth outside the classes is ignored."""
        size = len(self.counts)
        truth, predicted = truth.ravel().astype(np.int64), predicted.ravel().astype(np.int64)
        kept = (truth != self.ignore) & (truth >= 0) & (truth < size)
        pairs = truth[kept] * size + np.clip(predicted[kept], 0, size - 1)
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    def accuracy(self) -> float:
        """Share of what was predicted right; 1 where nothing was counted."""
        total = self.counts.sum()
        return float(np.trace(self.counts) / total) if total else 1.0

    def ious(self) -> Floats:
        """Intersection over union of every class; NaN for a class that never occurs."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(union > 0, hits / union, np.nan)

    def mean_iou(self) -> float:
        """Mean intersection over union of the classes that occur; 1 where none does."""
        ious = self.ious()
        return float(np.nanmean(ious)) if np.isfinite(ious).any() else 1.0


def wilson_interval(hits: float, total: int, z: float = 1.96) -> tuple[float, float]:
    """Confidence interval of a share, 95 % by default (Wilson, 1927, JASA 22, 209-212)."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    spread /= 1 + z * z / total
    return max(0.0, centre - spread), min(1.0, centre + spread)
