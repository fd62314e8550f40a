"""``--report`` of the commands: what is in the file, and when it is refused."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from faults.editor import PackageEditor
from faults.planting import store_digest
from packages import small_checkpoint
from PIL import Image

from mvit_coreml.cli import cli
from mvit_coreml.demo import demo_checkpoint, demo_images
from mvit_coreml.workflows import convert as conversion

# k-means alone, as quickly as can be.
PLAIN = ("--bits", "6", "--no-fit")
PICTURES = demo_images()[0][0].parent

pytestmark = pytest.mark.usefixtures("conversions_shared")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's classifier as a package, converted with a report."""
    folder = tmp_path_factory.mktemp("reports")
    done = run(
        "convert", demo_checkpoint("classifier"), "-o", folder / "Digits.mlpackage",
        *PLAIN, "--images", PICTURES, "--report", folder / "convert.html", "--token", "hf_secret",
        "-q",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def test_converting_leaves_a_page_that_needs_nothing_else(folder):
    page = (folder / "convert.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>")
    # By Wilson's interval none of ten answers lost still allows a quarter lost; the margins of the
    # answers say more.
    assert "PASSED" in page
    text = html.unescape(page)
    assert "It keeps 100.0% of the answers (72.2% to 100.0%) on 10 photos" in text
    assert "answers like its checkpoint (promised: at least 97% of the answers)" in text
    # Both answers of every photo, where the error enters, and every score against its reference.
    assert page.count('class="card') >= 10
    assert "red three" in page or "blue three" in page
    assert "Error by operation" in page
    assert 'id="scores' in page or "scores, drawn evenly" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)


def test_the_command_is_told_without_its_secrets(folder):
    page = (folder / "convert.html").read_text(encoding="utf-8")
    assert "hf_secret" not in page
    assert "--token ..." in page
    report = folder / "told.json"
    arguments = [
        "validate", folder / "Digits.mlpackage", "--against", demo_checkpoint("classifier"),
        "--images", PICTURES, "--limit", "2", "--report", report, "--token=hf_secret",
    ]  # fmt: skip
    assert run(*arguments).exit_code == 0
    told = read(report)["reproduce"]["command"]
    assert shlex.split(told) == ["mvit-coreml", *map(str, arguments[:-1]), "--token=..."]


