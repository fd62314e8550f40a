"""Lookup tables and indices for many weights at once, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.compression.cache import Cache, cache_key
from mvit_coreml.compression.choices import Choice
from mvit_coreml.compression.distinct_values import distinct_values
from mvit_coreml.compression.kmeans import Palette, optimal_palette
from mvit_coreml.compression.palettized_weight import PalettizedWeight
from mvit_coreml.errors import InputError

# Raise it when k-means finds other tables: cached ones are found anew then.
ALGORITHM = 1

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class ClusterJob:
    """A weight to palettize.

    Attributes:
        values: the weight, float16 or float32; the tables get its dtype.
        choice: bits and groups; not uncompressed.
        axis: along which the groups run.
        importance: of the weight's shape, see :func:`~.kmeans.optimal_palette`; None weighs all
            elements alike.
    """

    values: NDArray[Any]
    choice: Choice
    axis: int = 0
    importance: NDArray[Any] | None = None


def cluster_weights(
    jobs: Mapping[str, ClusterJob], *, cache: Cache | None = None, workers: int | None = None
) -> dict[str, PalettizedWeight]:
    """Palettize weights with the least (weighted) squared error, each group for itself.

    Args:
        jobs: name to what to do.
        cache: that tables are taken from, and kept in. The result does not depend on it.
        workers: threads; None takes one for each core. The result does not depend on it.

    Returns:
        Name to tables and indices, in the order of ``jobs``.

    Raises:
        InputError: a weight is uncompressed, not finite, or its groups do not divide its channels.
    """
    groups = {name: _groups(name, job) for name, job in jobs.items()}
    keys = {name: _key(job) for name, job in jobs.items()} if cache is not None else {}
    known = {
        name: entry["lut"]
        for name, key in keys.items()
        if cache is not None and (entry := cache.load(key)) is not None and "lut" in entry
    }
    parts = []
    for name, job in jobs.items():
        if name in known:
            continue
        weights: list[NDArray[Any] | None] = [None] * groups[name]
        if job.importance is not None:
            weights = list(np.split(job.importance, groups[name], job.axis))
        tensors = np.split(job.values, groups[name], job.axis)
        entries = 2 ** (job.choice.bits or 0)
        parts += [(name, *part, entries) for part in zip(tensors, weights, strict=True)]

    def cluster(part: tuple[str, NDArray[Any], NDArray[Any] | None, int]) -> Palette:
        name, tensor, weights, entries = part
        try:
            return optimal_palette(tensor, entries, weights, dtype=tensor.dtype)
        except InputError as error:
            raise InputError(f"weight {name!r}: {error}") from None

    clustered: dict[str, list[Palette]] = {name: [] for name in jobs if name not in known}
    palettes = _in_parallel(cluster, parts, lambda part: part[1].size, workers)
    for (name, *_), palette in zip(parts, palettes, strict=True):
        clustered[name].append(palette)
    found = {
        name: PalettizedWeight(
            np.stack([palette.lut for palette in of_groups]),
            np.concatenate([palette.indices for palette in of_groups], jobs[name].axis),
            jobs[name].axis,
        )
        for name, of_groups in clustered.items()
    }
    if cache is not None:
        for name, weight in found.items():
            cache.store(keys[name], {"lut": weight.lut})
        cache.trim()
    tasks = {name: (jobs[name].values, lut, jobs[name].axis) for name, lut in known.items()}
    found |= assign_many(tasks, workers=workers)
    return {name: found[name] for name in jobs}


def assign_to_tables(values: NDArray[Any], luts: NDArray[Any], axis: int = 0) -> NDArray[np.uint8]:
    """Give every element of a weight the nearest entry of its group's table.

    For the tables of :func:`cluster_weights`, with or without importance, these are its indices.

    Args:
        values: the weight, float16 or float32.
        luts: (groups, entries) tables in any order.
        axis: along which the groups run.

    Returns:
        uint8 indices of the weight's shape; of equally near entries the lower, of equal ones the
        first.
    """
    parts = np.split(values, len(luts), axis)
    return np.concatenate(
        [_nearest(part, lut) for part, lut in zip(parts, luts, strict=True)], axis
    )


def assign_many(
    tasks: Mapping[str, tuple[NDArray[Any], NDArray[Any], int]], *, workers: int | None = None
) -> dict[str, PalettizedWeight]:
    """Run :func:`assign_to_tables` on many weights, on all cores.

    Args:
        tasks: name to (weight, tables, axis).
        workers: threads; None takes one for each core.
    """
    found = _in_parallel(
        lambda task: assign_to_tables(*task),
        list(tasks.values()),
        lambda task: task[0].size,
        workers,
    )
    return {
        name: PalettizedWeight(luts, indices, axis)
        for (name, (_, luts, axis)), indices in zip(tasks.items(), found, strict=True)
    }


def _nearest(values: NDArray[Any], lut: NDArray[Any]) -> NDArray[np.uint8]:
    order = np.argsort(lut, kind="stable")
    entries = lut[order].astype(np.float64)
    distinct = distinct_values(np.ascontiguousarray(values), None)
    found = np.searchsorted((entries[1:] + entries[:-1]) / 2, distinct.values)
    first = np.searchsorted(entries, entries)
    return distinct.scatter(order[first][found].astype(np.uint8)).reshape(values.shape)


def _in_parallel(
    run: Callable[[Task], Result],
    tasks: Sequence[Task],
    size: Callable[[Task], int],
    workers: int | None,
) -> list[Result]:
    """Run tasks on threads, the largest first, so that none is left with a large one at the end."""
    order = sorted(range(len(tasks)), key=lambda index: -size(tasks[index]))
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        done = pool.map(run, [tasks[index] for index in order])
        results = dict(zip(order, done, strict=True))
    return [results[index] for index in range(len(tasks))]


def _key(job: ClusterJob) -> str:
    choice = job.choice
    return cache_key(
        "tables", ALGORITHM, job.values, job.importance, choice.bits, choice.group_size, job.axis
    )


def _groups(name: str, job: ClusterJob) -> int:
    if job.choice.bits is None:
        raise InputError(f"weight {name!r} is to stay uncompressed; leave it out")
    channels = job.values.shape[job.axis]
    try:
        job.choice.check_channels(channels)
    except InputError as error:
        raise InputError(f"weight {name!r}: {error}") from None
    return channels // job.choice.group_size if job.choice.group_size else 1
