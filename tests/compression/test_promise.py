"""What is promised is kept, broken, or undecided, and the noise that a promise leaves is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mvit_coreml.compression.promise import (
    Measured,
    Promise,
    agreement_verdict,
    default_promise,
    format_size,
    parse_size,
)
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.agreement import AgreementEstimate

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


def agreement(
    *, counted: float = 0.98, high: float = 1.0, expected: float = 0.98, bound: float = 0.95
) -> AgreementEstimate:
    return AgreementEstimate(
        images=100, agreement=counted, low=0.0, high=high, expected=expected, lower_bound=bound
    )


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        (agreement(bound=0.97), "kept"),
        # Enough is expected, but not certain.
        (agreement(bound=0.969), "undecided"),
        # Margins say too few, the count says enough, or the other way round.
        (agreement(expected=0.96, counted=0.98), "undecided"),
        (agreement(expected=0.98, counted=0.96), "undecided"),
        # Both are a little below, and so may be one package in a few that does keep it.
        (agreement(expected=0.96, counted=0.96, high=0.985), "undecided"),
        # Even the interval of the count ends below.
        (agreement(expected=0.98, counted=0.9, high=0.96), "broken"),
    ],
)
def test_an_agreement_is_kept_where_it_is_certain_and_broken_where_it_is_clear(
    estimate: AgreementEstimate, verdict: str
) -> None:
    assert agreement_verdict(estimate, 0.97) == verdict
    assert Promise(min_agreement=0.97).verdict(Measured(agreement=estimate)) == verdict


@pytest.mark.parametrize(
    ("promise", "just", "short"),
    [
        (Promise(min_snr=22), Measured(snr=22.0), Measured(snr=21.99)),
        (Promise(min_miou=0.9), Measured(miou=0.9), Measured(miou=0.89)),
        (Promise(max_drop=1.5), Measured(drop=1.5), Measured(drop=1.51)),
    ],
)
def test_other_bounds_are_kept_or_broken(promise: Promise, just: Measured, short: Measured) -> None:
    assert promise.verdict(just) == "kept"
    assert promise.verdict(short) == "broken"


@pytest.mark.parametrize("name", ["snr", "miou", "drop"])
def test_not_a_number_keeps_no_promise(name: str) -> None:
    bounds = {"snr": "min_snr", "miou": "min_miou", "drop": "max_drop"}
    promise = Promise(**{bounds[name]: 0.5})
    assert promise.verdict(Measured(**{name: math.nan})) == "broken"


def test_the_worst_of_several_verdicts_counts() -> None:
    promise = Promise(min_agreement=0.97, min_miou=0.9)
    sure, unsure = agreement(bound=0.98), agreement(bound=0.9)
    assert promise.verdict(Measured(agreement=sure, miou=0.95)) == "kept"
    assert promise.verdict(Measured(agreement=unsure, miou=0.95)) == "undecided"
    assert promise.verdict(Measured(agreement=sure, miou=0.8)) == "broken"
    assert promise.verdict(Measured(agreement=unsure, miou=0.8)) == "broken"


def test_a_size_alone_asks_nothing_of_the_answers() -> None:
    size = Promise(target_size=1000)
    assert not size.asks_quality
    assert size.verdict(Measured(size=2000)) == "kept"
    both = Promise(target_size=1000, min_snr=20)
    assert both.asks_quality
    assert both.of_answers() == Promise(min_snr=20)


def test_what_was_promised_must_be_measured() -> None:
    with pytest.raises(InputError, match="give labelled images"):
        Promise(max_drop=1).verdict(Measured(snr=50.0))
    with pytest.raises(InputError, match=r"takes photos .* promise an SNR \(--min-snr\)"):
        Promise(min_agreement=0.9).verdict(Measured(snr=50.0))
    with pytest.raises(InputError, match="no classes to compare"):
        Promise(min_miou=0.9).verdict(Measured(snr=50.0))


def flipped_share(noise_power: float) -> float:
    """Share of 400 000 answers between two classes that noise of a power turns round."""
    generator = np.random.default_rng(0)
    lead = generator.gamma(2.0, 1.5, 400_000) * generator.random(400_000)
    return float((lead < math.sqrt(noise_power) * generator.standard_normal(400_000)).mean())


def test_noise_may_grow_by_what_the_decibels_say() -> None:
    # Twice the power is 3.01 dB.
    assert Promise(min_snr=20).noise_factor(Measured(snr=23.0103)) == pytest.approx(2, rel=1e-4)
    assert Promise(min_snr=20).noise_factor(Measured(snr=10.0)) == pytest.approx(0.1)
    assert Promise(min_snr=20).noise_factor(Measured(snr=20.0)) == pytest.approx(1)


def test_flipped_answers_grow_with_the_root_of_the_noise() -> None:
    little, much = 1e-3, 4e-3
    few, many = flipped_share(little), flipped_share(much)
    certain = agreement(expected=1 - few, counted=1 - few, bound=1 - few)
    factor = Promise(min_agreement=1 - many).noise_factor(Measured(agreement=certain))
    assert factor == pytest.approx(much / little, rel=0.15)
    map_factor = Promise(min_miou=1 - many).noise_factor(Measured(miou=1 - few))
    assert map_factor == pytest.approx(factor)
    assert Promise(max_drop=2.0).noise_factor(Measured(drop=4.0)) == pytest.approx(0.25)


def test_what_is_only_expected_of_the_answers_counts_half() -> None:
    promise = Promise(min_agreement=0.97)
    # 1 % are expected to flip, up to 10 % may: 2 % are counted on, of 3 %.
    unsure = agreement(expected=0.99, counted=0.99, bound=0.9)
    assert promise.noise_factor(Measured(agreement=unsure)) == pytest.approx(2.25)
    # Up to 1.5 % may: these are counted on.
    sure = agreement(expected=0.99, counted=0.99, bound=0.985)
    assert promise.noise_factor(Measured(agreement=sure)) == pytest.approx(4)


def test_the_strictest_bound_says_how_far_the_noise_may_grow() -> None:
    promise = Promise(min_snr=20, min_miou=0.9)
    assert promise.noise_factor(Measured(snr=30.0, miou=0.95)) == pytest.approx(4)
    assert promise.noise_factor(Measured(snr=15.0, miou=0.95)) == pytest.approx(10**-0.5)


def test_no_step_is_larger_than_a_hundredfold() -> None:
    promise = Promise(min_snr=20, min_miou=0.9)
    assert promise.noise_factor(Measured(snr=300.0, miou=1.0)) == 100
    assert promise.noise_factor(Measured(snr=-300.0, miou=1.0)) == 0.01
    # Nothing was measured: nothing speaks against it.
    assert promise.noise_factor(Measured()) == 100
    # No loss may be taken, and some was.
    assert Promise(max_drop=0).noise_factor(Measured(drop=3.0)) == 0.01


def test_there_always_is_a_promise() -> None:
    assert default_promise(photos=True, answers="class") == Promise(min_agreement=0.97)
    assert default_promise(photos=True, answers="map") == Promise(min_agreement=0.97, min_miou=0.9)
    assert default_promise(photos=True, answers="features") == Promise(min_snr=22)
    # Synthetic pictures cannot tell how many answers change.
    assert default_promise(photos=False, answers="class") == Promise(min_snr=22)
    assert default_promise(photos=False, answers="features") == Promise(min_snr=22)
    assert default_promise(photos=False, answers="map") == Promise(min_snr=32)


def test_a_promise_reads_as_what_it_asks_for() -> None:
    everything = Promise(
        target_size=1_200_000, min_snr=22, min_agreement=0.975, min_miou=0.9, max_drop=0.5
    )
    assert str(everything) == (
        "at most 1.20 MB, at least 22 dB, at least 97.5% of the answers, an mIoU of at least 0.9,"
        " at most 0.5 points of loss"
    )


def test_a_promise_must_make_sense() -> None:
    with pytest.raises(InputError, match="nothing is promised"):
        Promise()
    for bounds in ({"min_agreement": 98.0}, {"min_miou": -0.1}):
        with pytest.raises(InputError, match="from 0 to 1"):
            Promise(**bounds)
    with pytest.raises(InputError, match="must be positive"):
        Promise(target_size=0)
