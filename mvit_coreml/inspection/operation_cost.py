"""What one operation of a program costs: multiply-accumulates, and bytes read and written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mvit_coreml.inspection.value_shapes import ValueShapes
from mvit_coreml.mil.program import Operation, Reference
from mvit_coreml.mil.stored_weights import Weight
from mvit_coreml.mil.value_types import TensorType


@dataclass(frozen=True, kw_only=True)
class OperationCost:
    """An estimate of what one operation takes, from shapes alone.

    Attributes:
        name: of the operation.
        op_type: its type in MIL.
        shape: of its first result.
        macs: multiply-accumulates of convolutions and matrix products, biases left out; 0 for
            element-wise operations, normalisations and reductions, whose cost is their bytes.
        weight_bytes: of its weights, as they are stored: compressed ones with their tables.
        read_bytes: of the values that it reads, weights left out.
        written_bytes: of its results.
    """

    name: str
    op_type: str
    shape: tuple[int, ...]
    macs: int
    weight_bytes: int
    read_bytes: int
    written_bytes: int

    @property
    def moved_bytes(self) -> int:
        """Bytes that it reads, weights included, and writes."""
        return self.weight_bytes + self.read_bytes + self.written_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: floating-point operations, two a MAC, for each byte moved."""
        return 2 * self.macs / self.moved_bytes if self.moved_bytes else 0.0


def operation_cost(
    operation: Operation, shapes: ValueShapes, weights: dict[str, list[Weight]]
) -> OperationCost:
    """Estimate what an operation costs.

    Args:
        operation: of a function, no constant.
        shapes: of the function's values.
        weights: those that each operation uses, by the operation's name.
    """
    count = _MACS.get(operation.op_type)
    own = {part: n for w in weights.get(operation.name, ()) for part, n in w.parts.items()}
    names = [
        argument.name
        for arguments in operation.inputs.values()
        for argument in arguments
        if isinstance(argument, Reference) and not shapes.constants.has(argument.name)
    ]
    read = [shapes.types[name] for name in dict.fromkeys(names) if name in shapes.types]
    return OperationCost(
        name=operation.name,
        op_type=operation.op_type,
        shape=shapes.output(operation),
        macs=count(operation, shapes) if count is not None else 0,
        weight_bytes=sum(own.values()),
        read_bytes=sum(map(value_bytes, read)),
        written_bytes=sum(map(value_bytes, shapes.outputs(operation))),
    )


def value_bytes(value_type: TensorType) -> int:
    """Bytes of a value that is packed without any padding."""
    return value_type.stored_bytes or 0


def _conv(operation: Operation, shapes: ValueShapes) -> int:
    # (out, in / groups, …): every output sums over all but the first axis.
    weight = shapes.input(operation, "weight")
    return math.prod(shapes.output(operation)) * math.prod(weight[1:])


def _conv_transpose(operation: Operation, shapes: ValueShapes) -> int:
    # (in, out / groups, …): every input is spread over all but the first axis.
    weight = shapes.input(operation, "weight")
    return math.prod(shapes.input(operation, "x")) * math.prod(weight[1:])


def _linear(operation: Operation, shapes: ValueShapes) -> int:
    return math.prod(shapes.output(operation)) * shapes.input(operation, "weight")[-1]


def _matmul(operation: Operation, shapes: ValueShapes) -> int:
    x = shapes.input(operation, "x")
    transposed = "transpose_x" in operation.inputs and bool(
        shapes.constants.attribute(operation.inputs["transpose_x"][0])
    )
    inner = x[-2] if transposed and len(x) > 1 else x[-1]
    return math.prod(shapes.output(operation)) * inner


def _einsum(operation: Operation, shapes: ValueShapes) -> int:
    """Every combination of the letters' values is one product."""
    equation = str(shapes.constants.attribute(operation.inputs["equation"][0])).replace(" ", "")
    sizes: dict[str, int] = {}
    operands = equation.split("->")[0].split(",")
    for letters, argument in zip(operands, operation.inputs["values"], strict=False):
        value = shapes.of(argument)
        if value is not None:
            sizes |= dict(zip(letters, value.sizes, strict=False))
    return math.prod(sizes.values())


def _attention(operation: Operation, shapes: ValueShapes) -> int:
    """Scores, then the sum of the values: (…, L, E) and (…, S, E), (…, S, F)."""
    query, value = shapes.input(operation, "query"), shapes.input(operation, "value")
    return math.prod(query[:-1]) * value[-2] * (query[-1] + value[-1])


def _recurrent(operation: Operation, shapes: ValueShapes) -> int:
    """Both matrices of each direction, for every step of every sequence; x is (S, B, I)."""
    steps = math.prod(shapes.input(operation, "x")[:2])
    names = [name for name in operation.inputs if name.startswith(("weight_ih", "weight_hh"))]
    return steps * sum(math.prod(shapes.input(operation, name)) for name in names)


_MACS: dict[str, Callable[[Operation, ValueShapes], int]] = {
    "conv": _conv,
    "conv_quantized": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "matmul": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "lstm": _recurrent,
    "gru": _recurrent,
    "rnn": _recurrent,
}
