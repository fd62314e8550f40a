"""Resizing, cropping and normalising of images: the steps of an image processor.

Images are (H, W, C); every function leaves its argument as it was. The arithmetic, down to the
dtype of each step, is that of the published processors, so results are bit-identical to theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.geometry import crop_offset
from mvit_coreml.preprocessing.image_arrays import Array


def resize(image: Array, size: tuple[int, int], resample: int) -> Array:
    """Resize with Pillow, in 8 bits and antialiased.

    Args:
        image: (H, W, C); uint8, whole numbers from 0 to 255, or floats from 0 to 1.
        size: (height, width) of the result.
        resample: a ``PIL.Image.Resampling`` value.

    Returns:
        (height, width, C); uint8, or float32 from 0 to 1 (in steps of 1/255) if the image held
        such fractions.

    Raises:
        InputError: values outside those ranges, or a result that would not fit in memory.
    """
    pixels, is_fraction = _to_uint8(image)
    check_area(image.shape[:2], size)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    resized = np.array(picture.resize(size[::-1], Image.Resampling(resample)))
    resized = resized.reshape(*size, pixels.shape[-1])
    return rescale(resized, 1 / 255) if is_fraction else resized


def center_crop(image: Array, size: tuple[int, int]) -> Array:
    """Cut a centred (height, width) window out of an (H, W, …) array; zeros where it overhangs."""
    height, width = size
    top, left = crop_offset((image.shape[0], image.shape[1]), size)
    visible = image[max(0, top) : top + height, max(0, left) : left + width]
    cropped = np.zeros((height, width, *image.shape[2:]), image.dtype)
    row, column = max(0, -top), max(0, -left)
    cropped[row : row + visible.shape[0], column : column + visible.shape[1]] = visible
    return cropped


def rescale(image: Array, factor: float) -> Array:
    """Multiply by a factor in float64; float32."""
    return (image.astype(np.float64) * factor).astype(np.float32)


def normalize(image: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """Subtract the mean and divide by the standard deviation of each channel.

    Returns:
        (H, W, C) of the image's dtype if that is a float, else float32.

    Raises:
        InputError: the number of channels differs from the number of means.
    """
    if image.shape[-1] != len(mean):
        raise InputError(
            f"image has {image.shape[-1]} channels but image_mean has {len(mean)} values; "
            "set do_convert_rgb=True"
        )
    if image.dtype.kind != "f":
        image = image.astype(np.float32)
    return (image - np.array(mean, image.dtype)) / np.array(std, image.dtype)


def flip_channel_order(image: Array) -> Array:
    """Turn RGB into BGR, or back."""
    return image[..., ::-1]


def to_uint8(image: Array) -> Array:
    """Return an image as the 8-bit pixels that :func:`resize` works on."""
    return _to_uint8(image)[0]


def _to_uint8(image: Array) -> tuple[Array, bool]:
    """Return 8-bit pixels and whether they were fractions from 0 to 1."""
    if image.dtype == np.uint8:
        return image, False
    low, high = image.min(), image.max()
    if low >= 0 and high <= 255:
        # A float within rounding error of a whole number counts as one, and is cut to it.
        if np.allclose(image, image.astype(np.int64)):
            return image.astype(np.uint8), False
        if high <= 1:
            return rescale(image, 255).astype(np.uint8), True
    raise InputError(
        f"image holds values from {low:g} to {high:g}; to be resized it must hold whole numbers "
        "from 0 to 255 or fractions from 0 to 1"
    )


def check_area(image_size: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse a resize whose result would not fit in memory.

    Args:
        image_size: (height, width, …) of the image.
        size: (height, width) to resize it to.

    Raises:
        InputError: more pixels than Pillow accepts in a file.
    """
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 2**31)
    if size[0] * size[1] > limit:
        raise InputError(
            f"image of {image_size[0]}x{image_size[1]} pixels (height x width) would be resized to "
            f"{size[0]}x{size[1]}, more than {limit:,} pixels; crop it first"
        )
