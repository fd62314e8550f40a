"""Times of a package by Core ML on a Mac, or on an iPhone connected to it, with coremltools' tools.

Thin over ``MLModelBenchmarker``, which times loads and predictions and asks Core ML for its compute
plan. The plan is a prediction of where operations run and of what they cost, not a measurement.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mvit_coreml.device.machine import Machine, local_machine, peak_memory, remote_machine
from mvit_coreml.device.xcode_report import NEURAL_ENGINE
from mvit_coreml.errors import InputError, PackageError, first_line
from mvit_coreml.inspection.package_cost import FunctionCost, function_cost
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import ArrayFeature, Function, ImageFeature

Units = Literal["all", "cpu-ne", "cpu-gpu", "cpu"]

# Names of coremltools' compute units.
UNITS: dict[Units, str] = {
    "all": "ALL",
    "cpu-ne": "CPU_AND_NE",
    "cpu-gpu": "CPU_AND_GPU",
    "cpu": "CPU_ONLY",
}
# What class of coremltools stands for which device.
_DEVICES = {
    "MLNeuralEngineComputeDevice": NEURAL_ENGINE,
    "MLGPUComputeDevice": "GPU",
    "MLCPUComputeDevice": "CPU",
}
_LOADS = 2  # the first, and one that finds what it left behind


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """How packages are timed.

    Attributes:
        units: compute units to allow, one run each.
        iterations: predictions that are timed.
        warmup: whether one prediction goes first and is not counted.
        device: ``iphone`` or ``ipad`` or the name of one that is connected; this Mac if ``None``.
        development_team: Apple's identifier of the team that signs the app on that device.
        function: name of the function; the default one if ``None``.
    """

    units: tuple[Units, ...] = ("all", "cpu-ne", "cpu-gpu", "cpu")
    iterations: int = 100
    warmup: bool = True
    device: str | None = None
    development_team: str | None = None
    function: str | None = None


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Times in ms.

    Attributes:
        median: of all samples.
        p95: at most this in 95 of 100.
        minimum: the shortest.
        std: standard deviation of the population.
        samples: how many there are.
    """

    median: float
    p95: float
    minimum: float
    std: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class PlannedOperation:
    """An operation in Core ML's compute plan.

    Attributes:
        name: of its first result, as the package has it.
        op_type: its type.
        device: that Core ML prefers for it; empty where the plan does not say.
        supported: devices that could run it.
        share: part of the whole model's estimated cost, 0 to 1; ``None`` where it is not said.
        place: where it stands among the function's operations, counted from 0; ``None`` if unknown.
        rules: of the device lint that are about it.
    """

    name: str
    op_type: str
    device: str
    supported: tuple[str, ...]
    share: float | None
    place: int | None
    rules: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UnitBenchmark:
    """Times of one package with one choice of compute units.

    Attributes:
        units: that were allowed.
        first_load: ms of the first load in this process.
        next_load: ms of the load after it.
        prediction: spread over the predictions.
        process_memory: bytes, the most that this process has taken so far; ``None`` on a device.
        operations: the compute plan, in order of the function.
    """

    units: Units
    first_load: float
    next_load: float
    prediction: Spread
    process_memory: int | None
    operations: tuple[PlannedOperation, ...] = field(repr=False)

    @property
    def neural_engine_share(self) -> float | None:
        """Part of the estimated cost that the plan puts on the Neural Engine."""
        shares = [(one.device, one.share) for one in self.operations if one.share is not None]
        if not shares:
            return None
        return sum(share for device, share in shares if device == NEURAL_ENGINE)

    @property
    def off_neural_engine(self) -> tuple[PlannedOperation, ...]:
        """Operations that the plan puts elsewhere, the most costly first."""
        left = [one for one in self.operations if one.device not in ("", NEURAL_ENGINE)]
        return tuple(sorted(left, key=lambda one: -(one.share or 0.0)))


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Times of one package.

    Attributes:
        package: its path.
        function: of it.
        machine: that ran it, and versions.
        iterations: predictions that were timed for each choice of units.
        warmup: whether one prediction went first.
        units: by choice of compute units.
    """

    package: Path
    function: str
    machine: Machine
    iterations: int
    warmup: bool
    units: tuple[UnitBenchmark, ...]


def benchmark_packages(
    paths: Sequence[Path], options: BenchmarkOptions, tools: Any
) -> tuple[Benchmark, ...]:
    """Time packages one after another.

    Args:
        paths: of .mlpackage folders.
        options: how.
        tools: coremltools' classes, from :func:`~mvit_coreml.device.machine.load_tools`.

    Raises:
        InputError: no such device is connected.
        PackageError: a package cannot be read, or Core ML refuses it.
    """
    return asyncio.run(_all(paths, options, tools))


async def _all(
    paths: Sequence[Path], options: BenchmarkOptions, tools: Any
) -> tuple[Benchmark, ...]:
    device = None if options.device is None else await _prepared(options, tools)
    machine = local_machine() if device is None else remote_machine(device)
    return tuple([await _package(path, options, tools, device, machine) for path in paths])


async def _prepared(options: BenchmarkOptions, tools: Any) -> Any:
    """Find the connected device and start coremltools' app on it."""
    connected = [
        device
        for kind in (tools.DeviceType.IPHONE, tools.DeviceType.IPAD)
        for device in tools.Device.get_connected_devices(kind)
    ]
    name_asked = (options.device or "").lower()
    for device in connected:
        if name_asked in (device.name.lower(), device.type.value):
            credentials = tools.AppSigningCredentials(development_team=options.development_team)
            return await device.prepare_for_model_debugging(credentials=credentials)
    names = ", ".join(device.name for device in connected) or "none"
    raise InputError(f"--device {options.device}: is not connected; connected are: {names}")


