"""``--report``: what a command found, as a file for people or programs to read."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mvit_coreml.cli.destinations import NAME
from mvit_coreml.errors import InputError

ARGUMENTS = "mvit_coreml.cli.arguments"

# Options whose values are nobody else's business.
_SECRETS = ("--token",)
_HIDDEN = "..."

report_option = click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a report: FILE ends in .html, .md or .json. One that is there is replaced.",
)


def check_report(path: Path | None) -> None:
    """Refuse a report that could not be written, before any work is done.

    Raises:
        InputError: another ending, or a folder that does not exist.
    """
    if path is not None:
        from mvit_coreml.reports.write_report import check_report_path

        check_report_path(path)


def report_paths(pattern: str, names: Sequence[str]) -> dict[str, Path]:
    """Return the report of each of several things, and make the folders for them.

    Args:
        pattern: a file name with ``{name}`` in it, or for one thing any.
        names: of the things.

    Raises:
        InputError: one file for several things, or a report that could not be written.
    """
    if NAME not in pattern and len(names) > 1:
        raise InputError(
            f"--report {pattern}: is one file for {len(names)} packages; put {NAME} into its name, "
            f"such as reports/{NAME}.html"
        )
    paths = {name: Path(pattern.replace(NAME, name)) for name in names}
    for path in paths.values():
        with contextlib.suppress(OSError):  # what is wrong is said by the check
            path.parent.mkdir(parents=True, exist_ok=True)
        check_report(path)
    return paths


def samples(path: Path | None) -> int:
    """Return the number of images that a report shows: none without a report."""
    if path is None:
        return 0
    from mvit_coreml.validation.report_samples import REPORT_SAMPLES

    return REPORT_SAMPLES


def save_report(path: Path | None, **parts: Any) -> None:
    """Write a report, if one is wanted.

    Args:
        path: the file, ``None`` for no report.
        parts: what it is about, see :func:`~mvit_coreml.reports.report.build_report`.

    Raises:
        InputError: it cannot be written.
    """
    if path is not None:
        from mvit_coreml.reports.report import build_report
        from mvit_coreml.reports.write_report import write_report

        write_report(build_report(command=typed_command(), **parts), path)


def typed_command() -> str:
    """Return the command under way as one could type it, without its secrets."""
    arguments = click.get_current_context().meta.get(ARGUMENTS, ())
    return shlex.join(["mvit-coreml", *_without_secrets(arguments)])


def _without_secrets(arguments: Sequence[str]) -> list[str]:
    shown: list[str] = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if shown and shown[-1] in _SECRETS:
            shown.append(_HIDDEN)
        elif equals and name in _SECRETS:
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(argument)
    return shown
