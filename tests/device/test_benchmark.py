"""The benchmark's own code, with stand-ins for what only a Mac has.

Their signatures are those of the installed coremltools. Nothing here ran on Apple hardware.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import fake_tools
import numpy as np
import pytest
from fake_tools import CPU, GPU, NE, Recorder
from foreign import program_package, with_two_functions
from packages import converted

from mvit_coreml.device.benchmark import BenchmarkOptions, benchmark_packages, random_inputs
from mvit_coreml.device.machine import load_tools, require_mac
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.package_reader import load_package

pytestmark = pytest.mark.fast


def parameters(function: Any) -> list[tuple[str, Any]]:
    """Names of a function's parameters, and whether each has to be given."""
    found = inspect.signature(function).parameters.values()
    return [(one.name, one.default is one.empty) for one in found]


@pytest.mark.parametrize(
    ("owner", "methods"),
    [
        ("MLModel", ["__init__"]),
        (
            "MLModelBenchmarker",
            ["__init__", "benchmark_load", "benchmark_predict", "benchmark_operation_execution"],
        ),
        ("Device", ["get_connected_devices", "prepare_for_model_debugging"]),
        ("AppSigningCredentials", ["__init__"]),
    ],
)
def test_stand_ins_have_the_signatures_of_the_installed_coremltools(
    owner: str, methods: list[str]
) -> None:
    ours, theirs = Recorder([]).tools(), load_tools()
    for method in methods:
        mine, real = (getattr(getattr(tools, owner), method) for tools in (ours, theirs))
        assert parameters(mine) == parameters(real), f"{owner}.{method}"
        assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(real)


def test_what_is_read_of_coremltools_objects_is_there() -> None:
    load_coremltools()
    from coremltools.models import compute_device, compute_plan

    theirs = load_tools()
    for name in ("MLCPUComputeDevice", "MLGPUComputeDevice", "MLNeuralEngineComputeDevice"):
        assert hasattr(compute_device, name)
        assert hasattr(fake_tools, name)
    for name in ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"):
        assert hasattr(theirs.ComputeUnit, name)
    assert (theirs.DeviceType.IPHONE.value, theirs.DeviceType.IPAD.value) == ("iphone", "ipad")
    benchmarker = theirs.MLModelBenchmarker
    info = set(benchmarker.OperationExecutionInfo.__dataclass_fields__)
    assert {"spec", "compute_device_usage", "measurement"} <= info
    assert {"statistics", "samples"} <= set(benchmarker.Measurement.__dataclass_fields__)
    assert "median" in benchmarker.Statistics.__dataclass_fields__
    assert set(compute_plan.MLComputePlanDeviceUsage.__dataclass_fields__) == {
        "preferred_compute_device",
        "supported_compute_devices",
    }
    fields = set(theirs.Device.__dataclass_fields__)
    assert fields == set(fake_tools.Device.__dataclass_fields__)


@pytest.fixture(scope="module")
def package() -> Path:
    def build(mb: Any, x: Any) -> Any:
        picked = mb.gather(x=mb.relu(x=x, name="first"), indices=[1, 0], axis=1, name="picked")
        return mb.tanh(x=picked, name="last")

    return program_package(build, (1, 2, 4, 32))


PLAN = [
    ("last", "tanh", GPU, 0.25),
    ("first", "relu", NE, 0.5),
    ("picked", "gather", CPU, 0.25),
    ("y", "identity", None, None),
    ("constant", "const", None, None),
]


