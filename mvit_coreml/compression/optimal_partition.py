"""The optimal partition of sorted weighted values into k clusters, in O(n log n) for any k.

Clusters of an optimal 1-D k-means are intervals of the sorted values, so a partition is a path of k
links over the gaps 0 … n, and the cost of a link satisfies the Monge condition. Two facts follow
(Aggarwal, Schieber and Tokuyama, "Finding a minimum-weight k-link path in graphs with the concave
Monge property and applications", 1994):

- the best cost is convex in the number of links, so charging a penalty for every link and letting
  their number float gives the optimum for that number; a handful of penalties finds the wanted one;
- where several numbers of links tie at one penalty, two optimal paths can be spliced into one that
  has any number of links in between and the same penalised cost.

One penalty takes a single sweep with a queue of candidates (Hirschberg and Larmore, "The least
weight subsequence problem", 1987). The sweep cannot be vectorised, so numba compiles it: half a
millisecond for 20,000 distinct values. (Dynamic programming over k layers takes 0.1 to 2 s there.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Groups of neighbouring values from which the density of the values is estimated.
_DENSITY_GROUPS = 512

# Groups that stand in for more distinct values than twice as many while the penalty is searched.
_COARSE_GROUPS = 1 << 14

# Steps that trust the high-rate law before the safeguarded search takes over.
_FREE_STEPS = 3


def optimal_boundaries(values: Floats, weights: Floats, k: int) -> Ints:
    """Partition sorted values into k intervals with the least weighted squared error.

    Deterministic. Optimal up to the rounding of float64 sums: the squared error is within about
    1e-14 of the weighted sum of squares about the mean.

    Args:
        values: (n,) strictly increasing.
        weights: (n,) positive, none below 2**-50 of their sum.
        k: number of clusters, 1 <= k <= n.

    Returns:
        (k + 1,) strictly increasing from 0 to n: cluster i is ``values[b[i]:b[i + 1]]``.
    """
    penalty = _high_rate_penalty(values, weights, k)
    if values.size > 2 * _COARSE_GROUPS:
        # Groups of neighbours have nearly the same penalty and are much faster to search.
        starts = np.linspace(0, values.size, _COARSE_GROUPS, endpoint=False).astype(np.int64)
        masses = np.add.reduceat(weights, starts)
        means = np.add.reduceat(values * weights, starts) / masses
        penalty = _search(means, masses, k, penalty)[1]
    return _search(values, weights, k, penalty)[0]


def _search(values: Floats, weights: Floats, k: int, penalty: float) -> tuple[Ints, float]:
    """Return the boundaries and the penalty that gives them, starting from a guess of it."""
    n = values.size
    few: Ints = np.array([0, n])
    many: Ints = np.arange(n + 1)
    if k == 1:
        return few, penalty
    if k == n:
        return many, penalty
    mass = np.concatenate(([0.0], np.cumsum(weights)))
    # Centred, because the error is a small difference of sums of squares.
    centre = np.dot(values, weights) / mass[-1]
    moment = np.concatenate(([0.0], np.cumsum(weights * (values - centre))))
    scratch = np.empty((3, n + 1), dtype=np.int64)
    gains = np.empty(n + 1)

    few_penalty, many_penalty = np.inf, 0.0
    chord, steps = False, 0
    while True:
        links = _best_path(mass, moment, penalty, gains, scratch)
        path = _trace(scratch[0], links)
        steps += 1
        if links == k:
            return path, penalty
        if few.size - 1 < links < k:
            few, few_penalty = path, penalty
        elif k < links < many.size - 1:
            many, many_penalty = path, penalty
        elif chord:
            # Nothing lies above the chord between the two paths, so both are optimal at its slope.
            return _splice(few, many, k), penalty
        guess = penalty * (links / k) ** 3
        if few_penalty < np.inf and many_penalty > 0:
            position = np.log(k / (few.size - 1)) / np.log((many.size - 1) / (few.size - 1))
            guess = few_penalty * (many_penalty / few_penalty) ** position
        chord = not many_penalty < guess < few_penalty or (steps > _FREE_STEPS and not chord)
        if chord:
            gained = _gain(mass, moment, many) - _gain(mass, moment, few)
            guess = gained / (many.size - few.size)
        penalty = guess


def _high_rate_penalty(values: Floats, weights: Floats, k: int) -> float:
    """Estimate the penalty whose optimum has k links.

    Panter and Dite's law for many clusters: the error is (∫ density^(1/3))^3 / 12 k^2, and the
    penalty is minus its derivative by k.
    """
    starts = np.unique(np.linspace(0, values.size - 1, _DENSITY_GROUPS + 1).astype(np.int64))
    masses = np.add.reduceat(weights, starts[:-1])
    spread = np.sum(np.cbrt(masses * np.diff(values[starts]) ** 2))
    return float(spread**3 / (6 * k**3))


def _gain(mass: Floats, moment: Floats, path: Ints) -> float:
    return float(np.sum(np.diff(moment[path]) ** 2 / np.diff(mass[path])))


def _trace(previous: Ints, links: int) -> Ints:
    path = np.empty(links + 1, dtype=np.int64)
    path[links] = previous.size - 1
    for link in range(links, 0, -1):
        path[link - 1] = previous[path[link]]
    return path


def _splice(few: Ints, many: Ints, k: int) -> Ints:
    """Join the head of ``many`` to the tail of ``few`` so that k links result.

    They cross where a link of ``few`` encloses the link of ``many`` that lies k - (links of few)
    places further on; there the Monge condition lets them exchange tails at no cost.
    """
    shift = k - (few.size - 1)
    enclosed = many[shift + 1 : shift + few.size] <= few[1:]
    link = int(np.argmax(enclosed))
    return np.concatenate((many[: link + shift + 1], few[link + 1 :]))


def _compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        # Neither the installation nor the home folder is writable: compile in every process.
        return numba.njit(**options)(function)


@_compiled
def _through(mass: Floats, moment: Floats, gains: Floats, i: int, j: int) -> float:
    """Return the gain up to gap j of the best path whose last link starts at gap i."""
    step = moment[j] - moment[i]
    return gains[i] + step * step / (mass[j] - mass[i])


@_compiled
def _best_path(mass: Floats, moment: Floats, penalty: float, gains: Floats, scratch: Ints) -> int:
    """Find the path 0 → n of the largest gain, each link costing ``penalty``.

    A link from i to j gains (moment[j] - moment[i])^2 / (mass[j] - mass[i]): what its cluster takes
    off the total sum of squares.

    Args:
        mass: (n + 1,) running sum of the weights, from 0.
        moment: (n + 1,) running sum of weight times centred value, from 0.
        penalty: cost of one link.
        gains: (n + 1,) overwritten: the best gain up to each gap.
        scratch: (3, n + 1) overwritten: row 0 with the gap before each gap on its best path.

    Returns:
        The number of links of the best path.
    """
    n = mass.size - 1
    previous, candidate, start = scratch[0], scratch[1], scratch[2]
    # The queue: candidate[q] is the best predecessor for the gaps start[q] … start[q + 1] - 1.
    head = tail = 0
    candidate[0], start[0] = 0, 1
    gains[0] = 0.0
    for j in range(1, n + 1):
        while head < tail and start[head + 1] <= j:
            head += 1
        i = candidate[head]
        gains[j] = _through(mass, moment, gains, i, j) - penalty
        previous[j] = i
        if j == n:
            break
        # Once j beats an earlier candidate it stays ahead (Monge): it takes over a whole tail.
        begin = j + 1
        while head <= tail:
            rival = candidate[tail]
            low = max(start[tail], j + 1)
            if _through(mass, moment, gains, j, low) > _through(mass, moment, gains, rival, low):
                tail -= 1
                begin = low
                continue
            # The takeover is usually near: gallop, then bisect.
            stride = 1
            while low + stride <= n and _through(mass, moment, gains, j, low + stride) <= _through(
                mass, moment, gains, rival, low + stride
            ):
                low += stride
                stride *= 2
            begin = min(low + stride, n + 1)
            while begin - low > 1:
                gap = (low + begin) // 2
                if _through(mass, moment, gains, j, gap) > _through(
                    mass, moment, gains, rival, gap
                ):
                    begin = gap
                else:
                    low = gap
            break
        if begin <= n:
            tail += 1
            candidate[tail], start[tail] = j, begin
    links, j = 0, n
    while j > 0:
        j = previous[j]
        links += 1
    return links