def test_validating_reports_the_images_and_the_layers_but_prints_no_layers(folder):
    report = folder / "validate.json"
    done = run(
        "validate", folder / "Digits.mlpackage", "--against", demo_checkpoint("classifier"),
        "--images", PICTURES, "--report", report,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "layer  " not in done.stdout
    found = read(report)
    assert found["passed"] is True
    assert found["title"] == "Digits.mlpackage"
    assert len(found["parity"]["layers"]) > 50
    tops = {image["image"]: image["package"][0]["label"] for image in found["images"]}
    assert tops == {path.name: label for path, label in demo_images()}


def test_a_package_that_fails_is_reported_all_the_same(folder):
    editor = PackageEditor(folder / "Digits.mlpackage")
    texts = [item.immediateValue.tensor.strings.values for item in editor.labels()]
    texts[1][0], texts[4][0] = texts[4][0], texts[1][0]
    path = store_digest(editor.save())
    report = folder / "failed.md"
    done = run("validate", path, "--against", demo_checkpoint("classifier"), "--report", report)
    assert done.exit_code == 3
    text = report.read_text(encoding="utf-8")
    assert "FAILED" in text
    assert "red four" in text


def test_a_conversion_that_is_thrown_away_leaves_its_report(tmp_path, monkeypatch):
    original = conversion.validate

    def strict(package, checkpoint, images, options, **more):
        options = replace(options, bounds={"snr": 500.0})
        return original(package, checkpoint, images, options, **more)

    monkeypatch.setattr(conversion, "validate", strict)
    report = tmp_path / "why.json"
    path = tmp_path / "Never.mlpackage"
    arguments = ("-o", path, *PLAIN, "--report", report, "-q")
    done = run("convert", demo_checkpoint("classifier"), *arguments)
    assert done.exit_code == 3
    assert not path.exists()
    found = read(report)
    assert (found["title"], found["passed"]) == ("Never.mlpackage", False)
    # It was looked at before it went.
    assert found["package"]["size"] > 500_000


def test_without_a_comparison_the_report_says_so(tmp_path):
    report = tmp_path / "report.json"
    done = run(
        "convert", demo_checkpoint("classifier"), "-o", tmp_path / "Digits.mlpackage",
        *PLAIN, "--no-validate", "--report", report, "-q",
    )  # fmt: skip
    assert done.exit_code == 0
    found = read(report)
    assert (found["status"], found["passed"]) == ("NOT COMPARED", None)
    assert found["package"]["name"] == "Digits.mlpackage"


def test_evaluating_in_both_colour_orders_names_the_rows_apart(folder):
    report = folder / "evaluate.json"
    done = run(
        "evaluate", folder / "Digits.mlpackage", PICTURES.parent / "pictures.csv",
        "--color-order", "both", "--report", report, "-q",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = read(report)
    names = [target["name"] for target in found["evaluation"]["targets"]]
    assert names == ["Digits.mlpackage, BGR", "Digits.mlpackage, RGB"]
    assert found["package"]["name"] == "Digits.mlpackage"
    assert any("trained with BGR" in note for note in found["notes"])


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "owner/none"),
        ("validate", "absent.mlpackage", "--against", "owner/none"),
        ("evaluate", "absent.mlpackage", "absent"),
    ],
)
@pytest.mark.parametrize(
    ("report", "message"),
    [
        ("report.pdf", "a report's name must end in .html, .md, .json"),
        ("absent/report.html", "the folder absent does not exist; create it first"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_first(command, report, message):
    done = run(*command, "--report", report)
    assert (done.exit_code, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_build_reports_every_recipe_with_its_tolerances(tmp_path):
    for name, more in {"good": "", "poor": "[tolerances]\nmax_size_mb = 0.01\n"}.items():
        small_checkpoint("mobilenet_v2").save_pretrained(tmp_path / "net")
        text = f'source = "./net"\noutput_kind = "logits"\nbits = "none"\n{more}'
        (tmp_path / f"{name}.toml").write_text(text)
    recipes = [tmp_path / "good.toml", tmp_path / "poor.toml"]
    out = tmp_path / "out"
    pattern = tmp_path / "reports" / "{name}.json"
    done = run("build", *recipes, "-o", out, "--report", pattern, "-q")
    assert done.exit_code == 3
    good, poor = (read(tmp_path / "reports" / f"{name}.json") for name in ("good", "poor"))
    assert (good["title"], good["passed"]) == ("good.mlpackage", True)
    assert (poor["title"], poor["passed"]) == ("poor.mlpackage", False)
    assert "size on disk, as the recipe allows: " in poor["meaning"].lower()
    assert good["images"]
    entries = {entry["name"]: entry for entry in read(out / "index.json")["packages"]}
    assert entries["good"]["report"] == "../reports/good.json"
    # What is up to date gets a report that it lacks, and is then left alone.
    (tmp_path / "reports" / "good.json").unlink()
    assert run("build", recipes[0], "-o", out, "--report", pattern).stderr.endswith("up to date\n")
    written = (tmp_path / "reports" / "good.json").stat().st_mtime_ns
    assert read(tmp_path / "reports" / "good.json")["passed"] is True
    assert run("build", recipes[0], "-o", out, "--report", pattern).exit_code == 0
    assert (tmp_path / "reports" / "good.json").stat().st_mtime_ns == written


def test_one_report_for_several_packages_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text('source = "owner/none"\n')
    done = run("build", tmp_path, "-o", tmp_path / "out", "--report", tmp_path / "x.html")
    assert done.exit_code == 2
    assert "is one file for 2 packages; put {name} into its name" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_report_replaces_the_one_before(folder, tmp_path):
    report = tmp_path / "r.md"
    report.write_text("<!-- mvit-coreml report -->")
    Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
    done = run(
        "validate", folder / "Digits.mlpackage", "--against", demo_checkpoint("classifier"),
        "--images", tmp_path / "p.png", "--report", report,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert report.read_text(encoding="utf-8").startswith("# Digits.mlpackage")
