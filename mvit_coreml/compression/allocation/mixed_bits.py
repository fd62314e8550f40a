"""Sharing out bits among the weights of a model.

Each weight adds its own output noise, and its own bytes, by the choice made for it; noise and bytes
of the whole are their sums. Under a bound on one of them the other is made small: from the choices
on a weight's lower convex hull, steps are taken in the order of what they gain for what they cost
(the path that a Lagrange multiplier sweeps), and what is left of the bound then goes to whatever
single change still fits and gains most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from mvit_coreml.compression.choices import UNCOMPRESSED, Choice
from mvit_coreml.errors import InputError


@dataclass(frozen=True)
class WeightOptions:
    """The choices that a weight has.

    Attributes:
        name: of the weight.
        choices: at least one, each different.
        bytes: that the weight takes under each choice.
        noise: that each choice adds at the model's output, in any unit that sums up over weights,
            such as error energy relative to the signal; not negative.

    Raises:
        InputError: lengths differ, there is no choice, or a number is negative or not finite.
    """

    name: str
    choices: tuple[Choice, ...]
    bytes: tuple[int, ...]
    noise: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.choices) == len(self.bytes) == len(self.noise) > 0:
            raise InputError(
                f"weight {self.name!r}: {len(self.choices)} choices with {len(self.bytes)} sizes"
                f" and {len(self.noise)} noises; give one of each for every choice"
            )
        if not all(math.isfinite(value) and value >= 0 for value in (*self.bytes, *self.noise)):
            raise InputError(f"weight {self.name!r}: bytes and noise must be finite, and 0 or more")

    def for_target(self, ios: int) -> WeightOptions:
        """Return the options without those that packages for an iOS version cannot hold."""
        held = []
        for index, choice in enumerate(self.choices):
            try:
                choice.check_target(ios)
            except InputError:
                continue
            held.append(index)
        return WeightOptions(
            self.name,
            tuple(self.choices[index] for index in held),
            tuple(self.bytes[index] for index in held),
            tuple(self.noise[index] for index in held),
        )


@dataclass(frozen=True)
class Allocation:
    """A choice for every weight.

    Attributes:
        choices: weight name to choice, in the order of the options.
        bytes: of all weights together.
        noise: of all weights together, as predicted.
    """

    choices: dict[str, Choice]
    bytes: int
    noise: float

    def __str__(self) -> str:
        counts = Counter(self.choices.values())
        if len(counts) == 1:
            (choice,) = counts
            return f"{choice} for every weight" if choice.bits else "no compression"
        order = sorted(counts, key=lambda choice: (-(choice.bits or 16), choice.group_size))
        words = [f"{choice} for {counts[choice]}" for choice in order]
        return f"{', '.join(words)} of {len(self.choices)} weights"


def allocate(
    options: Sequence[WeightOptions],
    *,
    max_bytes: float | None = None,
    max_noise: float | None = None,
) -> Allocation:
    """Choose for every weight, under a bound on the bytes or on the noise.

    The result is never worse than any choice that all weights share, and it is the optimum wherever
    the bound is that of a step on the path of :func:`frontier`.

    Args:
        options: one for each weight.
        max_bytes: of all weights together: the noise is made small.
        max_noise: of all weights together: the bytes are made small.

    Raises:
        InputError: not exactly one bound is given, or nothing is within it.
    """
    if (max_bytes is None) == (max_noise is None):
        raise InputError("give either max_bytes or max_noise")
    if max_bytes is not None:
        problem = _Problem([(option.bytes, option.noise) for option in options])
        bound, unit = max_bytes, "bytes"
    else:
        assert max_noise is not None
        problem = _Problem([(option.noise, option.bytes) for option in options])
        bound, unit = max_noise, "noise"
    picks = problem.solve(bound)
    if picks is None:
        raise InputError(f"no choice is within {bound:g} {unit}; the least is {problem.least:g}")
    shared = [uniform for uniform in _uniform(options) if problem.cost(uniform) <= bound]
    found = [_allocation(options, candidate) for candidate in (picks, *shared)]
    if max_bytes is not None:
        return min(found, key=lambda allocation: (allocation.noise, allocation.bytes))
    return min(found, key=lambda allocation: (allocation.bytes, allocation.noise))


def frontier(options: Sequence[WeightOptions]) -> list[Allocation]:
    """Return allocations from the least noise to the fewest bytes, a step in one weight apart.

    Each has the least possible noise of all that take no more bytes.

    Args:
        options: one for each weight.
    """
    problem = _Problem([(o.bytes, o.noise) for o in options])
    picks = problem.cheapest()
    path = [list(picks)]
    for weight, pick in problem.path():
        picks[weight] = pick
        path.append(list(picks))
    return [_allocation(options, picks) for picks in reversed(path)]


def _allocation(options: Sequence[WeightOptions], picks: Sequence[int]) -> Allocation:
    chosen = list(zip(options, picks, strict=True))
    return Allocation(
        choices={option.name: option.choices[pick] for option, pick in chosen},
        bytes=sum(option.bytes[pick] for option, pick in chosen),
        noise=math.fsum(option.noise[pick] for option, pick in chosen),
    )


def _uniform(options: Sequence[WeightOptions]) -> Iterator[list[int]]:
    """Go through the choices that all weights share; a weight without one stays uncompressed."""
    for choice in dict.fromkeys(choice for option in options for choice in option.choices):
        picks = [
            option.choices.index(held)
            for option in options
            for held in (choice, UNCOMPRESSED)
            if held in option.choices and (held == choice or choice not in option.choices)
        ]
        if len(picks) == len(options):
            yield picks


@dataclass(frozen=True)
class _Step:
    """A move along a weight's hull: ``gain`` less value for ``cost`` more of what is bounded."""

    weight: int
    pick: int
    cost: float
    gain: float


