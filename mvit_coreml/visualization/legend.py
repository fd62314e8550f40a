"""A legend below a picture: what its colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mvit_coreml.preprocessing.image_arrays import Array, ImageLike, image_array
from mvit_coreml.preprocessing.resize_crop_normalize import to_uint8

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_BACKGROUND = (255, 255, 255)
_INK = (32, 32, 32)
# Text height as a part of the picture's shorter side, in pixels at least and at most.
_TEXT_SHARE, _SMALLEST_TEXT, _LARGEST_TEXT = 1 / 28, 11, 48


@dataclass(frozen=True)
class LegendEntry:
    """One line of a legend.

    Attributes:
        text: what the colour means.
        color: (red, green, blue), 0 to 255.
    """

    text: str
    color: tuple[int, int, int]


def add_legend(image: ImageLike, entries: Sequence[LegendEntry]) -> Array:
    """Put a legend below a picture: a square of each colour with its text, in as many rows as fit.

    Args:
        image: the picture.
        entries: what to list, in order; none leaves the picture as it is.

    Returns:
        (H + legend, W', 3) uint8 RGB; W' is larger than W only where one entry is wider than W.
    """
    pixels = to_uint8(image_array(image))
    if not entries:
        return pixels
    height, width = pixels.shape[:2]
    size = round(min(height, width) * _TEXT_SHARE)
    size = min(max(size, _SMALLEST_TEXT), _LARGEST_TEXT)
    font = ImageFont.load_default(size)
    texts = [_printable(entry.text, font) for entry in entries]
    gap = size // 2
    # A square, a gap, the text, and a wider gap to the next entry.
    widths = [size + gap + round(font.getlength(text)) + 2 * gap for text in texts]
    rows = _rows(widths, max(width - gap, 1))
    total = max(width, gap + max(widths))
    line = round(size * 1.6)
    canvas = Image.new("RGB", (total, height + len(rows) * line + gap), _BACKGROUND)
    canvas.paste(Image.fromarray(pixels), (0, 0))
    draw = ImageDraw.Draw(canvas)
    for row, members in enumerate(rows):
        left, top = gap, height + gap + row * line
        for index in members:
            square = (left, top, left + size - 1, top + size - 1)
            draw.rectangle(square, fill=entries[index].color, outline=_INK)
            text_at = (left + size + gap, top + size / 2)
            anchor = "lm" if isinstance(font, ImageFont.FreeTypeFont) else None
            draw.text(text_at if anchor else (text_at[0], top), texts[index], _INK, font, anchor)
            left += widths[index]
    return np.array(canvas)


def _rows(widths: Sequence[int], available: int) -> list[list[int]]:
    """Break entries into rows of at most the available width, one entry at least."""
    rows: list[list[int]] = [[]]
    used = 0
    for index, width in enumerate(widths):
        if rows[-1] and used + width > available:
            rows.append([])
            used = 0
        rows[-1].append(index)
        used += width
    return rows


def _printable(text: str, font: Font) -> str:
    """Replace what Pillow's built-in bitmap font, its only one without FreeType, cannot draw."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return text
    return text.encode("latin-1", "replace").decode("latin-1")
