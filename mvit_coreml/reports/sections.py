"""Reports that are a title and sections of facts and tables: as text, HTML, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvit_coreml.files import json_text, write_file
from mvit_coreml.reports.html_and_markdown import (
    as_list,
    as_table,
    breakable,
    escape,
    template_environment,
)
from mvit_coreml.reports.text_tables import Facts, TextTable
from mvit_coreml.reports.write_report import check_report_path

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of a report.

    Attributes:
        heading: of it.
        facts: names with their values.
        table: more of them, or ``None``.
        lines: sentences that come last.
    """

    heading: str
    facts: Sequence[tuple[str, str]] = ()
    table: TextTable | None = None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SectionReport:
    """A report of sections.

    Attributes:
        title: what it is about.
        subject: what kind of numbers these are, in one line.
        sections: in order.
        document: the same for programs.
    """

    title: str
    subject: str
    sections: tuple[Section, ...]
    document: Mapping[str, Any]

    def text_lines(self) -> Iterator[str]:
        """Yield the report as lines of text for a terminal."""
        yield self.title
        yield f"  {self.subject}"
        for section in self.sections:
            yield ""
            yield section.heading
            yield from _facts_as_text(list(section.facts))
            if section.table is not None:
                yield from _table_as_text(section.table)
            yield from (f"  {line}" for line in section.lines)


def write_sections(report: SectionReport, path: Path) -> None:
    """Write a report whole or not at all; the same report gives the same bytes.

    Args:
        report: the report.
        path: a file that ends in ``.html``, ``.md`` or ``.json``, in an existing folder.

    Raises:
        InputError: another ending, or a file that cannot be written.
    """
    check_report_path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        # By this a later report knows that it may replace the file.
        content = json_text({"report_version": _VERSION, **report.document})
    else:
        content = sections_as_html(report) if suffix == ".html" else sections_as_markdown(report)
    write_file(path, content.encode("utf-8", "backslashreplace"))


def sections_as_html(report: SectionReport) -> str:
    """Return a report as a page that needs nothing else; every text is escaped."""
    environment = template_environment(autoescape=True)
    environment.filters["breakable"] = breakable
    return environment.get_template("sections.html.j2").render(report=report)


def sections_as_markdown(report: SectionReport) -> str:
    """Return a report as GitHub-flavoured Markdown; every text is escaped."""
    parts = [f"# {escape(report.title)}", escape(report.subject)]
    for section in report.sections:
        parts.append(f"## {escape(section.heading)}")
        if section.facts:
            parts.append(as_list(list(section.facts)))
        if section.table is not None:
            parts.append(as_table(section.table))
        parts += [f"- {escape(line)}" for line in section.lines]
    return "\n\n".join([*parts, "<!-- mvit-coreml report -->"]) + "\n"


def _facts_as_text(facts: Facts) -> Iterator[str]:
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        yield f"  {name.ljust(width)}  {value}".rstrip()


def _table_as_text(table: TextTable) -> Iterator[str]:
    rows = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if place in table.right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()
    if table.rest:
        yield f"  {table.rest}"
