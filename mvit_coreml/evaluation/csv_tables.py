"""Reading lists of files from CSV, whatever their columns are called."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvit_coreml.errors import InputError

IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A CSV file.

    Attributes:
        path: the file.
        columns: their names; ``1``, ``2``, … where the file has no header.
        rows: line number and cells of every row that is not empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.columns:
            raise InputError(
                f"{self.path}: has no column {name!r}; it has: {', '.join(self.columns)}"
            )
        position = self.columns.index(name)
        return [cells[position] for _, cells in self.rows]

    def find(self, names: Sequence[str]) -> str | None:
        """Return the first column of one of these names, whatever their case."""
        by_name = {column.lower(): column for column in reversed(self.columns)}
        return next((by_name[name] for name in names if name in by_name), None)

    def file_columns(self) -> list[str]:
        """Columns whose first cell is an image's name."""
        first = self.rows[0][1]
        return [
            column for column, cell in zip(self.columns, first, strict=True) if is_image_name(cell)
        ]

    def files(self, column: str) -> list[Path]:
        """Return the files that a column names, relative to the table's folder.

        Raises:
            InputError: one is missing, named with its line.
        """
        paths = []
        for (line, _), cell in zip(self.rows, self.column(column), strict=True):
            path = self.path.parent / cell
            if not path.is_file():
                raise InputError(f"{self.path}, line {line}: there is no file {path}")
            paths.append(path)
        return paths


def is_image_name(name: str) -> bool:
    """Whether a file name ends as an image's does."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def read_table(path: Path) -> Table:
    """Read a CSV file; commas, semicolons or tabs part its columns, and a header is optional.

    Raises:
        InputError: unreadable, empty, or rows of unequal length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        header = text.split("\n", 1)[0]
        delimiter = next((mark for mark in "\t,;" if mark in header), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [
            (reader.line_num, tuple(cell.strip() for cell in cells))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "is no CSV in UTF-8"
        raise InputError(f"{path}: {reason}") from None
    if not rows:
        raise InputError(f"{path}: is empty; it must list an image and its label on every line")
    if any(is_image_name(cell) for cell in rows[0][1]):
        columns = tuple(str(number + 1) for number in range(len(rows[0][1])))
    else:
        columns, rows = rows[0][1], rows[1:]
    if not rows:
        raise InputError(f"{path}: lists no images below its header")
    for line, cells in rows:
        if len(cells) != len(columns):
            raise InputError(
                f"{path}, line {line}: has {len(cells)} columns where there are {len(columns)}; "
                "put quotes around names with a comma"
            )
    return Table(path=path, columns=columns, rows=tuple(rows))
