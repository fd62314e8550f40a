"""Which operations of a program leave the range in which fp16 is safe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.fp16_headroom import FP16_MAX, HeadroomRecorder, OpHeadroom
from mvit_coreml.mil.program import Operation, Reference

# Other photos may reach further than the sample does.
_MARGIN = 4.0
_LARGEST = FP16_MAX / _MARGIN
# fp16 counts in steps of 2**-24 near zero; below this they are coarser than its 11 digits are for a
# typical value.
_SMALLEST_RMS = 2.0**-13
# Normalisations square the deviations from the mean, which processors may do in fp16.
_SQUARING = frozenset({"layer_norm", "instance_norm", "l2_norm", "reduce_l2_norm", "square"})
_LARGEST_SQUARED = _LARGEST**0.5


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
