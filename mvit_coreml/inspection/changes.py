"""A difference between two packages, of one kind or another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Section = Literal["interface", "graph", "metadata"]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that is one thing in the first package and another in the second.

    Attributes:
        section: ``interface``, ``graph`` or ``metadata``.
        function: name of the function, empty for the package as a whole.
        what: what differs.
        first: its value in the first package, ``None`` where it lacks it.
        second: its value in the second package, ``None`` where it lacks it.
    """

    section: Section
    function: str
    what: str
    first: Any
    second: Any


@dataclass(frozen=True, kw_only=True)
class WeightChange:
    """A weight that is stored differently or holds other values.

    Attributes:
        function: name of the function.
        operation: that takes it, by its name in the second package.
        parameter: it is given for.
        shape: in the second package.
        first_scheme: how the first package stores it, see
            :class:`~mvit_coreml.mil.stored_weights.Weight`.
        second_scheme: how the second does.
        snr: of the second package's values against the first's, in dB; 300 for equal values,
            ``None`` where the shapes differ.
        max_error: largest absolute difference; ``None`` where the shapes differ.
        max_first: largest absolute value in the first package.
        first_shape: in the first package.
    """

    function: str
    operation: str
    parameter: str
    shape: tuple[int, ...]
    first_shape: tuple[int, ...]
    first_scheme: str
    second_scheme: str
    snr: float | None
    max_error: float | None
    max_first: float


def changes_between(
    section: Section, function: str, values: Mapping[str, tuple[Any, Any]]
) -> Iterator[Change]:
    """Yield a change for every pair of values that differ, by what they are values of."""
    for what, (first, second) in values.items():
        if first != second:
            yield Change(section=section, function=function, what=what, first=first, second=second)
