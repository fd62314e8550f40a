"""Sizes, windows and placements by hand, and against transformers and a brute-force painting."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.image_transforms import get_resize_output_image_size

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.geometry import (
    Box,
    contained_size,
    covering_edge,
    crop_offset,
    place,
    resized_size,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("seed", range(5))
def test_the_shortest_edge_is_computed_as_published(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        height, width, edge = (int(value) for value in rng.integers(1, 3000, 3))
        published = get_resize_output_image_size(
            np.broadcast_to(np.uint8(0), (1, height, width)),
            edge,
            default_to_square=False,
            input_data_format="channels_first",
        )
        assert resized_size((height, width), edge) == published


def test_a_height_and_width_are_taken_as_they_are() -> None:
    assert resized_size((100, 7), (30, 40)) == (30, 40)


@pytest.mark.parametrize(
    ("image_size", "frame", "expected"),
    [
        ((100, 200), (50, 50), (25, 50)),
        ((200, 100), (50, 50), (50, 25)),
        ((100, 200), (256, 256), (128, 256)),
        ((3, 2), (10, 10), (10, 7)),
        ((1, 1000), (64, 64), (1, 64)),
        ((1000, 1), (64, 64), (64, 1)),
        ((30, 40), (30, 40), (30, 40)),
        ((375, 500), (100, 300), (100, 133)),
    ],
)
def test_a_contained_image_fills_one_edge_of_its_frame(
    image_size: tuple[int, int], frame: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert contained_size(image_size, frame) == expected


def test_a_contained_image_never_leaves_its_frame() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        height, width, frame_height, frame_width = (int(v) for v in rng.integers(1, 900, 4))
        inside = contained_size((height, width), (frame_height, frame_width))
        assert 1 <= inside[0] <= frame_height
        assert 1 <= inside[1] <= frame_width
        assert inside[0] == frame_height or inside[1] == frame_width


@pytest.mark.parametrize(
    ("image_size", "crop_size", "expected"),
    [
        ((10, 10), (4, 4), (3, 3)),
        ((11, 10), (4, 5), (3, 2)),
        ((4, 4), (10, 11), (-3, -4)),
        ((288, 384), (256, 256), (16, 64)),
    ],
)
def test_windows_are_centred_rounding_down(
    image_size: tuple[int, int], crop_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert crop_offset(image_size, crop_size) == expected


def test_a_crop_shows_the_centre_of_the_original() -> None:
    placement = place((576, 768), size=288, crop_size=(256, 256))
    assert placement.resized_size == (288, 384)
    assert placement.input_size == (256, 256)
    assert placement.valid == Box(top=0, left=0, bottom=256, right=256)
    assert placement.source == Box(top=32, left=128, bottom=544, right=640)


def test_a_crop_larger_than_the_image_shows_all_of_it() -> None:
    placement = place((20, 41), size=None, crop_size=(31, 50))
    assert placement.resized_size == (20, 41)
    assert placement.valid == Box(top=6, left=5, bottom=26, right=46)
    assert placement.source == Box(top=0, left=0, bottom=20, right=41)


def test_a_stretch_shows_all_of_the_original_everywhere() -> None:
    placement = place((50, 200), size=288, crop_size=(256, 256), fit="stretch")
    assert placement.resized_size == placement.input_size == (256, 256)
    assert placement.valid == Box(top=0, left=0, bottom=256, right=256)
    assert placement.source == Box(top=0, left=0, bottom=50, right=200)


def test_padding_shows_all_of_the_original_between_zeros() -> None:
    placement = place((50, 200), size=288, crop_size=(256, 256), fit="pad")
    assert placement.resized_size == (64, 256)
    assert placement.valid == Box(top=96, left=0, bottom=160, right=256)
    assert placement.source == Box(top=0, left=0, bottom=50, right=200)


def test_without_a_crop_the_resized_image_is_the_input() -> None:
    assert place((50, 200), size=100, crop_size=None).input_size == (100, 400)
    assert place((50, 200), size=None, crop_size=None).input_size == (50, 200)
    assert place((50, 200), size=(30, 40), crop_size=None, fit="pad").input_size == (30, 40)


def test_stretching_and_padding_need_a_fixed_input_size() -> None:
    for size in (None, 288):
        with pytest.raises(InputError, match="fit='pad' needs a fixed input size; set a crop_size"):
            place((50, 200), size=size, crop_size=None, fit="pad")


def test_an_unknown_fit_is_named() -> None:
    with pytest.raises(InputError, match="fit is 'zoom'; it must be 'crop', 'stretch' or 'pad'"):
        place((50, 200), size=288, crop_size=(256, 256), fit="zoom")  # type: ignore[arg-type]


@pytest.mark.parametrize("frame", [(224, 224), (128, 256), (96, 32), (1, 7)])
@pytest.mark.parametrize("image_size", [(480, 640), (333, 1000), (7, 5), (224, 224)])
def test_the_covering_edge_is_the_least_that_covers(
    image_size: tuple[int, int], frame: tuple[int, int]
) -> None:
    edge = covering_edge(image_size, frame)
    height, width = resized_size(image_size, edge)
    assert height >= frame[0]
    assert width >= frame[1]
    smaller = resized_size(image_size, edge - 1)
    # One pixel less would do for none but by rounding.
    assert smaller[0] <= frame[0] or smaller[1] <= frame[1]
