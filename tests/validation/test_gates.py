"""The bounds that packages must meet."""

from __future__ import annotations

import math

import pytest

from mvit_coreml.errors import InputError
from mvit_coreml.validation.gates import GATES, default_bounds, judge

pytestmark = pytest.mark.fast


def outcome(measured, precision="fp16", bits=None, overrides=None):
    return {gate.name: gate.passed for gate in judge(measured, precision, bits, overrides)}


@pytest.mark.parametrize(
    ("precision", "bits", "least"),
    [("fp32", None, 80), ("fp16", None, 30), ("fp16", 8, 10), ("fp16", 6, 0), ("fp16", 4, -10)],
)
def test_a_package_is_held_to_what_its_precision_can_reach(precision, bits, least):
    assert outcome({"snr": least}, precision, bits) == {"snr": True}
    assert outcome({"snr": least - 0.01}, precision, bits) == {"snr": False}


def test_fewer_bits_are_never_held_to_more():
    order = [("fp32", None), ("fp16", None), *(("fp16", bits) for bits in (8, 6, 4, 3, 2, 1))]
    for name in ("snr", "top1_agreement", "pixel_agreement"):
        bounds = [default_bounds(*key)[name] for key in order]
        assert bounds == sorted(bounds, reverse=True)


def test_every_gate_has_a_bound():
    assert set(default_bounds("fp16", None)) == set(GATES)


def test_only_what_was_measured_is_judged():
    assert outcome({}) == {}
    assert outcome({"top1_agreement": 0.97, "structure": 0}) == {
        "top1_agreement": True,
        "structure": True,
    }


def test_a_single_difference_fails_but_may_be_allowed():
    assert outcome({"structure": 1}) == {"structure": False}
    assert outcome({"structure": 2}, overrides={"structure": 2}) == {"structure": True}


def test_what_is_not_a_number_fails():
    assert outcome({"snr": math.nan}, bits=4) == {"snr": False}


def test_outputs_must_follow_from_the_scores_whatever_the_bits():
    for bits in (None, 8, 6, 4):
        assert outcome({"consistency": 0.9}, bits=bits) == {"consistency": False}
        assert outcome({"consistency": 1.0}, bits=bits) == {"consistency": True}


def test_an_unknown_gate_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="unknown gate 'psnr'; there are snr, consistency, top1"):
        judge({}, "fp16", None, {"psnr": 3})


@pytest.mark.parametrize(
    ("name", "precision", "bits", "advice"),
    [
        ("snr", "fp16", 4, "try --bits 8"),
        ("snr", "fp16", 8, "try --bits none"),
        ("top1_agreement", "fp16", None, "try --precision mixed, or fp32"),
        ("snr", "fp32", None, "convert it again"),
        ("structure", "fp16", 6, "convert it again"),
        ("consistency", "fp16", 6, "convert it again"),
    ],
)
def test_a_failed_gate_says_what_to_try(name, precision, bits, advice):
    (gate,) = judge({name: 1e3 if name == "structure" else -1e3}, precision, bits)
    assert advice in gate.advice
    assert judge({name: 0 if name == "structure" else 1e3}, precision, bits)[0].advice == ""


def test_a_gate_reads_as_a_sentence():
    snr, differences = judge({"snr": 12.345, "structure": 2}, "fp16", None)
    assert str(snr) == "snr is 12.35 dB, must be at least 30 dB"
    assert str(differences) == "structure is 2 differences, must be at most 0 differences"