def test_times_and_the_plan_are_summarised(package: Path) -> None:
    recorder = Recorder(PLAN)
    options = BenchmarkOptions(units=("all", "cpu"), iterations=5)
    (benchmark,) = benchmark_packages([package], options, recorder.tools())
    assert [unit.units for unit in benchmark.units] == ["all", "cpu"]
    unit = benchmark.units[0]
    assert (unit.first_load, unit.next_load) == (120.0, 8.0)
    times = unit.prediction
    assert (times.median, times.minimum, times.samples) == (3.0, 1.0, 5)
    assert times.p95 == pytest.approx(4 + 0.8 * 6)
    assert times.std == pytest.approx(10**0.5)
    assert [one.name for one in unit.operations] == ["first", "picked", "last", "y"]
    assert [one.place for one in unit.operations] == [0, 1, 2, 3]
    assert [one.share for one in unit.operations] == [0.5, 0.25, 0.25, None]
    assert unit.neural_engine_share == pytest.approx(0.5)
    assert {one.name: one.device for one in unit.off_neural_engine} == {
        "picked": "CPU",
        "last": "GPU",
    }
    (picked,) = [one for one in unit.operations if one.name == "picked"]
    assert picked.rules == ("gather",)
    assert picked.supported == ("CPU", "CPU")
    assert unit.process_memory is not None
    assert benchmark.machine.versions["coremltools"]
    assert benchmark.machine.system


def test_coremltools_is_asked_for_what_the_options_say(package: Path) -> None:
    recorder = Recorder(PLAN)
    options = BenchmarkOptions(units=("cpu-ne", "cpu-gpu"), iterations=7, warmup=False)
    benchmark_packages([package], options, recorder.tools())
    assert [one for one in recorder.asked if one[0] != "predict"] == [
        ("ne", (None, None)),
        ("gpu", (None, None)),
    ]
    (_, (inputs, iterations, warmup)) = recorder.asked[1]
    assert (iterations, warmup) == (7, False)
    assert inputs["x"].shape == (1, 2, 4, 32)


def test_a_function_is_chosen_by_name() -> None:
    path = with_two_functions(converted("mobilenet_v2")[0].path)
    recorder = Recorder([])
    options = BenchmarkOptions(units=("cpu",), function="second")
    (benchmark,) = benchmark_packages([path], options, recorder.tools())
    assert benchmark.function == "second"
    assert recorder.asked[0] == ("cpu", ("second", None))
    # A plan that says no cost has no share.
    assert benchmark.units[0].neural_engine_share is None


def test_inputs_are_noise_of_each_kind_and_the_same_every_time() -> None:
    function = load_package(converted("mobilenet_v2")[0].path).function()
    one, two = random_inputs(function)["image"], random_inputs(function)["image"]
    assert (one.size, one.mode) == ((64, 64), "RGB")
    assert np.array_equal(np.asarray(one), np.asarray(two))
    assert np.asarray(one).std() > 50


def test_a_connected_device_is_found_and_prepared(package: Path) -> None:
    for wanted in ("iphone", "my phone"):
        recorder = Recorder(PLAN)
        options = BenchmarkOptions(units=("all",), device=wanted, development_team="TEAM")
        (benchmark,) = benchmark_packages([package], options, recorder.tools())
        _, (_, device) = recorder.asked[0]
        assert device.session.development_team == "TEAM"
        assert benchmark.machine.name == "My Phone (iphone)"
        assert benchmark.machine.system == "18.1 (22B83)"
        # The memory of this process says nothing of the device.
        assert benchmark.units[0].process_memory is None
    options = BenchmarkOptions(device="ipad", development_team="TEAM")
    with pytest.raises(InputError, match=r"ipad: is not connected; connected are: My Phone"):
        benchmark_packages([package], options, Recorder(PLAN).tools())


def test_what_core_ml_refuses_is_one_line(package: Path) -> None:
    recorder = Recorder(PLAN, error="Error compiling model\nmore lines")
    with pytest.raises(PackageError, match=r"Core ML with all: Error compiling model$"):
        benchmark_packages([package], BenchmarkOptions(), recorder.tools())


def test_off_a_mac_one_line_says_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(InputError, match=r"needs Core ML.*cost estimates, predict and evaluate"):
        require_mac()
    monkeypatch.setattr(sys, "platform", "darwin")
    require_mac()
