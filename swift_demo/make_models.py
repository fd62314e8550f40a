"""Fill the app's models folder: the two demo packages, each with its self-test.

A self-test is a picture and what the portable runtime answers about it with the very package that
lies beside it. The app shows the picture to Core ML and says whether the device agrees.

    python swift_demo/make_models.py                         # both demo packages
    python swift_demo/make_models.py Mine.mlpackage photo.png   # one of your own
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mvit_coreml import ConvertOptions, MvitCoremlError, convert, load_checkpoint
from mvit_coreml.demo import Kind, demo_checkpoint, demo_images
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.targets import Answer, PackageTarget
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.preprocessing.image_loading import load_image

MODELS = Path(__file__).parent / "MViTDemo" / "Models"
PACKAGES: dict[str, Kind] = {"DigitClassifier": "classifier", "DigitSegmenter": "segmenter"}
VERSION = 1
TOP = 5
PICTURE = (150, 132)
# What a device's own fp16 arithmetic may cost; chosen, not measured on a device.
TOLERANCE = 0.05
MINIMUM_AGREEMENT = 0.98


def make_demo_models(folder: Path) -> list[Path]:
    """Convert the bundled checkpoints into ``folder`` and write their self-tests."""
    packages = []
    for name, kind in PACKAGES.items():
        with tempfile.TemporaryDirectory() as scratch:
            # Converted elsewhere: the plan that goes with a package is no part of the app.
            made = Path(scratch) / f"{name}.mlpackage"
            picture = Path(scratch) / "picture.png"
            # Neither square nor of the models' sizes, so that the self-test has to resize and crop.
            load_image(demo_images()[0][0]).resize(PICTURE, Image.Resampling.BICUBIC).save(picture)
            convert(load_checkpoint(str(demo_checkpoint(kind))), ConvertOptions(bits=6), made)
            packages.append(add_model(made, picture, folder))
    return packages


def add_model(package: Path, picture: Path, folder: Path) -> Path:
    """Copy a package into ``folder``, replacing one of its name, with a self-test.

    Args:
        package: an ``.mlpackage`` made by mvit-coreml.
        picture: any image file.
        folder: created if it is missing.

    Returns:
        Where the package now lies.

    Raises:
        MvitCoremlError: the package or the picture cannot be used.
    """
    target = PackageTarget(Predictor(package, engine="portable"))
    fitted = target.preparation(load_image(picture))
    answer = next(target.answer([load_image(picture)]))
    name = package.stem
    expectation = {
        "version": VERSION,
        "model": name,
        "program_sha256": target.package.metadata.user_defined["mvit_coreml.program_sha256"],
        "function": target.function.name,
        "image": f"{name}.selftest.png",
        "input_sha256": hashlib.sha256(fitted.pixels.tobytes()).hexdigest(),
        "tolerance": TOLERANCE,
        "minimum_agreement": MINIMUM_AGREEMENT,
        **expected_answer(target, answer),
    }
    folder.mkdir(parents=True, exist_ok=True)
    placed = folder / package.name
    if placed.resolve() != package.resolve():
        shutil.rmtree(placed, ignore_errors=True)
        shutil.copytree(package, placed)
    # Without a statement of its colours a picture could be taken for another colour space.
    colors = PngInfo()
    colors.add(b"sRGB", b"\0")
    load_image(picture).save(folder / f"{name}.selftest.png", pnginfo=colors)
    (folder / f"{name}.selftest.json").write_text(
        json.dumps(expectation, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return placed


def expected_answer(target: PackageTarget, answer: Answer) -> dict[str, Any]:
    """Return ``top`` of a classifier or ``map`` of a segmenter, as the app reads them.

    Raises:
        InputError: a package that answers features.
    """
    scores, class_map = answer.probabilities(), answer.class_map()
    if scores is not None:
        labels = target.labels or json.loads(
            target.package.metadata.user_defined["mvit_coreml.labels"]
        )
        best = np.argsort(-scores, kind="stable")[:TOP]
        return {"top": [{"label": labels[i], "probability": float(scores[i])} for i in best]}
    if class_map is None:
        raise InputError(
            f"{target.name}: answers features or values, of which there are no self-tests"
        )
    height, width = class_map.shape
    runs: list[int] = []
    for index, cells in groupby(class_map.reshape(-1).tolist()):
        runs += [int(index), len(list(cells))]
    return {"map": {"width": width, "height": height, "runs": runs}}


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", nargs="?", type=Path, help="a package of your own")
    parser.add_argument("picture", nargs="?", type=Path, help="what to test it with")
    parser.add_argument("--folder", type=Path, default=MODELS, help="where the app bundles models")
    given = parser.parse_args()
    if (given.package is None) != (given.picture is None):
        parser.error("a package of your own needs a picture to test it with")
    try:
        if given.package is None:
            placed = make_demo_models(given.folder)
        else:
            placed = [add_model(given.package, given.picture, given.folder)]
    except MvitCoremlError as error:
        print(error, file=sys.stderr)
        return 2
    for package in placed:
        print(package)
    return 0


if __name__ == "__main__":
    sys.exit(main())
