"""Which function implements which operation of which opset."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# exact: every output element is an input element or small integer; fp16 stays fp16.
# native: torch's fp16 kernel computes in fp32 and rounds once.
# widened: inputs are widened to fp32, the result is rounded to the declared type.
Rounding = Literal["exact", "native", "widened"]

_FIRST_OPSET = 15
_MODULES = (
    "activation",
    "classification",
    "decompression",
    "convolution",
    "elementwise",
    "indexing",
    "linear",
    "normalization",
    "pooling",
    "reduction",
    "interpolation",
    "shaping",
)


@dataclass(frozen=True)
class Kernel:
    """The implementation of an operation.

    Attributes:
        function: called with the tensors in order and the attributes by name.
        tensors: names of the positional parameters.
        variadic: those of them that take a tuple of tensors.
        attributes: names of the keyword-only parameters.
        required: parameters without a default.
        rounding: how fp16 is handled, see ``Rounding``.
        first_opset: oldest opset (iOS version) with these semantics.
    """

    function: Callable[..., Any]
    tensors: tuple[str, ...]
    variadic: frozenset[str]
    attributes: frozenset[str]
    required: frozenset[str]
    rounding: Rounding
    first_opset: int


_KERNELS: dict[str, list[Kernel]] = {}


def kernel(
    op_type: str, rounding: Rounding = "widened", since: int = _FIRST_OPSET
) -> Callable[[FunctionT], FunctionT]:
    """Register a function as the implementation of ``op_type`` from opset ``since`` on."""

    def register(function: FunctionT) -> FunctionT:
        parameters = inspect.signature(function).parameters.values()
        tensors = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        _KERNELS.setdefault(op_type, []).append(
            Kernel(
                function=function,
                tensors=tuple(p.name for p in tensors),
                variadic=frozenset(p.name for p in tensors if p.annotation.startswith("tuple[")),
                attributes=frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
                required=frozenset(p.name for p in parameters if p.default is p.empty),
                rounding=rounding,
                first_opset=since,
            )
        )
        return function

    return register


@cache
def find_kernel(op_type: str, opset: int) -> Kernel | None:
    """Return the newest implementation that an opset may use, None for an unknown operation."""
    _load()
    fitting = [k for k in _KERNELS.get(op_type, ()) if k.first_opset <= opset]
    return max(fitting, key=lambda k: k.first_opset, default=None)


def supported_ops() -> tuple[str, ...]:
    """Names of all operations that the runtime implements."""
    _load()
    return tuple(sorted({*_KERNELS, "const"}))


@cache
def _load() -> None:
    for module in _MODULES:
        import_module(f"mvit_coreml.mil.kernels.{module}")
