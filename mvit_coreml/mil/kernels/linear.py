"""Matrix products and attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels.registry import kernel


@kernel("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias for (*D, D_in) and a (D_out, D_in) weight."""
    return F.linear(x, weight, bias)


@kernel("matmul")
def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Return the matrix product over the last two axes, optionally of transposed operands.

    A transpose flag has no effect on a vector.
    """
    if transpose_x and x.dim() > 1:
        x = x.transpose(-1, -2)
    if transpose_y and y.dim() > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(x, y)


@kernel("einsum")
def einsum(values: tuple[Tensor, ...], *, equation: str) -> Tensor:
    """Return the product of two tensors in Einstein notation."""
    return torch.einsum(equation, *values)


@kernel("scaled_dot_product_attention", since=18)
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """Return softmax(query @ key.T / sqrt(E) + mask) @ value.

    A boolean mask tells which elements take part; a float mask is added to the scores.
    """
    return F.scaled_dot_product_attention(query, key, value, attn_mask)
