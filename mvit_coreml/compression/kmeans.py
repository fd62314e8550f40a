"""Optimal 1-D k-means of weight tensors: the lookup table and indices with the least squared error.

Unlike Lloyd's algorithm with random starts the result is the global optimum and needs no seed. The
search itself is in :mod:`mvit_coreml.compression.optimal_partition`, compiled by numba: 60 times
(6 bits) to 200 times (8 bits) faster than the k-means of coremltools, needs no C toolchain, and
releases the interpreter lock, so that threads share the tensors of a model uncopied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mvit_coreml.compression.cache import Cache, cache_key
from mvit_coreml.compression.optimal_partition import Floats, Ints, optimal_boundaries
from mvit_coreml.compression.palettized_weight import Choice, PalettizedWeight
from mvit_coreml.errors import InputError, errors_at
from mvit_coreml.mil.parallel import parallel_map

# Indices are uint8.
MAX_ENTRIES = 256

_LUT_TYPES = (np.float16, np.float32, np.float64)

# Weights below this part of their sum are lost in the rounding of the sum: they count as zero.
_WEIGHT_FLOOR = 2.0**-50

# Bit pattern of the float16 that equals 0 and is another pattern.
_NEGATIVE_ZERO = 0x8000

# The optimum is a fixed point of Lloyd's step; rounding the table moves it by a step or two.
_MAX_LLOYD_STEPS = 32


@dataclass(frozen=True)
class Palette:
    """A tensor as a lookup table and indices into it: ``lut[indices]`` approximates the tensor.

    Attributes:
        lut: (k,) sorted table entries, of the dtype that was asked for.
        indices: uint8, of the tensor's shape: the entry nearest to each element, the lower of two
            equally near ones.
        error: weighted sum of squared differences between the tensor and ``lut[indices]``.
    """

    lut: NDArray[np.floating]
    indices: NDArray[np.uint8]
    error: float


def optimal_palette(
    values: NDArray[Any],
    k: int,
    weights: NDArray[Any] | None = None,
    *,
    dtype: DTypeLike = np.float64,
) -> Palette:
    """Cluster the elements of a tensor into k values with the least (weighted) squared error.

    The entries are the weighted means of their clusters. With a narrower ``dtype`` they are then
    rounded, elements move to the nearest rounded entry, and both repeat until nothing changes; the
    error never rises on the way. A tensor with at most k distinct values is met exactly, with
    repeats of the last value filling the table.

    Args:
        values: float16, float32 or float64 tensor of any shape; finite.
        k: number of table entries, 1 <= k <= 256.
        weights: importance of each element, of the tensor's shape, finite and not negative; None
            weighs all alike. Elements of weight 0 do not influence the table and get the entry
            nearest to them. If all weights are 0 the elements are clustered as if weighed alike.
        dtype: float16, float32 or float64: the type that the table will be stored in.

    Returns:
        The palette.

    Raises:
        InputError: an argument is empty, not finite, of the wrong type or shape, or out of range,
            or an entry overflows ``dtype``.
    """
    tensor = np.asarray(values)
    tensor = tensor.astype(tensor.dtype.newbyteorder("="), copy=False)
    _check_tensor(tensor, k)
    importance = None if weights is None else _check_weights(np.asarray(weights), tensor.shape)
    lut_type = np.dtype(dtype)
    if lut_type not in _LUT_TYPES:
        raise InputError(f"a table cannot be stored as {lut_type}; use float16, float32 or float64")

    # Powers of two, so that scaling is exact and no square overflows.
    weight_exponent = 0 if importance is None else _exponent(importance)
    if importance is not None:
        importance = np.ldexp(importance, -weight_exponent)
    distinct = distinct_values(tensor, importance)
    exponent = _exponent(distinct.values)
    x, w = np.ldexp(distinct.values, -exponent), distinct.weights

    def rounded(entries: Floats) -> Floats:
        with np.errstate(over="ignore"):
            lut = np.ldexp(entries, exponent).astype(lut_type).astype(np.float64)
        if not np.isfinite(lut).all():
            raise InputError(
                f"values reach {np.ldexp(np.abs(entries).max(), exponent):.6g}, beyond {lut_type};"
                " choose a wider dtype for the table"
            )
        return np.ldexp(lut, -exponent)

    entries = _table(x, w, k, rounded)
    labels = _nearest(x, entries)
    error = float(np.dot(w, (x - entries[labels]) ** 2))
    return Palette(
        lut=np.ldexp(entries, exponent).astype(lut_type),
        indices=distinct.scatter(labels),
        error=float(np.ldexp(error, 2 * exponent + weight_exponent)),
    )


def nearest_entries(values: NDArray[Any], lut: NDArray[Any]) -> NDArray[np.uint8]:
    """Give every element of a tensor the nearest entry of a table.

    With the table of :func:`optimal_palette` these are its indices.

    Args:
        values: float16, float32 or float64 tensor of any shape; finite.
        lut: (k,) sorted entries.

    Returns:
        uint8 indices of the tensor's shape; of two equally near entries the lower, of equal ones
        the first.
    """
    distinct = distinct_values(np.ascontiguousarray(values), None)
    labels = _nearest(distinct.values, lut.astype(np.float64))
    return distinct.scatter(labels).reshape(values.shape)


def _check_tensor(tensor: NDArray[Any], k: int) -> None:
    if not 1 <= k <= MAX_ENTRIES:
        raise InputError(f"k is {k}; a palette has 1 to {MAX_ENTRIES} entries")
    if tensor.dtype not in _LUT_TYPES:
        raise InputError(f"values are {tensor.dtype}; use float16, float32 or float64")
    if tensor.size == 0:
        raise InputError(f"values of shape {tensor.shape} are empty; nothing to palettize")
    if not np.isfinite(tensor).all():
        bad = int(np.count_nonzero(~np.isfinite(tensor)))
        raise InputError(f"{bad} of {tensor.size} values are NaN or infinite; repair the weights")


def _check_weights(weights: NDArray[Any], shape: tuple[int, ...]) -> Floats:
    if weights.shape != shape:
        raise InputError(f"weights have shape {weights.shape}, values {shape}; make them equal")
    try:
        importance = weights.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"weights are {weights.dtype}; use real numbers") from error
    if not np.isfinite(importance).all():
        raise InputError("weights hold NaN or infinity; use finite numbers, 0 to ignore an element")
    if (importance < 0).any():
        raise InputError(f"weights reach {importance.min():.6g}; use 0 to ignore an element")
    return importance


def _exponent(values: Floats) -> int:
    return int(np.frexp(np.abs(values).max())[1])


def _nearest(x: Floats, entries: Floats) -> NDArray[np.uint8]:
    """Return the index of the entry nearest to each value, among equal entries the first."""
    nearest = np.searchsorted(_midpoints(entries), x)
    return np.searchsorted(entries, entries)[nearest].astype(np.uint8)


def _midpoints(entries: Floats) -> Floats:
    return (entries[1:] + entries[:-1]) / 2


def _table(x: Floats, w: Floats, k: int, rounded: Callable[[Floats], Floats]) -> Floats:
    """Return the k sorted entries for distinct values x of weight w, as ``rounded`` leaves them."""
    if not w.any():
        w = np.ones_like(w)
    heavy = w > _WEIGHT_FLOOR * w.sum()
    if x.size <= k:
        entries = rounded(x)
    elif np.count_nonzero(heavy) <= k:
        entries = rounded(x[heavy])
    else:
        x, w = x[heavy], w[heavy]
        entries = _settled(x, w, optimal_boundaries(x, w, k), rounded)
    return np.pad(entries, (0, k - entries.size), mode="edge")


def _settled(x: Floats, w: Floats, boundaries: Ints, rounded: Callable[[Floats], Floats]) -> Floats:
    """Repeat Lloyd's step, rounding the means, until the clusters no longer change."""
    entries = rounded(_means(x, w, boundaries))
    for _ in range(_MAX_LLOYD_STEPS):
        inner = np.searchsorted(x, _midpoints(entries), side="right")
        moved = np.concatenate(([0], inner, [x.size]))
        if np.array_equal(moved, boundaries):
            break
        boundaries = moved
        # Where rounding made two entries equal, one has no values left and stays as it is.
        filled = np.diff(boundaries) > 0
        kept = np.concatenate((boundaries[:-1][filled], [x.size]))
        entries[filled] = rounded(_means(x, w, kept))
    return entries


