"""What changed from one performance report to another: what got slower, what moved device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mvit_coreml.device.xcode_report import ReportedOperation, XcodeReport


@dataclass(frozen=True, kw_only=True)
class OperationChange:
    """One operation in two reports.

    Attributes:
        name: as the newer report names it.
        op_type: of it.
        devices: (before, now).
        times: (before, now) in µs.
    """

    name: str
    op_type: str
    devices: tuple[str, str]
    times: tuple[float | None, float | None]

    @property
    def slower(self) -> float:
        """How many µs it takes more; 0 where either report does not say."""
        before, now = self.times
        return 0.0 if before is None or now is None else now - before


@dataclass(frozen=True, kw_only=True)
class ReportChanges:
    """What changed between two reports.

    Attributes:
        compared: number of operations that both have.
        slower: those that take longer, the largest difference first.
        faster: those that take less, likewise.
        moved: those on another device.
        added: names of those only the newer report has.
        removed: names of those only the older one has.
        total: (before, now), sum of all estimated times in µs.
    """

    compared: int
    slower: tuple[OperationChange, ...]
    faster: tuple[OperationChange, ...]
    moved: tuple[OperationChange, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    total: tuple[float, float]


def compare_reports(before: XcodeReport, now: XcodeReport) -> ReportChanges:
    """Compare two reports operation by operation.

    Operations are matched by name and type, the first of a name with the first.
    """
    older = _keyed(before.operations)
    newer = _keyed(now.operations)
    changes = [
        OperationChange(
            name=one.name or one.op_type,
            op_type=one.op_type,
            devices=(older[key].device, one.device),
            times=(older[key].time, one.time),
        )
        for key, one in newer.items()
        if key in older
    ]
    ordered = sorted(changes, key=lambda change: -change.slower)
    return ReportChanges(
        compared=len(changes),
        slower=tuple(change for change in ordered if change.slower > 0),
        faster=tuple(change for change in reversed(ordered) if change.slower < 0),
        moved=tuple(change for change in changes if all(change.devices) and _moved(change)),
        added=tuple(one.name or one.op_type for key, one in newer.items() if key not in older),
        removed=tuple(one.name or one.op_type for key, one in older.items() if key not in newer),
        total=(before.total_time, now.total_time),
    )


def _moved(change: OperationChange) -> bool:
    return change.devices[0] != change.devices[1]


def _keyed(
    operations: Sequence[ReportedOperation],
) -> dict[tuple[str, str, int], ReportedOperation]:
    """Number operations of equal name and type."""
    seen: dict[tuple[str, str], int] = {}
    keyed = {}
    for one in operations:
        key = (one.name, one.op_type)
        seen[key] = seen.get(key, 0) + 1
        keyed[*key, seen[key]] = one
    return keyed
