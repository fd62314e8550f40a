"""The HTML report: one file that needs nothing else, made from ``templates/report.html.j2``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mvit_coreml.reports import text_tables, wording
from mvit_coreml.reports.report import Report

# What browsers and XML alike refuse, whatever its escaping.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
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
    environment.globals |= {"tables": text_tables, "wording": wording}
    return environment
