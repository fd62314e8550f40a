"""Allocated bits beside an exhaustive search over small random cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mvit_coreml.compression.allocation.mixed_bits import (
    Allocation,
    WeightOptions,
    _BudgetSearch,
    allocate,
    frontier,
)
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.errors import InputError

pytestmark = pytest.mark.fast

CHOICES = (UNCOMPRESSED, Choice(8), Choice(6), Choice(4), Choice(2))


def random_options(seed: int, weights: int = 5) -> list[WeightOptions]:
    """Return weights of different sizes and sensitivity, some noises out of order."""
    rng = np.random.default_rng(seed)
    options = []
    for index in range(weights):
        elements = int(rng.integers(100, 5000))
        sizes = [elements * (c.bits or 16) // 8 + 64 for c in CHOICES]
        scale = 10 ** rng.uniform(-3, 1)
        noise = [
            0.0,
            *(scale * 4.0 ** -(c.bits or 16) * 4**8 * rng.uniform(0.3, 3) for c in CHOICES[1:]),
        ]
        options.append(WeightOptions(f"w{index}", CHOICES, tuple(sizes), tuple(noise)))
    return options


def everything(options: list[WeightOptions]) -> list[tuple[int, float]]:
    """Return bytes and noise of every combination."""
    combinations = itertools.product(*(range(len(o.choices)) for o in options))
    return [
        (
            sum(o.bytes[pick] for o, pick in zip(options, picks, strict=True)),
            math.fsum(o.noise[pick] for o, pick in zip(options, picks, strict=True)),
        )
        for picks in combinations
    ]


def check_sums(options: list[WeightOptions], allocation: Allocation) -> None:
    assert list(allocation.choices) == [o.name for o in options]
    picks = [o.choices.index(allocation.choices[o.name]) for o in options]
    assert allocation.bytes == sum(o.bytes[p] for o, p in zip(options, picks, strict=True))
    assert allocation.noise == pytest.approx(
        sum(o.noise[p] for o, p in zip(options, picks, strict=True))
    )


@pytest.mark.parametrize("seed", range(6))
def test_every_plan_of_the_frontier_is_optimal_for_its_size(seed: int) -> None:
    options = random_options(seed)
    combinations = everything(options)
    path = frontier(options)
    assert len(path) > 8
    for allocation in path:
        check_sums(options, allocation)
        best = min(noise for size, noise in combinations if size <= allocation.bytes)
        assert allocation.noise == pytest.approx(best, rel=1e-9, abs=1e-12)
    sizes, noises = [a.bytes for a in path], [a.noise for a in path]
    assert sizes == sorted(sizes, reverse=True)
    assert noises == sorted(noises)
    assert sizes[-1] == min(size for size, _ in combinations)
    assert noises[0] == 0


@pytest.mark.parametrize("seed", range(6))
def test_allocations_are_optimal_where_the_bound_is_on_the_frontier(seed: int) -> None:
    options = random_options(seed)
    for point in frontier(options)[::3]:
        by_size = allocate(options, max_bytes=point.bytes)
        assert by_size.noise == pytest.approx(point.noise, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_allocations_of_few_weights_are_close_to_the_optimum(seed: int) -> None:
    options = random_options(seed)
    combinations = everything(options)
    sizes = sorted(size for size, _ in combinations)
    rng = np.random.default_rng(seed)
    ratios = []
    for bound in rng.uniform(sizes[0], sizes[-1], 20):
        found = allocate(options, max_bytes=bound)
        check_sums(options, found)
        assert found.bytes <= bound
        best = min(noise for size, noise in combinations if size <= bound)
        ratios.append(found.noise / best)
    assert max(ratios) < 1.5
    assert np.mean(ratios) < 1.05


@pytest.mark.parametrize("seed", range(4))
def test_allocations_of_many_weights_are_within_a_twentieth_of_the_bound_by_duality(
    seed: int,
) -> None:
    options = random_options(seed, weights=60)
    path = frontier(options)
    for before, after in list(itertools.pairwise(path))[20:-20:15]:
        bound = (before.bytes + after.bytes) // 2
        # No allocation is below the chord between neighbours on the frontier.
        part = (bound - after.bytes) / (before.bytes - after.bytes)
        least = part * before.noise + (1 - part) * after.noise
        assert allocate(options, max_bytes=bound).noise <= least * 1.05


@pytest.mark.parametrize("seed", range(20))
def test_mixed_bits_are_never_worse_than_uniform_ones(seed: int) -> None:
    options = random_options(seed, weights=40)
    for pick in range(len(CHOICES)):
        size = sum(o.bytes[pick] for o in options)
        noise = math.fsum(o.noise[pick] for o in options)
        assert allocate(options, max_bytes=size).noise <= noise * (1 + 1e-9)


def test_uniform_bits_are_taken_where_the_search_is_stuck(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = random_options(0)
    monkeypatch.setattr(_BudgetSearch, "solve", lambda search, budget: search.smallest())
    size = sum(o.bytes[2] for o in options)
    assert set(allocate(options, max_bytes=size).choices.values()) == {Choice(6)}


def test_a_weight_that_lacks_a_uniform_choice_stays_uncompressed_in_it() -> None:
    # The hull of the first has no 6 bits, so only the uniform plan has them.
    options = [
        WeightOptions("a", (UNCOMPRESSED, Choice(6), Choice(2)), (100, 90, 10), (0.0, 0.9, 1.0)),
        WeightOptions("b", (UNCOMPRESSED,), (50,), (0.0,)),
    ]
    assert allocate(options, max_bytes=140).choices == {"a": Choice(6), "b": UNCOMPRESSED}


def test_choices_that_are_worse_in_both_are_not_taken() -> None:
    options = [WeightOptions("a", (Choice(8), Choice(4), Choice(2)), (60, 70, 10), (1, 2, 3))]
    assert [a.choices["a"] for a in frontier(options)] == [Choice(8), Choice(2)]


def test_an_impossible_bound_says_the_least() -> None:
    options = random_options(0)
    least = min(size for size, _ in everything(options))
    with pytest.raises(InputError, match=f"within {least - 1} bytes; the least is {least}"):
        allocate(options, max_bytes=least - 1)
    assert allocate(options, max_bytes=least).bytes == least


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="weight 'a': 1 choices with 2 sizes"):
        WeightOptions("a", (Choice(4),), (1, 2), (0.0,))
    with pytest.raises(InputError, match="weight 'a': bytes and noise must be finite"):
        WeightOptions("a", (Choice(4),), (1,), (math.nan,))


def test_an_allocation_reads_as_words() -> None:
    choices = {"a": Choice(6), "b": Choice(4), "c": Choice(6), "d": UNCOMPRESSED}
    assert str(Allocation(choices, 1, 0.0)) == (
        "uncompressed for 1, 6 bits for 2, 4 bits for 1 of 4 weights"
    )
    assert str(Allocation({"a": Choice(1), "b": Choice(1)}, 1, 0.0)) == "1 bit for every weight"
    assert str(Allocation({"a": UNCOMPRESSED}, 1, 0.0)) == "no compression"
