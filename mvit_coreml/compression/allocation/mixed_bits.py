"""Sharing out bits among the weights of a model.

Each weight adds its own output noise, and its own bytes, by the choice made for it; noise and bytes
of the whole are their sums. Under a bound on the bytes the noise is made small: from the choices on
a weight's lower convex hull, steps are taken in the order of what they gain for what they cost
(the path that a Lagrange multiplier sweeps), and what is left of the bound then goes to whatever
single change still fits and gains most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
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


def allocate(options: Sequence[WeightOptions], max_bytes: float) -> Allocation:
    """Choose for every weight what adds the least noise within a number of bytes.

    The result is never worse than any choice that all weights share, and it is the optimum wherever
    the bound is that of a step on the path of :func:`frontier`.

    Args:
        options: one for each weight.
        max_bytes: of all weights together.

    Raises:
        InputError: nothing is within the bound.
    """
    search = _BudgetSearch(options)
    picks = search.solve(max_bytes)
    if picks is None:
        least = search.bytes(search.smallest())
        raise InputError(f"no choice is within {max_bytes:g} bytes; the least is {least}")
    shared = [uniform for uniform in _uniform(options) if search.bytes(uniform) <= max_bytes]
    allocations = [_allocation(options, candidate) for candidate in (picks, *shared)]
    return min(allocations, key=lambda allocation: (allocation.noise, allocation.bytes))


def frontier(options: Sequence[WeightOptions]) -> list[Allocation]:
    """Return allocations from the least noise to the fewest bytes, a step in one weight apart.

    Each has the least possible noise of all that take no more bytes.

    Args:
        options: one for each weight.
    """
    search = _BudgetSearch(options)
    picks = search.smallest()
    path = [_allocation(options, picks)]
    for step in search.steps:
        picks[step.weight] = step.pick
        path.append(_allocation(options, picks))
    return path[::-1]


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


class _Change(NamedTuple):
    """Another choice for one weight."""

    bytes: int  # more than before
    gain: float  # noise less than before
    weight: int
    pick: int


class _BudgetSearch:
    """Picks a choice (its number) for each weight, within a budget of bytes for all together."""

    def __init__(self, options: Sequence[WeightOptions]) -> None:
        self.options = options
        # The choices on each weight's lower convex hull, from the smallest to the least noise.
        self.hulls = [_lower_hull(option.bytes, option.noise) for option in options]
        steps = [
            self._change(weight, before, after)
            for weight, hull in enumerate(self.hulls)
            for before, after in pairwise(hull)
        ]
        # Along a hull gains shrink relative to bytes, so each weight's steps stay in order.
        self.steps = sorted(steps, key=lambda step: -step.gain / step.bytes)

    def smallest(self) -> list[int]:
        """Return the picks of the fewest bytes."""
        return [hull[0] for hull in self.hulls]

    def solve(self, budget: float) -> list[int] | None:
        """Return picks within the budget, or None if there are none."""
        if self.bytes(self.smallest()) > budget:
            return None
        starts = self._starts(budget)
        return min((self._refine(start, budget) for start in starts), key=self.noise)

    def bytes(self, picks: Sequence[int]) -> int:
        """Return what some picks take."""
        return sum(option.bytes[pick] for option, pick in zip(self.options, picks, strict=True))

    def noise(self, picks: Sequence[int]) -> float:
        """Return what some picks add."""
        pairs = zip(self.options, picks, strict=True)
        return math.fsum(option.noise[pick] for option, pick in pairs)

    def _change(self, weight: int, before: int, after: int) -> _Change:
        option = self.options[weight]
        more = option.bytes[after] - option.bytes[before]
        return _Change(more, option.noise[before] - option.noise[after], weight, after)

    def _changes(self, picks: Sequence[int]) -> list[_Change]:
        """Return every change to one weight."""
        return [
            self._change(weight, now, pick)
            for weight, (option, now) in enumerate(zip(self.options, picks, strict=True))
            for pick in range(len(option.choices))
            if pick != now
        ]

    def _starts(self, budget: float) -> list[list[int]]:
        """Return picks within the budget, from either side of where the path crosses it."""
        picks, over = self.smallest(), None
        slack = budget - self.bytes(picks)
        for step in self.steps:
            hull = self.hulls[step.weight]
            # Later steps of this weight cost more still; cheaper ones of others may yet fit.
            if hull.index(step.pick) != hull.index(picks[step.weight]) + 1:
                continue
            if step.bytes <= slack:
                picks[step.weight] = step.pick
                slack -= step.bytes
            elif over is None:
                over = list(picks)
                over[step.weight] = step.pick
        return [picks] if over is None else [picks, self._repaired(over, budget)]

    def _repaired(self, picks: list[int], budget: float) -> list[int]:
        """Give up what takes too much: in one change that suffices, or in those worth least."""
        while (excess := self.bytes(picks) - budget) > 0:
            releases = [change for change in self._changes(picks) if change.bytes < 0]
            enough = [change for change in releases if -change.bytes >= excess]
            if enough:
                change = max(enough, key=lambda change: change.gain)
            else:
                change = max(releases, key=lambda change: -change.gain / change.bytes)
            picks[change.weight] = change.pick
        return picks

    def _refine(self, picks: list[int], budget: float) -> list[int]:
        """Make the single or paired change that gains most, as long as one fits."""
        while changes := self._best_changes(picks, budget - self.bytes(picks)):
            for change in changes:
                picks[change.weight] = change.pick
        return picks

    def _best_changes(self, picks: Sequence[int], slack: float) -> tuple[_Change, ...]:
        changes = self._changes(picks)
        releases = sorted(change for change in changes if change.bytes < 0)
        # Improvements below rounding would go round in circles.
        least = 1e-12 * self.noise(picks)
        best: tuple[_Change, ...] = ()
        gained = least
        for change in changes:
            if change.gain <= least:
                continue
            if change.bytes <= slack and change.gain > gained:
                best, gained = (change,), change.gain
            for release in releases:
                if change.bytes + release.bytes > slack:
                    break
                if release.weight != change.weight and change.gain + release.gain > gained:
                    best, gained = (change, release), change.gain + release.gain
        return best


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
