"""The bounds that packages must meet: sound ones whatever the bits, faithful ones as promised."""

from __future__ import annotations

import inspect
import math

import pytest

from mvit_coreml.compression.promise import Promise, default_promise
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.agreement import AgreementEstimate
from mvit_coreml.validation.gates import FAITHFUL, GATES, SOUND, judge

pytestmark = pytest.mark.fast

ANY = Promise(min_snr=-1000)


def outcome(measured, precision="fp16", promise=ANY, **options):
    return {gate.name: gate.verdict for gate in judge(measured, precision, promise, **options)}


def estimate(agreement, *, low, high, expected, lower_bound):
    return AgreementEstimate(
        images=40,
        agreement=agreement,
        low=low,
        high=high,
        expected=expected,
        lower_bound=lower_bound,
    )


# --- Sound


@pytest.mark.parametrize(("precision", "least"), [("fp32", 80), ("fp16", 35), ("mixed", 35)])
def test_a_package_computes_what_it_stores_as_far_as_its_precision_goes(precision, least):
    assert outcome({"decoded_weights": least}, precision) == {"decoded_weights": "kept"}
    assert outcome({"decoded_weights": least - 0.01}, precision) == {"decoded_weights": "broken"}


def test_whether_a_package_is_sound_depends_on_no_number_of_bits():
    assert not {"bits", "palettes"} & set(inspect.signature(judge).parameters)
    sound = {"decoded_weights": 34.0, "consistency": 0.9, "structure": 1}
    assert set(sound) == set(SOUND)
    # No promise, however modest, excuses a package that is not sound.
    for promise in (ANY, Promise(min_agreement=0), Promise(target_size=10**9)):
        measured = sound | {"top1_agreement": 1.0, "snr": 100.0}
        found = outcome(measured, promise=promise)
        assert {found[name] for name in SOUND} == {"broken"}


def test_a_single_difference_fails_but_may_be_allowed():
    assert outcome({"structure": 0}) == {"structure": "kept"}
    assert outcome({"structure": 1}) == {"structure": "broken"}
    assert outcome({"structure": 2}, overrides={"structure": 2}) == {"structure": "kept"}
    assert outcome({"structure": 3}, overrides={"structure": 2}) == {"structure": "broken"}


def test_outputs_must_follow_from_the_scores():
    assert outcome({"consistency": 0.9}) == {"consistency": "broken"}
    # Half precision may round two scores to a tie.
    assert outcome({"consistency": 0.996}) == {"consistency": "kept"}


# --- Faithful


def test_only_what_was_measured_and_promised_is_judged():
    assert outcome({}) == {}
    measured = {"top1_agreement": 0.5, "snr": 3.0, "miou": 0.1}
    assert outcome(measured, promise=Promise(min_agreement=0.9)) == {"top1_agreement": "broken"}
    assert outcome(measured, promise=Promise(min_snr=3)) == {"snr": "kept"}
    assert outcome(measured, promise=Promise(target_size=1)) == {}


@pytest.mark.parametrize(
    ("promise", "name", "bound"),
    [
        (Promise(min_snr=12.5), "snr", 12.5),
        (Promise(min_agreement=0.8), "top1_agreement", 0.8),
        (Promise(min_agreement=0.8), "pixel_agreement", 0.8),
        (default_promise(photos=True, answers="class"), "top1_agreement", 0.97),
        (default_promise(photos=True, answers="map"), "pixel_agreement", 0.97),
        (default_promise(photos=True, answers="map"), "miou", 0.9),
        (default_promise(photos=True, answers="features"), "snr", 22),
        (default_promise(photos=False, answers="class"), "snr", 22),
        (default_promise(photos=False, answers="map"), "snr", 32),
    ],
)
def test_faithful_is_what_is_promised(promise, name, bound):
    # A promised agreement always has one to be held against.
    others = {} if promise.min_agreement is None else {"pixel_agreement": 1.0}
    for value, verdict in ((bound, "kept"), (bound - 1e-3, "broken"), (math.nan, "broken")):
        gates = {gate.name: gate for gate in judge(others | {name: value}, "fp16", promise)}
        assert (gates[name].bound, gates[name].verdict) == (bound, verdict)


