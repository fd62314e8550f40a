"""Colours of segmentation maps: palettes, overlays, legends, masks as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.image_arrays import Array, ImageLike, image_array
from mvit_coreml.preprocessing.resize_crop_normalize import to_uint8

# PASCAL VOC marks pixels without a class by this index, in this colour.
VOID, VOID_COLOR = 255, (224, 224, 192)
_LEVELS_PER_CHANNEL = 16


def voc_colors(count: int) -> Array:
    """Return the colour map of PASCAL VOC, which its class masks are stored with.

    The bits of an index, three at a time from the lowest, are the bits of red, green and blue from
    the highest (``VOClabelcolormap`` of the VOC development kit).

    Args:
        count: number of colours, up to 256; VOC itself has 21 classes, and 255 for borders.

    Returns:
        (count, 3) uint8 RGB.

    Raises:
        InputError: a count below 0 or above 256.
    """
    _check_count(count, 256)
    indices = np.arange(count)[:, None]
    channels = np.arange(3)[None, :]
    colors = np.zeros((count, 3), np.uint8)
    for bit in range(8):
        source_bits = (indices >> (3 * bit + channels)) & 1
        colors |= (source_bits << (7 - bit)).astype(np.uint8)
    return colors


def distinct_colors(count: int) -> Array:
    """Return colours that are easy to tell apart, for label sets without a map of their own.

    Each colour is the one farthest from all before it and from black and white, so the first ones
    do not depend on how many follow.

    Args:
        count: number of colours, up to 4094.

    Returns:
        (count, 3) uint8 RGB.

    Raises:
        InputError: a count below 0 or above 4094.
    """
    _check_count(count, _LEVELS_PER_CHANNEL**3 - 2)
    levels = np.linspace(0, 255, _LEVELS_PER_CHANNEL)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    # Weights of "redmean" at mid red: how much a difference in each channel is seen.
    weights = np.array([2.5, 4.0, 2.5])
    distance = np.minimum(((grid - 0.0) ** 2) @ weights, ((grid - 255.0) ** 2) @ weights)
    colors = np.empty((count, 3), np.uint8)
    for index in range(count):
        farthest = grid[np.argmax(distance)]
        colors[index] = farthest
        distance = np.minimum(distance, ((grid - farthest) ** 2) @ weights)
    return colors


def colorize(class_map: Array, colors: Array) -> Array:
    """Paint a class map.

    Args:
        class_map: (H, W) class indices.
        colors: (num_labels, 3) uint8 RGB, such as :func:`voc_colors`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: a class without a colour.
    """
    class_map = np.asarray(class_map)
    if class_map.ndim != 2:
        raise InputError(f"class map has shape {class_map.shape}; it must be (height, width)")
    if class_map.size and not 0 <= class_map.min() <= class_map.max() < len(colors):
        raise InputError(
            f"class map holds classes from {class_map.min()} to {class_map.max()}, "
            f"but there are {len(colors)} colors"
        )
    return np.asarray(colors, np.uint8)[class_map]


def overlay(
    image: ImageLike,
    class_map: Array,
    colors: Array,
    alpha: float = 0.5,
    *,
    background: int | None = None,
) -> Array:
    """Blend a painted class map over its image.

    Args:
        image: the image, of the map's size.
        class_map: (H, W) class indices.
        colors: (num_labels, 3) uint8 RGB.
        alpha: weight of the colours, from 0 (the image alone) to 1 (the colours alone).
        background: class to leave unpainted.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: sizes that differ, a class without a colour, or ``alpha`` out of range.
    """
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}; it must lie from 0 to 1")
    pixels = to_uint8(image_array(image))
    painted = colorize(class_map, colors)
    if pixels.shape != painted.shape:
        raise InputError(
            f"image is {pixels.shape[0]}x{pixels.shape[1]} pixels (height x width) but its class "
            f"map {painted.shape[0]}x{painted.shape[1]}; post-process it to the image's size"
        )
    blended = np.rint(pixels * (1 - alpha) + painted * alpha).astype(np.uint8)
    if background is None:
        return blended
    return np.where(np.asarray(class_map)[..., None] == background, pixels, blended)


def paletted_mask(classes: Array, colors: Array) -> Image.Image:
    """Return a class map as an image whose pixel values are class indices, shown in colours.

    Args:
        classes: (H, W) class indices; negative ones stand for no class and become 255.
        colors: (num_labels, 3) uint8 RGB, at most 255 of them.

    Raises:
        InputError: more classes than a palette holds.
    """
    if len(colors) > VOID:
        raise InputError(f"a mask holds up to {VOID} classes, not {len(colors)}")
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colors)] = colors
    palette[VOID] = VOID_COLOR
    image = Image.fromarray(np.where(classes < 0, VOID, classes).astype(np.uint8))
    image.putpalette(palette.tobytes())
    return image


def _check_count(count: int, limit: int) -> None:
    if not 0 <= count <= limit:
        raise InputError(f"{count} colors were asked for; there are from 0 to {limit}")


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
