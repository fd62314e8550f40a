"""Padding rules that convolution and pooling share."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


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
    for size, kernel, stride, dilation in zip(sizes, kernel_sizes, strides, dilations, strict=True):
        extent = (kernel - 1) * dilation + 1
        total = max((-(-size // stride) - 1) * stride + extent - size, 0)
        small, large = total // 2, total - total // 2
        amounts.append((small, large) if pad_type == "same" else (large, small))
    return amounts


def pad_spatial(x: Tensor, amounts: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Pad, or crop where an amount is negative, the last axes of ``x``."""
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x
