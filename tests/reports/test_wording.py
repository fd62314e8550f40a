"""Numbers in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mvit_coreml.compression.promise import Promise
from mvit_coreml.reports.report import Report
from mvit_coreml.reports.wording import decibels, nats, off_by, percent, probability, verdict
from mvit_coreml.validation.gates import Gate

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


def said(parity, **changes):
    found = verdict(Report(title="a", parity=replace(parity, **changes)))
    return found.status, found.meaning.replace("\N{NO-BREAK SPACE}", " ")


KEPT = "It keeps 87.5% of the answers (52.9% to 97.8%) on 8 photos; the scores are off by 6.7%"


def test_a_package_answers_like_its_checkpoint_where_it_is_sound_and_keeps_its_promise(parity):
    status, meaning = said(parity, gates=parity.gates[:2])
    assert status == "PASSED"
    assert meaning.startswith("The package answers like its checkpoint (promised: at least 50% of")
    # It is the bound by the margins that the promise is held against: above the counted interval.
    sure = ", of others by their margins at least 62.0%; the scores"
    assert f"{KEPT} of their size (23.4 dB).".replace("; the scores", sure) in meaning


def test_margins_that_say_no_more_than_the_count_are_not_spoken_of(parity):
    estimate = replace(parity.estimate, low=0.62)
    assert parity.assured() == ", of others by their margins at least 62.0%"
    assert replace(parity, estimate=estimate).assured() == ""
    assert replace(parity, estimate=None).assured() == ""


def with_agreement(parity, verdict):
    return parity.gates[0], replace(parity.gates[1], verdict=verdict)


def test_too_few_photos_to_tell_is_what_is_said(parity):
    status, meaning = said(parity, gates=with_agreement(parity, "undecided"))
    assert status == "UNDECIDED"
    assert meaning.startswith(KEPT)
    assert meaning.endswith(
        "Those are too few photos to tell whether it keeps at least 50% of the answers."
    )


def test_a_size_alone_may_leave_less_than_the_promise(parity):
    status, meaning = said(parity, gates=with_agreement(parity, "broken"), binding=False)
    assert status == "BELOW PROMISE"
    assert meaning.startswith(KEPT)
    assert meaning.endswith(
        "That is less than at least 50% of the answers; only a size was asked for."
    )


@pytest.mark.parametrize("faithful", ["kept", "undecided", "broken"])
@pytest.mark.parametrize("binding", [True, False])
def test_nothing_makes_up_for_a_package_that_is_not_sound(parity, faithful, binding):
    gates = (*with_agreement(parity, faithful), parity.gates[2])
    status, meaning = said(parity, gates=gates, binding=binding)
    assert status == "FAILED"
    assert "parts that differ from the checkpoint: 1, must be ≤ 0" in meaning.lower()


def test_a_broken_promise_fails(parity):
    status, meaning = said(parity, gates=with_agreement(parity, "broken"))
    assert (status, meaning) == (
        "FAILED",
        "Same top class as PyTorch: 87.5%, must be ≥ 50.0%.",
    )


@pytest.mark.parametrize("faithful", ["kept", "undecided", "broken"])
@pytest.mark.parametrize("binding", [True, False])
@pytest.mark.parametrize("sound", [True, False])
def test_only_what_passed_is_said_to_answer_like_its_checkpoint(parity, faithful, binding, sound):
    gates = with_agreement(parity, faithful) + (() if sound else parity.gates[2:])
    status, meaning = said(parity, gates=gates, binding=binding)
    likened = "answers like its checkpoint" in meaning
    assert likened == (status == "PASSED") == (sound and faithful == "kept")


def test_synthetic_pictures_claim_nothing_about_photos(parity):
    status, meaning = said(
        parity,
        gates=(parity.gates[0], Gate(name="snr", value=21.76, bound=20.0, verdict="kept")),
        synthetic=True,
        agreement={},
        estimate=None,
        promise=Promise(min_snr=20),
    )
    assert status == "PASSED"
    assert "It keeps 21.8 dB on 8 synthetic pictures; the scores are off by 6.7%" in meaning
    assert meaning.endswith("What that changes on photos was not measured.")
