"""What the values of a configuration may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


def is_number(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: Any) -> bool:
    """Whether it is a number above 0."""
    return is_number(value) and value > 0


def is_probability(value: Any) -> bool:
    """Whether it is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_bool(value: object) -> bool:
    """Whether it is true or false."""
    return isinstance(value, bool)


def is_number_from(low: float) -> Callable[[Any], bool]:
    """Return whether values are numbers from ``low`` on."""
    return lambda value: is_number(value) and value >= low


def is_int_from(low: int | None) -> Callable[[Any], bool]:
    """Return whether values are whole numbers, from ``low`` on if given."""

    def accepts(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and (low is None or value >= low)

    return accepts


def is_ints(count: int, low: int) -> Callable[[Any], bool]:
    """Return whether values are so many whole numbers from ``low`` on."""
    is_element = is_int_from(low)
    return lambda value: (
        isinstance(value, tuple) and len(value) == count and all(map(is_element, value))
    )


def is_size(value: object) -> bool:
    """Whether it is a number of pixels or a (height, width) pair."""
    return is_int_from(1)(value) or is_ints(2, 1)(value)
