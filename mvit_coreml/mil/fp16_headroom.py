"""How close the operations of a program come to the limits of fp16."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mvit_coreml.mil.program import Operation

# Magnitudes from here on round to infinity; below these they lose digits or become zero.
_OVERFLOW = 65520.0
_SMALLEST_NORMAL = 2.0**-14
_ROUNDS_TO_ZERO = 2.0**-25
FP16_MAX = 65504.0


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
