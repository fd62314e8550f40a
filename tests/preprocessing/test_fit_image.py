"""Fitting images to a model's input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ImageProcessor, fit_image

pytestmark = pytest.mark.fast

PROCESSOR = ImageProcessor.for_mobilevit(image_size=64, resize_edge=72)
FITS: list[Fit] = ["crop", "stretch", "pad"]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("image_size", [(100, 130), (72, 90), (64, 64), (10, 7), (300, 41)])
@pytest.mark.parametrize(
    "processor",
    [
        PROCESSOR,
        ImageProcessor.for_mobilenet_v2(image_size=48),
        PROCESSOR.replace(do_resize=False),
        PROCESSOR.replace(do_center_crop=False),
        PROCESSOR.replace(size=(40, 50), crop_size=(64, 30)),
    ],
    ids=["mobilevit", "mobilenet_v2", "no resize", "no crop", "stretched"],
)
def test_a_cropped_image_goes_on_to_the_processors_own_pixels(
    image_size: tuple[int, int], processor: ImageProcessor
) -> None:
    image = noise(*image_size, 3)
    fitted = fit_image(image, processor)
    assert fitted.pixels.dtype == np.uint8
    assert fitted.pixels.shape[:2] == fitted.placement.input_size
    rest = processor.preprocess(fitted.pixels, do_resize=False, do_center_crop=False)
    assert np.array_equal(rest, processor.preprocess(image))


def test_a_stretched_image_is_resized_to_the_input() -> None:
    image = Image.fromarray(noise(100, 30, 3))
    expected = np.array(image.resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(fit_image(image, PROCESSOR, "stretch").pixels, expected)


def test_a_padded_image_is_resized_whole_and_centred_on_zeros() -> None:
    image = Image.fromarray(noise(128, 50, 3))
    expected = np.zeros((64, 64, 3), np.uint8)
    # 64 - 25 = 39 columns of padding, the odd one on the left as in a centre crop.
    expected[:, 20:45] = np.array(image.resize((25, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(fit_image(image, PROCESSOR, "pad").pixels, expected)


def test_files_floats_and_gray_arrays_are_fitted(tmp_path: Path) -> None:
    image = noise(100, 130, 3)
    Image.fromarray(image).save(tmp_path / "image.png")
    expected = fit_image(image, PROCESSOR).pixels
    assert np.array_equal(fit_image(tmp_path / "image.png", PROCESSOR).pixels, expected)
    assert np.array_equal(fit_image(image.astype(np.float32), PROCESSOR).pixels, expected)
    assert fit_image(noise(100, 130), PROCESSOR).pixels.shape == (64, 64, 3)
