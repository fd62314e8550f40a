"""The demo's files: complete, small, and what they are said to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from write_pictures import bundled_pictures

from mvit_coreml import demo as bundled_files
from mvit_coreml.demo import KINDS, Kind, demo_checkpoint, demo_images, demo_masks
from mvit_coreml.errors import InputError

pytestmark = pytest.mark.fast

FOLDER = Path(bundled_files.__file__).parent


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_have_the_files_that_transformers_reads(kind: Kind) -> None:
    names = {path.name for path in demo_checkpoint(kind).iterdir()}
    assert {"config.json", "preprocessor_config.json", "model.safetensors"} <= names


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_declare_bgr(kind: Kind) -> None:
    text = (demo_checkpoint(kind) / "preprocessor_config.json").read_text(encoding="utf-8")
    assert json.loads(text)["do_flip_channel_order"] is True


def test_everything_together_stays_below_six_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000


def test_images_are_named_after_what_they_show() -> None:
    shown = demo_images()
    assert 8 <= len(shown) <= 12
    for path, label in shown:
        assert re.fullmatch("(red|blue) [a-z]+", label)
        assert path.name == label.replace(" ", "-") + ".png"


def test_every_mask_has_its_image_and_the_color_of_its_label() -> None:
    labels = dict(demo_images())
    pairs = demo_masks()
    assert pairs
    for image, mask in pairs:
        classes = np.asarray(Image.open(mask))
        assert classes.shape == np.asarray(Image.open(image)).shape[:2]
        assert set(np.unique(classes)) == {0, 1 if labels[image].startswith("red") else 2}


def test_bundled_pictures_are_those_that_the_script_draws() -> None:
    drawn = bundled_pictures()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    digits = load_digits().target[drawn.samples]
    by_digit = {label.split()[1]: path for path, label in demo_images()}
    for digit, pixels in zip(digits, drawn.images, strict=True):
        stored = np.asarray(Image.open(by_digit[names[digit]])).astype(int)
        # Another processor or version of NumPy may round a level differently.
        assert np.abs(stored - pixels).max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_readme_quotes_the_measured_figures(kind: Kind) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    figures = json.loads((demo_checkpoint(kind) / "figures.json").read_text(encoding="utf-8"))
    for name in ("checkpoint", "checkpoint_red_and_blue_swapped", "package"):
        assert f"{figures[name]:.1%}".replace("%", " %") in readme, name
    agreement = figures["package_agrees_with_checkpoint"]
    assert f"{agreement:.2%}".replace("%", " %") in readme


def test_another_kind_is_refused() -> None:
    with pytest.raises(InputError, match="classifier or segmenter"):
        demo_checkpoint("detector")  # type: ignore[arg-type]


def test_missing_files_are_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled_files, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="install mvit-coreml again"):
        demo_images()


def test_finding_the_files_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mvit_coreml.demo import *; demo_checkpoint('classifier'); "
        "demo_images(); print([m for m in ('torch', 'numpy', 'sklearn') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
