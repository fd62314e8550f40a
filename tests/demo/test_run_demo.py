"""``mvit-coreml demo``: what it leaves, what it says, and when it refuses."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from demo_run import DemoRun, demo_run
from packages import SavedPackage

from mvit_coreml.cli import cli
from mvit_coreml.demo import demo_images, run_demo


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoRun]:
    """The folder of a demo, where an old report lay, and what was printed."""
    done = demo_run(tmp_path_factory)
    return done.folder, done


def test_it_ends_well_and_names_packages_and_reports_that_are_there(demo):
    folder, result = demo
    assert result.exit_code == 0, result.output
    for name in ("Digits.mlpackage", "DigitMaps.mlpackage", "Digits.html", "DigitMaps.html"):
        assert f"\n  {folder / name}\n" in result.stdout
        assert (folder / name).exists()


def test_every_picture_is_told_apart_and_none_with_red_and_blue_swapped(demo):
    _, result = demo
    rows = re.findall(r"(\S+)\.png +(\w+ \w+) +(\w+ \w+)$", result.stdout, re.MULTILINE)
    wanted = {path.stem: label for path, label in demo_images()}
    assert {name: right for name, right, _ in rows} == wanted
    # The two inks are each other with red and blue exchanged.
    exchanged = {"red": "blue", "blue": "red"}
    for _, right, swapped in rows:
        color, digit = right.split()
        assert swapped == f"{exchanged[color]} {digit}"


@pytest.mark.parametrize(("name", "label"), [("Digits", "red three"), ("DigitMaps", "red digit")])
def test_the_reports_show_every_picture_and_both_accuracies(demo, name, label):
    folder, _ = demo
    page = (folder / f"{name}.html").read_text(encoding="utf-8")
    assert "✓ PASSED" in page.replace("</div>", "")
    assert page.count('<article class="card') == 10
    assert "the same with red and blue swapped" in page
    assert label in page
    assert "<summary>4 more images</summary>" in page
    assert "mvit-coreml demo -o" in page


def test_a_report_unfolds_the_first_confusions_there_are(demo):
    """The classifier confuses nothing until red and blue are swapped."""
    folder, _ = demo
    page = (folder / "Digits.html").read_text(encoding="utf-8")
    unfolded = re.findall(r"<details open[^>]*>\s*<summary>([^<]*)", page)
    assert unfolded == ["Confusions of the same with red and blue swapped"]


def test_the_packages_have_six_bits_and_the_checkpoints_colour_order(demo):
    folder, _ = demo
    for name in ("Digits", "DigitMaps"):
        package = SavedPackage(folder / f"{name}.mlpackage")
        (image,) = package.spec.description.input
        assert image.type.imageType.colorSpace == 30  # BGR
        assert package.census()["constexpr_lut_to_dense"] > 20
        assert package.user_defined["mvit_coreml.bits"] == "6"


@pytest.mark.usefixtures("conversions_shared")
def test_the_commands_to_go_on_with_work(demo):
    _, result = demo
    _, _, text = result.stdout.partition("to go on\n")
    commands = [shlex.split(line) for line in text.splitlines()]
    assert [words[1] for words in commands] == ["predict", "evaluate", "convert"]
    for program, *arguments in commands:
        assert program == "mvit-coreml"
        done = run(*arguments)
        assert done.exit_code == 0, done.output
        if arguments[0] == "predict":
            assert "blue five" in done.stdout
        if arguments[0] == "evaluate":
            assert "the weights were trained with BGR" in done.stdout


def test_a_folder_in_use_is_left_alone_unless_told_otherwise(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run("demo", "-o", tmp_path)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is not empty; use --force to replace an earlier demo" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "mvit-demo").write_text("a file")
    assert run("demo", "-o", tmp_path / "mvit-demo").exit_code == 2


def test_json_is_one_document(demo, monkeypatch):
    _, run_before = demo
    monkeypatch.setattr(run_demo, "run_demo", lambda *_, **__: run_before.results)
    done = run("demo", "--json", "-q")
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    classifier, segmenter = json.loads(done.stdout)
    assert (classifier["kind"], segmenter["kind"]) == ("classifier", "segmenter")
    assert classifier["passed"] is segmenter["passed"] is True
    assert classifier["accuracy"]["package"]["top1"]["value"] == 1.0
    assert classifier["accuracy"]["red_and_blue_swapped"]["top1"]["value"] == 0.0
    assert len(classifier["pictures"]) == 10
    assert classifier["pictures"][0] == {
        "picture": "blue-five.png",
        "label": "blue five",
        "package": "blue five",
        "red_and_blue_swapped": "red five",
    }
    assert segmenter["pictures"] == []
