"""From a function of a package to a flat list of steps over numbered values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.kernels import Kernel, find_kernel
from mvit_coreml.mil.program import Argument, Constant, Function, Operation, Reference
from mvit_coreml.mil.value_types import DataType, TensorType, ValueType

Arithmetic = Literal["program", "fp32"]

# Unsigned types wider than a byte have no arithmetic in torch: the next wider type holds them.
_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
# What kernels raise when values or attributes do not fit each other, or are of another kind.
_KERNEL_ERRORS = (
    RuntimeError,
    ValueError,
    IndexError,
    TypeError,
    KeyError,
    AttributeError,
    ArithmeticError,
)
# Constants up to this size decide shapes and places, so checks need their values.
_SMALL = 64


@dataclass
class Step:
    """One operation, ready to run.

    Attributes:
        operation: what it implements.
        rounding: see :data:`mvit_coreml.mil.kernels.Rounding`.
        call: the kernel with its constant attributes bound.
        arguments: for each positional parameter the number of a value, a tuple of numbers for a
            variadic one, None where the parameter is not given.
        late_attributes: attributes that only a run decides, by the number of their value.
        outputs: numbers of the values it defines.
        types: torch type of each output, None for what is no tensor.
    """

    operation: Operation
    rounding: str
    call: Callable[..., Any]
    arguments: tuple[int | tuple[int, ...] | None, ...]
    late_attributes: dict[str, int]
    outputs: tuple[int, ...]
    types: tuple[torch.dtype | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    def sources(self) -> Iterator[int]:
        """Numbers of the values it needs."""
        for argument in self.arguments:
            if isinstance(argument, int):
                yield argument
            elif argument is not None:
                yield from argument
        yield from self.late_attributes.values()

    def run(self, positional: Sequence[Any], values: Sequence[Any]) -> tuple[Any, ...]:
        """Call the kernel and return its results as a tuple, one for each declared output.

        Args:
            positional: the arguments, already fetched and widened.
            values: all values by number, for the late attributes.

        Raises:
            PackageError: the kernel refused its arguments, or its results are not the declared.
        """
        attributes = self.attributes
        if self.late_attributes:
            late = {name: as_python(values[n]) for name, n in self.late_attributes.items()}
            attributes = {**attributes, **late}
        try:
            results = self.call(*positional, **attributes)
        except _KERNEL_ERRORS as error:
            raise PackageError(first_line(error)) from None
        results = results if isinstance(results, tuple) else (results,)
        if len(results) != len(self.outputs):
            raise PackageError(
                f"it has {len(results)} outputs, the program declares {len(self.outputs)}"
            )
        return results


@dataclass
class CompiledFunction:
    """A function as steps over numbered values.

    Attributes:
        function: what was compiled.
        steps: in order of execution.
        numbers: number of each value by name.
        values: constants at their numbers, None elsewhere.
        types: declared type of each value by name.
        constants: numbers of each named constant that a step takes as a tensor; as declared and,
            where fp16 has to be widened, in fp32.
    """

    function: Function
    steps: list[Step]
    numbers: dict[str, int]
    values: list[Any]
    types: dict[str, ValueType]
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)


def torch_type(data_type: DataType, arithmetic: Arithmetic) -> torch.dtype:
    """Return the torch type that holds values of a MIL type."""
    if arithmetic == "fp32" and data_type.is_float:
        return torch.float32
    name = _WIDER.get(data_type.name, str(data_type.numpy))
    return getattr(torch, name)


def place(function: Function, operation: Operation) -> str:
    """Name an operation for a message."""
    return f"{operation.op_type} {operation.name!r} in function {function.name!r}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def compile_function(
    function: Function, arithmetic: Arithmetic = "program", *, decode: bool = True
) -> CompiledFunction:
    """Turn a function into steps, with its constants decoded, decompressed and prepared.

    Args:
        function: the function, whose operations are defined before they are used.
        arithmetic: ``program`` keeps the declared types; ``fp32`` computes all floats in fp32.
        decode: False to leave large constants as tensors without content, for checking shapes.

    Raises:
        PackageError: an operation is unknown, refers to an undefined value, lacks a parameter or
            has an unknown one, or a constant cannot be decoded.
    """
    return _Compiler(function, arithmetic, decode).compile()


class _Compiler:
    def __init__(self, function: Function, arithmetic: Arithmetic, decode: bool) -> None:
        self.function = function
        self.arithmetic: Arithmetic = arithmetic
        self.decode = decode
        self.compiled = CompiledFunction(function, [], {}, [], {})
        self.constant_operations: dict[str, tuple[Operation, int]] = {}
        self.arrays: dict[str, Any] = {}
        self.constant_numbers: dict[tuple[str, bool], int] = {}

    def compile(self) -> CompiledFunction:
        for argument in self.function.arguments:
            self._define(argument.name, argument.type)
        for operation in self.function.operations:
            try:
                if operation.is_constant:
                    self._register_constant(operation)
                else:
                    self._add_step(operation)
            except PackageError as error:
                raise PackageError(f"{place(self.function, operation)}: {error}") from None
        for name in self.function.results:
            if name in self.constant_operations:
                self.compiled.numbers[name] = self._constant_number(name, widened=False)
            elif name not in self.compiled.numbers:
                raise PackageError(
                    f"function {self.function.name!r} returns {name!r}, which nothing defines"
                )
        return self.compiled

    def _define(self, name: str, value_type: ValueType) -> int:
        if name in self.compiled.numbers or name in self.constant_operations:
            raise PackageError(f"the value {name!r} is defined twice")
        number = self._new_value(None)
        self.compiled.numbers[name] = number
        self.compiled.types[name] = value_type
        return number

    def _new_value(self, value: Any) -> int:
        self.compiled.values.append(value)
        return len(self.compiled.values) - 1

    def _register_constant(self, operation: Operation) -> None:
        for index, output in enumerate(operation.outputs):
            if output.name in self.compiled.numbers or output.name in self.constant_operations:
                raise PackageError(f"the value {output.name!r} is defined twice")
            self.constant_operations[output.name] = (operation, index)
            self.compiled.types[output.name] = output.type
        if operation.op_type != "const":
            self._kernel(operation)
        elif len(operation.inputs.get("val", ())) != 1:
            raise PackageError("it has no value")
        for arguments in operation.inputs.values():
            for argument in arguments:
                if isinstance(argument, Reference) and argument.name not in self.compiled.types:
                    raise PackageError(f"{argument.name!r} is used before it is defined")

    def _kernel(self, operation: Operation) -> Kernel:
        found = find_kernel(operation.op_type, self.function.opset)
        if found is None or operation.has_blocks:
            newer = find_kernel(operation.op_type, 10**6)
            if newer is not None and found is None:
                raise PackageError(
                    f"it needs iOS {newer.first_opset}, the function is for "
                    f"iOS {self.function.opset}"
                )
            raise PackageError("the runtime does not implement this operation")
        unknown = set(operation.inputs) - found.attributes - set(found.tensors)
        if unknown:
            raise PackageError(f"unknown parameter {sorted(unknown)[0]!r}")
        missing = found.required - {name for name, given in operation.inputs.items() if given}
        if missing:
            raise PackageError(f"the parameter {sorted(missing)[0]!r} is missing")
        return found

    def _add_step(self, operation: Operation) -> None:
        kernel = self._kernel(operation)
        widened = kernel.rounding == "widened"
        arguments: list[int | tuple[int, ...] | None] = []
        for name in kernel.tensors:
            given = operation.inputs.get(name, ())
            numbers = tuple(self._argument_number(argument, widened) for argument in given)
            if name in kernel.variadic:
                arguments.append(numbers)
            elif len(numbers) > 1:
                raise PackageError(f"{len(numbers)} values are given for {name!r}")
            else:
                arguments.append(numbers[0] if numbers else None)
        attributes: dict[str, Any] = {}
        late: dict[str, int] = {}
        for name in sorted(kernel.attributes & set(operation.inputs)):
            given = operation.inputs[name]
            if len(given) == 1 and self._is_late(given[0]):
                late[name] = self._argument_number(given[0], widened=False)
            else:
                found = [as_python(self._array(argument)) for argument in given]
                attributes[name] = found[0] if len(found) == 1 else found
        outputs = tuple(self._define(output.name, output.type) for output in operation.outputs)
        types = tuple(
            torch_type(output.type.data_type, self.arithmetic)
            if isinstance(output.type, TensorType) and output.type.data_type.name != "string"
            else None
            for output in operation.outputs
        )
        self.compiled.steps.append(
            Step(
                operation,
                kernel.rounding,
                kernel.function,
                tuple(arguments),
                late,
                outputs,
                types,
                attributes,
            )
        )

    def _is_late(self, argument: Argument) -> bool:
        """Whether only a run decides an argument's value."""
        return isinstance(argument, Reference) and argument.name not in self.constant_operations

    def _argument_number(self, argument: Argument, widened: bool) -> int:
        if isinstance(argument, Constant):
            return self._new_value(self._tensor(self._array(argument), argument.type, widened))
        if argument.name in self.constant_operations:
            return self._constant_number(argument.name, widened)
        if argument.name not in self.compiled.numbers:
            raise PackageError(f"{argument.name!r} is used before it is defined")
        return self.compiled.numbers[argument.name]

    def _constant_number(self, name: str, widened: bool) -> int:
        """Return the value of a constant, in fp32 where fp16 would have to be widened."""
        key = (name, widened)
        if key not in self.constant_numbers:
            declared = self.compiled.types[name]
            if (
                not self.decode
                and isinstance(declared, TensorType)
                and (declared.count or 0) > _SMALL
            ):
                value: Any = torch.empty(
                    [size or 0 for size in declared.shape],
                    dtype=self._dtype(declared, widened),
                    device="meta",
                )
            else:
                value = self._tensor(self._array(Reference(name)), declared, widened)
            number = self._new_value(value)
            self.constant_numbers[key] = number
            self.compiled.constants[name] = (*self.compiled.constants.get(name, ()), number)
        return self.constant_numbers[key]

    def _dtype(self, declared: TensorType, widened: bool) -> torch.dtype:
        dtype = torch_type(declared.data_type, self.arithmetic)
        return torch.float32 if widened and dtype is torch.float16 else dtype

    def _tensor(self, array: Any, declared: ValueType, widened: bool) -> Any:
        if not isinstance(declared, TensorType) or declared.data_type.name == "string":
            return array
        dtype = self._dtype(declared, widened)
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        # A copy, because the array may be a read-only view of the file.
        return torch.from_numpy(np.array(array, order="C")).to(dtype)

    def _array(self, argument: Argument) -> Any:
        """Return a constant as an array (or list), decompressing it if needed."""
        if isinstance(argument, Constant):
            return argument.decode()
        if argument.name not in self.constant_operations:
            raise PackageError(f"{argument.name!r} is no constant, as it must be here")
        if argument.name not in self.arrays:
            operation, _ = self.constant_operations[argument.name]
            try:
                results = self._evaluate(operation)
            except PackageError as error:
                raise PackageError(f"{place(self.function, operation)}: {error}") from None
            self.arrays.update(results)
        return self.arrays[argument.name]

    def _evaluate(self, operation: Operation) -> dict[str, Any]:
        if operation.op_type == "const":
            results: Any = self._array(operation.inputs["val"][0])
        else:
            kernel = self._kernel(operation)
            given = {
                name: self._array(arguments[0]) for name, arguments in operation.inputs.items()
            }
            tensors = [given.get(name) for name in kernel.tensors]
            attributes = {
                name: as_python(given[name]) for name in sorted(kernel.attributes & set(given))
            }
            try:
                results = kernel.function(*tensors, **attributes)
            except _KERNEL_ERRORS as error:
                raise PackageError(first_line(error)) from None
        if not isinstance(results, tuple):
            results = (results,)
        decoded = {}
        for output, result in zip(operation.outputs, results, strict=True):
            if isinstance(result, np.ndarray) and isinstance(output.type, TensorType):
                if not output.type.accepts(result.shape):
                    raise PackageError(
                        f"it holds shape {list(result.shape)} where {output.type} is declared"
                    )
                result = result.astype(output.type.data_type.numpy, copy=False)
            decoded[output.name] = result
        return decoded


def as_python(value: Any) -> Any:
    """Return an array or tensor as Python numbers, texts or nested lists of them."""
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return value


def needed_steps(
    compiled: CompiledFunction, numbers: Iterable[int]
) -> list[tuple[Step, tuple[int, ...]]]:
    """Return the steps that lead to some values, each with the values that nothing needs after it.

    Args:
        compiled: the function.
        numbers: of the values.
    """
    needed = set(numbers)
    kept = frozenset(needed)
    chosen = []
    for step in reversed(compiled.steps):
        if needed.intersection(step.outputs):
            chosen.append(step)
            needed.update(step.sources())
    constants = {number for number, value in enumerate(compiled.values) if value is not None}
    last_use: dict[int, int] = {}
    for index, step in enumerate(reversed(chosen)):
        for number in (*step.sources(), *step.outputs):
            if number not in constants and number not in kept:
                last_use[number] = index
    released: dict[int, list[int]] = {}
    for number, index in last_use.items():
        released.setdefault(index, []).append(number)
    return [(step, tuple(released.get(index, ()))) for index, step in enumerate(reversed(chosen))]