class _Problem:
    """One choice for each weight; of the sums of its two numbers one is bounded, one minimised.

    Args:
        rows: for each weight the costs (which are bounded together) and values (whose sum is made
            small) of its choices.
    """

    def __init__(self, rows: Sequence[tuple[Sequence[float], Sequence[float]]]) -> None:
        self.rows = rows

    @cached_property
    def hulls(self) -> list[list[int]]:
        """Choices on each weight's lower convex hull, by rising cost and falling value."""
        return [_lower_hull(*row) for row in self.rows]

    @property
    def least(self) -> float:
        """Smallest sum of costs."""
        return math.fsum(min(costs) for costs, _ in self.rows)

    def cheapest(self) -> list[int]:
        """Return the picks of least cost."""
        return [hull[0] for hull in self.hulls]

    def path(self) -> list[tuple[int, int]]:
        """Return (weight, pick) moves from the least cost to the least value."""
        return [(step.weight, step.pick) for step in self._steps()]

    def solve(self, bound: float) -> list[int] | None:
        """Return picks whose costs sum up to ``bound`` at most, or None if there are none."""
        rounding = 1e-12 * abs(bound)
        if self.cost(self.cheapest()) > bound + rounding:
            return None
        starts = self._starts(bound + rounding)
        return min((self._refine(start, bound + rounding) for start in starts), key=self.value)

    def _starts(self, bound: float) -> list[list[int]]:
        """Return picks within the bound from either side of the point where the path crosses it."""
        picks, over = self.cheapest(), None
        slack = bound - self.cost(picks)
        for step in self._steps():
            # Later steps of this weight cost more still; cheaper ones of others may yet fit.
            if not self._follows(picks, step):
                continue
            if step.cost <= slack:
                picks[step.weight] = step.pick
                slack -= step.cost
            elif over is None:
                over = list(picks)
                over[step.weight] = step.pick
        return [picks] if over is None else [picks, self._repaired(over, bound)]

    def _repaired(self, picks: list[int], bound: float) -> list[int]:
        """Give up what costs too much: in one change that suffices, or in those worth least."""
        while (excess := self.cost(picks) - bound) > 0:
            releases = [move for move in self._moves(picks) if move[0] < 0]
            enough = [move for move in releases if -move[0] >= excess]
            if enough:
                _, _, weight, pick = max(enough, key=lambda move: move[1])
            else:
                _, _, weight, pick = max(releases, key=lambda move: -move[1] / move[0])
            picks[weight] = pick
        return picks

    def _steps(self) -> list[_Step]:
        steps = []
        for weight, hull in enumerate(self.hulls):
            costs, values = self.rows[weight]
            for before, after in pairwise(hull):
                cost, gain = costs[after] - costs[before], values[before] - values[after]
                steps.append(_Step(weight, after, cost, gain))
        # Along a hull gains shrink relative to costs, so each weight's steps stay in order.
        return sorted(steps, key=lambda step: -step.gain / step.cost)

    def _follows(self, picks: Sequence[int], step: _Step) -> bool:
        hull = self.hulls[step.weight]
        return hull.index(step.pick) == hull.index(picks[step.weight]) + 1

    def _refine(self, picks: list[int], bound: float) -> list[int]:
        """Make the single or paired change that gains most, as long as one fits."""
        while True:
            slack = bound - self.cost(picks)
            change = self._best_change(picks, slack)
            if change is None:
                return picks
            for weight, pick in change:
                picks[weight] = pick

    def _best_change(
        self, picks: Sequence[int], slack: float
    ) -> tuple[tuple[int, int], ...] | None:
        moves = self._moves(picks)
        # Improvements below rounding would go round in circles.
        least = 1e-12 * self.value(picks)
        best: tuple[float, tuple[tuple[int, int], ...]] | None = None
        releases = sorted(move for move in moves if move[0] < 0)
        for cost, gain, weight, pick in moves:
            if gain <= least:
                continue
            if cost <= slack and (best is None or gain > best[0]):
                best = gain, ((weight, pick),)
            for freed, lost, other, other_pick in releases:
                if cost + freed > slack:
                    break
                if other != weight and gain + lost > max(least, best[0] if best else 0):
                    best = gain + lost, ((weight, pick), (other, other_pick))
        return best[1] if best else None

    def _moves(self, picks: Sequence[int]) -> list[tuple[float, float, int, int]]:
        """Return (added cost, gain, weight, pick) of every change to one weight."""
        return [
            (costs[pick] - costs[now], values[now] - values[pick], weight, pick)
            for weight, ((costs, values), now) in enumerate(zip(self.rows, picks, strict=True))
            for pick in range(len(costs))
            if pick != now
        ]

    def value(self, picks: Sequence[int]) -> float:
        """Return the sum of the values of some picks."""
        return math.fsum(v[pick] for (_, v), pick in zip(self.rows, picks, strict=True))

    def cost(self, picks: Sequence[int]) -> float:
        """Return the sum of the costs of some picks."""
        return math.fsum(costs[pick] for (costs, _), pick in zip(self.rows, picks, strict=True))


def _lower_hull(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Return the choices that are best for some price of cost, by rising cost."""
    hull: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], values[i])):
        if hull and values[index] >= values[hull[-1]]:
            continue
        while len(hull) > 1:
            first, second = hull[-2], hull[-1]
            before = (values[first] - values[second]) * (costs[index] - costs[second])
            after = (values[second] - values[index]) * (costs[second] - costs[first])
            if before > after:
                break
            hull.pop()
        hull.append(index)
    return hull
