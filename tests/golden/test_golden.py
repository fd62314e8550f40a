"""The golden files are what today's code writes, and what this project's own code agrees with."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

import numpy as np
import PIL
import pytest
from golden import write
from golden.package_cases import files as package_files
from golden.pictures import picture
from golden.preprocessing_cases import shrinks_height_first
from PIL import Image, ImageOps

from mvit_coreml.preprocessing.image_processor import ImageProcessor, fit_image
from mvit_coreml.visualization.segmentation_colors import colorize, distinct_colors

LARGEST = 2_000_000


@cache
def _content(name: str) -> Any:
    return json.loads((write.DATA / name).read_text(encoding="utf-8"))


def _expect_same(files: dict[str, bytes]) -> None:
    stale = [name for name, content in files.items() if _stored(name) != content]
    assert not stale, f"run python -m tests.golden.write to renew {', '.join(stale)}"


def _stored(name: str) -> bytes | None:
    path = write.DATA / name
    return path.read_bytes() if path.is_file() else None


@pytest.mark.fast
def test_images_are_what_is_written_today() -> None:
    _expect_same(write.image_files())


@pytest.mark.fast
def test_answers_are_what_is_written_today() -> None:
    _expect_same(write.answer_files())


def test_packages_are_what_convert_makes_today() -> None:
    _expect_same(package_files())


@pytest.mark.fast
def test_golden_files_stay_small_and_are_all_written_by_the_script() -> None:
    paths = [path for path in write.DATA.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in paths) < LARGEST
    packages = {"packages/segmenter", "packages/sizes"}
    top = {path.relative_to(write.DATA).as_posix() for path in paths}
    written = {"preprocessing.json", "answers.json", "metadata.json"}
    written |= {f"picture.{kind}" for kind in ("ppm", "pgm", "pam")}
    written |= {f"{name}/Manifest.json" for name in packages}
    written |= {f"{name}/Data/com.apple.CoreML/model.mlmodel" for name in packages}
    assert top == written


@pytest.mark.fast
def test_images_cover_what_apps_meet() -> None:
    cases = _content("preprocessing.json")["cases"]
    assert len(cases) >= 40
    assert {case["orientation"] for case in cases} == set(range(1, 9))
    assert {case["fit"] for case in cases} == {"crop", "stretch", "pad"}
    sizes = {(case["picture"]["width"], case["picture"]["height"]) for case in cases}
    assert {(1, 1), (4000, 3000)} <= sizes
    assert any(width % 2 and height % 2 for width, height in sizes)
    assert any(width > 100 * height for width, height in sizes)
    assert any(height > 100 * width for width, height in sizes)
    shrunk = [case["resized"]["width"] < _upright_width(case) for case in cases]
    assert any(shrunk)
    assert not all(shrunk)


def test_this_project_prepares_the_images_alike() -> None:
    compared = 0
    for case in _content("preprocessing.json")["cases"]:
        image = _upright_image(case)
        size = (case["resized"]["width"], case["resized"]["height"])
        if _pillow_version() < 13 and shrinks_height_first(image.size, size):
            continue
        fitted = fit_image(image, _processor(case), case["fit"])
        assert hashlib.sha256(fitted.pixels.tobytes()).hexdigest() == case["sha256"], case["name"]
        compared += 1
    assert compared > 40


def test_pillow_resizes_both_axes_at_once_to_the_same_pixels() -> None:
    if _pillow_version() < 13:
        pytest.skip("Pillow before 13 always changes the width first")
    rng = np.random.default_rng(0)
    for height, width, new_height, new_width in rng.integers(2, 90, (200, 4)).tolist():
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        at_once = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
        middle = (new_width, height)
        if shrinks_height_first((width, height), (new_width, new_height)):
            middle = (width, new_height)
        first = image.resize(middle, Image.Resampling.BICUBIC)
        assert first.resize(at_once.size, Image.Resampling.BICUBIC).tobytes() == at_once.tobytes()


@pytest.mark.fast
def test_opaque_overlays_have_the_colours_of_this_project() -> None:
    overlay = _content("answers.json")["segmentation"]["overlays"][0]
    classes = np.array(overlay["classes"]).reshape(overlay["height"], overlay["width"])
    painted = np.frombuffer(bytes.fromhex(overlay["rgba"]), np.uint8).reshape(*classes.shape, 4)
    np.testing.assert_array_equal(painted[..., :3], colorize(classes, distinct_colors(6)))
    assert (painted[..., 3] == 255).all()


@pytest.mark.parametrize("pattern", ["noise", "checks", "waves"])
def test_pictures_of_different_sizes_begin_alike(pattern: Any) -> None:
    large, small = picture(pattern, 3, (40, 9000)), picture(pattern, 3, (7, 11))
    np.testing.assert_array_equal(large[:7, :11], small)
    assert len({row.tobytes() for row in large}) > 10


def _processor(case: dict[str, Any]) -> ImageProcessor:
    frame = (case["input"]["height"], case["input"]["width"])
    resize = case["resize"]
    size: Any = frame
    if resize is not None:
        size = resize.get("shortest_edge") or (resize["height"], resize["width"])
    return ImageProcessor.for_mobilevit(
        size=size,
        crop_size=frame,
        do_resize=resize is not None or case["fit"] != "crop",
        resample=Image.Resampling[case["resample"].upper()],
    )


def _upright_image(case: dict[str, Any]) -> Image.Image:
    drawn = case["picture"]
    image = Image.fromarray(
        picture(drawn["pattern"], drawn["seed"], (drawn["height"], drawn["width"]))
    )
    image.getexif()[0x0112] = case["orientation"]
    return ImageOps.exif_transpose(image)


def _upright_width(case: dict[str, Any]) -> int:
    return int(case["picture"]["height" if case["orientation"] >= 5 else "width"])


def _pillow_version() -> int:
    return int(PIL.__version__.split(".")[0])
