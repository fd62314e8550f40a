"""The choice among products of parameters leaves no value and no pair of values out."""

from __future__ import annotations

import itertools

import pytest
from pairwise import pairwise


@pytest.mark.parametrize(
    ("sizes", "most"), [((2, 6, 2, 2), 12), ((2, 7, 4), 28), ((3, 3, 2), 9), ((8, 2, 4), 32)]
)
def test_every_pair_of_values_meets(sizes: tuple[int, ...], most: int) -> None:
    factors = [[f"{factor}.{value}" for value in range(size)] for factor, size in enumerate(sizes)]
    cases = pairwise(*factors)
    assert len(cases) == len(set(cases)) <= most
    for one, other in itertools.combinations(range(len(sizes)), 2):
        assert {(case[one], case[other]) for case in cases} == set(
            itertools.product(factors[one], factors[other])
        )


def test_two_factors_are_their_product() -> None:
    assert pairwise("ab", [1, 2]) == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]
