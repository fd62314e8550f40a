"""Fitting images to a model's input and laying class maps back on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.fitting import fit_image, unfit_map
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ImageProcessor

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


def block_image(rows: int, columns: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """An image of flat blocks and the class of every pixel: the number of its block."""
    classes = np.arange(rows * columns).reshape(rows, columns)
    classes = classes.repeat(side, axis=0).repeat(side, axis=1)
    return np.repeat(classes[..., None].astype(np.uint8), 3, axis=-1), classes


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("grid", [(3, 5), (5, 3), (4, 4), (1, 9)])
def test_a_map_of_the_input_lies_on_the_same_blocks_of_the_original(
    fit: Fit, grid: tuple[int, int]
) -> None:
    image, classes = block_image(*grid, side=32)
    processor = ImageProcessor.for_mobilevit(image_size=160, resize_edge=160, resample=0)
    fitted = fit_image(image, processor, fit)
    back = unfit_map(fitted.pixels[..., 0].astype(np.int64), fitted.placement, fill=-1)
    assert back.shape == classes.shape
    seen = back >= 0
    if fit == "crop":
        visible = 32 * min(grid)
        assert seen.sum() == visible * visible
    else:
        assert seen.all()
    # Nearest neighbour there and back moves the blocks' edges by a pixel or two.
    inner = np.isin(np.arange(classes.shape[0]) % 32, range(3, 29))[:, None]
    inner = inner & np.isin(np.arange(classes.shape[1]) % 32, range(3, 29))
    assert np.array_equal(back[seen & inner], classes[seen & inner])


def test_a_coarse_map_covers_the_whole_input() -> None:
    # Four cells over a 64-pixel input that shows a 50 x 200 image in its rows 24 to 40.
    placement = PROCESSOR.place((50, 200), "pad")
    assert (placement.valid.top, placement.valid.bottom) == (24, 40)
    coarse = np.arange(16).reshape(4, 4)
    back = unfit_map(coarse, placement)
    # Input rows 24..31 belong to the second row of cells, 32..39 to the third.
    columns = np.arange(4).repeat(50)
    expected = np.concatenate([np.tile(columns + 4, (25, 1)), np.tile(columns + 8, (25, 1))])
    assert np.array_equal(back, expected)
    assert back.dtype == coarse.dtype


def test_pixels_that_the_input_did_not_show_get_the_fill() -> None:
    placement = PROCESSOR.replace(do_resize=False).place((80, 70))
    back = unfit_map(np.ones((64, 64), np.int64), placement, fill=255)
    expected = np.full((80, 70), 255)
    expected[8:72, 3:67] = 1
    assert np.array_equal(back, expected)


def test_every_fit_maps_back_onto_images_of_any_size() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = (int(value) for value in rng.integers(1, 200, 2))
        for fit in FITS:
            placement = PROCESSOR.place((height, width), fit)
            back = unfit_map(np.full((16, 16), 7), placement, fill=-1)
            source = placement.source
            shown = (back == 7).sum()
            area = (source.bottom - source.top) * (source.right - source.left)
            assert back.shape == (height, width)
            assert set(np.unique(back)) <= {7, -1}
            assert abs(shown - area) <= height + width + 1


def test_a_batch_of_maps_is_refused() -> None:
    with pytest.raises(InputError, match=r"class map has shape \(1, 4, 4\); it must be \(height"):
        unfit_map(np.zeros((1, 4, 4), np.int64), PROCESSOR.place((50, 60)))
