"""What commands print: results as text and JSON on stdout, progress on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import click

from mvit_coreml.files import json_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mvit_coreml.validation.pytorch_comparison import ParityReport
    from mvit_coreml.workflows.compress_package import CompressedPackage
    from mvit_coreml.workflows.convert import ConvertedPackage
    from mvit_coreml.workflows.package_options import PaletteOptions


def echo_json(document: Any) -> None:
    """Print one JSON document; numbers that JSON does not have become null."""
    click.echo(json_text(document, whole_paths=True), nl=False)


def table(rows: Sequence[Sequence[str]], indent: int = 0, right: Sequence[int] = ()) -> str:
    """Lay rows out in columns of equal width.

    Args:
        rows: equally long rows of cells.
        indent: spaces before every row.
        right: columns, counted from 0, to align at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def shorten(text: str, length: int) -> str:
    """Return a text, its end cut off where it is longer than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def shape_in_words(shape: Sequence[int]) -> str:
    """Return a shape such as ``1x3x256x256``."""
    return "x".join(map(str, shape))


def compression_in_words(options: PaletteOptions) -> str:
    """Say in a summary how the weights were compressed."""
    if options.quantize is not None:
        kept = " but for what costs most" if options.quantize == "auto" else ""
        return f"8-bit weights and activations{kept}"
    if options.bits == "auto":
        return "palettes of mixed bits"
    if options.plan is not None:
        return "compressed by a plan"
    if options.bits is not None:
        return f"{options.bits}-bit palettes"
    return "weights not palettized"


def outcome_rows(
    package: ConvertedPackage | CompressedPackage, original: str = "the checkpoint"
) -> Iterator[tuple[str, str]]:
    """Yield the end of a summary: how a fresh package compared, and what to know about it.

    Args:
        package: the package.
        original: what to call what it was made from.
    """
    parity = package.parity
    if parity is None:
        yield "checked", f"no: it was not compared with {original}"
    else:
        yield "sound", sound_words(parity, original)
        yield "keeps", faithful_words(parity, original)
    for note in (*package.notes, *(parity.notes if parity else ())):
        yield "note", note


def sound_words(report: ParityReport, original: str = "the checkpoint") -> str:
    """Say whether a package computes what is stored in it.

    Args:
        report: how it compared.
        original: what to call what it was compared with.
    """
    from mvit_coreml.validation.gates import SOUND

    failed = [str(gate) for gate in report.gates if gate.name in SOUND and not gate.passed]
    if failed:
        return f"NO: {', '.join(failed)}"
    decoded = [gate.value for gate in report.gates if gate.name == "decoded_weights"]
    if not decoded and original == "the original":
        return "its parts are the original's; name the checkpoint (--against) to check its numbers"
    if not decoded and original != "the checkpoint":
        # A package of another tool, or beside another package.
        if report.differences is None:
            return "nothing speaks against it; diff compares the two part by part"
        return f"its parts are those of {original}"
    if not decoded:
        return "not fully checked: its weights could not be put back into PyTorch"
    return f"yes: PyTorch with its weights answers the same ({decoded[0]:.1f} dB)"


def faithful_words(report: ParityReport, original: str = "the checkpoint") -> str:
    """Say how much of the original's answers a package keeps, and whether that is enough."""
    if report.answers_alike:
        alike = f"answers like {original}"
        return f"{report.kept()}{report.assured()}: {alike} (promised: {report.promise})"
    if report.faithful == "broken":
        return f"{report.kept()}: LESS than promised ({report.promise})"
    if report.faithful == "undecided" and report.estimate is not None:
        from mvit_coreml.evaluation.agreement import images_needed

        needed = images_needed(report.estimate, report.promise.min_agreement or 0.0)
        more = "" if needed is None else f"; about {needed} would"
        return f"{report.kept()}: too few to tell whether it keeps {report.promise}{more}"
    return f"{report.kept()}"


def package_as_json(package: ConvertedPackage | CompressedPackage) -> dict[str, Any]:
    """Return a fresh package, and how it compared, for ``--json``."""
    parity = None if package.parity is None else parity_as_json(package.parity)
    return vars(package) | {"parity": parity}


def parity_as_json(report: ParityReport) -> dict[str, Any]:
    """Return how a package compared for ``--json``, without the images of a report."""
    document = {
        "passed": report.passed,
        "sound": report.sound,
        "faithful": report.faithful,
        "keeps": report.kept(),
        **vars(report),
    }
    del document["recording"]
    return document


_STAGES = {
    "import": "importing PyTorch and Core ML Tools",
    "load": "loading the checkpoint",
    "trace": "tracing the model",
    "convert": "converting to an ML Program",
    "prepare": "converting it without palettes, and preparing images",
    "measure": "measuring the range of every operation",
    "tune": "fitting palettes to images",
    "palettize": "palettizing the weights",
    "calibrate": "calibrating 8-bit weights and activations",
    "quantize": "quantizing weights and activations",
    "write": "writing the package",
    "validate": "validating it against the checkpoint",
    "compare": "comparing it with the original",
    "evaluate": "evaluating it in both colour orders",
    "report": "writing the report",
}


class ProgressLines:
    """Prints a line for every stage with the time it took; on a terminal also how it gets on.

    Args:
        silent: print nothing.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.stage = ""
        self.started: float | None = None
        self.live: tuple[Progress, TaskID] | None = None
        self.counted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end_stage(failed=error is not None)
        self.clear()

    def __call__(self, stage: str, detail: str = "", /) -> None:
        """Begin a stage (a name, or words of its own), or say how the one under way gets on."""
        words = _STAGES.get(stage, stage)
        if words != self.stage or not detail:
            self._end_stage()
            self.stage, self.started = words, time.perf_counter()
            if not self._on_terminal():
                self._print(f"{words} … ", newline=False)
        self.show(f"{words} … {detail}")

    def show(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show on a terminal, in place of what was shown before, what is under way.

        Args:
            text: what it is.
            done: how much of it, if that is known.
            total: of how much.
        """
        if not self._on_terminal():
            return
        if self.counted is not (total is not None):
            self.clear()
        if self.live is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self.counted = total is not None
            bar = (BarColumn(bar_width=20), TimeRemainingColumn()) if self.counted else ()
            # Redirecting stdout would mix up results and progress.
            shown = Progress(
                TextColumn("{task.description}", markup=False),
                *bar,
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self.live = shown, shown.add_task(text)
            shown.start()
        shown, task = self.live
        shown.update(task, description=text, completed=done, total=total, refresh=True)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        self._print(text, newline=True)

    def clear(self) -> None:
        """Take away what :meth:`show` shows."""
        if self.live is not None:
            self.live[0].stop()
        self.live = None

    def _on_terminal(self) -> bool:
        return not self.silent and sys.stderr.isatty()

    def _print(self, text: str, newline: bool) -> None:
        if not self.silent:
            click.echo(text, nl=newline, err=True)

    def _end_stage(self, failed: bool = False) -> None:
        """End the line of the stage under way, with the time it took unless it failed."""
        if self.started is not None:
            took = "" if failed else f"{time.perf_counter() - self.started:.1f} s"
            self.line(f"{self.stage} … {took}" if self._on_terminal() else took)
        self.started, self.stage = None, ""
