"""The documentation's commands work as they stand, and what it refers to exists.

A fenced block of bash or Python runs in a folder that holds what the text speaks of, unless the
line before it says why it cannot: ``<!-- not run: reason -->``. Commands that load torch run in
this process, which has loaded it; what is quick runs in a shell, as a user's.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from demo_run import demo_run
from fitting import fit_to_few_pictures, measure_once
from packages import noise
from standins import enliven

from mvit_coreml import ImageProcessor, MobileNetV2Config, build_model
from mvit_coreml.cli import cli
from mvit_coreml.cli.main import COMMANDS
from mvit_coreml.compression.calibration import tuner

pytestmark = pytest.mark.usefixtures("conversions_shared")

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "convert" / "README.md",
    ROOT / "mvit_coreml" / "demo" / "README.md",
]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
RUN = ("bash", "python")
# What no command is: files, output, and drawings.
SHOWN = ("toml", "json", "text", "swift", "csv")
DEMO = "mvit-demo"
# The checkpoint of the examples, of the family that converts fastest: the commands are the same.
DOCUMENTED = MobileNetV2Config(depth_multiplier=0.25, image_size=64)


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks() -> list[Any]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(read(page))):
            if match["reason"] is None and match["language"] in RUN:
                name = f"{page.relative_to(ROOT)}-{number}"
                found.append(pytest.param(match["language"], match["code"], id=name))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    model = build_model(DOCUMENTED, "image-classification")
    enliven(model, (64, 64))
    model.save_pretrained(folder / "my-mobilevit")
    processor = ImageProcessor.for_mobilenet_v2(image_size=64).to_dict()
    (folder / "my-mobilevit" / "preprocessor_config.json").write_text(json.dumps(processor))
    photo = noise((120, 90), 50)
    photo.save(folder / "photo.jpg")
    for label in ("0", "1"):
        (folder / "photos" / label).mkdir(parents=True)
        photo.rotate(90 * int(label)).save(folder / "photos" / label / "photo.jpg")
    return folder


@pytest.mark.parametrize(("language", "code"), blocks())
def test_block_runs_as_it_stands(
    language: str,
    code: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.chdir(folder)
    # A tenth of the time that is asked for, on fewer views of the pictures.
    monkeypatch.setattr(tuner, "deadline_in", lambda minutes: time.monotonic() + 6 * minutes)
    monkeypatch.setattr(tuner, "_VIEWS", 60)
    measure_once(monkeypatch)
    if DEMO in code or code == "mvit-coreml demo\n":
        done = demo_run(tmp_path_factory)
        assert done.exit_code == 0, done.output
        if not Path(DEMO).exists():
            shutil.copytree(done.untouched, DEMO)
    if code == "mvit-coreml demo\n":
        return
    fit_to_few_pictures(monkeypatch)
    if language == "python":
        exec(compile(code, "block", "exec"), {"__name__": "__main__"})
        return
    lines = re.findall(r"^[^#].*$", code.replace("\\\n", " "), re.MULTILINE)
    heavy = all(line.startswith("mvit-coreml ") for line in lines) and "--help" not in code
    simple = not set("|&;$`*") & set(code)
    output = "".join(map(run_here, lines)) if heavy and simple else run_in_shell(code, folder)
    # Lines of output that the text shows after a command.
    for line in re.findall(r"^#  ?(.+)$", code, re.MULTILINE):
        assert " ".join(line.split()) in " ".join(output.split())


def run_here(line: str) -> str:
    """Run one command, whose output may go to a file; return what it prints."""
    command, _, file = line.partition(" > ")
    done = CliRunner().invoke(cli, shlex.split(command)[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    if file:
        Path(file).write_text(done.stdout, encoding="utf-8")
    return done.stdout


def run_in_shell(code: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", code],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    fences = re.findall(r"^```(.*)$", read(page), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= {*RUN, *SHOWN}
    assert set(fences[1::2]) <= {""}
    assert len(BLOCK.findall(read(page))) == len(fences) // 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_named_exists(page: Path) -> None:
    """Options anywhere in the text are those of some command."""
    text = read(page)
    known = {option for name in COMMANDS for option in options(name)} | {"--help"}
    commands = set(re.findall(r"^mvit-coreml ([a-z][a-z-]+)", text, re.MULTILINE))
    commands |= set(re.findall(r"`mvit-coreml ([a-z][a-z-]+)", text))
    assert commands <= set(COMMANDS)
    quoted = re.findall(r"`[^`\n]*`", text) + re.findall(r"^mvit-coreml.*$", text, re.MULTILINE)
    used = {option for part in quoted for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", part)}
    assert used <= known


@cache
def options(command: str) -> frozenset[str]:
    text = CliRunner().invoke(cli, [command, "--help"]).output
    return frozenset(re.findall(r"--[a-z][a-z-]+", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_test_named_exists(page: Path) -> None:
    text = read(page)
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for path, name in re.findall(r"`(tests/[\w/]+(?:\.py)?/?)(?:::(\w+))?`", text):
        assert (ROOT / path).exists(), path
        if name:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_claim_about_another_tool_has_a_source() -> None:
    text = read(ROOT / "README.md")
    used = set(re.findall(r"\]\[(\d+)\]", text))
    given = dict(re.findall(r"^\[(\d+)\]: (\S+)$", text, re.MULTILINE))
    assert used == set(given)
    assert all(url.startswith("https://") for url in given.values())


def test_every_command_of_the_program_is_documented() -> None:
    listed = re.findall(
        r"^\| `([a-z-]+)` \|", read(ROOT / "docs" / "command-line.md"), re.MULTILINE
    )
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_named_exists(page: Path) -> None:
    """Files of the package are named from its folder, others from the project's."""
    named = re.findall(r"`([\w./-]+/[\w.-]*\.(?:py|toml|sh|j2|csv))`", read(page))
    places = (ROOT, ROOT / "mvit_coreml", ROOT / "swift_demo", page.parent)
    missing = [name for name in named if not any((place / name).exists() for place in places)]
    assert not missing
