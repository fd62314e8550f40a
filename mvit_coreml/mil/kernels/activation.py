"""Activation functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel, register_all

# relu6 is one operation in the backward pass too, which clamp takes four for.
register_all({"relu": torch.relu, "relu6": F.relu6}, rounding="exact")
register_all(
    {"silu": F.silu, "sigmoid": torch.sigmoid, "softplus": F.softplus, "softsign": F.softsign}
)


@kernel("thresholded_relu", "exact")
def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Return x where it is at least alpha, 0 elsewhere."""
    return torch.where(x >= alpha, x, torch.zeros((), dtype=x.dtype, device=x.device))


@kernel("sigmoid_hard")
def sigmoid_hard(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return alpha * x + beta limited to [0, 1]."""
    return (alpha * x + beta).clamp(0, 1)


@kernel("gelu")
def gelu(x: Tensor, *, mode: str = "EXACT") -> Tensor:
    """Return the Gaussian error linear unit or one of its two approximations."""
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise ValueError(f"unknown mode {mode!r}")


@kernel("softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Return exp(x) divided by its sum over one axis."""
    return x.softmax(axis)


@kernel("softplus_parametric")
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Return alpha * log(1 + exp(beta * x)) with one alpha and beta for each channel (axis 1)."""
    return _by_channel(alpha, x) * F.softplus(_by_channel(beta, x) * x)


@kernel("elu")
def elu(x: Tensor, *, alpha: float) -> Tensor:
    """Return x where positive, alpha * (exp(x) - 1) elsewhere."""
    return F.elu(x, alpha)


@kernel("leaky_relu")
def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Return x where positive, alpha * x elsewhere."""
    return F.leaky_relu(x, alpha)


@kernel("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """Return x where positive, alpha * x elsewhere, with one alpha for each channel (axis 1)."""
    return torch.where(x > 0, x, x * _by_channel(alpha, x))


@kernel("clamped_relu")
def clamped_relu(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return min(x, beta) where positive, min(alpha * x, beta) elsewhere."""
    return F.leaky_relu(x, alpha).clamp(max=beta)


@kernel("linear_activation")
def linear_activation(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return alpha * x + beta."""
    return alpha * x + beta


@kernel("scaled_tanh")
def scaled_tanh(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return alpha * tanh(beta * x)."""
    return alpha * torch.tanh(beta * x)


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 2))
