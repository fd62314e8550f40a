"""Convolution and transposed convolution in one, two or three dimensions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels.padding import pad_amounts, pad_spatial
from mvit_coreml.mil.kernels.registry import kernel

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


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
        wanted = size - first - last
        if pad_type == "same":
            wanted = x.shape[2 + axis] * strides[axis]
        if output_shape is not None:
            wanted = output_shape[2 + axis]
        if pad_type == "same":
            first = max(size - wanted, 0) // 2
        amounts.append((-first, wanted + first - size))
    result = pad_spatial(full, amounts, 0.0)
    return result if bias is None else result + bias.reshape(-1, *[1] * rank)
