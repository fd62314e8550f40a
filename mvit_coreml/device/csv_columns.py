"""Finding the columns of a performance report by name, and reading what stands in them.

No schema of what Xcode exports is public. Columns are therefore known by what their names mean,
in any order and case, with or without units; those that no name is known for are kept as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvit_coreml.errors import InputError

# What a column holds, to names that say so, without case, units and punctuation.
COLUMNS: dict[str, tuple[str, ...]] = {
    "name": ("name", "operation", "operation name", "layer", "layer name", "op", "output name"),
    "op_type": ("type", "operation type", "layer type", "op type", "operator", "operator name"),
    "device": (
        "compute unit",
        "compute device",
        "preferred compute device",
        "preferred device",
        "selected device",
        "unit",
    ),
    "time": ("time", "estimated time", "duration", "estimated duration", "execution time"),
    "cost": ("cost", "estimated cost", "relative cost", "weight"),
    "cpu": ("cpu",),
    "gpu": ("gpu",),
    "ane": ("ane", "neural engine", "apple neural engine"),
    "label": ("report", "run", "model", "configuration", "hardware", "device", "device name"),
    "prediction": ("prediction", "median prediction", "prediction time", "median prediction time"),
    "load": ("load", "median load", "load time", "median load time"),
    "compile": ("compile", "compilation", "median compile", "median compilation", "compile time"),
}
_KNOWN = {name: kind for kind, names in COLUMNS.items() for name in names}
# A header needs one of these, and one more.
_TELLING = ("time", "cost", "device", "prediction", "load", "compile", "cpu", "gpu", "ane")
_UNITS = {"ns": 1e-3, "µs": 1.0, "μs": 1.0, "us": 1.0, "ms": 1e3, "s": 1e6}  # in µs
_UNIT = re.compile(r"[(\[]?\s*(ns|µs|μs|us|ms|s)\s*[)\]]?$")
_EMPTY = ("", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a", "na", "nan", "none", "null")
_DELIMITERS = (",", ";", "\t")
_ENCODINGS = ("utf-8-sig", "utf-16")


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """The table of a report.

    Attributes:
        path: of the file.
        facts: what stands before the header, name to value.
        header: names of the columns as they are written.
        kinds: what each column holds, see :data:`COLUMNS`; "" of unknown ones.
        rows: line number in the file, and a cell for each column.
    """

    path: Path
    facts: dict[str, str]
    header: tuple[str, ...]
    kinds: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...] = field(repr=False)

    def cell(self, row: Sequence[str], kind: str) -> str:
        """Return a row's cell of a kind of column, "" where there is none."""
        return row[self.kinds.index(kind)].strip() if kind in self.kinds else ""

    def column(self, kind: str) -> str:
        """Return the name of a kind of column as it is written."""
        return self.header[self.kinds.index(kind)] if kind in self.kinds else ""

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the columns whose meaning is not known."""
        pairs = zip(self.header, self.kinds, strict=True)
        return tuple(name for name, kind in pairs if not kind)


def read_csv_table(path: Path) -> ReportTable:
    """Find the header and the rows of a report.

    Raises:
        InputError: the file cannot be read, or has no header that a report has.
    """
    text = _read(path)
    tables = [one for one in (_table(path, text, mark) for mark in _DELIMITERS) if one is not None]
    if not tables:
        first = " ".join(next(iter(text.splitlines()), "").split())[:80]
        raise InputError(
            f"{path}: no header of a performance report; it needs a column such as Operation, "
            f"Compute Unit, Time or Median Prediction, and begins with {first!r}"
        )
    return max(tables, key=lambda table: sum(map(bool, table.kinds)))


def _read(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a CSV file, or a compiled model (.mlmodelc)")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    for encoding in _ENCODINGS:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise InputError(f"{path}: is no text; export the report as CSV")


def _table(path: Path, text: str, delimiter: str) -> ReportTable | None:
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    facts: dict[str, str] = {}
    header: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    rows: list[tuple[int, tuple[str, ...]]] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header:
                if any(cell.strip() for cell in cells[len(header) :]):
                    raise InputError(
                        f"{path}: line {reader.line_num}: {len(cells)} cells under "
                        f"{len(header)} columns"
                    )
                missing = [""] * (len(header) - len(cells))
                rows.append((reader.line_num, (*cells[: len(header)], *missing)))
                continue
            kinds_here = _kinds(cells)
            if sum(map(bool, kinds_here)) > 1 and set(kinds_here) & set(_TELLING):
                header, kinds = tuple(cell.strip() for cell in cells), kinds_here
            elif len(cells) > 1:
                facts[cells[0].strip()] = " ".join(cell.strip() for cell in cells[1:]).strip()
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: {error}") from None
    if not header:
        return None
    return ReportTable(path=path, facts=facts, header=header, kinds=kinds, rows=tuple(rows))


def _kinds(cells: Sequence[str]) -> tuple[str, ...]:
    """Say what the columns of a header hold; the second of a kind is unknown."""
    kinds: list[str] = []
    for cell in cells:
        kind = _KNOWN.get(_plain(cell), "")
        kinds.append("" if kind in kinds else kind)
    # Beside operations a device is where one runs, elsewhere where the model was measured.
    if {"name", "op_type"} & set(kinds) and "device" not in kinds and "label" in kinds:
        place = kinds.index("label")
        if _plain(cells[place]) in ("device", "hardware"):
            kinds[place] = "device"
    return tuple(kinds)


def _plain(name: str) -> str:
    """Return a column's name without case, unit and punctuation."""
    lowered = name.strip().lower()
    unit = _UNIT.search(lowered)
    if unit is not None and unit.start() > 0 and not lowered[unit.start() - 1].isalnum():
        lowered = lowered[: unit.start()]
    return " ".join(re.sub(r"[^a-z]+", " ", lowered).split())


