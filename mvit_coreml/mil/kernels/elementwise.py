"""Elementwise arithmetic, comparisons, casts and selection, with NumPy-style broadcasting."""

from __future__ import annotations

from collections.abc import Callable

import torch
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


@kernel("quantize", since=17)
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
