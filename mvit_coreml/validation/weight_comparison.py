"""Whether a stored constant is the expected one, plain or palettized.

What a checkpoint converts to is folded in double precision, so that two conversions of it agree in
all but the last bit of a stored number. A palette without training is a fixed point of Lloyd's
step: every element has the entry nearest to it, and every entry is the mean of its elements.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import snr
from mvit_coreml.mil.stored_weights import StoredPalette

Array = NDArray[Any]
# How the entries of palettes came about. ``means`` are the means of their elements, all elements
# alike; ``weighted`` means count some elements more than others; ``trained`` values come from an
# optimisation, which moved biases and the like too.
Values = Literal["means", "weighted", "trained"]

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
    found: Any, expected: Any, palette: StoredPalette | None = None, values: Values = "means"
) -> str | None:
    """Say how a constant differs from the expected one.

    Args:
        found: its decoded value: an array, a text, or a list.
        expected: likewise, never palettized.
        palette: how it is stored, if in a palette.
        values: how the palettes of its package came about.

    Returns:
        ``None`` if nothing is wrong with it.
    """
    if not isinstance(found, np.ndarray) or not isinstance(expected, np.ndarray):
        return None if _equal(found, expected) else f"is {short(found)}, not {short(expected)}"
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return (
            f"is {found.dtype} {list(found.shape)} instead of "
            f"{expected.dtype} {list(expected.shape)}"
        )
    if palette is not None:
        return _compare_palette(palette, expected, values)
    if expected.ndim == 0 or not np.issubdtype(expected.dtype, np.floating):
        same = np.array_equal(found, expected)
        return None if same else f"is {short(found.tolist())}, not {short(expected.tolist())}"
    return (
        _compare_trained(found, expected)
        if values == "trained"
        else (_compare_numbers(found, expected))
    )


def short(value: object) -> str:
    """Return a value as text that fits a line."""
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def _equal(found: Any, expected: Any) -> bool:
    if isinstance(found, np.ndarray) or isinstance(expected, np.ndarray):
        return False
    return bool(found == expected)


def _compare_numbers(found: Array, expected: Array) -> str | None:
    wide, wanted = found.astype(np.float64), expected.astype(np.float64)
    allowed = _rounding(wanted, expected.dtype)
    error = np.abs(wide - wanted)
    # NaN compares as wrong.
    wrong = ~(error <= allowed)
    if not wrong.any():
        return None
    place = np.unravel_index(int(np.argmax(np.where(wrong, error, -1.0))), wrong.shape)
    return (
        f"differs in {np.count_nonzero(wrong)} of {wrong.size} numbers, most at "
        f"{[int(index) for index in place]}: {wide[place]:.6g} instead of {wanted[place]:.6g}"
    )


def _compare_trained(found: Array, expected: Array) -> str | None:
    """Training may take a bias anywhere, but leaves of a matrix what it was."""
    if not np.isfinite(found).all():
        return f"holds {np.count_nonzero(~np.isfinite(found))} numbers that are not finite"
    if max(expected.shape, default=1) == expected.size:
        return None
    return _compare_direction(found, expected, _MOVED_COSINE)


def _compare_direction(found: Array, expected: Array, least: float) -> str | None:
    one, other = (values.astype(np.float64).ravel() for values in (found, expected))
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
    places = palette.places.ravel()
    weights = expected.astype(np.float64).ravel()
    tables = palette.tables.astype(np.float64)
    groups = places // tables.shape[1]
    for group, table in enumerate(tables):
        members = groups == group if len(tables) > 1 else slice(None)
        detail = _check_group(
            table,
            places[members] - group * table.size,
            weights[members],
            _rounding(weights[members], expected.dtype),
            means=values == "means",
            dtype=expected.dtype,
        )
        if detail is not None:
            return detail
    return None


def _check_group(
    table: NDArray[np.float64],
    indices: NDArray[np.intp],
    weights: NDArray[np.float64],
    rounding: NDArray[np.float64],
    *,
    means: bool,
    dtype: np.dtype[Any],
) -> str | None:
    """Check the elements that share a table."""
    ordered = np.sort(table)
    nearest = ordered[np.searchsorted((ordered[1:] + ordered[:-1]) / 2, weights)]
    excess = np.abs(weights - table[indices]) - np.abs(weights - nearest) - 2 * rounding
    far = np.count_nonzero(excess > 0)
    if far:
        worst = int(np.argmax(excess))
        return (
            f"gives {far} of {weights.size} weights an entry that is not the nearest, such as "
            f"{table[indices[worst]]:.4g} for {weights[worst]:.4g} where {nearest[worst]:.4g} is"
        )
    return _check_entries(table, indices, weights, means=means, dtype=dtype)


def _check_entries(
    table: NDArray[np.float64],
    indices: NDArray[np.intp],
    weights: NDArray[np.float64],
    *,
    means: bool,
    dtype: np.dtype[Any],
) -> str | None:
    """Find an entry that is no mean of its elements, beyond what rounding leaves."""
    counts = np.bincount(indices, minlength=table.size)
    used = np.flatnonzero(counts)
    used = used[np.argsort(table[used])]
    entries = table[used]
    middle = np.bincount(indices, weights=weights, minlength=table.size)[used] / counts[used]
    low, high = middle, middle
    if not means:
        bounds = np.full(table.size, np.inf), np.full(table.size, -np.inf)
        np.minimum.at(bounds[0], indices, weights)
        np.maximum.at(bounds[1], indices, weights)
        low, high = bounds[0][used], bounds[1][used]
    gaps = np.diff(entries, prepend=-np.inf, append=np.inf)
    reach = np.minimum(gaps[:-1], gaps[1:])
    reach = np.where(np.isfinite(reach), reach, 0.0)
    allowed = _ENTRY_TOLERANCE * reach + _rounding(middle, dtype)
    excess = np.maximum(low - entries, entries - high) - allowed
    worst = int(np.argmax(excess))
    if excess[worst] <= 0:
        return None
    members = f"mean {middle[worst]:.6g}" if means else f"{low[worst]:.6g} to {high[worst]:.6g}"
    return (
        f"has the palette entry {entries[worst]:.6g} for {counts[used][worst]} weights of {members}"
    )
