"""A roofline by chip class: which operations wait for memory, and what part of a peak is in reach.

An estimate from announced figures. No latency follows from it, and nothing was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvit_coreml.inspection.operation_cost import OperationCost

# What the roofline takes for granted, in the order of what it matters.
ASSUMPTIONS = (
    "operations a second as Apple announced them for the Neural Engine, two a MAC; from A17 Pro "
    "and M4 on they are of 8-bit integers, and half of them is taken for fp16",
    "bandwidth of the whole chip: Apple's figure for M chips; for A chips, of which Apple gives "
    "none, the memory's width times its rate as reported",
    "low end: every operation reads its inputs and weights from memory and writes its result back; "
    "high end: only weights, inputs and outputs of the model move, all else stays on the chip",
    "weights are read as they are stored, values are packed without padding, and no operation is "
    "fused, split or run elsewhere",
)


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A class of chips.

    Attributes:
        name: of the chip.
        teraops: trillions of fp16 operations a second of its Neural Engine.
        bandwidth: GB/s of its memory.
    """

    name: str
    teraops: float
    bandwidth: float

    @property
    def ridge(self) -> float:
        """Operations for each byte from which on computing, not memory, is the limit."""
        return self.teraops * 1e3 / self.bandwidth


CHIPS = (
    Chip(name="A14", teraops=11, bandwidth=34.1),
    Chip(name="A15", teraops=15.8, bandwidth=34.1),
    Chip(name="A16", teraops=17, bandwidth=51.2),
    Chip(name="A17 Pro", teraops=17.5, bandwidth=51.2),
    Chip(name="M1", teraops=11, bandwidth=68),
    Chip(name="M2", teraops=15.8, bandwidth=100),
    Chip(name="M4", teraops=19, bandwidth=120),
)


@dataclass(frozen=True, kw_only=True)
class Roof:
    """Where a function stands under the roof of one chip.

    Attributes:
        chip: its name.
        teraops: see :class:`Chip`.
        bandwidth: GB/s.
        ridge: operations a byte.
        peak_share: (low, high) part of the peak that memory lets through, 0 to 1.
        memory_bound_macs: part of the MACs in operations below the ridge, each taken by itself.
    """

    chip: str
    teraops: float
    bandwidth: float
    ridge: float
    peak_share: tuple[float, float]
    memory_bound_macs: float


def roofline(operations: Sequence[OperationCost], intensity: tuple[float, float]) -> list[Roof]:
    """Place a function under the roof of every chip class.

    Args:
        operations: of the function.
        intensity: (low, high) operations a byte of the whole function.
    """
    total = sum(one.macs for one in operations) or 1
    return [
        Roof(
            chip=chip.name,
            teraops=chip.teraops,
            bandwidth=chip.bandwidth,
            ridge=chip.ridge,
            peak_share=(min(1.0, intensity[0] / chip.ridge), min(1.0, intensity[1] / chip.ridge)),
            memory_bound_macs=sum(o.macs for o in operations if o.intensity < chip.ridge) / total,
        )
        for chip in CHIPS
    ]
