"""What a layer sees, multiplied by its weight, is what torch computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functions import function_of, parameter_names, pictures, shared_parameters, small
from programs import saved
from torch import Tensor
from torch.nn import functional as F

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.linear_layers import Layer, find_layers
from mvit_coreml.mil.compiler import Step
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Operation

pytestmark = pytest.mark.fast

ALL = 10**6


def layer(kind: str, shape: tuple[int, ...], **attributes: Any) -> Layer:
    step = Step(Operation(kind, "x", {}, ()), "", print, (), {}, (), (), attributes)
    return Layer(0, step, "weight", None, 0, shape, attributes.get("groups", 1))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same(x: Tensor, kernel: int, stride: int, dilation: int, odd_first: bool) -> Tensor:
    """Pad both axes so that the output has ceil(size / stride) elements on each."""
    amounts = []
    for size in (x.shape[3], x.shape[2]):
        outputs = (size + stride - 1) // stride
        total = max((outputs - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
        pair = [total // 2, total - total // 2]
        amounts += pair[::-1] if odd_first else pair
    return F.pad(x, amounts)


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "valid": ({"pad_type": "valid"}, {}),
    "nothing given": ({}, {}),
    "strides": ({"pad_type": "valid", "strides": [2, 3]}, {"stride": (2, 3)}),
    "custom": (
        {"pad_type": "custom", "pad": [2, 2, 1, 1], "strides": [2, 1]},
        {"padding": (2, 1), "stride": (2, 1)},
    ),
    "dilation": (
        {"pad_type": "custom", "pad": [2, 2, 3, 3], "dilations": [2, 3]},
        {"padding": (2, 3), "dilation": (2, 3)},
    ),
    "groups": (
        {"pad_type": "custom", "pad": [1, 1, 1, 1], "groups": 2},
        {"padding": 1, "groups": 2},
    ),
    "depthwise": (
        {"pad_type": "custom", "pad": [1, 1, 1, 1], "groups": 6, "strides": [2, 2]},
        {"padding": 1, "groups": 6, "stride": 2},
    ),
    "same": ({"pad_type": "same"}, {"padding": "same"}),
}


def as_matrix(output: Tensor, groups: int) -> Tensor:
    """Bring (N, C, H, W) to (G, C / G, N H W)."""
    return output.unflatten(1, (groups, -1)).permute(1, 2, 0, 3, 4).flatten(2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (3, 5)])
def test_weight_times_samples_is_what_torch_convolves(case: str, kernel: tuple[int, int]) -> None:
    attributes, options = CASES[case]
    groups = attributes.get("groups", 1)
    x, weight = drawn(2, 6, 9, 11), drawn(12, 6 // groups, *kernel, seed=1)
    found = layer("conv", (*weight.shape,), **attributes)
    samples = found.samples(x[:, None], ALL, 0)
    assert samples.shape[:2] == (groups, weight[0].numel())
    wanted = as_matrix(F.conv2d(x, weight, **options), groups)
    torch.testing.assert_close(found.matrix(weight) @ samples, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(9, 11), (8, 10)])
def test_same_padding_puts_the_odd_row_at_its_end(
    pad_type: str, stride: int, size: tuple[int, int]
) -> None:
    x, weight = drawn(2, 4, *size), drawn(5, 4, 3, 3, seed=1)
    found = layer("conv", (5, 4, 3, 3), pad_type=pad_type, strides=[stride] * 2)
    wanted = F.conv2d(same(x, 3, stride, 1, pad_type == "same_lower"), weight, stride=stride)
    samples = found.samples(x[:, None], ALL, 0)
    torch.testing.assert_close(
        found.matrix(weight) @ samples, as_matrix(wanted, 1), rtol=1e-4, atol=1e-4
    )


def test_weight_times_samples_is_what_torch_gives_for_a_linear_layer() -> None:
    x, weight = drawn(3, 1, 5, 7), drawn(4, 7, seed=1)
    found = layer("linear", (4, 7))
    wanted = F.linear(x, weight).reshape(-1, 4).T[None]
    torch.testing.assert_close(found.matrix(weight) @ found.samples(x, ALL, 0), wanted)


def test_a_limit_draws_the_same_distinct_positions_of_every_map() -> None:
    x = torch.arange(90.0).reshape(1, 1, 1, 9, 10)
    pair = torch.cat([x, x + 1000])
    found = layer("conv", (1, 1, 1, 1))
    drawn_values = found.samples(pair, 20, 5)[0, 0]
    assert drawn_values.shape == (40,)
    assert len(drawn_values.unique()) == 40
    assert drawn_values[:20].tolist() == (drawn_values[20:] - 1000).tolist()
    assert drawn_values[:20].tolist() != list(range(20))
    assert torch.equal(found.samples(pair, 20, 5)[0, 0], drawn_values)
    assert not torch.equal(found.samples(pair, 20, 6)[0, 0], drawn_values)
    assert found.samples(pair, 90, 5).shape == found.samples(pair, ALL, 5).shape == (1, 1, 180)


def test_limited_samples_are_some_of_all() -> None:
    x = drawn(2, 1, 4, 9, 11)
    found = layer("conv", (6, 2, 3, 3), groups=2, pad_type="same", strides=[2, 2])
    every = found.samples(x, ALL, 0)
    some = found.samples(x, 7, 0)
    assert some.shape == (2, 18, 14)
    for group in range(2):
        columns = {tuple(column.tolist()) for column in every[group].T}
        assert all(tuple(column.tolist()) in columns for column in some[group].T)


def test_layers_are_found_with_their_parameters_and_inputs() -> None:
    function = function_of(small())
    names = parameter_names(function, small())
    layers = find_layers(function)
    parts = ("stem", "depthwise", "grouped", "expand", "head")
    assert [found.weight for found in layers] == [names[f"{part}.weight"] for part in parts]
    assert [found.bias for found in layers] == [names.get(f"{part}.bias") for part in parts]
    assert [found.groups for found in layers] == [1, 8, 2, 1, 1]
    assert [found.is_convolution for found in layers] == [True] * 4 + [False]
    pixels = function.pixels(pictures(3))
    inputs: dict[str, Tensor] = {}
    for part in parts:
        hook = lambda _, given, output, part=part: inputs.update({part: (given[0], output)})  # noqa: E731
        small().get_submodule(part).register_forward_hook(hook)
    with torch.no_grad():
        small()(pixels)
        execution = function.start(pixels)
        for index, (step, released) in enumerate(function.schedule):
            for part, found in zip(parts, layers, strict=True):
                if found.index == index:
                    given, output = inputs[part]
                    source = execution.values[found.source]
                    torch.testing.assert_close(source[:, 0], given, rtol=1e-4, atol=1e-5)
                    weight = function.constants[found.weight]
                    product = found.matrix(weight) @ found.samples(source, ALL, 0)
                    if found.bias is not None:
                        bias = function.constants[found.bias]
                        product = product + bias.reshape(found.groups, -1, 1)
                    wanted = output if found.is_convolution else output[:, :, None, None]
                    torch.testing.assert_close(
                        product, as_matrix(wanted, found.groups), rtol=1e-4, atol=1e-4
                    )
            execution.advance(step, released)
    for part in parts:
        small().get_submodule(part)._forward_hooks.clear()


def test_what_layers_share_is_left_out() -> None:
    function = function_of(shared_parameters())
    found = {each.weight: each.bias for each in find_layers(function)}
    assert found == {"stem_weight": "stem_bias", "left_weight": None, "right_weight": None}


@pytest.mark.parametrize("family", ["mobilevitv2"])
def test_every_convolution_of_a_stand_in_is_a_layer(family: str) -> None:
    function = DifferentiableFunction(load_package(saved(family)))
    operations = [step.operation for step, _ in function.schedule]
    wanted = [op.name for op in operations if op.op_type in ("conv", "linear")]
    assert [found.step.operation.name for found in find_layers(function)] == wanted
