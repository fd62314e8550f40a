"""Class maps as picture files."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.arrays import Array

# PASCAL VOC marks pixels without a class by this index, in this colour.
VOID, VOID_COLOR = 255, (224, 224, 192)


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
