"""Writing a report in the format that its file name asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mvit_coreml.errors import InputError
from mvit_coreml.files import write_file

if TYPE_CHECKING:
    from mvit_coreml.reports.report import Report

_SUFFIXES = (".html", ".md", ".json")


def write_report(report: Report, path: str | Path) -> None:
    """Write a report: HTML, Markdown or JSON, as the file's name ends.

    The same report gives the same bytes. The file appears complete or not at all; one that is there
    is replaced.

    Args:
        report: from :func:`~mvit_coreml.reports.report.build_report`.
        path: a file that ends in ``.html``, ``.md`` or ``.json``, in an existing folder.

    Raises:
        InputError: another ending, or a file that cannot be written.
    """
    path = Path(path)
    check_report_path(path)
    content = _content(report, path.suffix.lower())
    write_file(path, content.encode("utf-8", "backslashreplace"))


def check_report_path(path: str | Path) -> None:
    """Refuse a path that :func:`write_report` could not write, before any work is done.

    Raises:
        InputError: another ending, a folder that does not exist, or a file that is no report.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path}: a report's name must end in {', '.join(_SUFFIXES)}")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file for the report")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if any(parent.suffix == ".mlpackage" for parent in path.absolute().parents):
        raise InputError(f"{path}: lies inside a package; choose another place for the report")
    if path.is_file() and not _is_report(path):
        raise InputError(f"{path}: exists and is no report; it is not replaced")


def _is_report(path: Path) -> bool:
    """Whether a file is one that :func:`write_report` wrote, or is empty."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    marker = b'"report_version"' if path.suffix.lower() == ".json" else b"mvit-coreml report"
    return not content or marker in content


def _content(report: Report, suffix: str) -> str:
    # Each format loads what the others do without.
    if suffix == ".html":
        from mvit_coreml.reports.html_and_markdown import as_html

        return as_html(report)
    if suffix == ".md":
        from mvit_coreml.reports.html_and_markdown import as_markdown

        return as_markdown(report)
    from mvit_coreml.reports.json_report import as_json

    return as_json(report)
