"""Elementwise arithmetic, comparisons, casts and selection, with NumPy-style broadcasting."""

from __future__ import annotations

import torch
from torch import Tensor

from mvit_coreml.mil.kernels.registry import kernel


@kernel("add", "native")
def add(x: Tensor, y: Tensor) -> Tensor:
    """Return x + y."""
    return x + y


@kernel("sub", "native")
def sub(x: Tensor, y: Tensor) -> Tensor:
    """Return x - y."""
    return x - y


@kernel("mul", "native")
def mul(x: Tensor, y: Tensor) -> Tensor:
    """Return x * y."""
    return x * y


@kernel("real_div")
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y; for integers the quotient is truncated by the declared output type."""
    return x / y


@kernel("floor_div")
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """Return the largest integer not above x / y."""
    return torch.floor_divide(x, y)


@kernel("mod")
def mod(x: Tensor, y: Tensor) -> Tensor:
    """Return the remainder of floor division, which has the sign of y."""
    return torch.remainder(x, y)


@kernel("pow")
def power(x: Tensor, y: Tensor) -> Tensor:
    """Return x to the power of y."""
    return torch.pow(x, y)


@kernel("maximum", "exact")
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """Return the larger of x and y."""
    return torch.maximum(x, y)


@kernel("minimum", "exact")
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """Return the smaller of x and y."""
    return torch.minimum(x, y)


@kernel("equal", "exact")
def equal(x: Tensor, y: Tensor) -> Tensor:
    """Return where x equals y."""
    return x == y


@kernel("not_equal", "exact")
def not_equal(x: Tensor, y: Tensor) -> Tensor:
    """Return where x differs from y."""
    return x != y


@kernel("greater", "exact")
def greater(x: Tensor, y: Tensor) -> Tensor:
    """Return where x exceeds y."""
    return x > y


@kernel("greater_equal", "exact")
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    """Return where x is at least y."""
    return x >= y


@kernel("less", "exact")
def less(x: Tensor, y: Tensor) -> Tensor:
    """Return where x is below y."""
    return x < y


@kernel("less_equal", "exact")
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    """Return where x is at most y."""
    return x <= y


@kernel("logical_and", "exact")
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """Return where both are true."""
    return torch.logical_and(x, y)


@kernel("logical_or", "exact")
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """Return where either is true."""
    return torch.logical_or(x, y)


@kernel("logical_xor", "exact")
def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    """Return where exactly one is true."""
    return torch.logical_xor(x, y)


@kernel("logical_not", "exact")
def logical_not(x: Tensor) -> Tensor:
    """Return where x is false."""
    return torch.logical_not(x)


@kernel("select", "exact")
def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Return a where cond is true and b elsewhere."""
    return torch.where(cond, a, b)


@kernel("identity", "exact")
def identity(x: Tensor) -> Tensor:
    """Return x."""
    return x


@kernel("abs", "exact")
def absolute(x: Tensor) -> Tensor:
    """Return |x|."""
    return x.abs()


@kernel("sign", "exact")
def sign(x: Tensor) -> Tensor:
    """Return -1, 0 or 1."""
    return x.sign()


@kernel("ceil", "exact")
def ceil(x: Tensor) -> Tensor:
    """Round towards positive infinity."""
    return x.ceil()


@kernel("floor", "exact")
def floor(x: Tensor) -> Tensor:
    """Round towards negative infinity."""
    return x.floor()


@kernel("round", "exact")
def round_half_even(x: Tensor) -> Tensor:
    """Round to the nearest integer, halves to the even one."""
    return x.round()


@kernel("clip", "exact")
def clip(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Limit x to [alpha, beta]."""
    return x.clamp(alpha, beta)


@kernel("threshold", "exact")
def threshold(x: Tensor, *, alpha: float) -> Tensor:
    """Raise values below alpha to alpha."""
    return x.clamp(min=alpha)


@kernel("square")
def square(x: Tensor) -> Tensor:
    """Return x squared."""
    return x * x


@kernel("sqrt")
def square_root(x: Tensor) -> Tensor:
    """Return the square root."""
    return x.sqrt()


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


@kernel("exp")
def exponential(x: Tensor) -> Tensor:
    """Return e to the power of x."""
    return x.exp()


@kernel("exp2")
def exponential_of_two(x: Tensor) -> Tensor:
    """Return 2 to the power of x."""
    return x.exp2()


@kernel("erf")
def error_function(x: Tensor) -> Tensor:
    """Return the Gauss error function."""
    return x.erf()


@kernel("sin")
def sine(x: Tensor) -> Tensor:
    """Return the sine."""
    return x.sin()


@kernel("cos")
def cosine(x: Tensor) -> Tensor:
    """Return the cosine."""
    return x.cos()


@kernel("tan")
def tangent(x: Tensor) -> Tensor:
    """Return the tangent."""
    return x.tan()


@kernel("asin")
def arc_sine(x: Tensor) -> Tensor:
    """Return the inverse sine."""
    return x.asin()


@kernel("acos")
def arc_cosine(x: Tensor) -> Tensor:
    """Return the inverse cosine."""
    return x.acos()


@kernel("atan")
def arc_tangent(x: Tensor) -> Tensor:
    """Return the inverse tangent."""
    return x.atan()


@kernel("sinh")
def hyperbolic_sine(x: Tensor) -> Tensor:
    """Return the hyperbolic sine."""
    return x.sinh()


@kernel("cosh")
def hyperbolic_cosine(x: Tensor) -> Tensor:
    """Return the hyperbolic cosine."""
    return x.cosh()


@kernel("tanh")
def hyperbolic_tangent(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    return x.tanh()


@kernel("atanh")
def inverse_hyperbolic_tangent(x: Tensor) -> Tensor:
    """Return the inverse hyperbolic tangent."""
    return x.atanh()


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
    found = getattr(torch, {"uint16": "int32", "uint32": "int64"}.get(name, name), None)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"unknown element type {name!r}")
    return found


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
