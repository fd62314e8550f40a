"""Numbers in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mvit_coreml.reports.report import Report
from mvit_coreml.reports.wording import decibels, nats, off_by, percent, probability, verdict

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0.0%"), (1.0, "100.0%"), (0.948, "94.8%"), (0.99996, "99.996%"), (0.0004, "0.04%")],
)
def test_a_share_is_all_or_nothing_only_if_it_is(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, ">99.9%"), (0.9994, "99.9%"), (0.625, "62.5%"), (0.0006, "0.1%"), (0.0, "<0.1%")],
)
def test_a_softmax_gives_neither_all_nor_nothing(value, text):
    assert probability(value) == text


def test_a_divergence_too_small_to_matter_is_just_that():
    assert [nats(value) for value in (0.0, 1e-7, 0.01234)] == [
        "0 nats",
        "< 0.0001 nats",
        "0.0123 nats",
    ]


@pytest.mark.parametrize(
    ("ratio", "text"),
    # 20 dB are a factor of ten in size.
    [(20.0, "off by 10%"), (40.0, "off by 1%"), (60.0, "off by 0.1%"), (-20.0, "off by 1,000%")],
)
def test_a_ratio_is_said_in_per_cent(ratio, text):
    assert off_by(ratio).startswith(f"{text} of their size (")


def test_the_ends_of_the_scale_have_words():
    assert decibels(300.0) == "exact"
    assert off_by(300.0) == "PyTorch's exactly"
    assert off_by(-300.0) == "not comparable with PyTorch's"


def test_a_verdict_says_how_many_photos_agree(parity):
    passed = replace(parity, gates=parity.gates[:2])
    found = verdict(Report(title="a", parity=passed))
    assert found.status == "PASSED"
    assert found.meaning.startswith("7 of 8 photos get PyTorch's top class; the scores are off by")


def test_synthetic_pictures_claim_nothing_about_photos(parity):
    passed = replace(parity, gates=parity.gates[:1], synthetic=True)
    found = verdict(Report(title="a", parity=passed))
    assert found.meaning.startswith("On 8 synthetic pictures the scores are off by 6.7%")
    assert found.meaning.endswith("what that changes on photos was not measured.")
