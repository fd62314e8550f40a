"""From segmentation logits to class maps, and class maps to colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.arrays import Array, ImageLike, image_array
from mvit_coreml.preprocessing.resize_crop_normalize import to_uint8

_LEVELS_PER_CHANNEL = 16


def post_process_semantic_segmentation(
    outputs: Any, target_sizes: Sequence[tuple[int, int]] | None = None
) -> list[Any]:
    """Turn a segmenter's logits into class maps.

    The logits of each image are resized bilinearly to its target size before the highest is taken:
    edges come out smoother than those of a resized class map.

    Args:
        outputs: an object or mapping with ``logits``, or the logits: a (B, num_labels, h, w) torch
            tensor or NumPy array.
        target_sizes: (height, width) for each image, usually the original's; ``None`` keeps the
            size of the logits.

    Returns:
        An (H, W) int64 class map for each image; tensors, or arrays if the logits were an array.

    Raises:
        InputError: logits of another shape, or not one target size an image.
    """
    import torch

    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs
    logits = getattr(logits, "logits", logits)
    is_array = isinstance(logits, np.ndarray)
    logits = torch.from_numpy(logits) if is_array else logits
    if not isinstance(logits, torch.Tensor) or logits.ndim != 4:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(f"logits are {shape}; they must be (batch, num_labels, height, width)")
    if target_sizes is None:
        maps = list(logits.argmax(dim=1))
    else:
        if len(target_sizes) != len(logits):
            raise InputError(
                f"there are {len(target_sizes)} target_sizes for {len(logits)} images; "
                "pass one (height, width) an image"
            )
        maps = [
            _resize_logits(image_logits, size).argmax(dim=0)
            for image_logits, size in zip(logits, target_sizes, strict=True)
        ]
    return [class_map.numpy() for class_map in maps] if is_array else maps


def _resize_logits(logits: Any, size: Sequence[int]) -> Any:
    import torch

    height, width = (int(edge) for edge in size)
    return torch.nn.functional.interpolate(
        logits[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]


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


def _check_count(count: int, limit: int) -> None:
    if not 0 <= count <= limit:
        raise InputError(f"{count} colors were asked for; there are from 0 to {limit}")
