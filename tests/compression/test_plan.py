"""Plans are made from choices that fit, and say what they are."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from programs import TINY_WEIGHTS, constants, tiny

from mvit_coreml.compression.apply_plan import uniform_choices, uniform_reasons
from mvit_coreml.compression.palettizable_weights import palettizable_weights, program_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, PalettizedWeight
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, make_plan
from mvit_coreml.errors import InputError

pytestmark = pytest.mark.fast


def make(choices: dict[str, Choice], ios: int = 17, **more: Any) -> PalettizationPlan:
    weights = [(info, op.outputs[0].val) for info, op in program_weights(tiny(ios))]
    return make_plan(weights, choices, ios=ios, source_sha256="", **more)


def test_a_plan_lists_every_weight_with_its_shape_and_digest() -> None:
    plan = make({"mix_weight": Choice(4)})
    assert {weight.name: weight.shape for weight in plan.weights} == TINY_WEIGHTS
    assert list(plan.choices) == list(TINY_WEIGHTS)
    for weight in plan.weights:
        elements = constants(tiny())[weight.name.replace("_weight", ".weight")]
        assert weight.sha256 == hashlib.sha256(elements.tobytes()).hexdigest()
        assert weight.choice == (Choice(4) if weight.name == "mix_weight" else UNCOMPRESSED)
    assert not plan.needs_values


def test_uniform_choices_leave_small_weights_and_say_why() -> None:
    weights = palettizable_weights(tiny())
    choices = uniform_choices(weights, 6)
    # 4096 elements; the next largest has 2048, which is not more than the threshold.
    assert choices == {"mix_weight": Choice(6)}
    assert uniform_choices(weights, None) == {}
    plan = make(choices, reasons=uniform_reasons(weights))
    reasons = {weight.name: weight.reason for weight in plan.weights}
    assert reasons.pop("mix_weight") == ""
    assert set(reasons.values()) == {"2048 elements or fewer"}


@pytest.mark.parametrize(
    ("choices", "ios", "message"),
    [
        ({"tail_weight": Choice(4)}, 17, "the model has no weight 'tail_weight'"),
        ({"mix_weight": Choice(3)}, 16, "weight 'mix_weight': 3 bits need iOS 18"),
        ({"mix_weight": Choice(4, 8)}, 17, "weight 'mix_weight': groups of channels need iOS 18"),
        ({"mix_weight": Choice(4, 7)}, 18, "7 does not divide its 64 output channels; use 4 or 8"),
    ],
)
def test_choices_that_do_not_fit_are_refused(
    choices: dict[str, Choice], ios: int, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        make(choices, ios)
    assert message in str(caught.value)


def test_where_values_come_from_follows_from_what_is_given() -> None:
    values = PlanValues(
        palettes={
            "head_weight": PalettizedWeight(
                np.zeros((1, 4), dtype=np.float16), np.zeros((32, 64), dtype=np.uint8)
            )
        },
    )
    choices = {"head_weight": Choice(2), "expand_weight": Choice(8)}
    plan = make(choices, values=values)
    sources = {weight.name: weight.values for weight in plan.weights}
    assert sources["head_weight"] == "tuned"
    assert sources["expand_weight"] == "kmeans"
    assert plan.needs_values
    assert plan.constants == "original"


def test_values_whose_bits_or_shape_are_not_those_chosen_are_refused() -> None:
    palette = PalettizedWeight(np.zeros((1, 16), np.float16), np.zeros((64, 64, 1, 1), np.uint8))
    values = PlanValues(palettes={"mix_weight": palette})
    with pytest.raises(InputError, match="its tuned values have 4 bits, the plan says 6"):
        make({"mix_weight": Choice(6)}, values=values)
    flat = PalettizedWeight(palette.lut, palette.indices.reshape(64, 64))
    with pytest.raises(InputError, match=r"its tuned values have shape \(64, 64\)"):
        make({"mix_weight": Choice(4)}, values=PlanValues(palettes={"mix_weight": flat}))
    with pytest.raises(InputError, match='goes with bits, but bits is "none"'):
        make({}, values=values)
