"""Small pictures inside a page: data URIs of photos, class maps and where two of them differ."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Longer edge of a thumbnail in pixels; pictures smaller than that stay as they are.
EDGE = 160
# Where maps differ: Okabe and Ito's vermillion over pale grays.
_SHADES = 32
_PALE = np.vstack(
    [np.linspace(150, 247, _SHADES)[:, None].repeat(3, axis=1), [(213, 94, 0)]]
).astype(np.uint8)
_UNKNOWN = "#808080"


def photo_uri(pixels: NDArray[np.uint8]) -> str:
    """Return a thumbnail of (h, w, 3) uint8 RGB pixels."""
    return _data_uri(_thumbnail(pixels), "jpeg", quality=85)


def map_uri(class_map: NDArray[Any], colors: Sequence[str]) -> str:
    """Return a thumbnail of a class map.

    Args:
        class_map: (h, w) class indices.
        colors: ``#rrggbb`` of every class; a class without one is gray.
    """
    height, width = _size(class_map.shape[:2])
    # The class in the middle of each pixel: a mean of class indices would be another class.
    rows = (np.arange(height) + 0.5) * class_map.shape[0] / height
    columns = (np.arange(width) + 0.5) * class_map.shape[1] / width
    small = class_map[np.ix_(rows.astype(np.intp), columns.astype(np.intp))]
    classes, places = np.unique(small, return_inverse=True)
    shades = [class_color(int(index), colors) for index in classes]
    table = np.array([tuple(bytes.fromhex(shade[1:])) for shade in shades], np.uint8)
    if len(classes) > 256:
        return _data_uri(Image.fromarray(table[places.reshape(small.shape)]), "png")
    image = Image.fromarray(places.reshape(small.shape).astype(np.uint8))
    image.putpalette(table.tobytes())  # makes the gray levels indices
    return _data_uri(image, "png")


def difference_uri(pixels: NDArray[np.uint8], maps: tuple[NDArray[Any], NDArray[Any]]) -> str:
    """Return a gray, pale thumbnail with marks where two class maps differ.

    A single pixel that differs is still seen: the marks stay as the picture shrinks.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        maps: two (h', w') class maps over the same view.
    """
    gray = np.asarray(_thumbnail(pixels).convert("L"), np.float64)
    height, width = gray.shape
    marks = np.zeros((height, width), bool)
    rows, columns = np.nonzero(maps[0] != maps[1])
    scale_y, scale_x = height / maps[0].shape[0], width / maps[0].shape[1]
    # An enlarged map's pixel covers several of the thumbnail's.
    for down in range(max(1, round(scale_y))):
        for right in range(max(1, round(scale_x))):
            y = np.minimum((rows * scale_y).astype(np.intp) + down, height - 1)
            x = np.minimum((columns * scale_x).astype(np.intp) + right, width - 1)
            marks[y, x] = True
    # Few shades, and one more for the marks: lossless, and still a small file.
    shades = (gray * (_SHADES / 256)).astype(np.uint8)
    shades[marks] = _SHADES
    image = Image.fromarray(shades)
    image.putpalette(_PALE.tobytes())
    return _data_uri(image, "png")


def class_color(index: int, colors: Sequence[str]) -> str:
    """Return ``#rrggbb`` of a class: gray for one that has no colour."""
    return colors[index] if 0 <= index < len(colors) else _UNKNOWN


def _thumbnail(pixels: NDArray[np.uint8]) -> Image.Image:
    height, width = _size(pixels.shape[:2])
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)


def _size(size: tuple[int, ...]) -> tuple[int, int]:
    shrunk = min(1.0, EDGE / max(size))
    return max(1, round(size[0] * shrunk)), max(1, round(size[1] * shrunk))


def _data_uri(image: Image.Image, image_format: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, image_format, optimize=True, **options)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
