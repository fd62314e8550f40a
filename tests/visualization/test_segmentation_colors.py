"""Colours of class maps against VOC's own files and by hand."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.visualization.segmentation_colors import (
    colorize,
    distinct_colors,
    overlay,
    paletted_mask,
    voc_colors,
)

pytestmark = pytest.mark.fast


def test_voc_colours_are_the_published_ones() -> None:
    # Background, aeroplane, bicycle, bird, boat, person, tv monitor and the border, from the VOC
    # development kit's documentation.
    by_hand = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        3: (128, 128, 0),
        4: (0, 0, 128),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    colors = voc_colors(256)
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    assert {index: tuple(colors[index].tolist()) for index in by_hand} == by_hand
    assert np.array_equal(voc_colors(21), colors[:21])


def test_voc_colours_are_those_of_a_real_mask(real_data: Path) -> None:
    paths = sorted((real_data / "voc").glob("*_target.png"))
    assert paths
    known = {tuple(color) for color in voc_colors(256).tolist()}
    for path in paths:
        with Image.open(path) as mask:
            pixels = np.array(mask.convert("RGB")).reshape(-1, 3)
        assert {tuple(color) for color in np.unique(pixels, axis=0).tolist()} <= known


def test_distinct_colours_are_far_apart_and_never_change() -> None:
    colors = distinct_colors(150).astype(int)
    assert colors.shape == (150, 3)
    assert np.array_equal(distinct_colors(20), colors[:20])
    anchored = np.concatenate([colors[:20], [[0, 0, 0], [255, 255, 255]]])
    distances = np.linalg.norm(anchored[:, None] - anchored[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 90
    every = distinct_colors(1000)
    assert len(np.unique(every, axis=0)) == 1000


@pytest.mark.parametrize("colors_of", [voc_colors, distinct_colors])
@pytest.mark.parametrize("count", [-1, 5000])
def test_colours_that_do_not_exist_are_refused(colors_of: Any, count: int) -> None:
    with pytest.raises(InputError, match=f"{count} colors were asked for"):
        colors_of(count)


def test_no_colours_may_be_asked_for() -> None:
    assert voc_colors(0).shape == distinct_colors(0).shape == (0, 3)


COLORS = np.array([[0, 0, 0], [200, 100, 0]], np.uint8)
CLASSES = np.array([[0, 1], [1, 0]])


def test_a_class_map_is_painted_in_its_colours() -> None:
    painted = colorize(CLASSES, COLORS)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[0, 0, 0], [200, 100, 0]], [[200, 100, 0], [0, 0, 0]]]


@pytest.mark.parametrize(("label", "held"), [(2, "0 to 2"), (-1, "-1 to 1")])
def test_a_class_without_a_colour_is_refused(label: int, held: str) -> None:
    classes = CLASSES.copy()
    classes[0, 0] = label
    with pytest.raises(InputError, match=f"holds classes from {held}, but there are 2 colors"):
        colorize(classes, COLORS)


def test_an_overlay_blends_by_alpha() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    blended = overlay(image, CLASSES, COLORS, 0.25)
    assert blended.tolist() == [
        [[75, 75, 75], [125, 100, 75]],
        [[125, 100, 75], [75, 75, 75]],
    ]
    assert np.array_equal(overlay(Image.fromarray(image), CLASSES, COLORS, 0.0), image)
    assert np.array_equal(overlay(image, CLASSES, COLORS, 1.0), colorize(CLASSES, COLORS))


def test_an_overlay_can_leave_the_background_unpainted() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    blended = overlay(image, CLASSES, COLORS, 0.25, background=0)
    assert blended.tolist() == [
        [[100, 100, 100], [125, 100, 75]],
        [[125, 100, 75], [100, 100, 100]],
    ]


def test_an_overlay_needs_an_image_of_the_maps_size() -> None:
    with pytest.raises(InputError, match=r"image is 9x2 pixels .* but its class map 2x2"):
        overlay(np.zeros((9, 2, 3), np.uint8), CLASSES, COLORS)


def test_an_overlay_needs_an_alpha_from_0_to_1() -> None:
    with pytest.raises(InputError, match=r"alpha is 1\.5"):
        overlay(np.zeros((2, 2, 3), np.uint8), CLASSES, COLORS, 1.5)


def test_a_map_with_channels_is_not_painted() -> None:
    with pytest.raises(InputError, match=r"class map has shape \(1, 2, 2\)"):
        colorize(CLASSES[None], COLORS)


def test_a_saved_mask_reads_back_as_indices_and_as_colours():
    classes = np.array([[0, 1, 15], [20, -1, -7]])
    buffer = io.BytesIO()
    paletted_mask(classes, voc_colors(21)).save(buffer, "PNG")
    read = Image.open(buffer)
    assert read.mode == "P"
    assert np.asarray(read).tolist() == [[0, 1, 15], [20, 255, 255]]
    # VOC's own colours of aeroplane, person and border.
    rgb = read.convert("RGB")
    assert rgb.getpixel((1, 0)) == (128, 0, 0)
    assert rgb.getpixel((2, 0)) == (192, 128, 128)
    assert rgb.getpixel((1, 1)) == (224, 224, 192)


def test_more_classes_than_a_palette_holds_are_refused():
    with pytest.raises(InputError, match="up to 255 classes, not 256"):
        paletted_mask(np.zeros((2, 2), int), np.zeros((256, 3), np.uint8))
