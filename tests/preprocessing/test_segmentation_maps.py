"""Class maps from logits, against transformers, and laid back on the images they are of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
    MobileNetV2ImageProcessorPil,
)

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ImageProcessor, fit_image
from mvit_coreml.preprocessing.segmentation_maps import (
    post_process_semantic_segmentation,
    unfit_map,
)

pytestmark = pytest.mark.fast

PROCESSOR = ImageProcessor.for_mobilevit(image_size=64, resize_edge=72)
FITS: list[Fit] = ["crop", "stretch", "pad"]
LOGITS = torch.randn(3, 21, 17, 13, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "target_sizes",
    [None, [(50, 70), (17, 13), (8, 6)], torch.tensor([[50, 70], [5, 5], [1, 1]])],
    ids=["own size", "pairs", "tensor"],
)
def test_class_maps_are_the_published_ones(target_sizes: Any) -> None:
    outputs = SimpleNamespace(logits=LOGITS)
    expected = MobileNetV2ImageProcessorPil().post_process_semantic_segmentation(
        outputs, target_sizes
    )
    processor = ImageProcessor.for_mobilevit()
    for answer in (outputs, LOGITS, {"logits": LOGITS}):
        actual = processor.post_process_semantic_segmentation(answer, target_sizes)
        assert len(actual) == 3
        for ours, theirs in zip(actual, expected, strict=True):
            assert ours.dtype == torch.int64
            assert torch.equal(ours, theirs)
    for ours, theirs in zip(
        post_process_semantic_segmentation(LOGITS.numpy(), target_sizes), expected, strict=True
    ):
        assert isinstance(ours, np.ndarray)
        assert ours.dtype == np.int64
        assert np.array_equal(ours, theirs)


def test_target_sizes_are_counted() -> None:
    with pytest.raises(InputError, match="2 target_sizes for 3 images; pass one"):
        post_process_semantic_segmentation(LOGITS, [(4, 4), (5, 5)])


@pytest.mark.parametrize("outputs", [LOGITS[0], None, SimpleNamespace(logits=None), [1.0]])
def test_logits_of_another_shape_are_refused(outputs: Any) -> None:
    with pytest.raises(InputError, match=r"must be \(batch, num_labels, height, width\)"):
        post_process_semantic_segmentation(outputs)


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
