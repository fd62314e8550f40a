"""Whether a stored constant is the expected one, plain or palettized.

What a checkpoint converts to is folded in double precision, so that two conversions of it agree in
all but the last bit of a stored number. A palette without training is a fixed point of Lloyd's
step: every element has the entry nearest to it, and every entry is the mean of its elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import snr
from mvit_coreml.mil.stored_weights import StoredPalette

Array = NDArray[Any]
# How the entries of palettes came about. ``means`` are the means of their elements; ``trained``
# values come from an optimisation, which moved biases and the like too.
Values = Literal["means", "trained"]

# Last bits by which a number may differ, relative to itself.
_LAST_BIT = {"float16": 2.0**-10, "float32": 2.0**-23}
# Error of a folded number that comes from cancellation, relative to the largest of its tensor.
_CANCELLATION = 1e-7
# How far an entry may be from the mean of its elements, in distances to the next entry: Lloyd's
# steps end when no element moves, which rounding can put off by one element.
_ENTRY_TOLERANCE = 1e-3
# Signal to noise in dB below which a palettized tensor is taken to be another one, by bits.
# A uniform quantiser of n bits has about 6n dB; heavy tails cost a k-means palette up to ten.
_PALETTE_SNR = {1: 1.0, 2: 4.0, 3: 8.0, 4: 12.0, 6: 22.0, 8: 32.0}
# Cosine with its weights below which a trained palette is taken to be another one, by bits.
# Training may give up much of a weight's own accuracy for that of the answers (at one bit nearly
# all), but a shuffled or exchanged tensor has none left.
_TRAINED_COSINE = {1: 0.0, 2: 0.25, 3: 0.4, 4: 0.6, 6: 0.8, 8: 0.8}
# The same for a matrix that training moved and that has no palette.
_MOVED_COSINE = 0.8


def compare_constants(
    actual: Any, expected: Any, palette: StoredPalette | None = None, values: Values = "means"
) -> str | None:
    """Say how a constant differs from the expected one.

    Args:
        actual: its decoded value: an array, a text, or a list.
        expected: likewise, never palettized.
        palette: how it is stored, if in a palette.
        values: how the palettes of its package came about.

    Returns:
        ``None`` if nothing is wrong with it.
    """
    if not isinstance(actual, np.ndarray) or not isinstance(expected, np.ndarray):
        one_array = isinstance(actual, np.ndarray) or isinstance(expected, np.ndarray)
        same = not one_array and bool(actual == expected)
        return None if same else f"is {short(actual)}, not {short(expected)}"
    if actual.dtype != expected.dtype or actual.shape != expected.shape:
        return (
            f"is {actual.dtype} {list(actual.shape)} instead of "
            f"{expected.dtype} {list(expected.shape)}"
        )
    if palette is not None:
        return _compare_palette(palette, expected, values)
    if expected.ndim == 0 or not np.issubdtype(expected.dtype, np.floating):
        same = np.array_equal(actual, expected)
        return None if same else f"is {short(actual.tolist())}, not {short(expected.tolist())}"
    return (_compare_trained if values == "trained" else _compare_numbers)(actual, expected)


def short(value: object) -> str:
    """Return a value as text that fits a line."""
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _compare_numbers(actual: Array, expected: Array) -> str | None:
    numbers, reference = actual.astype(np.float64), expected.astype(np.float64)
    error = np.abs(numbers - reference)
    # NaN compares as wrong.
    wrong = ~(error <= _rounding(reference, expected.dtype))
    if not wrong.any():
        return None
    place = np.unravel_index(int(np.argmax(np.where(wrong, error, -1.0))), wrong.shape)
    return (
        f"differs in {np.count_nonzero(wrong)} of {wrong.size} numbers, most at "
        f"{[int(index) for index in place]}: {numbers[place]:.6g} instead of {reference[place]:.6g}"
    )


def _compare_trained(actual: Array, expected: Array) -> str | None:
    """Training may take a bias anywhere, but leaves of a matrix what it was."""
    if not np.isfinite(actual).all():
        return f"holds {np.count_nonzero(~np.isfinite(actual))} numbers that are not finite"
    if max(expected.shape, default=1) == expected.size:
        return None
    return _compare_direction(actual, expected, _MOVED_COSINE)


def _compare_direction(actual: Array, expected: Array, least: float) -> str | None:
    one, other = (values.astype(np.float64).ravel() for values in (actual, expected))
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    cosine = float(one @ other) / lengths if lengths else float(np.array_equal(one, other))
    # Not written the other way round, so that NaN is refused.
    return None if cosine >= least else f"has a cosine of {cosine:.2f} with what it was"


def _rounding(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Return how far each number may be off by rounding alone."""
    magnitudes = np.abs(values)
    smallest = float(np.finfo(dtype).smallest_subnormal)
    largest: float = magnitudes.max(initial=0.0)
    allowed: NDArray[np.float64] = _LAST_BIT[dtype.name] * magnitudes
    return allowed + max(smallest, _CANCELLATION * largest)


