"""Fitting an image to a model's input in one of three ways, and bringing class maps back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.arrays import Array, ImageLike, image_array
from mvit_coreml.preprocessing.geometry import Fit, Placement
from mvit_coreml.preprocessing.image_processor import ImageProcessor
from mvit_coreml.preprocessing.resize_crop_normalize import center_crop, resize, to_uint8


@dataclass(frozen=True, eq=False)
class FittedImage:
    """An image at the size of a model's input, before any arithmetic on its values.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        placement: where those pixels lay in the original image.
    """

    pixels: Array
    placement: Placement


def fit_image(image: ImageLike, processor: ImageProcessor, fit: Fit = "crop") -> FittedImage:
    """Bring an image to a model's input size, as 8-bit RGB.

    ``processor.preprocess(fitted.pixels, do_resize=False, do_center_crop=False)`` goes on to the
    model's ``pixel_values``; for ``crop`` they are those of ``processor.preprocess(image)``.

    Args:
        image: a path, a Pillow image, or an array or tensor of one image.
        processor: gives the sizes and the resampling filter.
        fit: ``crop``, ``stretch`` or ``pad``, see :data:`~mvit_coreml.preprocessing.geometry.Fit`.

    Raises:
        InputError: an image that cannot be read or used, or an unknown ``fit``.
    """
    pixels = to_uint8(image_array(image))
    placement = processor.place((pixels.shape[0], pixels.shape[1]), fit)
    if placement.resized_size != placement.image_size:
        pixels = resize(pixels, placement.resized_size, processor.resample)
    return FittedImage(center_crop(pixels, placement.input_size), placement)


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
