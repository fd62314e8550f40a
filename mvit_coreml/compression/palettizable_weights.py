"""The weights of a program that can be palettized, and the bytes that each takes.

The same list comes from a program in memory and from the package saved from it: names, shapes and
order agree, so that what was measured on a package can be applied to the next conversion.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.mil.program import Constant, Function, Operation, Reference
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.mil.value_types import DATA_TYPES, TensorType

DataTypeName = Literal["fp16", "fp32"]

# Fewer 1-bit indices would stand in the program itself; no weight that small is worth a table.
FEWEST_ELEMENTS = 80

_NAME_OF = {np.dtype(np.float16): "fp16", np.dtype(np.float32): "fp32"}


@dataclass(frozen=True)
class WeightInfo:
    """A weight that can be palettized: a constant of floats with two axes or more.

    Vectors (biases, affine parameters of norms) stay as they are: they are small, and coremltools
    leaves them alone because of a fault of Core ML with palettized ones.

    Attributes:
        name: of the constant in the program, before palettizing.
        shape: of the weight.
        dtype: ``fp16`` or ``fp32``.
        axis: on which the output channels lie; groups with tables of their own run along it.
        users: types of the operations that take it, in order.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DataTypeName
    axis: int
    users: tuple[str, ...]

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """Number of output channels."""
        return self.shape[self.axis]

    @property
    def element_bits(self) -> int:
        """Bits of an element while it is not palettized."""
        return DATA_TYPES[self.dtype].bits


def weight_sha256(values: NDArray[Any]) -> str:
    """Return the SHA-256 of a weight's elements as they lie in a weight file, in hex digits."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(np.ascontiguousarray(little).tobytes()).hexdigest()


def program_weights(program: Any) -> list[tuple[WeightInfo, Any]]:
    """Return every palettizable weight of a program with its ``const`` operation, in order.

    On the way the program's values get the names that they would get when it is saved.

    Args:
        program: a ``coremltools`` MIL program. A weight of the same name in several functions is
            listed once for each.
    """
    load_coremltools()
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    with quiet():
        PASS_REGISTRY["mil_backend::sanitize_name_strings"](program)
    constants = [
        (_info_of_const(op, function), op)
        for function in program.functions.values()
        for op in function.operations
        if op.op_type == "const"
    ]
    return [(info, op) for info, op in constants if info is not None]


def palettizable_weights(program: Any) -> list[WeightInfo]:
    """Return the palettizable weights of a program, in program order.

    Args:
        program: a ``coremltools`` MIL program, or a function of a package.
    """
    if isinstance(program, Function):
        return [info for info, _ in function_weights(program)]
    unique = {info.name: info for info, _ in program_weights(program)}
    return list(unique.values())


def function_weights(function: Function) -> list[tuple[WeightInfo, Constant]]:
    """Return every palettizable weight of a saved function with its stored constant."""
    constants = Constants(function)
    users: dict[str, list[tuple[Operation, str]]] = {}
    for operation in function.operations:
        for parameter, arguments in operation.inputs.items():
            for argument in arguments:
                if isinstance(argument, Reference):
                    users.setdefault(argument.name, []).append((operation, parameter))
    weights = []
    for operation in function.operations:
        if operation.op_type != "const":
            continue
        name, (stored,) = operation.outputs[0].name, operation.inputs["val"]
        if not isinstance(stored, Constant) or not isinstance(stored.type, TensorType):
            continue
        if name in function.results or name not in users:
            continue
        shape = tuple(size or 0 for size in stored.type.shape)
        kinds = tuple(user.op_type for user, _ in users[name])
        if not _is_palettizable(stored.type.data_type.name, shape, kinds):
            continue
        user, parameter = users[name][0]
        flag = user.inputs.get(f"transpose_{parameter}", ())
        transposed = bool(flag) and constants.attribute(flag[0])
        axis = _output_axis(user.op_type, parameter, len(shape), transposed)
        dtype: DataTypeName = "fp16" if stored.type.data_type.name == "fp16" else "fp32"
        weights.append((WeightInfo(name, shape, dtype, axis, kinds), stored))
    return weights


def _info_of_const(op: Any, function: Any) -> WeightInfo | None:
    variable = op.outputs[0]
    value = variable.val
    if not isinstance(value, np.ndarray) or variable in function.outputs:
        return None
    dtype = _NAME_OF.get(value.dtype, "")
    kinds = tuple(user.op_type for user in variable.child_ops)
    if not kinds or not _is_palettizable(dtype, value.shape, kinds):
        return None
    user = variable.child_ops[0]
    parameter = next((name for name, value in user.inputs.items() if value is variable), "")
    flag = user.inputs.get(f"transpose_{parameter}")
    transposed = flag is not None and bool(flag.val)
    axis = _output_axis(user.op_type, parameter, value.ndim, transposed)
    return WeightInfo(
        variable.name, value.shape, "fp16" if dtype == "fp16" else "fp32", axis, kinds
    )


def _is_palettizable(dtype: str, shape: tuple[int, ...], users: tuple[str, ...]) -> bool:
    return (
        dtype in get_args(DataTypeName)
        and len(shape) > 1
        and math.prod(shape) >= FEWEST_ELEMENTS
        and not any(user.startswith("constexpr_") for user in users)
    )


def _output_axis(op_type: str, parameter: str, rank: int, transposed: bool) -> int:
    """Return the axis of a weight that its output channels lie on.

    Convolutions keep (output, input, height, width), transposed ones (input, output, …), linear
    layers (output, input); a matrix product ``x @ y`` takes a weight in either place.
    """
    if op_type == "conv_transpose":
        return 1
    if op_type == "matmul":
        return rank - 1 if (parameter == "y") != transposed else rank - 2
    return 0
