"""Precision of every operation of a package: the error it adds, and whether fp16 is safe for it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.evaluation.metrics import MAX_DB, ClosenessMeter
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.program import Function, Operation, Package

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


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Error of one operation's result against the same operation without any rounding.

    Attributes:
        operation: its name.
        op_type: its type.
        snr: in dB.
        drop: how much lower than the worst of what it is computed from, in dB.
    """

    operation: str
    op_type: str
    snr: float
    drop: float


def layer_errors(
    target: PackageTarget, expected: Package, images: Sequence[Any]
) -> list[LayerError]:
    """Return the error of every operation that both packages have, in order of execution.

    Args:
        target: the package, with its rounding and its palettes.
        expected: the same package without palettes; run without rounding.
        images: a few; more change the figures little.
    """
    exact = Runtime(expected, target.function.name, arithmetic="fp32")
    shared = set(exact.operations)
    steps = [
        step for step in target.function.steps if step.op_type != "classify" and step.name in shared
    ]
    meters = {step.name: ClosenessMeter() for step in steps}
    for image in images:
        pixels = target.preparation(image).pixels
        names = list(meters)
        actual = target.run_pixels(pixels, outputs=[], intermediates=names)
        truth = exact.run({target.image.name: pixels}, outputs=[], intermediates=names)
        for name, meter in meters.items():
            for value, reference in zip(_parts(actual[name]), _parts(truth[name]), strict=True):
                meter.add(value, reference)
    ratios = {name: meter.result().snr for name, meter in meters.items()}
    sources = _sources(target.function)
    errors = []
    for step in steps:
        of_inputs = [ratios[s.name] for s in sources[step.name] if s.name in ratios]
        drop = min(of_inputs, default=MAX_DB) - ratios[step.name]
        errors.append(
            LayerError(operation=step.name, op_type=step.op_type, snr=ratios[step.name], drop=drop)
        )
    return errors


def _parts(value: Any) -> list[Any]:
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


def _sources(function: Function) -> Mapping[str, list[Operation]]:
    """Return the operations that compute what each step takes, by the step's name."""
    owners = {output.name: step for step in function.steps for output in step.outputs}
    return {
        step.name: [owners[name] for name in step.value_names if name in owners]
        for step in function.steps
    }


@dataclass
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
            seen = self._by_name.setdefault(
                operation.name, OpHeadroom(operation.op_type, operation.name)
            )
            seen.largest = max(seen.largest, largest)
            seen.overflows += overflows
            seen.subnormal += subnormal
            seen.zeroed += zeroed
            seen.count += value.numel()
            seen.energy += energy

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
    ranges = {headroom.name: headroom for headroom in recorder.ranked()}
    producers, sources = target.function.producers, _sources(target.function)
    # The result of the last operation is handed out in fp32 whatever it is computed in.
    results = {producers[name].name for name in target.function.results if name in producers}
    unsafe = []
    for step in target.function.steps:
        if step.op_type == "classify":
            continue
        reason = None if step.name in results else _value_reason(ranges.get(step.name))
        for source in sources[step.name]:
            headroom = ranges.get(source.name)
            reason = reason or _value_reason(headroom) or _square_reason(step, headroom)
        if reason is not None:
            unsafe.append(UnsafeOperation(name=step.name, op_type=step.op_type, reason=reason))
    return unsafe


def _value_reason(headroom: OpHeadroom | None) -> str | None:
    if headroom is None or not headroom.energy:
        return None
    if headroom.largest > _LARGEST:
        return f"{headroom.name} reaches {headroom.largest:.4g}"
    if headroom.rms < _SMALLEST_RMS:
        return f"{headroom.name} is typically {headroom.rms:.2g}"
    return None


def _square_reason(operation: Operation, headroom: OpHeadroom | None) -> str | None:
    squares = operation.op_type in _SQUARING
    if not squares or headroom is None or headroom.largest <= _LARGEST_SQUARED:
        return None
    return f"squares {headroom.name}, which reaches {headroom.largest:.4g}"
