"""The ``mvit-coreml`` command and how it finds its subcommands.

Every subcommand is one file of this package holding a click command called ``command``, and one
line of :data:`COMMANDS`. The file is imported when it is called: help loads nothing heavy. This is
no part of ``__init__.py``, where the imported file ``list`` would hide the builtin.
"""

from __future__ import annotations

import importlib
import signal
from typing import Any

import click

from mvit_coreml.cli.arguments import OUTPUT_KINDS, TYPED
from mvit_coreml.errors import MvitCoremlError

# Command to its line in the overview; dashes are underscores in the file's name.
COMMANDS = {
    "benchmark": "Time packages with Core ML on a Mac.",
    "build": "Build the packages of recipes.",
    "convert": "Convert a checkpoint to a Core ML package.",
    "cost": "Estimate what packages cost to run.",
    "demo": "Try everything on the bundled checkpoints.",
    "diff": "Say what differs between two packages.",
    "evaluate": "Measure accuracy on labelled images.",
    "inspect": "Say what is in a package.",
    "list": "List the published checkpoints.",
    "palettize": "Make a package smaller.",
    "predict": "Ask a package about images.",
    "quantize": "Let a package compute in 8-bit integers.",
    "tradeoff": "Measure what packages of different sizes keep.",
    "validate": "Compare a package with its checkpoint.",
    "xcode-report": "Read Xcode's performance reports.",
}

# Characters of a name that an error shows.
_LONGEST_NAME = 120
_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C


class LazyGroup(click.Group):
    """A group of commands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"mvit_coreml.cli.commands.{cmd_name.replace('-', '_')}")
        return module.command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what was typed, in today's spelling: reports say it."""
        args = _in_todays_spelling(args)
        ctx.meta[TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of this package becomes one line and its exit code.

        So does what the system refuses, such as a name that is too long, and a lack of memory.
        """
        try:
            return super().invoke(ctx)
        except MvitCoremlError as error:
            _print_error(str(error))
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise
        except OSError as error:
            place = str(error.filename or "the system")
            shown = place if len(place) <= _LONGEST_NAME else f"{place[:_LONGEST_NAME]}…"
            _print_error(f"{shown}: {error.strerror or error}")
            ctx.exit(MvitCoremlError.exit_code)
        except MemoryError:
            _print_error("there is not enough memory; close other programs, or use smaller images")
            ctx.exit(MvitCoremlError.exit_code)
        except KeyboardInterrupt:
            ctx.exit(_INTERRUPTED)


def _print_error(message: str) -> None:
    click.echo("Error: " + " ".join(message.splitlines()), err=True)


def _end_cleanly() -> None:
    """Let an ended terminal or a system that shuts down leave nothing behind, as Ctrl-C does."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), end)


def _in_todays_spelling(arguments: list[str]) -> list[str]:
    """Replace spellings of the version before, with a hint on stderr for each.

    ``--output-path PATH`` is ``--output PATH``, and ``convert --output KIND`` became
    ``--output-kind``: no package has a name such as ``logits``, as it must end in ``.mlpackage``.
    """
    spelled = []
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        after = value if equals else next(iter(arguments[index + 1 :]), "")
        newer = {"--output-path": "--output"}.get(name, name)
        if name == "--output" and arguments[0] == "convert" and after in OUTPUT_KINDS:
            newer = "--output-kind"
        if newer != name:
            click.echo(f"hint: {name} is now {newer}; the old spelling will go", err=True)
        spelled.append(f"{newer}{equals}{value}")
    return spelled


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  mvit-coreml demo\n  mvit-coreml list\n  mvit-coreml convert --help",
)
@click.version_option(package_name="mvit-coreml", prog_name="mvit-coreml")
def cli() -> None:
    """Turn MobileViT, MobileViTV2 and MobileNetV2 checkpoints into Core ML packages."""


def main() -> None:
    """Run the command line."""
    _end_cleanly()
    cli(prog_name="mvit-coreml")
