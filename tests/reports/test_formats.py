"""Markdown and JSON, and writing any format."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from fresh_process import fresh_process

from mvit_coreml.errors import InputError
from mvit_coreml.reports.html_and_markdown import as_markdown
from mvit_coreml.reports.json_report import as_document
from mvit_coreml.reports.report import Report
from mvit_coreml.reports.write_report import check_report_path, write_report


def cells(line: str) -> list[str]:
    """Cells of a row of a Markdown table, as GitHub splits it."""
    assert line.startswith("| ")
    assert line.endswith(" |")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_tables_have_as_many_cells_in_every_row(classified, segmented, hostile):
    for report in (classified, segmented, hostile):
        tables = 0
        for block in as_markdown(report).split("\n\n"):
            lines = block.splitlines()
            if lines[0].startswith("|"):
                tables += 1
                assert all(re.fullmatch(r"---|--:", cell) for cell in cells(lines[1]))
                assert len({len(cells(line)) for line in lines}) == 1
            else:
                assert not any(line.startswith("|") for line in lines)
        assert tables >= 6


def test_markdown_holds_the_verdict_and_the_figures(parity):
    text = as_markdown(Report(title="Model", parity=parity, labels=("dog", "cat", "ox")))
    text = text.replace("\N{NO-BREAK SPACE}", " ")
    lines = text.splitlines()
    assert lines[0] == "# Model"
    assert "**❌ FAILED**: Parts that differ" in text
    assert "| ✓ | same top class as PyTorch | 87.5% | ≥ 50.0% |" in lines
    assert (
        "| cat.jpg | cat 62.5%, dog 25.0%, ox 12.5% | dog 50.0%, cat 37.5%, ox 6.2% | 12.3 dB |"
        in lines
    )
    assert "- a note" in lines


def test_markdown_escapes_markup(hostile):
    text = as_markdown(hostile)
    assert "<script" not in text.replace("    <script>", "")  # the command is code
    assert "[x](y)" not in re.sub(r"^    .*$", "", text, flags=re.M)
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_json_is_the_same_after_a_round_trip(classified, segmented, hostile, tmp_path):
    for report in (classified, segmented, hostile):
        write_report(report, tmp_path / "report.json")
        found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
        assert found == as_document(report)


def test_json_holds_the_figures_unrounded(parity, evaluation):
    report = Report(title="a", parity=parity, evaluation=evaluation, labels=("dog", "cat", "ox"))
    found = as_document(report)
    assert (found["status"], found["passed"]) == ("FAILED", False)
    assert (found["sound"], found["faithful"]) == (False, "kept")
    assert found["keeps"] == "87.5% of the answers (52.9% to 97.8%) on 8 photos"
    assert found["parity"]["promise"]["min_agreement"] == 0.5
    assert found["parity"]["estimate"]["lower_bound"] == 0.62
    assert found["parity"]["gates"][2]["verdict"] == "broken"
    assert found["parity"]["scores"]["snr"] == 23.45
    assert found["parity"]["gates"][1]["value"] == 0.875
    assert found["parity"]["layers"][2] == {
        "operation": "conv_2", "op_type": "conv", "snr": 21.3, "drop": 23.1
    }  # fmt: skip
    assert found["images"][0]["package"][0] == {"class": 0, "label": "dog", "probability": 0.5}
    assert found["evaluation"]["targets"][0]["confusion"]["counts"][0] == [3, 1, 0]
    assert found["notes"] == ["a note"]


def test_json_has_null_for_what_is_not_there(parity):
    broken = replace(parity, scores=replace(parity.scores, max_error=float("inf")))
    assert as_document(Report(title="a", parity=broken))["parity"]["scores"]["max_error"] is None
    empty = as_document(Report(title="a"))
    assert (empty["status"], empty["passed"], empty["package"]) == ("NOT COMPARED", None, None)
    assert [empty[key] for key in ("sound", "faithful", "keeps")] == [None, None, None]


def test_json_names_no_folder_of_this_machine(classified):
    folder = str(classified.package.inspection.path.parent)
    assert folder not in json.dumps(as_document(classified))


@pytest.mark.parametrize("suffix", [".html", ".md", ".json", ".HTML"])
def test_the_same_report_gives_the_same_bytes(classified, tmp_path, suffix):
    paths = [tmp_path / f"{number}{suffix}" for number in range(2)]
    for path in paths:
        write_report(classified, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert len(first) > 1000


def test_a_report_replaces_another_and_leaves_nothing_beside_it(parity, tmp_path):
    path = tmp_path / "report.md"
    write_report(Report(title="old", parity=parity), path)
    write_report(Report(title="new", parity=parity), path)
    assert path.read_text(encoding="utf-8").startswith("# new\n")
    assert list(tmp_path.iterdir()) == [path]


def test_another_suffix_a_folder_and_a_missing_folder_are_refused(parity, tmp_path):
    report = Report(title="a", parity=parity)
    (tmp_path / "folder.html").mkdir()
    for path, word in (
        (tmp_path / "report.pdf", "must end in .html, .md, .json"),
        (tmp_path / "report", "must end in"),
        (tmp_path / "folder.html", "is a folder"),
        (tmp_path / "missing" / "report.html", "does not exist"),
    ):
        with pytest.raises(InputError, match=word) as caught:
            write_report(report, path)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=word):
            check_report_path(path)


def test_plotting_is_imported_for_html_alone(tmp_path_factory):
    assert fresh_process(tmp_path_factory).after_reports == []
