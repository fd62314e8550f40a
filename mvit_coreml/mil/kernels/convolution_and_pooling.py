"""Convolution and pooling in one, two or three dimensions, and the padding rules they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel
from mvit_coreml.mil.kernels.shaping import pad_spatial

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_AVERAGE = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_MAXIMUM = (F.max_pool1d, F.max_pool2d, F.max_pool3d)


@kernel("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Convolve (N, C_in, *D) with a (C_out, C_in / groups, *K) weight."""
    rank = x.dim() - 2
    strides = strides or [1] * rank
    dilations = dilations or [1] * rank
    amounts = pad_amounts(pad_type, pad, [*x.shape[2:]], [*weight.shape[2:]], strides, dilations)
    before = [first for first, _ in amounts]
    if any(first != last for first, last in amounts):
        x = pad_spatial(x, amounts, 0.0)
        before = [0] * rank
    return _CONVOLUTIONS[rank - 1](x, weight, bias, strides, before, dilations, groups)


@kernel("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    output_shape: list[int] | None = None,
    dilations: list[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution of (N, C_in, *D) with a (C_in, C_out / groups, *K) weight.

    The full result is cropped by the padding, as TensorFlow's ``same`` rule or ``pad`` says, and
    extended where the output is asked to be larger than what the input reaches.
    """
    rank = x.dim() - 2
    strides = strides or [1] * rank
    dilations = dilations or [1] * rank
    full = _TRANSPOSED[rank - 1](x, weight, None, strides, 0, 0, groups, dilations)
    amounts = []
    for axis in range(rank):
        size = full.shape[2 + axis]
        first, last = (pad[2 * axis], pad[2 * axis + 1]) if pad_type == "custom" and pad else (0, 0)
        target = size - first - last
        if pad_type == "same":
            target = x.shape[2 + axis] * strides[axis]
        if output_shape is not None:
            target = output_shape[2 + axis]
        if pad_type == "same":
            first = max(size - target, 0) // 2
        amounts.append((-first, target + first - size))
    result = pad_spatial(full, amounts, 0.0)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)


@dataclass(frozen=True)
class _Windows:
    """The windows of a pooling.

    Attributes:
        sizes: of a window.
        strides: from one window to the next.
        padding: before and after each axis.
        extra: what ``ceil_mode`` adds behind the padding of each axis.
    """

    sizes: list[int]
    strides: list[int]
    padding: list[tuple[int, int]]
    extra: list[int]

    def pool(
        self, by_rank: tuple[Callable[..., Tensor], ...], x: Tensor, padding: float, extra: float
    ) -> Tensor:
        """Apply torch's pooling of the right rank to ``x``, filled up with two values."""
        padded = pad_spatial(x, self.padding, padding)
        padded = pad_spatial(padded, [(0, more) for more in self.extra], extra)
        return by_rank[len(self.sizes) - 1](padded, self.sizes, self.strides)


def _windows(
    x: Tensor,
    *,
    kernel_sizes: list[int],
    strides: list[int] | None = None,
    pad_type: str = "valid",
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> _Windows:
    """Lay the windows that a pooling's attributes describe over (N, C, *D)."""
    sizes = [*x.shape[2:]]
    strides = strides or [1] * len(sizes)
    padding = pad_amounts(pad_type, pad, sizes, kernel_sizes, strides, [1] * len(sizes))
    extra = [0] * len(sizes)
    if ceil_mode:
        for axis, (first, last) in enumerate(padding):
            total = sizes[axis] + first + last
            stride, window = strides[axis], kernel_sizes[axis]
            count = -(-(total - window) // stride) + 1
            # A window may not start in the padding behind the input.
            if first + last > 0 and (count - 1) * stride >= sizes[axis] + first:
                count -= 1
            extra[axis] = max((count - 1) * stride + window - total, 0)
    return _Windows(kernel_sizes, strides, padding, extra)


@kernel("max_pool", "exact", attributes_of=_windows)
def max_pool(x: Tensor, **attributes: Any) -> Tensor:
    """Return the maximum of each window of (N, C, *D); padding never wins."""
    return _windows(x, **attributes).pool(_MAXIMUM, x, -math.inf, -math.inf)


@kernel("avg_pool", attributes_of=_windows)
def avg_pool(x: Tensor, *, exclude_padding_from_average: bool = False, **attributes: Any) -> Tensor:
    """Return the mean of each window of (N, C, *D).

    Padding counts as zeros unless it is excluded. What ``ceil_mode`` adds beyond the padding
    never counts, as in PyTorch.
    """
    windows = _windows(x, **attributes)
    mean = windows.pool(_AVERAGE, x, 0.0, 0.0)
    if not any(windows.extra) and not exclude_padding_from_average:
        return mean
    counted = x.new_ones(1, 1, *x.shape[2:])
    return mean / windows.pool(_AVERAGE, counted, 0.0 if exclude_padding_from_average else 1.0, 0.0)


@kernel("l2_pool", attributes_of=_windows)
def l2_pool(x: Tensor, **attributes: Any) -> Tensor:
    """Return the root of the sum of squares of each window of (N, C, *D)."""
    windows = _windows(x, **attributes)
    return (windows.pool(_AVERAGE, x * x, 0.0, 0.0) * math.prod(windows.sizes)).sqrt()


def pad_amounts(
    pad_type: str,
    pad: list[int] | None,
    sizes: list[int],
    kernel_sizes: list[int],
    strides: list[int],
    dilations: list[int],
) -> list[tuple[int, int]]:
    """Return how much to pad before and after each spatial axis.

    ``same`` pads so that the output has ceil(size / stride) elements, with the odd one out at the
    end; ``same_lower`` puts it at the start; ``custom`` takes ``pad``.

    Raises:
        ValueError: unknown ``pad_type``, or ``custom`` without a fitting ``pad``.
    """
    rank = len(sizes)
    if pad_type == "valid":
        return [(0, 0)] * rank
    if pad_type == "custom":
        if pad is None or len(pad) != 2 * rank:
            raise ValueError(f"custom padding needs {2 * rank} numbers, not {pad}")
        return [(pad[2 * axis], pad[2 * axis + 1]) for axis in range(rank)]
    if pad_type not in ("same", "same_lower"):
        raise ValueError(f"unknown pad_type {pad_type!r}")
    amounts = []
    for size, window, stride, dilation in zip(sizes, kernel_sizes, strides, dilations, strict=True):
        extent = (window - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        amounts.append((small, large) if pad_type == "same" else (large, small))
    return amounts
