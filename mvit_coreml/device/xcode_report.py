"""The CSV that Xcode's performance report of a Core ML model exports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mvit_coreml.device.csv_columns import (
    ReportTable,
    is_empty,
    microseconds,
    number,
    read_csv_table,
    states_unit,
)
from mvit_coreml.errors import InputError

NEURAL_ENGINE = "Neural Engine"
_DEVICES = {
    "cpu": "CPU",
    "gpu": "GPU",
    "ane": NEURAL_ENGINE,
    "neural engine": NEURAL_ENGINE,
    "neuralengine": NEURAL_ENGINE,
    "apple neural engine": NEURAL_ENGINE,
}
# Marks in the columns CPU, GPU and Neural Engine: it runs there, and it could.
_CHOSEN = ("selected", "preferred", "chosen", "yes*", "✓*", "●")
_POSSIBLE = ("yes", "true", "1", "x", "✓", "✔", "supported", "○")


@dataclass(frozen=True, kw_only=True)
class ReportedOperation:
    """One operation of a performance report.

    Attributes:
        name: as the report names it, empty where it does not.
        op_type: likewise.
        device: ``CPU``, ``GPU`` or ``Neural Engine``, or the report's own word; empty where it is
            not said.
        time: estimated, in µs; ``None`` where it is not said.
        cost: the report's estimated cost, in its own unit.
        others: columns whose meaning is not known.
    """

    name: str
    op_type: str
    device: str
    time: float | None
    cost: float | None
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReportedTimes:
    """Times of a whole model.

    Attributes:
        label: of the row, such as a device.
        prediction: in ms, ``None`` where it is not said.
        load: likewise.
        compilation: likewise.
    """

    label: str
    prediction: float | None
    load: float | None
    compilation: float | None


@dataclass(frozen=True, kw_only=True)
class XcodeReport:
    """A performance report.

    Attributes:
        path: of the file.
        facts: what stands before its table, name to value.
        operations: in the report's order.
        times: of the whole model.
        notes: what was taken for granted, and the columns whose meaning is not known.
    """

    path: Path
    facts: Mapping[str, str]
    operations: tuple[ReportedOperation, ...] = field(repr=False)
    times: tuple[ReportedTimes, ...]
    notes: tuple[str, ...]

    @property
    def total_time(self) -> float:
        """Sum of the operations' estimated times in µs."""
        return sum(one.time or 0.0 for one in self.operations)


def read_xcode_report(path: str | Path) -> XcodeReport:
    """Read what Xcode exported.

    No schema is public: columns are found by name, in any order and case, and may be absent.

    Args:
        path: a CSV file.

    Raises:
        InputError: it cannot be read, is no such report, or a time in it is no number.
    """
    table = read_csv_table(Path(path))
    operations = tuple(_operation(table, line, row) for line, row in table.rows if _is_one(table))
    times = tuple(_times(table))
    if not operations and not times:
        raise InputError(f"{path}: has a header and no rows; export the report again")
    return XcodeReport(
        path=Path(path),
        facts=table.facts,
        operations=operations,
        times=times,
        notes=tuple(_notes(table)),
    )


def _is_one(table: ReportTable) -> bool:
    """Whether a row is about an operation."""
    return bool({"name", "op_type"} & set(table.kinds))


def _operation(table: ReportTable, line: int, row: tuple[str, ...]) -> ReportedOperation:
    cost = table.cell(row, "cost")
    pairs = zip(table.header, table.kinds, row, strict=True)
    return ReportedOperation(
        name=table.cell(row, "name"),
        op_type=table.cell(row, "op_type"),
        device=_device(table, row),
        time=microseconds(table, line, table.cell(row, "time"), "time", "µs"),
        cost=None if is_empty(cost) else number(table, line, cost, "cost"),
        others={name: cell.strip() for name, kind, cell in pairs if not kind and cell.strip()},
    )


def _device(table: ReportTable, row: tuple[str, ...]) -> str:
    written = table.cell(row, "device")
    if written:
        return _DEVICES.get(written.lower(), written)
    marks = {kind: table.cell(row, kind).lower() for kind in ("cpu", "gpu", "ane")}
    chosen = [kind for kind, mark in marks.items() if mark in _CHOSEN]
    possible = [kind for kind, mark in marks.items() if mark in _POSSIBLE]
    one = chosen or possible
    return _DEVICES[one[0]] if len(one) == 1 else ""


def _times(table: ReportTable) -> Iterator[ReportedTimes]:
    kinds = ("prediction", "load", "compile")
    if _is_one(table) or not set(kinds) & set(table.kinds):
        return
    for line, row in table.rows:
        prediction, load, compilation = (
            microseconds(table, line, table.cell(row, kind), kind, "ms") for kind in kinds
        )
        yield ReportedTimes(
            label=table.cell(row, "label") or f"line {line}",
            prediction=_ms(prediction),
            load=_ms(load),
            compilation=_ms(compilation),
        )


def _ms(time: float | None) -> float | None:
    return None if time is None else time / 1e3


def _notes(table: ReportTable) -> Iterator[str]:
    for kind, unit in (("time", "µs"), ("prediction", "ms"), ("load", "ms"), ("compile", "ms")):
        if kind in table.kinds and not states_unit(table, kind):
            yield f"the column {table.column(kind)!r} says no unit: taken as {unit}"
    if table.unknown:
        yield f"columns of unknown meaning, kept as they are: {', '.join(table.unknown)}"
