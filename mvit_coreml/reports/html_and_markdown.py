"""Reports as HTML, one file that needs nothing else, and as Markdown, for a pull request's comment.

They are made from ``templates/report.html.j2`` and ``templates/report.md.j2``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mvit_coreml.reports import cost_tables, text_tables, wording
from mvit_coreml.reports.report import Report
from mvit_coreml.reports.text_tables import Facts, TextTable

# What browsers and XML alike refuse, whatever its escaping.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# What Markdown takes for its own.
_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$@!])")
# Where a long name may break: after its separators rather than anywhere.
_SEAMS = re.compile(r"(?<=\w\w[_/])(?=\w)|(?<=\w\w\w)(?=\.[a-z])")


def as_html(report: Report) -> str:
    """Return a report as a page: the verdict first, what it rests on below.

    Every text that a template shows is escaped, in elements and in attributes.
    """
    from mvit_coreml.reports import pictures

    environment = template_environment(autoescape=True)
    environment.filters["breakable"] = breakable
    template = environment.get_template("report.html.j2")
    page = template.render(report=report, pictures=pictures)
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", page)


def breakable(name: str) -> Markup:
    """Return escaped text whose long names may break after their separators."""
    return Markup("<wbr>").join(piece for piece in _SEAMS.split(name) if piece)


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


def template_environment(**options: Any) -> Environment:
    """Return what renders the templates of a report, which may use all tables and words.

    Args:
        options: further ones of :class:`jinja2.Environment`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    environment.globals |= {"tables": text_tables, "costs": cost_tables, "wording": wording}
    return environment
