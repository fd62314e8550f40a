"""``mvit-coreml xcode-report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from packages import converted

from mvit_coreml.cli import cli
from mvit_coreml.inspection.package_cost import estimate_cost

pytestmark = pytest.mark.fast


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["xcode-report", *map(str, arguments)])


def words(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report of the small classifier, whose palettized operations run on the CPU."""
    function = estimate_cost(converted("mobilenet_v2", bits=6)[0].path).function()
    palettized = {
        place.operation
        for one in function.lint
        if one.rule.name == "load-time-decompression"
        for place in one.findings
    }
    lines = ["Operation,Type,Compute Unit,Estimated Time (µs)"]
    for number, one in enumerate(function.operations):
        device = "CPU" if one.name in palettized else "Neural Engine"
        lines.append(f"{one.name},{one.op_type},{device},{number}")
    file = tmp_path / "Report.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_a_report_is_laid_beside_the_package_that_was_measured(report: Path) -> None:
    package = converted("mobilenet_v2", bits=6)[0].path
    lines = words(run(report, "--package", package, "--all"))
    function = estimate_cost(package).function()
    count = len(function.operations)
    assert f"operations found in the package by name {count} of {count}" in lines
    assert f"MACs {function.macs / 1e6:,.1f} M" in lines
    start = lines.index("operations off the Neural Engine")
    (findings,) = [one for one in function.lint if one.rule.name == "load-time-decompression"]
    off = [line for line in lines[start:] if line.endswith(" load-time-decompression")]
    assert len(off) == len(findings.findings) > 0
    assert any("nothing was measured here" in line for line in lines[:2])


def test_two_reports_are_compared(report: Path, tmp_path: Path) -> None:
    newer = tmp_path / "Newer.csv"
    text = report.read_text(encoding="utf-8").splitlines()
    text[1] = text[1].replace("Neural Engine,0", "GPU,7")
    newer.write_text("\n".join(text), encoding="utf-8")
    lines = words(run(newer, "--against", report))
    assert "slower 1" in lines
    assert "moved to another device 1" in lines
    start = lines.index("moved device")
    assert "Neural Engine -> GPU 0.0 µs -> 7.0 µs +7.0 µs" in lines[start + 2]
    data = json.loads(run(newer, "--against", report, "--json").stdout)
    assert len(data["changes"][0]["moved"]) == 1
    page = tmp_path / "changes.html"
    assert run(newer, "--against", report, "--report", page).exit_code == 0
    assert "moved device" in page.read_text(encoding="utf-8")


def test_a_compiled_model_is_laid_beside_the_package(tmp_path: Path) -> None:
    package, saved = converted("mobilenet_v2", bits=6)
    folder = tmp_path / "Model.mlmodelc"
    folder.mkdir()
    counts = {f"Ios17.{name}": count for name, count in saved.census().items()}
    content = [{"specificationVersion": 8, "mlProgramOperationTypeHistogram": counts}]
    (folder / "metadata.json").write_text(json.dumps(content), encoding="utf-8")
    lines = words(run(folder, "--package", package.path))
    assert "specificationVersion 8" in lines
    convs = saved.census()["conv"]
    assert f"conv {convs} {convs}" in lines


def test_a_broken_file_is_one_line_and_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "broken.csv"
    file.write_text("Operation,Time\nstem,soon\n", encoding="utf-8")
    refused = run(file)
    assert refused.exit_code == 2
    assert refused.stderr == (
        f"Error: {file}: line 2: 'soon' in the column 'Time' is no number of 0 or more\n"
    )
