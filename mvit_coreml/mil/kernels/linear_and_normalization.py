"""Matrix products, attention, and normalisations with optional scale and offset (gamma, beta)."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel


@kernel("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x @ weight.T + bias for (*D, D_in) and a (D_out, D_in) weight."""
    return F.linear(*_of_one_type(x, weight, bias))


@kernel("matmul")
def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Return the matrix product over the last two axes, optionally of transposed operands.

    A transpose flag has no effect on a vector.
    """
    if transpose_x and x.dim() > 1:
        x = x.transpose(-1, -2)
    if transpose_y and y.dim() > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(*_of_one_type(x, y))


def _of_one_type(*tensors: Tensor | None) -> list[Any]:
    """Return tensors, whose types may differ from iOS 17 on, in the type that holds them all."""
    dtype = reduce(torch.promote_types, (x.dtype for x in tensors if x is not None))
    return [None if x is None else x.to(dtype) for x in tensors]


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


@kernel("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1) with stored statistics."""
    return F.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


@kernel("instance_norm")
def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, *, epsilon: float = 1e-5
) -> Tensor:
    """Normalise each channel of each sample over its spatial axes."""
    return torch.instance_norm(x, gamma, beta, None, None, True, 0.0, epsilon, False)


@kernel("layer_norm")
def layer_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    axes: list[int] | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Normalise over ``axes`` (all by default); gamma and beta have the shape of those axes."""
    rank = x.dim()
    chosen = sorted(axis % rank for axis in axes) if axes else list(range(rank))
    if chosen == list(range(rank - len(chosen), rank)):
        return F.layer_norm(x, x.shape[chosen[0] :], gamma, beta, epsilon)
    shape = [x.shape[axis] if axis in chosen else 1 for axis in range(rank)]
    variance, mean = torch.var_mean(x, chosen, correction=0, keepdim=True)
    x = (x - mean) * (variance + epsilon).rsqrt()
    x = x if gamma is None else x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


@kernel("l2_norm")
def l2_norm(x: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Divide by the root of the sum of squares over the last three axes."""
    total = (x * x).sum((-3, -2, -1), keepdim=True)
    return x / (total + epsilon).sqrt()


@kernel("local_response_norm")
def local_response_norm(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide by a power of the mean square over neighbouring channels.

    Channels are axis 1, but axis 0 of a rank of 3: the documentation has axis 1 there too, the
    values that coremltools' own test expects do not.
    """
    maps = x[None] if x.dim() == 3 else x
    return F.local_response_norm(maps, size, alpha, beta, k).reshape(x.shape)
