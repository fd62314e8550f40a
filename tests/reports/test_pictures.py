"""Thumbnails and plots, decoded again."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.reports import pictures
from mvit_coreml.reports.pictures import EDGE, INK, SERIES, difference_uri, map_uri, photo_uri
from mvit_coreml.reports.report import SizeBar
from mvit_coreml.validation.operation_precision import LayerError

pytestmark = pytest.mark.fast

VERMILLION = (213, 94, 0)


def decoded(uri: str) -> np.ndarray:
    assert re.match(r"data:image/(png|jpeg);base64,", uri)
    content = base64.b64decode(uri.split(",")[1])
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def drawn(svg: str) -> ET.Element:
    return ET.fromstring(svg)


def points(svg: str, color: int) -> list[tuple[float, float]]:
    """Places of the markers of a colour, in the plot's units."""
    name = f"var(--series-{color}"
    return [
        (float(mark.get("x", "nan")), float(mark.get("y", "nan")))
        for mark in drawn(svg).iter("use")
        if name in (mark.get("style") or "")
    ]


@pytest.mark.parametrize(("size", "expected"), [((513, 300), (160, 94)), ((20, 30), (20, 30))])
def test_thumbnails_are_small_and_never_enlarged(size, expected):
    pixels = np.full((*size, 3), (200, 60, 20), np.uint8)
    found = decoded(photo_uri(pixels))
    assert found.shape[:2] == expected
    assert np.abs(found - (200, 60, 20)).max() <= 4
    assert max(expected) <= EDGE


def test_maps_keep_their_classes_exactly():
    class_map = np.zeros((320, 480), np.int32)
    class_map[160:, 240:] = 1
    class_map[:160, 240:] = 7  # of which there is no colour
    found = decoded(map_uri(class_map, ("#102030", "#ff8000")))
    assert found.shape[:2] == (107, 160)
    assert found[0, 0].tolist() == [0x10, 0x20, 0x30]
    assert found[-1, -1].tolist() == [0xFF, 0x80, 0]
    assert found[0, -1].tolist() == [128, 128, 128]
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 3


@pytest.mark.parametrize("edge", [513, 16])
def test_one_pixel_that_differs_is_seen_and_the_rest_is_gray(edge):
    pixels = np.full((512, 512, 3), 90, np.uint8)
    maps = np.zeros((edge, edge), np.int32), np.zeros((edge, edge), np.int32)
    maps[1][edge // 2, edge // 4] = 1
    found = decoded(difference_uri(pixels, maps))
    near = (found == VERMILLION).all(axis=2)
    rows, columns = np.nonzero(near)
    side = max(1, round(160 / edge))
    assert len(rows) == side * side
    assert rows.mean() + 0.5 == pytest.approx(160 * (edge // 2 + 0.5) / edge, abs=1)
    assert columns.mean() + 0.5 == pytest.approx(160 * (edge // 4 + 0.5) / edge, abs=1)
    gray = found[rows.max() + 20 :]
    assert np.ptp(gray, axis=2).max() == 0


def test_equal_maps_have_no_marks():
    pixels = np.full((64, 64, 3), 90, np.uint8)
    same = np.ones((64, 64), np.int32)
    found = decoded(difference_uri(pixels, (same, same)))
    assert np.ptp(found, axis=2).max() == 0


@pytest.mark.parametrize("width", [pictures.NARROW, pictures.WIDE])
def test_the_layer_plot_has_a_point_for_every_inexact_operation(width):
    ratios = [300.0, 60.0, 30.0, 45.0]
    layers = [
        LayerError(operation=f"op_{i}", op_type="conv", snr=snr, drop=10.0)
        for i, snr in enumerate(ratios)
    ]
    svg = pictures.layer_plot(layers, layers[2:3], width, "layers")
    found = points(svg, 1)
    assert len(found) == 3
    ys = [y for _, y in found]
    # Linear in dB, upwards.
    assert (ys[1] - ys[2]) / (ys[1] - ys[0]) == pytest.approx((45 - 30) / (60 - 30), abs=1e-3)
    assert points(svg, 6) == [pytest.approx(found[1], abs=1e-3)]
    assert "1" in ["".join(text.itertext()) for text in drawn(svg).iter("text")]


def test_the_scatter_shows_every_pair_where_it_belongs():
    # So many that matplotlib, left to itself, would drop lines without length.
    pairs = [(0.0, 0.0), (1.0, 2.0), (4.0, 4.0), (2.0, 1.0)] * 50
    svg = pictures.score_scatter(pairs, pictures.NARROW, "scores")
    (path,) = [
        element.get("d")
        for element in drawn(svg).iter("path")
        if "--series-1" in (element.get("style") or "")
    ]
    assert path is not None
    found = [tuple(map(float, m)) for m in re.findall(r"M ([0-9.]+) ([0-9.]+) L \1 \2", path)]
    assert len(found) == 200
    zero, scale = found[0], found[2][0] - found[0][0]
    for (x, y), (right, down) in zip(pairs, found, strict=True):
        assert (right - zero[0]) / scale == pytest.approx(x / 4, abs=1e-3)
        assert (zero[1] - down) / scale == pytest.approx(y / 4, abs=1e-3)


def test_the_size_chart_names_sizes_and_parts():
    bars = [
        SizeBar(label="this package", parts=(("6-bit palette", 600_000), ("rest", 250_000))),
        SizeBar(label="plain $x$ <b>", parts=(("fp16", 1_600_000), ("rest", 250_000))),
    ]
    for width in (pictures.NARROW, pictures.WIDE):
        svg = pictures.size_chart(bars, width, "sizes")
        texts = ["".join(text.itertext()) for text in drawn(svg).iter("text")]
        assert {"this package", "plain $x$ <b>", "0.85 MB", "1.85 MB"} <= set(texts)
        assert {"6-bit palette", "fp16", "rest"} <= set(texts)


def test_plots_take_the_pages_colours_and_fonts():
    svg = pictures.score_scatter([(0.0, 1.0), (1.0, 0.0)], pictures.NARROW, "scores")
    assert "currentColor" in svg
    assert "var(--series-1, #0072b2)" in svg
    assert not [color for color in (INK, *SERIES) if color in svg]
    assert "DejaVu" not in svg
    assert "<style" not in svg
    assert drawn(svg).get("aria-label") == "Scatter plot of 2 scores of the package over PyTorch's"


def test_a_style_of_the_users_own_changes_nothing():
    import matplotlib

    pairs = [(0.0, 1.0), (1.0, 0.0)]
    before = pictures.score_scatter(pairs, pictures.NARROW, "scores")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "axes.grid": True}):
        assert pictures.score_scatter(pairs, pictures.NARROW, "scores") == before
        assert matplotlib.rcParams["font.size"] == 30
