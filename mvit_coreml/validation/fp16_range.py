"""Range of what a program's operations compute, and which of them leave that of fp16."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.program import Operation, Reference

# Magnitudes from here on round to infinity; below these they lose digits or become zero.
_OVERFLOW = 65520.0
_SMALLEST_NORMAL = 2.0**-14
_ROUNDS_TO_ZERO = 2.0**-25
FP16_MAX = 65504.0
# Other photos may reach further than the sample does.
_MARGIN = 4.0
_LARGEST = FP16_MAX / _MARGIN
# fp16 counts in steps of 2**-24 near zero; below this they are coarser than its 11 digits are for a
# typical value.
_SMALLEST_RMS = 2.0**-13
# Normalisations square the deviations from the mean, which processors may do in fp16.
_SQUARING = frozenset({"layer_norm", "instance_norm", "l2_norm", "reduce_l2_norm", "square"})
_LARGEST_SQUARED = _LARGEST**0.5


@dataclass(frozen=True)
class OpHeadroom:
    """What one operation computed, before any rounding to fp16.

    Attributes:
        op_type: type of the operation.
        name: its name.
        largest: largest finite magnitude.
        overflows: finite values that fp16 cannot hold.
        subnormal: non-zero values that fp16 holds with fewer digits.
        zeroed: non-zero values that fp16 rounds to zero.
        count: values seen.
        energy: sum of the squares of the finite values.
    """

    op_type: str
    name: str
    largest: float = 0.0
    overflows: int = 0
    subnormal: int = 0
    zeroed: int = 0
    count: int = 0
    energy: float = 0.0

    @property
    def rms(self) -> float:
        """Root of the mean square of the values."""
        return math.sqrt(self.energy / self.count) if self.count else 0.0

    @property
    def headroom(self) -> float:
        """How many times larger the values could be before they overflow."""
        return FP16_MAX / self.largest if self.largest else float("inf")


class HeadroomRecorder:
    """Collects the range of each operation that computes floats, over any number of runs.

    Runs may be in several threads. Operations that only move or select values are left out. What
    an operation would do to fp16 is counted whether the program declares fp16 or fp32 there.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, OpHeadroom] = {}
        self._lock = threading.Lock()

    def record(self, operation: Operation, value: Any) -> None:
        """Add the unrounded result of an operation; results that are no floats are ignored."""
        if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
            return
        magnitude = value.abs()
        finite = torch.where(magnitude.isfinite(), magnitude, 0.0)
        largest = float(finite.max())
        small = (magnitude > 0) & (magnitude < _SMALLEST_NORMAL)
        zeroed = int(((magnitude > 0) & (magnitude <= _ROUNDS_TO_ZERO)).sum())
        overflows = int((finite >= _OVERFLOW).sum())
        subnormal = int(small.sum()) - zeroed
        energy = float(finite.square().sum(dtype=torch.float64))
        with self._lock:
            before = self._by_name.get(
                operation.name, OpHeadroom(operation.op_type, operation.name)
            )
            self._by_name[operation.name] = OpHeadroom(
                operation.op_type,
                operation.name,
                max(before.largest, largest),
                before.overflows + overflows,
                before.subnormal + subnormal,
                before.zeroed + zeroed,
                before.count + value.numel(),
                before.energy + energy,
            )

    def ranked(self) -> list[OpHeadroom]:
        """Return all operations, the one nearest to overflow first."""
        return sorted(self._by_name.values(), key=lambda operation: -operation.largest)


@dataclass(frozen=True, kw_only=True)
class UnsafeOperation:
    """An operation that fp16 is not safe for.

    Attributes:
        name: of the operation.
        op_type: its type.
        reason: what was measured.
    """

    name: str
    op_type: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.op_type}: {self.reason})"


def unsafe_operations(target: PackageTarget, images: Sequence[Any]) -> list[UnsafeOperation]:
    """Measure on images which operations should not be computed in fp16.

    An operation is unsafe if what it gives, or what it takes, comes within a factor of 4 of fp16's
    largest number or is so small that fp16 loses digits, or if it squares values that are beyond
    the root of that.

    Args:
        target: a package, best one in fp32.
        images: paths, Pillow images or arrays.
    """
    recorder = HeadroomRecorder()
    for _ in target.answer(images, headroom=recorder):
        pass
    ranges = {found.name: found for found in recorder.ranked()}
    owners = {
        output.name: operation
        for operation in target.function.operations
        for output in operation.outputs
    }
    # The result of the last operation is handed out in fp32 whatever it is computed in.
    results = {owners[name].name for name in target.function.results if name in owners}
    unsafe = []
    for operation in target.function.operations:
        if operation.is_constant or operation.op_type == "classify":
            continue
        reason = None if operation.name in results else _value_reason(ranges.get(operation.name))
        for source in _sources(operation, owners):
            found = ranges.get(source.name)
            reason = reason or _value_reason(found) or _square_reason(operation, found)
        if reason is not None:
            unsafe.append(
                UnsafeOperation(name=operation.name, op_type=operation.op_type, reason=reason)
            )
    return unsafe


def _value_reason(found: OpHeadroom | None) -> str | None:
    if found is None or not found.energy:
        return None
    if found.largest > _LARGEST:
        return f"{found.name} reaches {found.largest:.4g}"
    if found.rms < _SMALLEST_RMS:
        return f"{found.name} is typically {found.rms:.2g}"
    return None


def _square_reason(operation: Operation, found: OpHeadroom | None) -> str | None:
    if operation.op_type not in _SQUARING or found is None or found.largest <= _LARGEST_SQUARED:
        return None
    return f"squares {found.name}, which reaches {found.largest:.4g}"


def _sources(operation: Operation, owners: dict[str, Operation]) -> list[Operation]:
    return [
        owners[argument.name]
        for arguments in operation.inputs.values()
        for argument in arguments
        if isinstance(argument, Reference) and argument.name in owners
    ]
