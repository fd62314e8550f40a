"""The Markdown report, for a comment on a pull request: ``templates/report.md.j2``, no pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from markupsafe import Markup

from mvit_coreml.reports.html import template_environment
from mvit_coreml.reports.report import Report
from mvit_coreml.reports.text_tables import Facts, TextTable

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$@!])")


def as_markdown(report: Report) -> str:
    """Return a report as GitHub-flavoured Markdown; every text in it is escaped."""
    environment = template_environment(finalize=escape)
    environment.filters |= {"as_table": as_table, "as_list": as_list, "as_code": as_code}
    text = environment.get_template("report.md.j2").render(report=report)
    # What is not there leaves its blank lines behind.
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def escape(text: object) -> Markup:
    """Return text of one line that Markdown shows as it is, in a table's cell too."""
    if isinstance(text, Markup):
        return text
    line = " ".join(str(text).split())
    return Markup(_SPECIAL.sub(r"\\\1", html.escape(line, quote=False)))


def as_table(table: TextTable) -> Markup:
    """Return a table with columns of numbers to the right."""
    lines = [_row([escape(cell) for cell in row]) for row in (table.header, *table.rows)]
    rules = ["--:" if place in table.right else "---" for place in range(len(table.header))]
    lines.insert(1, _row(rules))
    return Markup("\n".join(lines) + (f"\n\n{escape(table.rest)}" if table.rest else ""))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_list(facts: Facts) -> Markup:
    """Return names with their values as a list."""
    return Markup("\n".join(f"- {escape(name)}: {escape(value)}" for name, value in facts))


def as_code(text: str) -> Markup:
    """Return indented code, which needs no fence that the text could close."""
    return Markup("\n".join(f"    {line}" for line in text.splitlines()))
