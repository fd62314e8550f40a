"""Which machine measures, and coremltools' tools that only a Mac has."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from mvit_coreml.errors import InputError

_LIBRARIES = ("mvit-coreml", "coremltools", "numpy", "torch")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What ran a benchmark.

    Attributes:
        name: model of the machine or device.
        chip: as the system names it; empty where it does not.
        system: its operating system, with the version.
        versions: of Python and the libraries, on the Mac that asked.
    """

    name: str
    chip: str
    system: str
    versions: Mapping[str, str]

    def __str__(self) -> str:
        """Return all of it in one line."""
        chip = f", {self.chip}" if self.chip else ""
        versions = ", ".join(f"{name} {one}" for name, one in self.versions.items())
        return f"{self.name}{chip}, {self.system}; {versions}"


def require_mac() -> None:
    """Refuse to measure where there is no Core ML.

    Raises:
        InputError: this is no Mac.
    """
    if sys.platform != "darwin":
        raise InputError(
            f"benchmark needs Core ML, on a Mac or an iPhone connected to one, and this is "
            f"{platform.system()}; what works here: cost estimates, predict and evaluate run the "
            "package"
        )


def load_tools() -> SimpleNamespace:
    """Return the classes of coremltools that benchmarks use.

    Raises:
        InputError: this coremltools has none.
    """
    from mvit_coreml.export.coremltools_import import load_coremltools, quiet

    with quiet():
        ct = load_coremltools()
        try:
            from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker
            from coremltools.models.ml_program.experimental.remote_device import (
                AppSigningCredentials,
                Device,
                DeviceType,
            )
        except ImportError:
            raise InputError(
                f"coremltools {version('coremltools')} has no benchmarker; install 9.0 or newer"
            ) from None
    return SimpleNamespace(
        MLModel=ct.models.MLModel,
        ComputeUnit=ct.ComputeUnit,
        MLModelBenchmarker=MLModelBenchmarker,
        Device=Device,
        DeviceType=DeviceType,
        AppSigningCredentials=AppSigningCredentials,
    )


def local_machine() -> Machine:
    """Describe the machine that this runs on."""
    mac = platform.mac_ver()[0]
    system = f"macOS {mac}" if mac else f"{platform.system()} {platform.release()}"
    return Machine(
        name=_sysctl("hw.model") or platform.machine(),
        chip=_sysctl("machdep.cpu.brand_string"),
        system=system,
        versions=_versions(),
    )


def remote_machine(device: Any) -> Machine:
    """Describe a connected device, from coremltools' ``Device``."""
    return Machine(
        name=f"{device.name} ({device.type.value})",
        chip="",
        system=f"{device.os_version} ({device.os_build_number})",
        versions=_versions(),
    )


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def _sysctl(name: str) -> str:
    """Ask macOS for a fact; empty where it does not know it."""
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def peak_memory() -> int | None:
    """Return the most bytes that this process has taken, ``None`` where that is not known."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, Linux kilobytes.
    return most if sys.platform == "darwin" else most * 1024
