"""``--json`` of the commands that run models: a document for every kind of package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from packages import noise, small_checkpoint
from PIL import Image

from mvit_coreml.cli import cli

FAMILY = "mobilenet_v2"
# k-means alone, quickly, of weights that nothing was trained for.
PLAIN = ("--bits", "6", "--no-fit", "--min-snr", "-100")
KINDS = ("probabilities", "logits", "classes", "features")

pytestmark = pytest.mark.usefixtures("conversions_shared")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def document(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, a photo, and what evaluates them."""
    folder = tmp_path_factory.mktemp("json")
    for task in ("image-classification", "semantic-segmentation"):
        small_checkpoint(FAMILY, task).save_pretrained(folder / task)
    noise((80, 70)).save(folder / "photo.png")
    Image.new("L", (80, 70), 1).save(folder / "mask.png")
    (folder / "labels.csv").write_text("file,label\nphoto.png,tench\n")
    (folder / "masks.csv").write_text("image,mask\nphoto.png,mask.png\n")
    return folder


@pytest.fixture(scope="module", params=KINDS)
def package(request: pytest.FixtureRequest, folder: Path) -> tuple[Path, Path]:
    """A checkpoint and its package of one kind, which was converted with ``--json``."""
    kind = request.param
    task = "semantic-segmentation" if kind == "classes" else "image-classification"
    path = folder / f"{kind}.mlpackage"
    options = ("-o", path, "--bits", "none", "--output-kind", kind, "-q")
    data = document("convert", folder / task, *options, "--no-validate")
    assert data["path"] == str(path)
    assert data["parity"] is None
    return folder / task, path


def test_palettizing_and_what_differs(package: tuple[Path, Path], folder: Path, tmp_path: Path):
    source, path = package
    small = tmp_path / "small.mlpackage"
    data = document("palettize", path, "-o", small, *PLAIN, "--against", source, "-q")
    assert (data["parity"]["passed"], data["parity"]["sound"]) == (True, True)
    assert data["parity"]["faithful"] == "kept"
    assert data["parity"]["keeps"].endswith(" dB on 12 synthetic pictures")
    assert "snr" in data["parity"]["scores"]
    unchecked = ("-o", small, *PLAIN, "--force", "--no-validate", "-q")
    assert document("palettize", path, *unchecked)["parity"] is None
    difference = run("diff", path, small, "--json")
    assert difference.exit_code == 1
    assert json.loads(difference.stdout)["equal"] is False


def test_comparing_with_the_checkpoint(package: tuple[Path, Path], folder: Path, tmp_path: Path):
    source, path = package
    plain = document("validate", path, "--against", source)
    report = ("--report", tmp_path / "report.json", "--images", folder / "photo.png")
    # Of a class that covers three pixels of the one photo, one pixel is a third.
    gates = ("--gate", "miou=0.1") if path.stem == "classes" else ()
    reported = document("validate", path, "--against", source, *report, *gates)
    assert set(plain) == set(reported)
    assert reported["images"] == 1
    assert (tmp_path / "report.json").exists()


def test_looking_into_and_asking(package: tuple[Path, Path], folder: Path):
    _, path = package
    assert document("inspect", path)["size"] > 0
    (answer,) = document("predict", path, folder / "photo.png", "--headroom")["images"]
    key = {"classes": "classes", "features": "features"}.get(path.stem, "top")
    assert answer[key]


def test_accuracy(package: tuple[Path, Path], folder: Path):
    _, path = package
    data = folder / ("masks.csv" if path.stem == "classes" else "labels.csv")
    if path.stem == "features":
        result = run("evaluate", path, data, "--json")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "answers features, not classes" in result.stderr
        return
    for more in ((), ("--color-order", "both")):
        assert document("evaluate", path, data, "-q", *more)["images"] == 1
