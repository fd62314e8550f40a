"""What cannot be processed is refused in one line; what need not be imported is not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.image_processor import ImageProcessor

pytestmark = pytest.mark.fast

PROCESSOR = ImageProcessor.for_mobilenet_v2(image_size=32)
IMAGE = np.zeros((45, 58, 3), np.uint8)


def assert_refused(message: str, images: Any, **options: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        PROCESSOR.preprocess(images, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are no images to process"),
        ([[], []], "there are no images to process"),
        (np.zeros((0, 45, 58, 3), np.uint8), "there are no images to process"),
        (None, "image is of type NoneType; pass a path, a Pillow image, a NumPy array"),
        ([1, 2], "image is of type int"),
        (b"image.jpg", "image is of type bytes"),
        (np.zeros(9, np.uint8), r"image has shape \(9,\); it must be \(height, width\)"),
        (np.zeros((1, 1, 4, 4, 3), np.uint8), r"image has shape \(1, 1, 4, 4, 3\)"),
        (np.zeros((45, 58, 2), np.uint8), r"shape \(45, 58, 2\) has no axis of 1, 3 or 4 channels"),
        (np.zeros((0, 58, 3), np.uint8), r"image of shape \(0, 58, 3\) has no pixels"),
        (np.zeros((4, 4, 3), complex), "image has dtype complex128; it must hold real numbers"),
        (np.full((4, 4, 3), "a"), "image has dtype <U1"),
        (np.full((9, 8, 3), np.nan), "image holds values that are not finite"),
        (np.full((9, 8, 3), 300), "image holds values from 300 to 300; to be resized"),
        (np.full((9, 8, 3), -1), "image holds values from -1 to -1"),
        (np.full((9, 8, 3), 1.5), "image holds values from 1.5 to 1.5"),
        (np.full((9, 8, 3), 1e30), r"image holds values from 1e\+30 to 1e\+30"),
        ("none.jpg", "^none.jpg: no such image file"),
        (Image.new("RGB", (0, 4)), "has no pixels"),
    ],
)
def test_an_unusable_image_is_named(images: Any, message: str) -> None:
    assert_refused(message, images)


def test_unknown_formats_are_named() -> None:
    assert_refused(
        "return_tensors is 'tf'; it must be 'pt', 'np' or None", IMAGE, return_tensors="tf"
    )
    assert_refused("data_format is 'HWC'; it must be 'channels_first'", IMAGE, data_format="HWC")
    assert_refused("input_data_format is 'HWC'; it must be", IMAGE, input_data_format="HWC")


def test_a_layout_that_does_not_fit_the_image_is_refused() -> None:
    assert_refused(
        r"\(45, 58, 3\) has no axis of .* where input_data_format='channels_first' looks",
        IMAGE,
        input_data_format="channels_first",
    )


def test_different_sizes_cannot_be_stacked() -> None:
    assert_refused(
        r"\(3, 64, 64\) and \(3, 64, 82\)\) and cannot be stacked; set do_center_crop=True",
        [np.zeros((58, 58, 3), np.uint8), IMAGE],
        do_center_crop=False,
    )


def test_gray_images_need_rgb_conversion_to_be_normalised() -> None:
    assert_refused(
        "image has 1 channels but image_mean has 3 values; set do_convert_rgb=True",
        Image.new("L", (9, 9)),
        do_convert_rgb=False,
    )


def test_an_aspect_ratio_that_would_fill_the_memory_is_refused() -> None:
    assert_refused(
        r"image of 1x70000 pixels \(height x width\) would be resized to 64x4480000",
        np.zeros((1, 70000, 3), np.uint8),
        input_data_format="channels_last",
    )


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([], "there are no images to process"),
        (IMAGE[None], r"segmentation map has shape \(1, 45, 58, 3\); it must be \(height, width\)"),
        (Image.new("RGB", (4, 4)), "one class index a pixel, not a colour"),
        (np.full((4, 4), 0.5), "segmentation map holds values that are not whole numbers"),
        (np.full((4, 4), np.nan), "segmentation map holds values that are not whole numbers"),
        (np.zeros((0, 4), np.uint8), r"segmentation map of shape \(0, 4\) has no pixels"),
        ("none.png", "^none.png: no such image file"),
        (3, "segmentation map is of type int"),
    ],
)
def test_an_unusable_map_is_named(maps: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        PROCESSOR.preprocess_segmentation_maps(maps)


def test_images_and_maps_are_counted() -> None:
    with pytest.raises(InputError, match="there are 2 images but 1 segmentation maps; pass one"):
        PROCESSOR([IMAGE, IMAGE], IMAGE[..., 0])


def test_unknown_options_of_a_call_are_named() -> None:
    with pytest.raises(TypeError, match="do_resise"):
        PROCESSOR.preprocess(IMAGE, do_resise=False)


def test_tensors_that_need_a_gradient_are_processed() -> None:
    image = torch.rand(3, 45, 58, generator=torch.Generator().manual_seed(0))
    options = {"do_rescale": False}
    expected = PROCESSOR.preprocess(image, **options)
    assert torch.equal(PROCESSOR.preprocess(image.requires_grad_(), **options), expected)


def test_arrays_are_processed_without_importing_torch() -> None:
    script = (
        "import sys, numpy as np\n"
        "from mvit_coreml.preprocessing.image_processor import ImageProcessor, fit_image\n"
        "from mvit_coreml.visualization.segmentation_colors import colorize, voc_colors\n"
        "processor = ImageProcessor.for_mobilevit(image_size=32)\n"
        "image = np.zeros((40, 50, 3), np.uint8)\n"
        "processor(image, image[..., 0], return_tensors='np')\n"
        "fit_image(image, processor, 'pad')\n"
        "colorize(image[..., 0], voc_colors(1))\n"
        "heavy = {'torch', 'coremltools', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
