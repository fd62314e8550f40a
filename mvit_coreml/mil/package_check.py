"""Checks a whole package before anything of it is run: operations, types, shapes, weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from mvit_coreml.errors import PackageError, errors_at, first_line
from mvit_coreml.mil.compiler import CompiledFunction, Step, compile_function
from mvit_coreml.mil.program import Constant, Function, NamedValue, Package
from mvit_coreml.mil.value_types import DictionaryType, TensorType, ValueType

# A label or list has no shape; that of the others, or how they run, depends on the content.
_BY_CONTENT = (
    *("classify", "cond", "while_loop", "non_zero", "non_maximum_suppression", "make_list"),
    *("list_write", "list_read", "list_gather", "list_scatter", "list_length", "write_state"),
)


def check_package(package: Package) -> None:
    """Check every function of a package.

    Every operation must be known, its parameters too, every value defined once and before it is
    used, the constants present in the weight files with their declared type and size, and the
    shapes that follow from the operations the declared ones. Large weights are not decoded.

    Raises:
        PackageError: the first fault, with the operation and function it is in.
    """
    for function, operation in package.walk():
        for arguments in operation.inputs.values():
            for argument in arguments:
                if isinstance(argument, Constant):
                    try:
                        argument.check()
                    except (PackageError, ValueError, OverflowError) as error:
                        where = function.place(operation)
                        raise PackageError(f"{where}: {first_line(error)}") from None
    for function in package.functions.values():
        _check_interface(function)
        _check_shapes(compile_function(function, "fp32", decode=False))


def _check_interface(function: Function) -> None:
    """Check that what apps see are the arguments and results of the program."""
    described = {feature.name for feature in function.inputs}
    arguments = {argument.name for argument in function.arguments}
    for name in sorted(described ^ arguments):
        owner = "description" if name in described else "program"
        raise PackageError(f"function {function.name!r} has the input {name!r} only in its {owner}")
    for output in function.outputs:
        if output.name not in function.results:
            raise PackageError(
                f"function {function.name!r} describes the output {output.name!r}, "
                "which its program does not return"
            )
    _check_kinds(function)


def _check_kinds(function: Function) -> None:
    """Check that outputs are of the kind that apps see, and a classifier's in their roles."""
    types = {value.name: value.type for value in function.arguments}
    types |= {value.name: value.type for step in function.operations for value in step.outputs}
    for output in function.outputs:
        kinds = _kinds(types.get(output.name))
        if kinds and output.kind not in kinds:
            raise PackageError(
                f"function {function.name!r} describes the output {output.name!r} as {output.kind}"
                f", but its program returns {types[output.name]}"
            )
    described = {output.name: output.kind for output in function.outputs}
    roles = ("string", "int64"), ("dictionary",)
    for name, role in zip(function.predicted, roles, strict=True):
        if name and described.get(name) not in role:
            raise PackageError(
                f"function {function.name!r} names {name!r} as what it predicts, which is no "
                f"output of the kind {' or '.join(role)}"
            )


def _kinds(value_type: ValueType | None) -> tuple[str, ...]:
    """Return how a value of the program may be described to apps."""
    if isinstance(value_type, DictionaryType):
        return ("dictionary",)
    if isinstance(value_type, TensorType):
        if value_type.data_type.name == "string":
            return ("string",)
        scalar = not value_type.shape and value_type.data_type.name == "int64"
        return ("int64",) if scalar else ("array", "image")
    return ()


def _check_shapes(compiled: CompiledFunction) -> None:
    """Run the program on tensors without content and compare all shapes."""
    values = list(compiled.values)
    for argument in compiled.function.arguments:
        values[compiled.numbers[argument.name]] = _placeholder(compiled.function, argument)
    for state in compiled.function.states:
        values[compiled.numbers[state.name]] = _declared(state.type)
    _check_steps(compiled.function, compiled.steps, values)


def _check_steps(function: Function, steps: Iterable[Step], values: list[Any]) -> None:
    for step in steps:
        results = _shapes_of(function, step, values)
        for number, output, result in zip(
            step.outputs, step.operation.outputs, results, strict=True
        ):
            if (
                isinstance(result, Tensor)
                and isinstance(output.type, TensorType)
                and not output.type.accepts(tuple(result.shape))
            ):
                raise PackageError(
                    f"{function.place(step.operation)} gives shape "
                    f"{list(result.shape)} where {output.type} is declared"
                )
            values[number] = result


def _declared(value_type: ValueType) -> Tensor | None:
    """Return an empty tensor of a declared shape, None for an open shape or another kind."""
    if not isinstance(value_type, TensorType) or None in value_type.shape:
        return None
    return torch.empty(value_type.sizes, device="meta")


def _placeholder(function: Function, argument: NamedValue) -> Tensor | None:
    """Return an empty tensor of an argument's shape, None when the shape is open."""
    name = argument.name
    shape = next(feature.shape for feature in function.inputs if feature.name == name)
    if not isinstance(argument.type, TensorType):
        raise PackageError(f"the argument {name!r} of {function.name!r} is no tensor")
    if shape and not argument.type.accepts(shape):
        raise PackageError(
            f"the input {name!r} of function {function.name!r} is described as {list(shape)} "
            f"but declared as {argument.type}"
        )
    if None in argument.type.shape and not shape:
        return None
    return torch.empty(shape or argument.type.sizes, device="meta")


def _shapes_of(function: Function, step: Step, values: list[Any]) -> tuple[Any, ...]:
    """Return the outputs of a step as tensors without content, None where they are not known."""
    for block, compiled in zip(step.operation.blocks, step.blocks, strict=True):
        for argument, number in zip(block.arguments, compiled.arguments, strict=True):
            values[number] = _declared(argument.type)
        _check_steps(function, compiled.steps, values)
    if (
        any(values[number] is None for number in step.sources())
        or any(_is_empty(values[number]) for number in step.late_attributes.values())
        or step.operation.op_type in _BY_CONTENT
    ):
        return tuple(_declared(output.type) for output in step.operation.outputs)
    mixed = any(_is_empty(values[number]) for number in step.sources())
    with errors_at(function.place(step.operation)):
        return step.run(step.fetch(values, _emptied if mixed else None), values)


def _is_empty(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == "meta"


def _emptied(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
