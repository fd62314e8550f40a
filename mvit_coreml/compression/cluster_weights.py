"""K-means of many weights at once, on all cores; each group of output channels has its table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.compression.cache import Cache, cache_key
from mvit_coreml.compression.kmeans import nearest_entries, optimal_palette
from mvit_coreml.compression.palettized_weight import Choice, PalettizedWeight
from mvit_coreml.errors import InputError
from mvit_coreml.mil.parallel import parallel_map

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

    @property
    def entries(self) -> int:
        """Of each table."""
        return 2 ** (self.choice.bits or 0)

    @property
    def groups(self) -> list[NDArray[Any]]:
        """The parts of the weight that have a table each."""
        channels = self.values.shape[self.axis]
        return np.split(self.values, channels // (self.choice.group_size or channels), self.axis)

    def check(self, name: str) -> None:
        """Refuse what cannot be palettized.

        Raises:
            InputError: it is to stay uncompressed, or its groups do not divide its channels.
        """
        if self.choice.bits is None:
            raise InputError(f"weight {name!r} is to stay uncompressed; leave it out")
        try:
            self.choice.check_channels(self.values.shape[self.axis])
        except InputError as error:
            raise InputError(f"weight {name!r}: {error}") from None


@dataclass(frozen=True, eq=False)
class _Group:
    """Elements that share a table: those of a weight, or of some of its output channels.

    Attributes:
        weight: its name.
        values: the elements.
        entries: of the table.
        table: from the cache, ``None`` where it has to be found.
    """

    weight: str
    values: NDArray[Any]
    entries: int
    table: NDArray[Any] | None

    def palettize(self) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return the table, and the indices of the elements."""
        if self.table is not None:
            return self.table, nearest_entries(self.values, self.table)
        try:
            palette = optimal_palette(self.values, self.entries, dtype=self.values.dtype)
        except InputError as error:
            raise InputError(f"weight {self.weight!r}: {error}") from None
        return palette.lut, palette.indices


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
    groups = [
        _Group(name, values, job.entries, table)
        for name, job in jobs.items()
        for values, table in zip(job.groups, cached.get(name, repeat(None)), strict=False)
    ]
    # The largest first, so that no thread is left with a large one at the end.
    order = sorted(range(len(groups)), key=lambda index: -groups[index].values.size)
    results = parallel_map(lambda index: groups[index].palettize(), order, workers)
    palettes = dict(zip(order, results, strict=True))
    parts: dict[str, list[tuple[NDArray[Any], NDArray[np.uint8]]]] = {name: [] for name in jobs}
    for index, group in enumerate(groups):
        parts[group.weight].append(palettes[index])
    weights = {
        name: PalettizedWeight(
            np.stack([table for table, _ in parts[name]]),
            np.concatenate([indices for _, indices in parts[name]], job.axis),
            job.axis,
        )
        for name, job in jobs.items()
    }
    if cache is not None:
        for name in weights.keys() - cached.keys():
            cache.store(jobs[name].key, {"lut": weights[name].lut})
        cache.trim()
    return weights


def _cached_tables(jobs: Mapping[str, ClusterJob], cache: Cache) -> dict[str, NDArray[Any]]:
    entries = {name: cache.load(job.key) for name, job in jobs.items()}
    return {name: entry["lut"] for name, entry in entries.items() if entry and "lut" in entry}
