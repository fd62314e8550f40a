"""Commands on packages of other tools: what is assumed, what can be said, what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from plain_packages import (
    CLASSES,
    SIDE,
    Plain,
    Restyled,
    SmallNetwork,
    compress_plainly,
    convert_plainly,
    write_photos,
)
from torch import nn

from mvit_coreml.cli import cli
from mvit_coreml.mil.predictor import Predictor

ASSUMED = "does not say how photos are brought to its input: they are stretched to 32x32 pixels"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's packages, photos, labels of the photos, and names of the classes."""
    folder = tmp_path_factory.mktemp("others")
    photos = write_photos(folder / "photos", 20)
    convert_plainly(Plain(SmallNetwork()), SIDE, folder / "Plain.mlpackage")
    convert_plainly(
        Plain(SmallNetwork(boxes=True)),
        SIDE,
        folder / "Detector.mlpackage",
        outputs=["scores", "boxes"],
    )
    (folder / "names.txt").write_text("\n".join(f"name {i}" for i in range(CLASSES)))
    answers = [int(np.argmax(scores(folder / "Plain.mlpackage", photo))) for photo in photos]
    rows = [f"photos/{photo.name},{best}" for photo, best in zip(photos, answers, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    return folder


def scores(package: Path, photo: Path) -> np.ndarray:
    """What a package answers to a stretched photo."""
    picture = Image.open(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    (value,) = Predictor(package, engine="portable").run({"image": picture}).values()
    return np.asarray(value).reshape(-1)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def document(*arguments: Any) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error(*arguments: Any) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr


def test_predict_names_the_classes_and_says_what_it_assumed(folder: Path) -> None:
    package, photo = folder / "Plain.mlpackage", folder / "photos" / "000.png"
    result = run("predict", package, photo, "--labels", folder / "names.txt", "--top", "1")
    (note,) = result.stderr.splitlines()
    assert note.startswith(f"note: Plain.mlpackage {ASSUMED}")
    best = int(np.argmax(scores(package, photo)))
    assert f"name {best}  [{best}]" in result.stdout
    cropped = run("predict", package, photo, "--labels", folder / "names.txt", "--fit", "crop")
    assert cropped.stderr == ""
    assert cropped.stdout != result.stdout


def test_predict_gives_all_outputs_of_a_detector_raw(folder: Path, tmp_path: Path) -> None:
    photo = folder / "photos" / "000.png"
    found = document(
        "predict", folder / "Detector.mlpackage", photo, "--fit", "stretch", "--features", tmp_path
    )
    features = found["images"][0]["features"]
    assert {name: one["shape"] for name, one in features.items()} == {
        "scores": [1, CLASSES],
        "boxes": [1, 4],
    }
    assert np.load(tmp_path / "000.boxes.npy").shape == (1, 4)


def test_predict_saves_pictures_as_pictures(folder: Path, tmp_path: Path) -> None:
    package = convert_plainly(Restyled(), SIDE, tmp_path / "Style.mlpackage", image_output=True)
    photo = folder / "photos" / "000.png"
    run("predict", package, photo, "--fit", "stretch", "--features", tmp_path / "out")
    picture = np.asarray(Image.open(tmp_path / "out" / "000.picture.png"), np.float64)
    expected = scores(package, photo).reshape(3, SIDE, SIDE)
    assert np.abs(np.moveaxis(picture, -1, 0) - expected).max() <= 0.5


class TwoInputs(nn.Module):
    """An image and a vector that is added to its mean."""

    def forward(self, x: Any, shift: Any) -> Any:
        """Map (1, 3, H, W) and (1, 3) to (1, 3)."""
        return x.mean((2, 3)) + shift


def test_predict_takes_arrays_beside_or_instead_of_an_image(folder: Path, tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((1, 3, SIDE, SIDE), np.float32)
    np.save(tmp_path / "x.npy", array)
    package = convert_plainly(
        Plain(SmallNetwork()), SIDE, tmp_path / "Arrays.mlpackage", image=None, outputs=["y"]
    )
    found = document("predict", package, "--input", f"image={tmp_path / 'x.npy'}")
    expected = Predictor(package, engine="portable").run({"image": array})["y"]
    assert found["outputs"]["y"]["max"] == pytest.approx(float(expected.max()))
    photo = folder / "photos" / "000.png"
    message = error("predict", package, photo)
    assert "does not take one image, but an array 'image'; predict runs it with" in message
    assert "takes an image (image); name image files" in error(
        "predict", folder / "Plain.mlpackage"
    )
    assert "no .npy file of numbers" in error("predict", package, "--input", f"image={photo}")
    both = convert_plainly(
        TwoInputs(), SIDE, tmp_path / "Both.mlpackage", arrays={"shift": (1, 3)}, outputs=["y"]
    )
    np.save(tmp_path / "shift.npy", np.float32([[1, 2, 4]]))
    np.save(tmp_path / "none.npy", np.zeros((1, 3), np.float32))
    means = [
        document("predict", both, photo, "--input", f"shift={tmp_path / name}")["images"][0]
        for name in ("shift.npy", "none.npy")
    ]
    shifted, plain = (one["features"]["y"]["mean"] for one in means)
    assert shifted - plain == pytest.approx(7 / 3, abs=2e-3)


def test_evaluate_counts_the_right_answers(folder: Path) -> None:
    """The labels are the package's own answers."""
    asked = ["evaluate", folder / "Plain.mlpackage", folder / "labels.csv"]
    result = run(*asked, "--labels", folder / "names.txt")
    assert "100.0%" in result.stdout
    assert ASSUMED in result.stdout
    assert "--labels names its classes" in error(*asked)
    padded = run(*asked, "--labels", folder / "names.txt", "--fit", "pad")
    assert ASSUMED not in padded.stdout


def test_palettize_keeps_a_promised_accuracy_without_a_checkpoint(
    folder: Path, tmp_path: Path
) -> None:
    package, out = folder / "Plain.mlpackage", tmp_path / "Small.mlpackage"
    result = run(
        *("palettize", package, "-o", out, "--images", folder / "photos"),
        *("--labels", folder / "names.txt"),
        *("--max-drop", "30", "--dataset", folder / "labels.csv"),
    )
    assert result.exit_code == 0, result.stderr
    assert "sound  its parts are those of Plain.mlpackage" in result.stdout
    assert ASSUMED in result.stdout
    again = run("evaluate", out, folder / "labels.csv", "--labels", folder / "names.txt", "--json")
    (accuracy,) = json.loads(again.stdout)["targets"]
    assert accuracy["top1"]["value"] >= 0.7


def test_palettize_writes_nothing_that_breaks_its_promise(folder: Path, tmp_path: Path) -> None:
    package, out = folder / "Plain.mlpackage", tmp_path / "Small.mlpackage"
    asked = ["palettize", package, "-o", out, "--images", folder / "photos", "--fit", "crop"]
    result = run(*asked, "--bits", "2", "--min-snr", "30")
    assert result.exit_code == 3
    assert "of Plain.mlpackage, where at least 30 dB is promised" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_validate_holds_a_package_against_another(folder: Path, tmp_path: Path) -> None:
    package = folder / "Plain.mlpackage"
    linear = compress_plainly(package, "8-bit linear", tmp_path / "Int8.mlpackage")
    asked = ["validate", linear, "--against", package, "--images", folder / "photos"]
    result = run(*asked, "--labels", folder / "names.txt")
    assert result.exit_code == 0, result.output
    assert "Int8.mlpackage against Plain.mlpackage" in result.stdout
    assert "% of the answers (" in result.stdout
    assert result.stdout.count(ASSUMED) == 2  # each is another file
    assert run(*asked, "--gate", "snr=90").exit_code == 3
    assert "--layers is for a checkpoint" in error(*asked, "--layers")
    assert "--fit is for two packages" in error(
        "validate", package, "--against", "apple/mobilevit-small", "--fit", "crop"
    )


def test_inspect_and_diff_tell_what_was_palettized(folder: Path, tmp_path: Path) -> None:
    package = folder / "Plain.mlpackage"
    four = compress_plainly(package, "4-bit palettes", tmp_path / "Four.mlpackage")
    assert "4-bit palette" in run("inspect", four).stdout
    result = run("diff", package, four)
    assert result.exit_code == 1
    assert "graph: equal" in result.stdout
    assert "fp16 -> 4-bit palette" in result.stdout
