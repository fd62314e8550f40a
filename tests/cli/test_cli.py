"""The command as a whole: help, errors and exit codes."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mvit_coreml.cli import COMMANDS, cli
from mvit_coreml.errors import CheckpointError, GateError

pytestmark = pytest.mark.fast


def run(*arguments):
    return CliRunner().invoke(cli, arguments)


def test_every_command_of_the_overview_exists_under_its_name():
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.name == name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_has_examples_that_parse(name):
    help_text = run(name, "--help").output
    examples = [
        line.split()[1:] for line in help_text.splitlines() if line.startswith("    mvit-coreml")
    ]
    assert len(examples) > 1
    for arguments in examples:
        command = cli.get_command(click.Context(cli), arguments[0])
        command.make_context(arguments[0], arguments[1:])  # fails on an unknown option


def test_the_overview_has_examples_and_every_command():
    for name in COMMANDS:
        run(name, "--help")  # importing a command must not disturb the group
    output = run("--help").output
    assert "Examples:\n    mvit-coreml" in output
    assert all(f"  {name}" in output for name in COMMANDS)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['mvit-coreml', '--help']\n"
        "from mvit_coreml.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'coremltools', 'PIL', 'huggingface_hub', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version_is_the_installed_one():
    expected = importlib.metadata.version("mvit-coreml")
    assert run("--version").output == f"mvit-coreml, version {expected}\n"


@pytest.fixture
def failing(monkeypatch):
    """Add a command that raises what it is given."""

    def install(error):
        def fail():
            raise error

        command = click.Command("fail", callback=fail)
        monkeypatch.setitem(COMMANDS, "fail", "Fail.")
        monkeypatch.setitem(
            sys.modules, "mvit_coreml.cli.commands.fail", type("M", (), {"command": command})
        )

    return install


@pytest.mark.parametrize(("error", "code"), [(CheckpointError("a\nb"), 2), (GateError("a b"), 3)])
def test_an_error_is_one_line_on_stderr_and_its_exit_code(error, code, failing):
    failing(error)
    result = run("fail")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == "Error: a b\n"


def test_ctrl_c_ends_quietly_with_130(failing):
    failing(KeyboardInterrupt())
    result = run("fail")
    assert result.exit_code == 130
    assert result.output == ""


@pytest.mark.parametrize("arguments", [["no-such"], ["list", "--no-such"], ["list", "--task", "x"]])
def test_wrong_usage_exits_with_2_and_no_traceback(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
