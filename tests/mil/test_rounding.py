"""fp16 as the program declares it, and the report of what it costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.kernels import _MODULES, find_kernel
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.validation.operation_precision import HeadroomRecorder

pytestmark = pytest.mark.fast

ALL_HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = ALL_HALVES[np.isfinite(ALL_HALVES)]


def test_torch_rounds_once_in_the_operations_left_to_its_fp16_kernels() -> None:
    native = [
        kernel
        for name in _MODULES
        if (kernel := find_kernel(name, 18)) and kernel.rounding == "native"
    ]
    assert len(native) == 3
    x = torch.from_numpy(FINITE.copy())
    y = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    for kernel in native:
        # IEEE 754 defines every bit of both: fp32 holds more than twice the digits of fp16.
        expected = kernel.function(x.float(), y.float()).half()
        assert torch.equal(kernel.function(x, y), expected)


def test_each_operation_rounds_its_result_to_fp16(execute: Callable[..., Any]) -> None:
    x = np.float16([1.0, 1.0, 2.0])
    y = np.float16([0.0004, 0.0006, 3.0])

    def build(mb: Any, x: Any, y: Any) -> dict[str, Any]:
        total = mb.add(x=x, y=y)
        return {"total": total, "left": mb.sub(x=total, y=x)}

    found = execute(build, {"x": x, "y": y})
    assert found["total"].dtype == np.float16
    # 1 + 0.0004 is nearer to 1 than to the next fp16 number, 1 + 2**-10.
    assert found["left"].tolist() == [0.0, 2.0**-10, 3.0]
    exact = execute(build, {"x": x, "y": y}, arithmetic="fp32")
    assert exact["total"].dtype == np.float32
    assert exact["left"].tolist() == pytest.approx([0.0004, 0.0006, 3.0], rel=1e-3)


def test_sums_within_an_operation_are_kept_in_fp32(execute: Callable[..., Any]) -> None:
    x = np.full((1, 4096), 20.0, np.float16)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        return {
            "mean": mb.reduce_mean(x=x, axes=[1]),  # the sum, 81920, is beyond fp16
            "sum": mb.reduce_sum(x=x, axes=[1]),
            "norm": mb.layer_norm(x=mb.mul(x=x, y=np.float16(100.0)), axes=[1]),
            "product": mb.linear(x=x, weight=np.full((1, 4096), 2.0**-11, np.float16)),
        }

    found = execute(build, {"x": x})
    # Exact in whichever order the sums are computed: fp32 holds every partial sum.
    assert found["mean"].tolist() == [20.0]
    assert found["sum"].tolist() == [np.inf]
    assert np.array_equal(found["norm"], np.zeros((1, 4096)))
    assert found["product"].tolist() == [[40.0]]


def test_casting_to_fp16_rounds_to_nearest_even(execute: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).normal(size=1000).astype(np.float32) * 100
    x = np.append(x, np.float32([1 + 2.0**-11, 1 + 3 * 2.0**-11, 65519.0, 65520.0]))

    def build(mb: Any, x: Any) -> dict[str, Any]:
        return {"y": mb.cast(x=x, dtype="fp16")}

    found = execute(build, {"x": x})["y"]
    with np.errstate(over="ignore"):
        assert np.array_equal(found, x.astype(np.float16))
    assert np.array_equal(execute(build, {"x": x}, arithmetic="fp32")["y"], x)


def test_headroom_ranks_operations_and_counts_what_fp16_loses(
    save_program: Callable[..., Path],
) -> None:
    def build(mb: Any, x: Any) -> dict[str, Any]:
        squared = mb.square(x=x, name="squared")
        halved = mb.mul(x=x, y=np.float16(0.5), name="halved")
        return {"y": mb.relu(x=mb.add(x=squared, y=halved, name="added"), name="moved")}

    x = np.float16([0.0, 1e-4, 1e-3, 3.0, 300.0, -256.0])
    runtime = Runtime(load_package(save_program(build, {"x": x})))
    recorder = HeadroomRecorder()
    runtime.run({"x": x}, headroom=recorder)
    runtime.run({"x": x / 100}, headroom=recorder)
    found = {entry.name: entry for entry in recorder.ranked()}
    # What overflowed is infinite in the addition, and no finite magnitude there.
    assert list(found) == ["squared", "halved", "added"]
    squared = found["squared"]
    assert squared.op_type == "square"
    assert squared.largest == 300.0**2
    assert squared.headroom == pytest.approx(65504 / 90000)
    assert squared.overflows == 2  # 300² and 256² = 65536
    # Once 1e-4² = 1e-8; a hundredth of it, of 1e-3 and of 1e-4 in the second run.
    assert squared.zeroed == 3
    assert squared.subnormal == 1  # 1e-3²
    assert squared.count == 12
    # The values themselves are those of a run without the report.
    plain = runtime.run({"x": x})["y"]
    assert np.array_equal(runtime.run({"x": x}, headroom=recorder)["y"], plain)


def test_halves_are_divided_as_halves_before_they_are_rounded_to_levels(
    execute: Callable[..., Any],
) -> None:
    x, scale = FINITE[np.abs(FINITE) < 8], np.float16(0.0312)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        levels = mb.quantize(input=x, scale=scale, output_dtype="int8")
        return {"levels": mb.cast(x=levels, dtype="int32")}

    found = execute(build, {"x": x})["levels"]
    expected = np.clip(np.round(x / scale), -128, 127)
    assert np.array_equal(found, expected)
    # In single precision some quotients lie on the other side of a half.
    wider = np.clip(np.round(x.astype(np.float32) / np.float32(scale)), -128, 127)
    assert not np.array_equal(expected, wider)
