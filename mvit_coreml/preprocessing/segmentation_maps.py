"""Segmentation maps: read from files or logits, resized, and laid back on the original image.

A map holds a class index for each pixel, (height, width).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.geometry import Placement
from mvit_coreml.preprocessing.image_arrays import Array, ImageLike, as_array
from mvit_coreml.preprocessing.image_loading import open_image
from mvit_coreml.preprocessing.resize_crop_normalize import check_area

REDUCED_BACKGROUND = 255
"""Label of the background after :func:`reduce_labels`, the one that losses and scores ignore."""


def map_array(segmentation_map: ImageLike) -> Array:
    """Return one segmentation map as class indices.

    Args:
        segmentation_map: a path or Pillow image with one band (a palette's indices are taken, not
            its colours), or an (H, W) array or tensor of whole numbers.

    Returns:
        (H, W) int64 array.

    Raises:
        InputError: unreadable file, several channels, or values that are not whole numbers.
    """
    if isinstance(segmentation_map, str | os.PathLike):
        segmentation_map = open_image(segmentation_map)
    if isinstance(segmentation_map, Image.Image):
        labels = np.array(segmentation_map)
    else:
        labels = as_array(segmentation_map, "segmentation map")
    if labels.ndim != 2:
        raise InputError(
            f"segmentation map has shape {labels.shape}; it must be (height, width): one class "
            "index a pixel, not a colour"
        )
    if labels.size == 0:
        raise InputError(f"segmentation map of shape {labels.shape} has no pixels")
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels)):
        raise InputError("segmentation map holds values that are not whole numbers")
    return labels.astype(np.int64)


def resize_map(labels: Array, size: tuple[int, int]) -> Array:
    """Resize (H, W) class indices to (height, width) by nearest neighbour; int64."""
    check_area(labels.shape, size)
    # Thirty-two bits, because label sets may have more than 256 classes and negative fillers.
    picture = Image.fromarray(labels.astype(np.int32))
    return np.array(picture.resize(size[::-1], Image.Resampling.NEAREST)).astype(np.int64)


def reduce_labels(labels: Array) -> Array:
    """Lower every class index by one; the background, 0, becomes 255, and 255 stays."""
    is_background = (labels == 0) | (labels == REDUCED_BACKGROUND)
    return np.where(is_background, REDUCED_BACKGROUND, labels - 1)


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
    scores = list(logits)
    if target_sizes is not None:
        if len(target_sizes) != len(scores):
            raise InputError(
                f"there are {len(target_sizes)} target_sizes for {len(scores)} images; "
                "pass one (height, width) an image"
            )
        scores = list(map(_resize_logits, scores, target_sizes))
    maps = [image_scores.argmax(dim=0) for image_scores in scores]
    return [class_map.numpy() for class_map in maps] if is_array else maps


def _resize_logits(logits: Any, size: Sequence[int]) -> Any:
    import torch

    height, width = (int(edge) for edge in size)
    return torch.nn.functional.interpolate(
        logits[None], size=(height, width), mode="bilinear", align_corners=False
    )[0]


def unfit_map(class_map: Array, placement: Placement, fill: int = 0) -> Array:
    """Lay a model's class map back on the original image, by nearest neighbour.

    Args:
        class_map: (h, w) class indices of the whole input, at any resolution.
        placement: how the image was fitted to the input.
        fill: class of the pixels that the input did not show.

    Returns:
        (H, W) array of the original image's size and the map's dtype.

    Raises:
        InputError: the map is not two-dimensional.
    """
    if class_map.ndim != 2:
        raise InputError(f"class map has shape {class_map.shape}; it must be (height, width)")
    valid, source = placement.valid, placement.source
    rows, row_seen = _nearest_cells(
        placement.image_size[0],
        (source.top, source.bottom),
        (valid.top, valid.bottom),
        class_map.shape[0] / placement.input_size[0],
    )
    columns, column_seen = _nearest_cells(
        placement.image_size[1],
        (source.left, source.right),
        (valid.left, valid.right),
        class_map.shape[1] / placement.input_size[1],
    )
    seen = row_seen[:, None] & column_seen[None, :]
    return np.where(seen, class_map[np.ix_(rows, columns)], class_map.dtype.type(fill))


def _nearest_cells(
    length: int, source: tuple[float, float], valid: tuple[float, float], cells_per_pixel: float
) -> tuple[Array, Array]:
    """For each pixel of an image's axis: the cell of the map over it, and whether it was shown."""
    centres = np.arange(length) + 0.5
    scale = (valid[1] - valid[0]) / (source[1] - source[0])
    positions = valid[0] + (centres - source[0]) * scale
    seen = (positions >= valid[0]) & (positions < valid[1])
    last = np.nextafter(valid[1], valid[0])
    cells = np.floor(np.clip(positions, valid[0], last) * cells_per_pixel)
    return cells.astype(np.intp), seen