def _means(x: Floats, w: Floats, boundaries: Ints) -> Floats:
    """Weighted mean of each cluster, exact for clusters of one value."""
    starts = boundaries[:-1]
    base = x[starts]
    offsets = w * (x - np.repeat(base, np.diff(boundaries)))
    return base + np.add.reduceat(offsets, starts) / np.add.reduceat(w, starts)


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
    present = order[counts[order] > 0]
    values = present.astype(np.uint16).view(np.float16).astype(np.float64)
    return DistinctValues(values, sums[present], tensor, present)


@cache
def _half_order() -> NDArray[np.intp]:
    """Bit patterns of the finite float16 values in increasing order, without negative zero."""
    positive = np.arange(0x7C00)
    return np.concatenate((_NEGATIVE_ZERO + positive[:0:-1], positive))


# Raise it when k-means finds other tables: cached ones are found anew then.
ALGORITHM = 2


@dataclass(frozen=True, eq=False)
class ClusterJob:
    """A weight to palettize.

    Attributes:
        values: the weight, float16 or float32; the tables get its dtype.
        choice: bits and groups; not uncompressed.
        axis: of the output channels, along which the groups run.
    """

    values: NDArray[Any]
    choice: Choice
    axis: int = 0

    @property
    def key(self) -> str:
        """Of its tables in a cache."""
        choice = self.choice
        return cache_key(
            "tables", ALGORITHM, self.values, choice.bits, choice.group_size, self.axis
        )

    def check(self, name: str) -> None:
        """Refuse what cannot be palettized.

        Raises:
            InputError: it is to stay uncompressed, or its groups do not divide its channels.
        """
        if self.choice.bits is None:
            raise InputError(f"weight {name!r} is to stay uncompressed; leave it out")
        with errors_at(f"weight {name!r}"):
            self.choice.check_channels(self.values.shape[self.axis])

    def palettize(self, tables: NDArray[Any] | None) -> PalettizedWeight:
        """Find the tables, if they are not known, and the indices of the elements."""
        channels = self.values.shape[self.axis]
        groups = np.split(self.values, channels // (self.choice.group_size or channels), self.axis)
        if tables is None:
            entries, dtype = 2 ** (self.choice.bits or 0), self.values.dtype
            palettes = [optimal_palette(values, entries, dtype=dtype) for values in groups]
            tables = np.stack([palette.lut for palette in palettes])
            indices = [palette.indices for palette in palettes]
        else:
            indices = list(map(nearest_entries, groups, tables))
        return PalettizedWeight(tables, np.concatenate(indices, self.axis), self.axis)


def cluster_weights(
    jobs: Mapping[str, ClusterJob], *, cache: Cache | None = None, workers: int | None = None
) -> dict[str, PalettizedWeight]:
    """Palettize weights with the least squared error, each group of channels for itself.

    Args:
        jobs: name to what to do.
        cache: that tables are taken from, and kept in. The result does not depend on it.
        workers: threads; None takes one for each core. The result does not depend on it.

    Returns:
        Name to tables and indices, in the order of ``jobs``.

    Raises:
        InputError: a weight is uncompressed, not finite, or its groups do not divide its channels.
    """
    for name, job in jobs.items():
        job.check(name)
    cached = {} if cache is None else _cached_tables(jobs, cache)

    def palettize(name: str) -> PalettizedWeight:
        with errors_at(f"weight {name!r}"):
            return jobs[name].palettize(cached.get(name))

    # The largest first, so that no thread is left with a large one at the end.
    order = sorted(jobs, key=lambda name: -jobs[name].values.size)
    palettes = dict(zip(order, parallel_map(palettize, order, workers), strict=True))
    if cache is not None:
        for name in jobs.keys() - cached.keys():
            cache.store(jobs[name].key, {"lut": palettes[name].lut})
        cache.trim()
    return {name: palettes[name] for name in jobs}


def _cached_tables(jobs: Mapping[str, ClusterJob], cache: Cache) -> dict[str, NDArray[Any]]:
    entries = {name: cache.load(job.key) for name, job in jobs.items()}
    return {name: entry["lut"] for name, entry in entries.items() if entry and "lut" in entry}
