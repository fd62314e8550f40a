"""The search finds what keeps a promise, measures little, and says what comes nearest."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvit_coreml.compression.promise import (
    Measured,
    Promise,
    Trial,
    find_smallest,
    format_size,
    parse_size,
)
from mvit_coreml.errors import GateError, InputError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.2MB", 1_200_000),
        ("900kB", 900_000),
        ("900 KB", 900_000),
        ("1.5 MiB", 1_572_864),
        ("64KiB", 65_536),
        ("1200000", 1_200_000),
        (" .5 gb ", 500_000_000),
        ("2 b", 2),
    ],
)
def test_sizes_are_read_in_decimal_and_binary_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "1,2MB", "-1MB", "0", "1 TBx", "1e6", "1.2.3MB", "inf"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is no size; write it like 1\.2MB"):
        parse_size(text)


def test_sizes_are_written_with_three_digits() -> None:
    sizes = (999, 1000, 1_016_000, 9_996_000, 11_260_000, 123_400_000, 5_000_000_000)
    assert [format_size(size) for size in sizes] == [
        "999 bytes",
        "1.00 kB",
        "1.02 MB",
        "10.0 MB",
        "11.3 MB",
        "123 MB",
        "5.00 GB",
    ]


class Model:
    """Candidates 0 … 99 from the largest; counts what is measured."""

    def __init__(self, wobble: float = 0.0) -> None:
        self.measured: list[int] = []
        self.noise = np.random.default_rng(0).normal(0, wobble, 100) if wobble else np.zeros(100)

    def size(self, index: int) -> int:
        return 10_000_000 - 90_000 * index

    def snr(self, index: int) -> float:
        return 60 - 0.5 * index + float(self.noise[index])

    def measure(self, index: int) -> Measured:
        self.measured.append(index)
        snr = self.snr(index)
        return Measured(self.size(index), snr, min(1.0, snr / 60), max(0.0, 10 - snr / 6))

    def attempt(self, index: int) -> Trial[int]:
        return Trial(self.measure(index), index)


def test_the_smallest_package_that_keeps_each_promise_is_found() -> None:
    for promise, expected in (
        (Promise(min_snr=40), 40),
        (Promise(min_agreement=0.75), 30),
        (Promise(max_drop=2.0), 24),
        (Promise(min_snr=40, min_agreement=0.75), 30),
        (Promise(min_snr=40, target_size=7_000_000), 40),
        (Promise(min_snr=-100), 99),
        (Promise(min_snr=60), 0),
    ):
        model = Model()
        found = find_smallest(range(100), model.attempt, promise)
        assert found.result == expected
        assert found.measured == Model().measure(expected)
        assert promise.fits(found.measured)
        assert not promise.shortfalls(found.measured)
        assert len(model.measured) == len(set(model.measured)) <= 9


def test_what_is_returned_holds_even_where_answers_do_not_get_worse_in_order() -> None:
    for seed in range(20):
        model = Model()
        model.noise = np.random.default_rng(seed).normal(0, 3, 100)
        promise = Promise(min_snr=40)
        found = find_smallest(range(100), model.attempt, promise)
        assert model.snr(found.result) >= 40
        holding = [index for index in model.measured if model.snr(index) >= 40]
        assert found.result == max(holding)


def test_an_impossible_quality_says_the_best() -> None:
    model = Model()
    with pytest.raises(GateError) as caught:
        find_smallest(
            range(100), model.attempt, Promise(min_snr=70), describe=lambda index: "16 bits"
        )
    assert len(model.measured) == len(set(model.measured))
    assert str(caught.value) == "no plan has at least 70 dB: the best (16 bits) has 60.0 dB"


def test_a_size_and_a_quality_that_exclude_each_other_say_what_it_takes() -> None:
    with pytest.raises(GateError) as caught:
        find_smallest(range(100), Model().attempt, Promise(min_snr=50, target_size=5_000_000))
    assert str(caught.value) == (
        "no plan has at most 5.00 MB, at least 50 dB: the smallest that answers well enough takes"
        " 8.20 MB (20)"
    )


def test_not_a_number_keeps_no_promise() -> None:
    assert Promise(min_snr=1).shortfalls(Measured(1, snr=math.nan))
    assert Promise(max_drop=1).shortfalls(Measured(1, drop=math.nan))


def test_what_was_promised_must_be_measured() -> None:
    with pytest.raises(InputError, match="give labelled images"):
        Promise(max_drop=1).shortfalls(Measured(1, snr=50.0))
    with pytest.raises(InputError, match="cannot be measured: the model answers no classes"):
        Promise(min_agreement=0.9).shortfalls(Measured(1, snr=50.0))


def test_a_promise_must_make_sense() -> None:
    with pytest.raises(InputError, match="nothing is promised"):
        Promise()
    with pytest.raises(InputError, match="from 0 to 1"):
        Promise(min_agreement=98)
    with pytest.raises(InputError, match="must be positive"):
        Promise(target_size=0)
    with pytest.raises(InputError, match="no plan to choose from"):
        find_smallest([], Model().attempt, Promise(min_snr=1))
