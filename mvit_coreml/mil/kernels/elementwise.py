"""Elementwise arithmetic, comparisons, casts, selection, activation functions; softmax."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel, register_all


def _torch(names: str) -> dict[str, Callable[..., Tensor]]:
    """Return the functions that torch has under these names."""
    return {name: getattr(torch, name) for name in names.split()}


register_all(_torch("add sub mul"), ("x", "y"), "native")
register_all(
    {
        # For integers the quotient is truncated by the declared output type.
        "real_div": torch.true_divide,
        "floor_div": torch.floor_divide,
        "mod": torch.remainder,  # has the sign of y, as floor division leaves it
        "pow": torch.pow,
    },
    ("x", "y"),
)
register_all({"equal": torch.eq}, ("x", "y"), "exact")
register_all(
    _torch(
        "maximum minimum not_equal greater greater_equal less less_equal logical_and logical_or "
        "logical_xor"
    ),
    ("x", "y"),
    "exact",
)
register_all({"select": torch.where}, ("cond", "a", "b"), "exact")
register_all({"identity": lambda x: x}, rounding="exact")
# Rounding takes halves to the even integer.
register_all(_torch("abs ceil floor logical_not round sign"), rounding="exact")
register_all(_torch("square sqrt exp exp2 erf sin cos tan asin acos atan sinh cosh tanh atanh"))


@kernel("clip", "exact")
def clip(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Limit x to [alpha, beta]."""
    return x.clamp(alpha, beta)


@kernel("threshold", "exact")
def threshold(x: Tensor, *, alpha: float) -> Tensor:
    """Raise values below alpha to alpha."""
    return x.clamp(min=alpha)


@kernel("rsqrt")
def reciprocal_square_root(x: Tensor, *, epsilon: float = 1e-12) -> Tensor:
    """Return 1 / sqrt(x + epsilon)."""
    return (x + epsilon).sqrt().reciprocal()


@kernel("inverse")
def inverse(x: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """Return 1 / (x + epsilon)."""
    return (x + epsilon).reciprocal()


@kernel("log")
def logarithm(x: Tensor, *, epsilon: float = 1e-45) -> Tensor:
    """Return the natural logarithm of x + epsilon."""
    return (x + epsilon).log()


@kernel("cast")
def cast(x: Tensor, *, dtype: str) -> Tensor:
    """Convert to ``dtype``; floats become integers by dropping the fraction.

    Rounding to fp16 is left to the declared type of the output, so that fp32 arithmetic keeps
    all digits.
    """
    if dtype == "bool":
        return x != 0
    if dtype.startswith("fp"):
        return x if x.is_floating_point() else x.float()
    return x.to(_integer_type(dtype))


def _integer_type(name: str) -> torch.dtype:
    # torch has no arithmetic for uint16 and none is needed: the next wider type holds its values.
    dtype = getattr(torch, {"uint16": "int32", "uint32": "int64"}.get(name, name), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"unknown element type {name!r}")
    return dtype


# The quotient of two halves is a half before it is rounded to a level, as in coremltools.
@kernel("quantize", "exact", since=17)
def quantize(
    input: Tensor,  # noqa: A002 (MIL's name)
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    output_dtype: str,
    axis: int | None = None,
) -> Tensor:
    """Return clip(round(input / scale) + zero_point) as int8 or uint8."""
    levels = (input / _along(scale, axis, input.dim())).round()
    if zero_point is not None:
        levels = levels + _along(zero_point, axis, input.dim())
    low, high = (-128, 127) if output_dtype == "int8" else (0, 255)
    return levels.clamp(low, high).to(_integer_type(output_dtype))


@kernel("dequantize", since=17)
def dequantize(
    input: Tensor,  # noqa: A002 (MIL's name)
    scale: Tensor,
    zero_point: Tensor | None = None,
    *,
    axis: int | None = None,
) -> Tensor:
    """Return scale * (input - zero_point)."""
    levels = input.float()
    if zero_point is not None:
        levels = levels - _along(zero_point, axis, input.dim()).float()
    return levels * _along(scale, axis, input.dim())


def _along(values: Tensor, axis: int | None, rank: int) -> Tensor:
    """Shape a vector so that it broadcasts along one axis."""
    if axis is None or values.dim() == 0:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


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