@pytest.mark.parametrize("name", ["top1_agreement", "pixel_agreement"])
def test_an_agreement_is_kept_broken_or_undecided_by_how_sure_it_is(name):
    promise = Promise(min_agreement=0.97)

    def verdict(**shares):
        (gate,) = judge({name: shares["agreement"]}, "fp16", promise, agreement=estimate(**shares))
        assert gate.passed == (gate.verdict != "broken")
        return gate.verdict

    sure = {"agreement": 0.99, "low": 0.975, "high": 1.0, "expected": 0.99, "lower_bound": 0.972}
    assert verdict(**sure) == "kept"
    assert verdict(**sure | {"lower_bound": 0.969}) == "undecided"
    # A promise that is only just missed on these photos may be kept on others.
    unlucky = {"agreement": 0.96, "low": 0.9, "high": 0.985, "expected": 0.975, "lower_bound": 0.93}
    assert verdict(**unlucky) == "undecided"
    assert verdict(**unlucky | {"expected": 0.965}) == "undecided"
    assert verdict(**unlucky | {"high": 0.969}) == "broken"


def test_how_sure_an_agreement_is_says_nothing_about_other_gates():
    sure = estimate(1.0, low=0.98, high=1.0, expected=1.0, lower_bound=0.98)
    promise = Promise(min_agreement=0.97, min_miou=0.9)
    measured = {"pixel_agreement": 1.0, "miou": 0.89, "decoded_weights": 34.0}
    assert outcome(measured, promise=promise, agreement=sure) == {
        "pixel_agreement": "kept",
        "miou": "broken",
        "decoded_weights": "broken",
    }


def test_a_promised_agreement_takes_photos_and_classes():
    with pytest.raises(InputError, match=r"takes photos .* promise an SNR \(--min-snr\)") as caught:
        judge({"snr": 100.0}, "fp16", Promise(min_agreement=0.9))
    assert "at least 90% of the answers" in str(caught.value)


def test_bounds_of_the_command_line_go_before_the_promise():
    promise = Promise(min_agreement=0.9)
    assert outcome({"top1_agreement": 0.8}, promise=promise, overrides={"top1_agreement": 0.7}) == {
        "top1_agreement": "kept"
    }
    assert outcome({"snr": 3.0}, overrides={"snr": 4.0}) == {"snr": "broken"}
    assert outcome({"decoded_weights": 30.0}, overrides={"decoded_weights": 29.0}) == {
        "decoded_weights": "kept"
    }


def test_an_unknown_gate_is_refused_with_the_known_ones():
    assert not set(SOUND) & set(FAITHFUL)
    with pytest.raises(InputError, match="unknown gate 'psnr'; there are") as caught:
        judge({}, "fp16", ANY, overrides={"psnr": 3})
    assert all(name in str(caught.value) for name in GATES)


# --- What is said


@pytest.mark.parametrize(
    ("name", "precision", "advice"),
    [
        ("decoded_weights", "fp16", "try --precision mixed, or fp32"),
        ("decoded_weights", "mixed", "does not compute what is stored in it; convert it again"),
        ("decoded_weights", "fp32", "does not compute what is stored in it; convert it again"),
        ("structure", "fp16", "convert it again"),
        ("consistency", "fp16", "convert it again"),
    ],
)
def test_a_gate_that_is_not_sound_says_what_to_try(name, precision, advice):
    (gate,) = judge({name: 1e3 if name == "structure" else -1e3}, precision, ANY)
    assert advice in gate.advice
    assert judge({name: 0 if name == "structure" else 1e3}, precision, ANY)[0].advice == ""


def test_a_gate_reads_as_a_sentence():
    snr, differences = judge({"snr": 12.345, "structure": 2}, "fp16", Promise(min_snr=30))
    assert str(snr) == "snr is 12.35 dB, must be at least 30 dB"
    assert str(differences) == "structure is 2 differences, must be at most 0 differences"
    (one,) = judge({"structure": 1}, "fp16", ANY)
    assert str(one) == "structure is 1 difference, must be at most 0 differences"
