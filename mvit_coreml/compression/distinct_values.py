"""A tensor as its sorted distinct values with their weights, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_NEGATIVE_ZERO = 0x8000


@dataclass(frozen=True)
class DistinctValues:
    """The distinct values of a tensor.

    Attributes:
        values: (n,) float64, strictly increasing.
        weights: (n,) float64, the summed weight of the elements that hold each value.
    """

    values: NDArray[np.float64]
    weights: NDArray[np.float64]
    _tensor: NDArray[np.floating]
    # float16 only: the bit pattern of each value.
    _patterns: NDArray[np.intp] | None = None

    def scatter(self, labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give every element of the tensor the label of its value.

        Args:
            labels: (n,), one for each distinct value.

        Returns:
            An array of the tensor's shape.
        """
        if self._patterns is None:
            # Labels come in runs, so a search among the ends of the runs is enough.
            starts = np.flatnonzero(np.diff(labels)) + 1
            runs = labels[np.concatenate(([0], starts))]
            return runs[np.searchsorted(self.values[starts], self._tensor, side="right")]
        table = np.zeros(1 << 16, dtype=np.uint8)
        table[self._patterns] = labels
        table[_NEGATIVE_ZERO] = table[0]
        return table[self._tensor.view(np.uint16)]


def distinct_values(
    tensor: NDArray[np.floating], weights: NDArray[np.float64] | None
) -> DistinctValues:
    """Collapse a tensor to its distinct values.

    float16 values, also those stored in a wider type, are counted by bit pattern, which takes no
    sorting.

    Args:
        tensor: finite values of any shape.
        weights: finite, of the tensor's shape; None weighs every element 1.
    """
    with np.errstate(over="ignore", under="ignore"):
        half = np.asarray(tensor, dtype=np.float16, order="C")
    if half.dtype == tensor.dtype or np.array_equal(half, tensor):
        return _distinct_halves(half, weights)
    wide = tensor.astype(np.float64)
    if weights is None:
        values, counts = np.unique(wide, return_counts=True)
        return DistinctValues(values, counts.astype(np.float64), wide)
    values, inverse = np.unique(wide, return_inverse=True)
    sums = np.bincount(inverse.ravel(), weights.ravel(), minlength=values.size)
    return DistinctValues(values, sums.astype(np.float64), wide)


def _distinct_halves(
    tensor: NDArray[np.float16], weights: NDArray[np.float64] | None
) -> DistinctValues:
    patterns = tensor.view(np.uint16).ravel()
    counts = np.bincount(patterns, minlength=1 << 16)
    sums = counts.astype(np.float64)
    if weights is not None:
        sums = np.bincount(patterns, weights.ravel(), minlength=1 << 16).astype(np.float64)
    for table in (counts, sums):
        table[0] += table[_NEGATIVE_ZERO]
    order = _half_order()
    found = order[counts[order] > 0]
    values = found.astype(np.uint16).view(np.float16).astype(np.float64)
    return DistinctValues(values, sums[found], tensor, found)


@cache
def _half_order() -> NDArray[np.intp]:
    """Bit patterns of the finite float16 values in increasing order, without negative zero."""
    positive = np.arange(0x7C00)
    return np.concatenate((_NEGATIVE_ZERO + positive[:0:-1], positive))