async def _package(
    path: Path, options: BenchmarkOptions, tools: Any, device: Any, machine: Machine
) -> Benchmark:
    package = load_package(path)
    function = package.function(options.function)
    inputs = random_inputs(function)
    cost = function_cost(package, function)
    several = len(package.functions) > 1
    measured = []
    for units in options.units:
        model = tools.MLModel(
            str(package.path),
            skip_model_load=True,  # each timed load is one of its own
            compute_units=getattr(tools.ComputeUnit, UNITS[units]),
            function_name=function.name if several else None,
        )
        benchmarker = tools.MLModelBenchmarker(model=model, device=device)
        try:
            measured.append(await _unit(benchmarker, units, inputs, options, cost))
        except (RuntimeError, ValueError) as error:
            raise PackageError(f"{path}: Core ML with {units}: {first_line(error)}") from None
    return Benchmark(
        package=package.path,
        function=function.name,
        machine=machine,
        iterations=options.iterations,
        warmup=options.warmup,
        units=tuple(measured),
    )


async def _unit(
    benchmarker: Any,
    units: Units,
    inputs: Mapping[str, Any],
    options: BenchmarkOptions,
    cost: FunctionCost,
) -> UnitBenchmark:
    loads = await benchmarker.benchmark_load(iterations=_LOADS)
    predictions = await benchmarker.benchmark_predict(
        inputs=dict(inputs), iterations=options.iterations, warmup=options.warmup
    )
    planned = await benchmarker.benchmark_operation_execution(
        inputs=dict(inputs), iterations=1, warmup=False
    )
    return UnitBenchmark(
        units=units,
        first_load=loads.samples[0],
        next_load=loads.samples[-1],
        prediction=spread(predictions.samples),
        process_memory=peak_memory() if options.device is None else None,
        operations=_plan(planned, cost),
    )


def _plan(planned: Sequence[Any], cost: FunctionCost) -> tuple[PlannedOperation, ...]:
    """Read coremltools' compute plan; it times each operation as its share of one prediction."""
    places = {one.name: place for place, one in enumerate(cost.operations)}
    rules: dict[str, list[str]] = {}
    for one in cost.lint:
        for finding in one.findings:
            rules.setdefault(finding.operation, []).append(one.rule.name)
    times = [_time(info) for info in planned]
    total = sum(time for time in times if time is not None)
    operations = []
    for info, time in zip(planned, times, strict=True):
        if info.spec.type == "const":
            continue
        name = info.spec.outputs[0].name if info.spec.outputs else info.spec.type
        usage = info.compute_device_usage
        operations.append(
            PlannedOperation(
                name=name,
                op_type=info.spec.type,
                device="" if usage is None else _device(usage.preferred_compute_device),
                supported=()
                if usage is None
                else tuple(map(_device, usage.supported_compute_devices)),
                share=None if time is None or not total else time / total,
                place=places.get(name),
                rules=tuple(rules.get(name, ())),
            )
        )
    last = len(places)
    return tuple(sorted(operations, key=lambda one: last if one.place is None else one.place))


def _time(info: Any) -> float | None:
    measured = info.measurement.statistics
    return None if measured is None else float(measured.median)


def _device(device: Any) -> str:
    name = type(device).__name__
    return _DEVICES.get(name, name)


def spread(samples: Sequence[float]) -> Spread:
    """Summarise times.

    Args:
        samples: in ms, at least one.
    """
    return Spread(
        median=statistics.median(samples),
        p95=float(np.percentile(samples, 95)),
        minimum=min(samples),
        std=statistics.pstdev(samples),
        samples=len(samples),
    )


def random_inputs(function: Function) -> dict[str, Any]:
    """Return noise for every input, the same every time: images as Pillow's.

    coremltools 9.0's own random inputs refuse images.
    """
    rng = np.random.default_rng(0)
    return {feature.name: _noise(feature, rng) for feature in function.inputs}


def _noise(feature: ImageFeature | ArrayFeature, rng: np.random.Generator) -> Any:
    if isinstance(feature, ArrayFeature):
        if "int" in feature.data_type.lower():
            return np.zeros(feature.shape, np.int32)
        return rng.random(feature.shape, np.float32)
    from PIL import Image

    gray = feature.color_order == "grayscale"
    shape = feature.size if gray else (*feature.size, 3)
    return Image.fromarray(rng.integers(0, 256, shape, np.uint8))
