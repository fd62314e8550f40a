"""``mvit-coreml cost``."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from foreign import program_package, with_two_functions
from packages import converted

from mvit_coreml.cli import cli
from mvit_coreml.inspection.package_cost import estimate_cost

pytestmark = pytest.mark.fast

FAMILY = "mobilenet_v2"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["cost", *map(str, arguments)])


def words(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [" ".join(line.split()) for line in result.stdout.splitlines()]


def test_the_text_says_what_a_package_costs_and_that_it_is_an_estimate() -> None:
    package, saved = converted(FAMILY)
    lines = words(run(package.path))
    function = estimate_cost(package.path).function()
    assert lines[0] == str(package.path)
    assert "no latency" in lines[1]
    assert "counted at image 1x3x64x64" in lines
    assert f"MACs {function.macs / 1e6:,.1f} M" in lines
    assert f"size on disk {saved.size / 1e6:.2f} MB" in lines
    convs = saved.census()["conv"]
    assert any(line.startswith(f"conv {convs} ") for line in lines)
    assert any(line.startswith("A14 11 34.1 323 ") for line in lines)
    assert sum(line.startswith("assumed:") for line in lines) == 4


def test_findings_come_with_cost_way_out_and_source_and_all_of_them_on_request() -> None:
    def build(mb: Any, x: Any) -> Any:
        for number in range(5):
            x = mb.gather(x=x, indices=[1, 0], axis=1, name=f"picked_{number}")
        return x

    path = program_package(build, (1, 2, 4, 32))
    lines = words(run(path))
    start = lines.index("lint: gather: 5 gather and scatter operations")
    assert lines[start + 1].startswith("said to cost they leave the Neural Engine")
    assert lines[start + 2].startswith("way out ")
    assert lines[start + 3].startswith("source https://")
    assert lines[start + 4] == "operation shape what"
    assert lines[start + 5] == "picked_0 1x2x4x32 gather"
    assert lines[start + 8] == "and 2 more; --all lists them"
    everything = words(run(path, "--all"))
    assert "picked_4 1x2x4x32 gather" in everything
    assert "picked_4 gather 0 0 512 1x2x4x32" in everything


def test_several_packages_are_laid_side_by_side() -> None:
    first, second = converted(FAMILY)[0].path, converted(FAMILY, bits=6)[0].path
    lines = words(run(first, second))
    assert f"(1) {first}" in lines
    assert f"(2) {second}" in lines
    costs = [estimate_cost(path).function() for path in (first, second)]
    stored = " ".join(f"{one.weight_bytes / 1e6:.2f} MB" for one in costs)
    assert f"weights as stored {stored}" in lines
    palettes = converted(FAMILY, bits=6)[1].census()["constexpr_lut_to_dense"]
    assert f"load-time-decompression 0 {palettes}" in lines


def test_json_is_one_document_with_every_operation() -> None:
    package, saved = converted(FAMILY, bits=6)
    data = json.loads(run(package.path, "--json").stdout)
    assert "no latency" in data["estimate"]
    (cost,) = data["packages"]
    assert cost["path"] == str(package.path)
    (function,) = cost["functions"]
    computed = {name: n for name, n in saved.census().items() if "constexpr" not in name}
    assert len(function["operations"]) == sum(computed.values())
    assert function["macs"] == sum(one["macs"] for one in function["operations"]) > 0
    assert {one["rule"]["name"] for one in function["lint"]} >= {"load-time-decompression"}


def test_a_function_is_chosen_by_name() -> None:
    path = with_two_functions(converted(FAMILY)[0].path)
    assert run(path, "--function", "second").exit_code == 0
    refused = run(path, "--function", "third")
    assert refused.exit_code == 2
    assert refused.stderr == (f"Error: {path} has no function 'third'; it has: first, second\n")


def test_what_is_no_package_is_refused_in_one_line(tmp_path: Any) -> None:
    refused = run(tmp_path / "Missing.mlpackage")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "Missing.mlpackage" in refused.stderr


def test_the_same_is_written_as_a_page_markdown_or_json(tmp_path: Any) -> None:
    package = converted(FAMILY, bits=6)[0].path
    contents = {}
    for suffix in ("html", "md", "json"):
        file = tmp_path / f"cost.{suffix}"
        assert run(package, "--report", file).exit_code == 0
        contents[suffix] = file.read_text(encoding="utf-8")
    for suffix in ("html", "md"):
        assert "no latency" in contents[suffix]
        # Markdown escapes what is its own.
        assert "load-time-decompression" in contents[suffix].replace("\\", "")
    for suffix in contents:
        # A report may be replaced by a later one, and nothing else may.
        assert run(package, "--report", tmp_path / f"cost.{suffix}").exit_code == 0
        (tmp_path / f"mine.{suffix}").write_text("mine", encoding="utf-8")
        refused = run(package, "--report", tmp_path / f"mine.{suffix}")
        assert "exists and is no report" in refused.stderr
    assert contents["html"].startswith("<!DOCTYPE html>")
    assert "| type | count |" in contents["md"]
    assert json.loads(contents["json"])["packages"][0]["functions"][0]["macs"] > 0
    refused = run(package, "--report", tmp_path / "cost.pdf")
    assert refused.exit_code == 2
    assert "must end in .html" in refused.stderr
