"""Groups of options as typed objects, kinds of values, and spellings of the version before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from mvit_coreml.cli import COMMANDS, cli
from mvit_coreml.cli.arguments import (
    OUTPUT_KINDS,
    CheckpointArguments,
    JsonArguments,
    ReportArguments,
    argument,
    color_order_option,
    option,
    takes,
)
from mvit_coreml.cli.main import _in_todays_spelling
from mvit_coreml.export.output_heads import OutputKind


@dataclass(frozen=True, kw_only=True)
class Arguments(CheckpointArguments, ReportArguments, JsonArguments):
    source: str = argument()
    color_order: str | None = color_order_option()
    count: int = option("-n", default=1)


def received(*typed: str) -> Arguments:
    seen: list[Arguments] = []
    command = click.command()(takes(Arguments)(seen.append))
    result = CliRunner().invoke(command, typed, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def test_a_command_gets_its_own_options_and_those_of_groups_as_one_object():
    arguments = received("X", "--offline", "--report", "a.md", "--color-order", "bgr", "-n", "2")
    assert (arguments.source, arguments.count, arguments.color_order) == ("X", 2, "BGR")
    assert (arguments.report, arguments.as_json) == (Path("a.md"), False)
    assert arguments.loading == {"local_files_only": True}
    plain = received("X")
    assert (plain.report, plain.color_order, plain.count, plain.loading) == (None, None, 1, {})


def test_help_lists_a_commands_own_options_first_and_groups_in_their_order():
    command = click.command()(takes(Arguments)(print))
    text = CliRunner().invoke(command, ["--help"]).output
    names = ("--color-order", "--count", "--labels", "--token", "--report", "--json")
    places = [text.index(name) for name in names]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_its_help_from_a_docstring(name: str):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert all(one.help and one.help.endswith((".", "]")) for one in options), options


def test_only_what_was_named_says_how_a_checkpoint_is_loaded():
    arguments = received("X", "--output-stride", "16", "--revision", "v1")
    assert arguments.loading == {"output_stride": 16, "revision": "v1"}


def test_the_kinds_are_those_of_the_export():
    assert get_args(OutputKind) == OUTPUT_KINDS


@pytest.mark.parametrize(
    ("typed", "today", "hint"),
    [
        ("convert X --output logits", "convert X --output-kind logits", "--output-kind"),
        ("convert X --output=classes", "convert X --output-kind=classes", "--output-kind"),
        ("convert X --output logits.mlpackage", "convert X --output logits.mlpackage", None),
        ("convert X -o logits", "convert X -o logits", None),
        ("convert X --output", "convert X --output", None),
        ("tradeoff X --output features", "tradeoff X --output features", None),
        ("build X --output-path out", "build X --output out", "--output"),
        ("demo --output-path=out", "demo --output=out", "--output"),
    ],
)
def test_old_spellings_work_with_a_hint(
    typed: str, today: str, hint: str | None, capsys: pytest.CaptureFixture[str]
):
    assert _in_todays_spelling(typed.split()) == today.split()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == (
        [] if hint is None else [f"hint: {err.split()[1]} is now {hint}; the old spelling will go"]
    )
