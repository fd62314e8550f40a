"""Bilinear and nearest-neighbour resizing and resampling.

All sampling modes are grids of points on the input axis, as documented at coremltools'
``resize_bilinear``; the two that PyTorch has run on its own, faster kernels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel


@kernel("resize_bilinear")
def resize_bilinear(
    x: Tensor,
    *,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last two axes to a size with bilinear interpolation."""
    return _linear(x, [target_size_height, target_size_width], sampling_mode)


@kernel("upsample_bilinear")
def upsample_bilinear(
    x: Tensor,
    *,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Resize the last two axes by factors; the scale is computed anew from the output size.

    ``half_pixel_centers`` (iOS 16) is the opposite of ``align_corners`` where not given.
    """
    centred = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centred:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return _linear(x, _scaled_sizes(x, scale_factor_height, scale_factor_width), mode)


@kernel("upsample_nearest_neighbor", "exact")
def upsample_nearest_neighbor(
    x: Tensor, *, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    """Resize the last two axes by factors: output i takes input floor(i * in / out)."""
    return _nearest_below(x, _scaled_sizes(x, scale_factor_height, scale_factor_width))


@kernel("resize_nearest_neighbor", "exact")
def resize_nearest_neighbor(
    x: Tensor, *, target_size_height: int, target_size_width: int
) -> Tensor:
    """Resize the last two axes to a size: output i takes input floor(i * in / out)."""
    return _nearest_below(x, [target_size_height, target_size_width])


@kernel("resize", since=17)
def resize(
    x: Tensor,
    *,
    shape: list[int],
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resize the last ``resized_dims`` axes to the last numbers of ``shape``; 0 keeps a size.

    The nearest neighbour is the input element nearest to the grid point, the later one when two
    are as near (coremltools' own test has grid point 0.67 of an axis of two take the second).
    """
    sizes = [
        size or x.shape[axis]
        for axis, size in zip(range(-resized_dims, 0), shape[-resized_dims:], strict=True)
    ]
    if interpolation_mode == "LINEAR":
        return _linear(x, sizes, sampling_mode)
    if interpolation_mode != "NEAREST_NEIGHBOR":
        raise ValueError(f"unknown interpolation_mode {interpolation_mode!r}")
    for axis, size in zip(range(-resized_dims, 0), sizes, strict=True):
        grid = _grid(x.shape[axis], size, sampling_mode)
        index = (grid + 0.5).floor().long().clamp(max=x.shape[axis] - 1)
        x = x.index_select(axis, index.to(x.device))
    return x


def _scaled_sizes(x: Tensor, height: float, width: float) -> list[int]:
    # In fp32, as coremltools computes the declared shape.
    return [
        int(np.floor(np.float32(factor) * np.float32(size)))
        for factor, size in zip((height, width), x.shape[-2:], strict=True)
    ]


def _nearest_below(x: Tensor, sizes: list[int]) -> Tensor:
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        index = torch.arange(size) * x.shape[axis] // size
        x = x.index_select(axis, index.to(x.device))
    return x


def _linear(x: Tensor, sizes: list[int], mode: str) -> Tensor:
    """Interpolate linearly along the last ``len(sizes)`` axes."""
    if len(sizes) == 2 and mode in ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        maps = x.reshape(1, math.prod(x.shape[:-2]), *x.shape[-2:])
        aligned = mode == "STRICT_ALIGN_CORNERS"
        resized = F.interpolate(maps, list(sizes), mode="bilinear", align_corners=aligned)
        return resized.reshape(*x.shape[:-2], *sizes)
    for axis, size in zip(range(-len(sizes), 0), sizes, strict=True):
        grid = _grid(x.shape[axis], size, mode)
        below = grid.floor().long().clamp(max=x.shape[axis] - 1)
        above = (below + 1).clamp(max=x.shape[axis] - 1)
        share = (grid - below).to(x.device, torch.float32).reshape(-1, *[1] * (-1 - axis))
        low = x.index_select(axis, below.to(x.device))
        high = x.index_select(axis, above.to(x.device))
        x = low + (high - low) * share
    return x


def _grid(size: int, target: int, mode: str) -> Tensor:
    """Return the ``target`` points of an axis of ``size`` elements that an output samples."""
    return _points(torch.tensor(size, dtype=torch.float64), target, mode).clamp(0, size - 1)


def _points(size: Tensor, target: int, mode: str) -> Tensor:
    """Return the ``target`` points, as another axis, of axes of ``size`` elements."""
    size = size[..., None]
    steps = torch.arange(target, dtype=torch.float64, device=size.device)
    spacing = size / target
    if mode == "UNALIGN_CORNERS":
        grid = (steps + 0.5) * spacing - 0.5
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if target > 1:
            grid = steps * ((size - 1) / (target - 1))
        else:
            grid = steps + (size - 1) * (0.5 if mode == "ALIGN_CORNERS" else 0)
    elif mode == "DEFAULT":
        grid = steps * spacing
    elif mode == "OFFSET_CORNERS":
        grid = (steps + 0.5) * ((size - 1).clamp(min=1) / target)
    else:
        raise ValueError(f"unknown sampling_mode {mode!r}")
    return grid


@kernel("resample")
def resample(
    x: Tensor,
    coordinates: Tensor,
    *,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Sample (B, C, H, W) at (B, H', W', 2) points, x before y."""
    points = []
    for size, place in zip((x.shape[3], x.shape[2]), coordinates.float().unbind(-1), strict=True):
        if coordinates_mode == "normalized_minus_one_to_one":
            place = (place + 1) / 2
        if coordinates_mode != "unnormalized":
            place = place * (size - 1) if align_corners else place * size - 0.5
        if padding_mode == "border":
            place = place.clamp(0, size - 1)
        elif padding_mode == "reflection":
            place = size - 1 - (place.abs() % max(2 * size - 2, 1) - (size - 1)).abs()
        elif padding_mode == "symmetric":
            place = size - 0.5 - ((place + 0.5) % (2 * size) - size).abs()
            place = place.clamp(0, size - 1)
        points.append(place)
    column, row = points
    if sampling_mode == "nearest":
        return _pixels(x, row.round(), column.round(), padding_value)
    return _bilinear(x, row, column, padding_value)


@kernel("affine", attributes_of=resample)
def affine(
    x: Tensor, transform_matrix: Tensor, *, output_height: int, output_width: int, **sampling: Any
) -> Tensor:
    """Sample (B, C, H, W) where 2x3 matrices, one or B, map an output's points from -1 to 1."""
    matrix = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], -1, -1)
    sizes = [x.shape[0], 1, output_height, output_width]
    return resample(x, F.affine_grid(matrix, sizes, sampling["align_corners"]), **sampling)


