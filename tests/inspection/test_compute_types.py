"""Multiply-accumulates of saved packages, held to those that torch counts."""

from __future__ import annotations

import pytest
import torch
from packages import converted, small_checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mvit_coreml import build_model
from mvit_coreml.inspection.compute_types import compute_types
from mvit_coreml.mil.package_reader import load_package


@pytest.mark.parametrize("family", ["mobilenet_v2", "mobilevit"])
def test_multiply_accumulates_are_those_that_torch_counts(family: str) -> None:
    model = build_model(small_checkpoint(family))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))
    found = compute_types(load_package(converted(family)[0].path).function())
    # torch counts a multiplication and an addition for each.
    assert 2 * found.macs == counter.get_total_flops()
    assert found.int8_macs == 0
    assert {layer.reason for layer in found.layers} <= {
        "its input is not rounded to 8 bits",
        "its weight is stored as fp16",
    }
    assert found.in_floating_point[0].macs == max(layer.macs for layer in found.layers)
