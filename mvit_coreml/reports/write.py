"""Writing a report in the format that its file name asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mvit_coreml.errors import InputError
from mvit_coreml.files import write_atomically
from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.html import as_html
from mvit_coreml.reports.json_report import as_document
from mvit_coreml.reports.markdown import as_markdown


def write_report(report: Report, path: str | Path) -> None:
    """Write a report: HTML, Markdown or JSON, as the file's name ends.

    The same report gives the same bytes. The file appears complete or not at all; one that is there
    is replaced.

    Args:
        report: from :func:`~mvit_coreml.reports.build_report.build_report`.
        path: a file that ends in ``.html``, ``.md`` or ``.json``, in an existing folder.

    Raises:
        InputError: another ending, or a file that cannot be written.
    """
    path = Path(path)
    check_report_path(path)
    content = _FORMATS[path.suffix.lower()](report).encode("utf-8", "backslashreplace")
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def check_report_path(path: str | Path) -> None:
    """Refuse a path that :func:`write_report` could not write, before any work is done.

    Raises:
        InputError: another ending, or a folder that does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise InputError(f"{path}: a report's name must end in {', '.join(_FORMATS)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file for the report")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")


def _as_json(report: Report) -> str:
    document = as_document(report)
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


_FORMATS: dict[str, Callable[[Report], str]] = {
    ".html": as_html,
    ".md": as_markdown,
    ".json": _as_json,
}
