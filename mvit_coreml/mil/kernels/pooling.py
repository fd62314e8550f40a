"""Average, maximum and L2 pooling in one, two or three dimensions."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels.padding import pad_amounts, pad_spatial
from mvit_coreml.mil.kernels.registry import kernel

_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAXIMUM = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


@kernel("max_pool", "exact")
def max_pool(
    x: Tensor,
    *,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the maximum of each window of (N, C, *D); padding never wins."""
    strides = strides or [1] * len(kernel_sizes)
    amounts, extra = _window_padding(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    padded = pad_spatial(x, _extended(amounts, extra), -math.inf)
    return _MAXIMUM[len(kernel_sizes) - 1](padded, kernel_sizes, strides)


@kernel("avg_pool")
def avg_pool(
    x: Tensor,
    *,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the mean of each window of (N, C, *D).

    Padding counts as zeros unless it is excluded. What ``ceil_mode`` adds beyond the padding
    never counts, as in PyTorch.
    """
    strides = strides or [1] * len(kernel_sizes)
    amounts, extra = _window_padding(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    pool = _AVERAGE[len(kernel_sizes) - 1]
    padded = _extended(amounts, extra)
    mean = pool(pad_spatial(x, padded, 0.0), kernel_sizes, strides)
    if not any(extra) and not exclude_padding_from_average:
        return mean
    counted = x.new_ones(1, 1, *x.shape[2:])
    if exclude_padding_from_average:
        counted = pad_spatial(counted, padded, 0.0)
    else:
        counted = pad_spatial(counted, amounts, 1.0)
        counted = pad_spatial(counted, [(0, amount) for amount in extra], 0.0)
    return mean / pool(counted, kernel_sizes, strides)


@kernel("l2_pool")
def l2_pool(
    x: Tensor,
    *,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Return the root of the sum of squares of each window of (N, C, *D)."""
    strides = strides or [1] * len(kernel_sizes)
    amounts, extra = _window_padding(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    padded = pad_spatial(x * x, _extended(amounts, extra), 0.0)
    mean = _AVERAGE[len(kernel_sizes) - 1](padded, kernel_sizes, strides)
    return (mean * math.prod(kernel_sizes)).sqrt()


def _window_padding(
    x: Tensor,
    kernel_sizes: list[int],
    strides: list[int],
    pad_type: str,
    pad: list[int] | None,
    ceil_mode: bool,
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the padding before and after each axis, and what ``ceil_mode`` adds at the end."""
    sizes = x.shape[2:]
    amounts = pad_amounts(pad_type, pad, list(sizes), kernel_sizes, strides, [1] * len(sizes))
    extra = [0] * len(sizes)
    if ceil_mode:
        for axis, (first, last) in enumerate(amounts):
            total = sizes[axis] + first + last
            stride, window = strides[axis], kernel_sizes[axis]
            count = -(-(total - window) // stride) + 1
            # A window may not start in the padding behind the input.
            if first + last > 0 and (count - 1) * stride >= sizes[axis] + first:
                count -= 1
            extra[axis] = max((count - 1) * stride + window - total, 0)
    return amounts, extra


def _extended(amounts: list[tuple[int, int]], extra: list[int]) -> list[tuple[int, int]]:
    return [(first, last + more) for (first, last), more in zip(amounts, extra, strict=True)]
