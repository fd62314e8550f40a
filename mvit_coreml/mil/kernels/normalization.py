"""Normalisations, each with optional scale (gamma) and offset (beta)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels.registry import kernel


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
    shape = [x.shape[1], *[1] * (x.dim() - 2)]
    normalised = _standardise(x, list(range(2, x.dim())), epsilon)
    return _scale_and_shift(normalised, gamma, beta, shape)


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
    return _scale_and_shift(_standardise(x, chosen, epsilon), gamma, beta, shape)


@kernel("l2_norm")
def l2_norm(x: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Divide by the root of the sum of squares over the last three axes."""
    total = (x * x).sum((-3, -2, -1), keepdim=True)
    return x / (total + epsilon).sqrt()


@kernel("local_response_norm")
def local_response_norm(
    x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Divide by a power of the mean square over neighbouring channels."""
    return F.local_response_norm(x, size, alpha, beta, k)


def _standardise(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) * (variance + epsilon).rsqrt()


def _scale_and_shift(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, shape: list[int]
) -> Tensor:
    if gamma is not None:
        x = x * gamma.reshape(shape)
    if beta is not None:
        x = x + beta.reshape(shape)
    return x
