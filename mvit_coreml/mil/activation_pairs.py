"""The pairs of ``quantize`` and ``dequantize`` that round the activations of a saved function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mvit_coreml.mil.program import Argument, Function, Operation, Reference
from mvit_coreml.mil.stored_weights import Constants


@dataclass(frozen=True, kw_only=True)
class ActivationPair:
    """A value that is rounded to 8 bits and read back.

    Attributes:
        value: name of the value that is rounded.
        rounded: name of what is read instead.
        quantize: the operation that rounds.
        dequantize: the operation that reads back.
        dtype: of the levels, ``int8`` or ``uint8``.
        grids: scale and zero point that it is rounded with, and those it is read back with; lists
            where channels have their own.
    """

    value: str
    rounded: str
    quantize: Operation
    dequantize: Operation
    dtype: str
    grids: tuple[tuple[Any, Any], tuple[Any, Any]]

    @property
    def is_consistent(self) -> bool:
        """Whether it is read back as it was rounded."""
        return bool(self.grids[0] == self.grids[1])


def read_pairs(function: Function) -> tuple[ActivationPair, ...]:
    """Return all pairs of a function, in program order.

    Raises:
        PackageError: a scale cannot be decoded.
    """
    constants, producers = Constants(function), function.producers
    pairs = []
    for step in function.steps:
        maker = producers.get(_input(step)) if step.op_type == "dequantize" else None
        if maker is None or maker.op_type != "quantize":
            continue
        pairs.append(
            ActivationPair(
                value=_input(maker),
                rounded=step.outputs[0].name,
                quantize=maker,
                dequantize=step,
                dtype=str(constants.attribute(maker.inputs["output_dtype"][0])),
                grids=(_grid(maker, constants), _grid(step, constants)),
            )
        )
    return tuple(pairs)


def without_pairs(function: Function) -> Function:
    """Return a function that computes with the values themselves where it rounds them to 8 bits.

    A pair that an output of the function ends in stays.
    """
    pairs = [pair for pair in read_pairs(function) if pair.rounded not in function.results]
    if not pairs:
        return function
    names = {pair.rounded: pair.value for pair in pairs}
    dropped = {pair.rounded for pair in pairs}
    operations = [
        _renamed(operation, names)
        for operation in function.operations
        if not dropped.intersection(output.name for output in operation.outputs)
    ]
    read = {name for operation in operations for name in operation.value_names}
    read |= set(function.results)
    return replace(
        function,
        operations=tuple(
            operation
            for operation in operations
            if operation.op_type != "quantize" or operation.outputs[0].name in read
        ),
    )


def _renamed(operation: Operation, names: Mapping[str, str]) -> Operation:
    """Let an operation read other values."""
    if not any(name in names for name in operation.value_names):
        return operation

    def other(argument: Argument) -> Argument:
        if not isinstance(argument, Reference):
            return argument
        name = argument.name
        while name in names:
            name = names[name]
        return Reference(name)

    inputs = {
        parameter: tuple(map(other, arguments)) for parameter, arguments in operation.inputs.items()
    }
    return replace(operation, inputs=inputs)


def _input(operation: Operation) -> str:
    return str(getattr(operation.inputs["input"][0], "name", ""))


def _grid(operation: Operation, constants: Constants) -> tuple[Any, Any]:
    zero_point = operation.inputs.get("zero_point", ())
    return (
        constants.attribute(operation.inputs["scale"][0]),
        constants.attribute(zero_point[0]) if zero_point else 0,
    )
