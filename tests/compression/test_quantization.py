"""Grids of 8 bits, their choice, and where a program computes in 8 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from packages import converted

from mvit_coreml.compression.calibration import activation_ranges
from mvit_coreml.compression.calibration.activation_ranges import ValueRange, best_grid
from mvit_coreml.compression.calibration.quantization import nearest_levels
from mvit_coreml.compression.quantization.grid import Grid, QuantizedWeight
from mvit_coreml.compression.quantization.placement import place_quantization
from mvit_coreml.errors import InputError
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.kernels.decompression import affine_dequantize, blockwise_shift_scale
from mvit_coreml.mil.kernels.elementwise import dequantize, quantize
from mvit_coreml.mil.package_reader import load_package

GRIDS = [Grid(0.25, 0, "int8"), Grid(0.0235, 0, "uint8"), Grid(0.0312, 17, "uint8")]
GRIDS += [Grid(0.01, -9, "int8")]


def inferred(values: np.ndarray[Any, Any], grid: Grid) -> tuple[Any, Any]:
    """Return what coremltools takes a pair of operations on a constant to give."""
    load_coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import Function, Program, types

    program = Program()
    unused = {"x": mb.placeholder(shape=(1,), dtype=types.fp16)}
    with np.errstate(over="ignore"), Function(unused) as function:
        scale = values.dtype.type(grid.scale)
        zero = {"zero_point": np.dtype(grid.dtype).type(grid.zero_point)} if grid.zero_point else {}
        constant = mb.const(val=values)
        levels = mb.quantize(input=constant, scale=scale, output_dtype=grid.dtype, **zero)
        back = mb.dequantize(input=levels, scale=scale, **zero)
        function.set_outputs([back])
    program.add_function("main", function)
    return levels.val, back.op.materialized_val_inference()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_pairs_are_bit_exact_with_coremltools_inference(grid: Grid, dtype: Any) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = halves[np.isfinite(halves)].astype(dtype)
    levels, back = inferred(values, grid)
    x, scale = torch.from_numpy(values), torch.tensor(values.dtype.type(grid.scale))
    zero = torch.tensor(grid.zero_point) if grid.zero_point else None
    found = quantize(x, scale, zero, output_dtype=grid.dtype)
    assert np.array_equal(found.numpy(), levels)
    # The runtime rounds results to the declared type.
    again = dequantize(found, scale.float(), zero)
    assert np.array_equal(again.numpy().astype(dtype), back)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_rounding_in_the_calibration_is_the_definition(grid: Grid) -> None:
    x = np.linspace(-9, 9, 4001, dtype=np.float32)
    low, high = (-128, 127) if grid.dtype == "int8" else (0, 255)
    scale = np.float32(grid.scale)
    levels = np.clip(np.round(x / scale) + grid.zero_point, low, high)
    expected = (levels - grid.zero_point) * scale
    assert np.allclose(grid.round(torch.from_numpy(x)).numpy(), expected, atol=1e-6)


def test_weights_decode_to_what_both_stored_forms_mean() -> None:
    weight = np.random.default_rng(0).normal(size=(8, 3, 3, 3)).astype(np.float16)
    stored = nearest_levels(weight)
    decoded = stored.decode()
    unsigned = (stored.levels.astype(int) + 128).astype(np.uint8)
    zero = np.uint8(128)
    assert np.array_equal(affine_dequantize(unsigned, zero, stored.scale, axis=0), decoded)
    assert np.array_equal(blockwise_shift_scale(stored.levels, stored.scale_along_axis()), decoded)
    assert decoded.dtype == np.float16
    steps = np.abs(decoded.astype(float) - weight) / stored.scale_along_axis()
    # The scale that cuts the largest weights off a little has the least squared error.
    assert np.quantile(steps, 0.98) <= 0.51


def test_weights_of_another_axis_have_scales_along_it() -> None:
    stored = QuantizedWeight(np.int8([[1, 2], [3, 4]]), np.float16([1, 10]), axis=1)
    assert stored.decode().tolist() == [[1, 20], [3, 40]]


@pytest.mark.parametrize("rows", [np.zeros((2, 4)), np.full((2, 4), 6e-8), np.full((2, 4), 6e4)])
def test_weights_of_nothing_or_at_the_ends_of_half_precision_stay_finite(rows: Any) -> None:
    decoded = nearest_levels(rows.astype(np.float16)).decode().astype(float)
    assert np.isfinite(decoded).all()
    assert np.allclose(decoded, rows, rtol=0.02, atol=6e-8)


@pytest.mark.parametrize(
    "bad", [(0.0, 0, "int8"), (float("nan"), 0, "int8"), (1.0, -1, "uint8"), (1.0, 0, "int4")]
)
def test_impossible_grids_are_refused(bad: Any) -> None:
    with pytest.raises(InputError):
        Grid(*bad)


def seen(values: np.ndarray[Any, Any]) -> ValueRange:
    """Return the histogram of some values."""
    low, high = float(values.min()), float(values.max())
    counts, _ = np.histogram(values, activation_ranges._BINS, (low, high))
    return ValueRange(low, high, torch.from_numpy(counts.astype(np.float64)))


def error(values: np.ndarray[Any, Any], grid: Grid) -> float:
    tensor = torch.from_numpy(values)
    return float((grid.round(tensor) - tensor).square().mean())


def test_a_grid_has_less_error_than_the_range_from_end_to_end() -> None:
    values = np.random.default_rng(0).laplace(size=40_000).astype(np.float32)
    grid = best_grid(seen(values), "fp16")
    widest = Grid(float(np.abs(values).max() / 127), 0, "int8")
    assert (grid.dtype, grid.zero_point) == ("int8", 0)
    assert error(values, grid) < 0.85 * error(values, widest)
    # No other scale is much better.
    others = [error(values, Grid(grid.scale * r, 0, "int8")) for r in np.linspace(0.5, 2, 61)]
    assert error(values, grid) < 1.03 * min(others)


def test_values_that_are_never_negative_use_all_levels() -> None:
    values = np.random.default_rng(0).uniform(0, 6, 10_000).astype(np.float32)
    grid = best_grid(seen(values), "fp16")
    assert (grid.dtype, grid.zero_point) == ("uint8", 0)
    assert grid.scale == pytest.approx(6 / 255, rel=0.01)


def test_values_behind_silu_get_a_zero_point() -> None:
    x = torch.from_numpy(np.random.default_rng(0).normal(size=20_000).astype(np.float32))
    values = torch.nn.functional.silu(3 * x).numpy()
    grid = best_grid(seen(values), "fp16")
    assert grid.dtype == "uint8"
    assert grid.zero_point > 0
    assert error(values, grid) < 0.5 * error(values, Grid(float(values.max()) / 127, 0, "int8"))


# What may stand between a rounded value and the operation that made it, by family: the activation
# and its convolution stay together, and rounding never feeds what computes in floating point.
MAKERS = {
    "mobilenet_v2": {"add", "cast", "conv", "reduce_mean", "relu6"},
    "mobilevit": {
        "add", "cast", "concat", "conv", "layer_norm", "pixel_shuffle", "reduce_mean", "reshape",
        "silu",
    },
    "mobilevitv2": {
        "add", "cast", "conv", "layer_norm", "mul", "pixel_shuffle", "reduce_mean", "silu",
    },
}  # fmt: skip


@pytest.mark.parametrize("family", MAKERS)
def test_where_each_family_computes_in_8_bits(family: str) -> None:
    function = load_package(converted(family)[0].path).function()
    placement = place_quantization(function)
    makers = function.producers
    values = [value.name for value in placement.values]
    assert {makers[name].op_type for name in values} == MAKERS[family]
    # All convolutions and linear layers, and nothing twice.
    layers = [step.name for step in function.steps if step.op_type in ("conv", "linear")]
    assert [layer.operation.name for layer in placement.layers] == layers
    assert len(set(values)) == len(values)
    for name in values:
        readers = [step.op_type for step in function.steps if name in step.value_names]
        # A convolution that an activation follows is not cut off from it.
        assert not {"silu", "relu6", "relu"} & set(readers)
    # A concatenation has one range for what goes in and what comes out.
    ranges = {value.name: value.shares_range_with for value in placement.values}
    for step in function.steps:
        if step.op_type == "concat" and step.outputs[0].name in ranges:
            parts = [argument.name for argument in step.inputs["values"]]
            assert len({ranges[name] for name in (*parts, step.outputs[0].name)}) == 1


def test_sums_between_normalizations_stay_in_floating_point() -> None:
    function = load_package(converted("mobilevit")[0].path).function()
    rounded = {value.name for value in place_quantization(function).values}
    for step in function.steps:
        if step.op_type == "layer_norm":
            assert step.inputs["x"][0].name not in rounded
