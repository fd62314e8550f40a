"""``mvit-coreml benchmark``: off a Mac as it is, and on one with stand-ins for coremltools."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_tools import CPU, NE, Recorder
from packages import converted

from mvit_coreml.cli import cli
from mvit_coreml.device import machine

pytestmark = pytest.mark.fast


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["benchmark", *map(str, arguments)])


@pytest.mark.skipif(sys.platform == "darwin", reason="Macs have Core ML")
def test_off_a_mac_it_exits_with_2_and_says_what_works_here() -> None:
    refused = run("Any.mlpackage")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    for word in ("Mac", "cost", "predict", "evaluate"):
        assert word in refused.stderr


@pytest.fixture
def on_a_mac(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    strided = [("input_1_cast_fp16", "conv", CPU, 0.25), ("rest", "conv", NE, 0.75)]
    recorder = Recorder(strided)
    monkeypatch.setattr(machine, "require_mac", lambda: None)
    monkeypatch.setattr(machine, "load_tools", recorder.tools)
    return recorder


def test_figures_stand_under_the_machine_they_are_of(on_a_mac: Recorder, tmp_path: Path) -> None:
    package = converted("mobilenet_v2")[0].path
    page = tmp_path / "times.html"
    done = run(package, "--units", "all,cpu", "--iterations", "5", "--report", page)
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[1].startswith("measured on ")
    assert "coremltools " in lines[1]
    assert any(line.startswith("all 3.000 8.800 1.000 3.162 120.0 8.0 ") for line in lines)
    assert "estimated cost on the Neural Engine 75.0 %" in lines
    assert any(line.startswith("input_1_cast_fp16 conv CPU 25.0 %") for line in lines)
    assert any("no measurement" in line for line in lines)
    assert "measured on" in page.read_text(encoding="utf-8")


def test_json_is_one_document(on_a_mac: Recorder) -> None:
    package = converted("mobilenet_v2")[0].path
    data = json.loads(run(package, package, "--units", "cpu", "--json").stdout)
    first, second = data["benchmarks"]
    assert first["units"][0]["prediction"]["median"] == 3.0
    assert first["units"][0]["neural_engine_share"] == 0.75
    assert first["machine"]["versions"]["Python"]
    assert second["package"] == str(package)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--units", "npu"), "'npu' is none of all, cpu-ne, cpu-gpu, cpu"),
        (("--device", "iphone"), "--device and --development-team"),
        (("--iterations", "0"), "0 is not in the range"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: tuple[str, ...], message: str) -> None:
    refused = run("Any.mlpackage", *options)
    assert refused.exit_code == 2
    assert message in refused.stderr