@kernel("crop_resize", since=17)
def crop_resize(
    x: Tensor,
    boxes: Tensor,
    box_indices: Tensor | None = None,
    *,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """Resize (N, 4) boxes of (B, C, H, W), each of one image; what is outside is ``pad_value``.

    A box takes part with the elements from its start to its end, both included.
    """
    images = torch.arange(len(boxes), device=x.device) if box_indices is None else box_indices
    first, second = boxes.double().reshape(-1, 2, 2).unbind(1)  # (N, 2) each
    if box_coordinate_mode.startswith("CENTER_SIZE"):
        first, second = first - second / 2, first + second / 2
    elif not box_coordinate_mode.startswith("CORNERS"):
        raise ValueError(f"unknown box_coordinate_mode {box_coordinate_mode!r}")
    if box_coordinate_mode.endswith("WIDTH_FIRST"):
        first, second = first.flip(1), second.flip(1)
    points = []
    for axis, target in enumerate((target_height, target_width)):
        size = x.shape[2 + axis]
        scale = spatial_scale * (size - 1 if normalized_coordinates else 1)
        start, end = first[:, axis] * scale, second[:, axis] * scale
        place = start[:, None] + _points(end - start + 1, target, sampling_mode)
        points.append(torch.where((place >= 0) & (place <= size - 1), place, math.nan))
    row = points[0][:, :, None].expand(-1, -1, target_width)
    column = points[1][:, None, :].expand(-1, target_height, -1)
    inside = ~(row + column).isnan()[:, None]
    crops = _bilinear(x[images.long()], row.nan_to_num().float(), column.nan_to_num().float(), 0.0)
    return torch.where(inside, crops, pad_value)


@kernel("crop_resize", attributes_of=crop_resize)
def crop_resize_of_all(x: Tensor, roi: Tensor, **attributes: Any) -> Tensor:
    """Resize (N, 1, 4, 1, 1) boxes of all images, or (N, 1, 5, 1, 1) of the image named first.

    Returns (N, B, C, H', W') or (N, 1, C, H', W').
    """
    boxes = roi.flatten(1)  # (N, 4) or (N, 5)
    images = x.shape[0] if boxes.shape[1] == 4 else 1
    every = torch.arange(images, device=x.device).repeat(len(boxes))
    chosen = every if boxes.shape[1] == 4 else boxes[:, 0]
    crops = crop_resize(x, boxes[:, -4:].repeat_interleave(images, 0), chosen, **attributes)
    return crops.reshape(len(boxes), images, *crops.shape[1:])


def _bilinear(x: Tensor, row: Tensor, column: Tensor, outside: float) -> Tensor:
    """Interpolate (B, C, H, W) at (B, H', W') places; pixels outside have the value ``outside``."""
    top, left = row.floor(), column.floor()
    down, right = (row - top)[:, None], (column - left)[:, None]
    upper = _pixels(x, top, left, outside) * (1 - right)
    upper = upper + _pixels(x, top, left + 1, outside) * right
    lower = _pixels(x, top + 1, left, outside) * (1 - right)
    lower = lower + _pixels(x, top + 1, left + 1, outside) * right
    return upper * (1 - down) + lower * down


def _pixels(x: Tensor, row: Tensor, column: Tensor, outside: float) -> Tensor:
    """Return the pixels of (B, C, H, W) at whole (B, H', W') places."""
    height, width = x.shape[2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
    place = place.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    pixels = x.flatten(2).gather(2, place).reshape(*x.shape[:2], *row.shape[1:])
    return torch.where(inside[:, None], pixels, outside)
