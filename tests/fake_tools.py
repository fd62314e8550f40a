"""Stand-ins for coremltools' classes that need a Mac; they answer with numbers known beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

# Loads, then predictions, in ms; the compute plan's estimated cost of each operation.
LOADS = [120.0, 8.0]
PREDICTIONS = [1.0, 2.0, 3.0, 4.0, 10.0]


class MLCPUComputeDevice:
    pass


class MLGPUComputeDevice:
    pass


class MLNeuralEngineComputeDevice:
    pass


CPU, GPU, NE = MLCPUComputeDevice(), MLGPUComputeDevice(), MLNeuralEngineComputeDevice()


class MLModel:
    def __init__(
        self,
        model: Any,
        is_temp_package: bool = False,
        mil_program: Any = None,
        skip_model_load: bool = False,
        compute_units: Any = None,
        weights_dir: Any = None,
        function_name: Any = None,
        optimization_hints: Any = None,
    ) -> None:
        assert skip_model_load, "the load is timed, and must not happen before"
        self.path, self.compute_unit, self.function_name = model, compute_units, function_name


@dataclass(frozen=True)
class AppSigningCredentials:
    development_team: str | None = ""
    provisioning_profile_uuid: str | None = None
    bundle_identifier: str | None = None


@dataclass(frozen=True)
class Device:
    name: str
    type: Any
    identifier: str
    udid: str
    os_version: str
    os_build_number: str
    developer_mode_state: str
    state: Any
    session: Any

    @staticmethod
    def get_connected_devices(device_type: Any) -> list[Any]:
        phone = Device("My Phone", device_type, "", "", "18.1", "22B83", "", None, None)
        return [phone] if device_type.value == "iphone" else []

    async def prepare_for_model_debugging(
        self, credentials: Any = None, working_directory: Any = None, clean: bool = False
    ) -> Any:
        return replace(self, session=credentials)


@dataclass
class Recorder:
    """The package's operations with where the plan puts them, and what was asked."""

    operations: list[tuple[str, str, Any, float | None]]
    asked: list[tuple[str, Any]] = field(default_factory=list)
    error: str = ""

    def tools(self) -> Any:
        """Return what stands in for coremltools."""
        recorder = self

        class MLModelBenchmarker:
            def __init__(self, model: Any, device: Any = None) -> None:
                self.model, self.device = model, device
                recorder.asked.append((model.compute_unit, (model.function_name, device)))

            async def benchmark_load(self, iterations: int = 1) -> Any:
                if recorder.error:
                    raise RuntimeError(recorder.error)
                return SimpleNamespace(samples=LOADS[:iterations])

            async def benchmark_predict(
                self, inputs: Any = None, iterations: int = 1, warmup: bool = False
            ) -> Any:
                recorder.asked.append(("predict", (inputs, iterations, warmup)))
                return SimpleNamespace(samples=PREDICTIONS)

            async def benchmark_operation_execution(
                self, inputs: Any = None, iterations: int = 1, warmup: bool = False
            ) -> Any:
                return [_info(*one) for one in recorder.operations]

        return SimpleNamespace(
            MLModel=MLModel,
            ComputeUnit=SimpleNamespace(
                ALL="all", CPU_AND_NE="ne", CPU_AND_GPU="gpu", CPU_ONLY="cpu"
            ),
            MLModelBenchmarker=MLModelBenchmarker,
            Device=Device,
            DeviceType=SimpleNamespace(
                IPHONE=SimpleNamespace(value="iphone"), IPAD=SimpleNamespace(value="ipad")
            ),
            AppSigningCredentials=AppSigningCredentials,
        )


def _info(name: str, op_type: str, device: Any, cost: float | None) -> Any:
    usage = None
    if device is not None:
        usage = SimpleNamespace(
            preferred_compute_device=device, supported_compute_devices=[CPU, device]
        )
    # coremltools gives each operation its share of one prediction's time.
    median = None if cost is None else SimpleNamespace(median=cost * 2.5)
    return SimpleNamespace(
        spec=SimpleNamespace(type=op_type, outputs=[SimpleNamespace(name=name)]),
        compute_device_usage=usage,
        measurement=SimpleNamespace(statistics=median),
    )
