"""Bilinear and nearest-neighbour resizing.

All sampling modes are grids of points on the input axis, as documented at coremltools'
``resize_bilinear``; the two that PyTorch has run on its own, faster kernels.
"""

from __future__ import annotations

import math

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
    steps = torch.arange(target, dtype=torch.float64)
    spacing = size / target
    if mode == "UNALIGN_CORNERS":
        grid = (steps + 0.5) * spacing - 0.5
    elif mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if target > 1:
            grid = steps * ((size - 1) / (target - 1))
        else:
            grid = steps + ((size - 1) / 2 if mode == "ALIGN_CORNERS" else 0)
    elif mode == "DEFAULT":
        grid = steps * spacing
    elif mode == "OFFSET_CORNERS":
        grid = (steps + 0.5) * (max(1, size - 1) / target)
    else:
        raise ValueError(f"unknown sampling_mode {mode!r}")
    return grid.clamp(0, size - 1)
