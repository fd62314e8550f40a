"""What a long command is doing, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

import click

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

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
