"""Showing on stderr what a long command is doing."""

from __future__ import annotations

import sys
import time
from typing import Self

import click

_STAGES = {
    "import": "importing PyTorch and Core ML Tools",
    "load": "loading the checkpoint",
    "trace": "tracing the model",
    "convert": "converting to an ML Program",
    "prepare": "converting it without palettes, and preparing images",
    "measure": "measuring the range of every operation",
    "tune": "fitting palettes to images",
    "palettize": "palettizing the weights",
    "write": "writing the package",
    "validate": "validating it against the checkpoint",
    "compare": "comparing it with the original",
    "evaluate": "evaluating it in both colour orders",
    "report": "writing the report",
}
_CLEAR_LINE = "\r\x1b[2K"


class StageProgress:
    """Prints every stage with the time it took; on a terminal also how it gets on.

    Args:
        silent: print nothing.
    """

    def __init__(self, silent: bool) -> None:
        self.silent = silent
        self.stream = sys.stderr
        self.stage = ""
        self.started: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end_line(None if error is None else "")

    def __call__(self, stage: str, detail: str = "", /) -> None:
        """Begin a stage (a name, or words of its own), or say how the one under way gets on."""
        if stage != self.stage or not detail:
            self._end_line()
            self.stage, self.started = stage, time.perf_counter()
            self._show(f"{_STAGES.get(stage, stage)} … ")
        if detail and self.stream.isatty():
            self._show(f"{_CLEAR_LINE}{_STAGES.get(stage, stage)} … {detail}")

    def _show(self, text: str) -> None:
        if not self.silent:
            click.echo(text, nl=False, file=self.stream)
            self.stream.flush()

    def _end_line(self, ending: str | None = None) -> None:
        """End the line of the stage under way, with the time it took unless told otherwise."""
        if self.started is not None:
            seconds = time.perf_counter() - self.started
            if self.stream.isatty() and ending is None:
                self._show(f"{_CLEAR_LINE}{_STAGES.get(self.stage, self.stage)} … ")
            self._show(f"{seconds:.1f} s\n" if ending is None else f"{ending}\n")
        self.started, self.stage = None, ""
