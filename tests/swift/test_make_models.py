"""What the app's self-test expects is what the package says and what Pillow shows."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from packages import converted
from PIL import Image
from swift_check import DEMO

from mvit_coreml.cli.main import cli
from mvit_coreml.errors import InputError


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("make_models", DEMO / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "photo.png"
    noise = np.random.default_rng(7).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def expectation(script: Any, folder: Path, picture: Path, name: str, **options: Any) -> Any:
    """Add a package to ``folder`` and read what its self-test expects."""
    package = folder / "made" / f"{name}.mlpackage"
    shutil.copytree(converted("mobilevit", **options)[1].path, package)
    placed = script.add_model(package, picture, folder / "models")
    assert placed == folder / "models" / f"{name}.mlpackage"
    return json.loads(placed.with_name(f"{name}.selftest.json").read_text())


def test_classifier_expects_what_predict_prints(script: Any, tmp_path: Path, picture: Path) -> None:
    expected = expectation(script, tmp_path, picture, "C")
    package = tmp_path / "models" / "C.mlpackage"
    done = CliRunner().invoke(cli, ["predict", str(package), str(picture), "--json"])
    top = json.loads(done.stdout)["images"][0]["top"]
    assert [score["label"] for score in expected["top"]] == [score["label"] for score in top]
    for found, printed in zip(expected["top"], top, strict=True):
        assert found["probability"] == pytest.approx(printed["probability"], abs=1e-6)


def test_segmenter_expects_the_map_that_predict_saves(
    script: Any, tmp_path: Path, picture: Path
) -> None:
    square = tmp_path / "square.png"
    Image.open(picture).resize((64, 64)).save(square)
    expected = expectation(script, tmp_path, square, "S", task="semantic-segmentation")["map"]
    package, mask = tmp_path / "models" / "S.mlpackage", tmp_path / "mask.png"
    CliRunner().invoke(cli, ["predict", str(package), str(square), "--mask", str(mask)])
    classes, lengths = expected["runs"][::2], expected["runs"][1::2]
    found = np.repeat(classes, lengths).reshape(expected["height"], expected["width"])
    # At the input's size nothing is resized, so the mask is the package's own map; where two
    # classes are as good as equal, another run may add in another order and take the other.
    assert np.mean(found == np.array(Image.open(mask))) > 0.999


def test_picture_beside_the_package_is_lossless_and_says_srgb(
    script: Any, tmp_path: Path, picture: Path
) -> None:
    expected = expectation(script, tmp_path, picture, "C")
    shown = Image.open(tmp_path / "models" / expected["image"])
    assert shown.info["srgb"] == 0
    np.testing.assert_array_equal(np.array(shown), np.array(Image.open(picture)))


def test_package_of_the_same_name_is_replaced(script: Any, tmp_path: Path, picture: Path) -> None:
    first = expectation(script, tmp_path, picture, "C")
    shutil.rmtree(tmp_path / "made")
    second = expectation(script, tmp_path, picture, "C", bits=8)
    assert first["program_sha256"] != second["program_sha256"]


def test_package_that_answers_features_is_refused_in_one_line(
    script: Any,
    tmp_path: Path,
    picture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = converted("mobilevit", output="features")[1].path
    with pytest.raises(InputError, match="answers features"):
        script.add_model(package, picture, tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_models.py", str(package), str(picture)])
    monkeypatch.setattr(script, "MODELS", tmp_path)
    assert script.main() == 2
    assert capsys.readouterr().err.count("\n") == 1
