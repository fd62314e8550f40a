"""Some cases of a product of factors, among which every two values of two factors meet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

_Pair = tuple[int, int, int, int]


def pairwise(*factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Choose from the product of ``factors`` so that each pair of values stands in some case.

    The choice is the same every time: the case with the most pairs that are still missing, the
    first in the product's order among equals.

    Args:
        factors: the values of each parameter; two or more factors.

    Returns:
        The cases, a value of each factor in order.
    """
    cases = [(case, _pairs(case)) for case in itertools.product(*map(_indices, factors))]
    missing = set().union(*(pairs for _, pairs in cases))
    chosen = []
    while missing:
        case, pairs = max(cases, key=lambda item: len(item[1] & missing))
        missing -= pairs
        chosen.append(case)
    return [
        tuple(factor[index] for factor, index in zip(factors, case, strict=True))
        for case in sorted(chosen)
    ]


def _indices(factor: Sequence[Any]) -> range:
    return range(len(factor))


def _pairs(case: tuple[int, ...]) -> set[_Pair]:
    """Return the pairs of a case: two factors and their values' places."""
    return {
        (one, other, case[one], case[other])
        for one, other in itertools.combinations(range(len(case)), 2)
    }