def _compare_palette(palette: StoredPalette, expected: Array, values: Values) -> str | None:
    if values == "trained":
        return _compare_direction(palette.values, expected, _TRAINED_COSINE[palette.bits])
    ratio, least = snr(palette.values, expected), _PALETTE_SNR[palette.bits]
    if not ratio >= least:
        return (
            f"has {ratio:.1f} dB against its weights, where {palette.bits} bits give {least:g} dB"
        )
    weights = expected.astype(np.float64).ravel()
    groups, indices = np.divmod(palette.places.ravel(), palette.tables.shape[1])
    for group, table in enumerate(palette.tables.astype(np.float64)):
        members = groups == group
        elements = _Elements(table, indices[members], weights[members], expected.dtype)
        unequal = elements.not_nearest() or elements.not_mean()
        if unequal is not None:
            return unequal
    return None


@dataclass(frozen=True, eq=False)
class _Elements:
    """The elements of a tensor that share a table.

    Attributes:
        table: (entries,).
        indices: (elements,) of their entries.
        weights: (elements,) what the entries stand for.
        dtype: that the tensor is stored in.
    """

    table: NDArray[np.float64]
    indices: NDArray[np.intp]
    weights: NDArray[np.float64]
    dtype: np.dtype[Any]

    def not_nearest(self) -> str | None:
        """Say which elements have another entry than the one nearest to them."""
        table, weights = self.table, self.weights
        ordered = np.sort(table)
        nearest = ordered[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, weights)]
        entries = table[self.indices]
        allowed = 2 * _rounding(weights, self.dtype)
        excess = np.abs(weights - entries) - np.abs(weights - nearest) - allowed
        far = np.count_nonzero(excess > 0)
        if not far:
            return None
        worst = int(np.argmax(excess))
        return (
            f"gives {far} of {weights.size} weights an entry that is not the nearest, such as "
            f"{entries[worst]:.4g} for {weights[worst]:.4g} where {nearest[worst]:.4g} is"
        )

    def not_mean(self) -> str | None:
        """Say which entry is no mean of its elements, beyond what rounding leaves."""
        size, weights = self.table.size, self.weights
        counts = np.bincount(self.indices, minlength=size)
        used = np.flatnonzero(counts)
        used = used[np.argsort(self.table[used])]
        entries = self.table[used]
        mean = np.bincount(self.indices, weights=weights, minlength=size)[used] / counts[used]
        gaps = np.diff(entries, prepend=-np.inf, append=np.inf)
        reach = np.minimum(gaps[:-1], gaps[1:])
        reach = np.where(np.isfinite(reach), reach, 0.0)
        allowed = _ENTRY_TOLERANCE * reach + _rounding(mean, self.dtype)
        excess = np.abs(entries - mean) - allowed
        worst = int(np.argmax(excess))
        if excess[worst] <= 0:
            return None
        return (
            f"has the palette entry {entries[worst]:.6g} for {counts[used][worst]} weights of "
            f"mean {mean[worst]:.6g}"
        )