def microseconds(table: ReportTable, line: int, cell: str, kind: str, default: str) -> float | None:
    """Read a time.

    The unit stands behind the number, or in the column's name.

    Args:
        table: that the cell belongs to.
        line: of the file, for the message.
        cell: what stands there.
        kind: of its column.
        default: unit where none is said.

    Returns:
        Microseconds, ``None`` of an empty cell.

    Raises:
        InputError: it is no time.
    """
    text = cell.strip().lower()
    if is_empty(text):
        return None
    own = _UNIT.search(text)
    named = _UNIT.search(table.column(kind).strip().lower())
    unit = own or named
    bare = text[: own.start()].strip() if own is not None else text
    return number(table, line, bare, kind) * _UNITS[default if unit is None else unit[1]]


def states_unit(table: ReportTable, kind: str) -> bool:
    """Whether a column's name or a cell of it says in which unit its times are."""
    cells = [table.cell(row, kind) for _, row in table.rows]
    texts = [table.column(kind), *cells]
    return any(_UNIT.search(text.strip().lower()) for text in texts if text)


def is_empty(cell: str) -> bool:
    """Whether a cell says nothing."""
    return cell.strip().lower() in _EMPTY


def number(table: ReportTable, line: int, cell: str, kind: str) -> float:
    """Read a number with a decimal point or comma, and separators of thousands.

    Raises:
        InputError: it is none.
    """
    text = re.sub(r"[\s\u00a0\u202f'%]", "", cell)
    decimal = max(text.rfind("."), text.rfind(","))
    if "," in text and "." in text:
        text = re.sub(r"[.,]", "", text[:decimal]) + "." + text[decimal + 1 :]
    elif re.fullmatch(r"-?\d{1,3}(,\d{3})+", text):
        text = text.replace(",", "")
    else:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        place = f"{table.path}: line {line}: {cell!r} in the column {table.column(kind)!r}"
        raise InputError(f"{place} is no number of 0 or more")
    return value
