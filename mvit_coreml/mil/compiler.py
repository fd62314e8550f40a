"""Compiles a function of a package into steps over numbered values, ready to be executed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.errors import PackageError, errors_at, first_line
from mvit_coreml.mil.kernels import KERNEL_ERRORS, Kernel, as_python, find_kernel
from mvit_coreml.mil.program import (
    Argument,
    Block,
    Constant,
    Function,
    NamedValue,
    Operation,
    Reference,
)
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.mil.value_types import DataType, TensorType, ValueType

Arithmetic = Literal["program", "fp32"]

# Unsigned types wider than a byte have no arithmetic in torch: the next wider type holds them.
_WIDER = {"uint16": "int32", "uint32": "int64", "uint64": "int64"}
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
            variadic one, None where the parameter is left out.
        late_attributes: attributes that only a run decides, by the number of their value.
        outputs: numbers of the values it defines.
        types: torch type of each output, None for what is no tensor.
        attributes: those that are constant.
        blocks: what a loop or condition runs.
    """

    operation: Operation
    rounding: str
    call: Callable[..., Any]
    arguments: tuple[int | tuple[int, ...] | None, ...]
    late_attributes: dict[str, int]
    outputs: tuple[int, ...]
    types: tuple[torch.dtype | None, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: tuple[CompiledBlock, ...] = ()

    def sources(self) -> Iterator[int]:
        """Numbers of the values it needs."""
        for block in self.blocks:
            yield from block.captured
        for argument in self.arguments:
            if isinstance(argument, int):
                yield argument
            elif argument is not None:
                yield from argument
        yield from self.late_attributes.values()

    def fetch(self, values: Sequence[Any], change: Callable[[Any], Any] | None = None) -> list[Any]:
        """Return the positional arguments of the kernel, each changed on the way if asked for."""

        def one(argument: int | tuple[int, ...] | None) -> Any:
            if argument is None:
                return None
            if isinstance(argument, tuple):
                return tuple(one(number) for number in argument)
            return values[argument] if change is None else change(values[argument])

        return [one(argument) for argument in self.arguments]

    def run(
        self,
        positional: Sequence[Any],
        values: Sequence[Any],
        blocks: Sequence[Callable[..., tuple[Any, ...]]] = (),
    ) -> tuple[Any, ...]:
        """Call the kernel and return its results as a tuple, one for each declared output.

        Args:
            positional: the arguments, already fetched and widened.
            values: all values by number, for the late attributes.
            blocks: run the step's blocks with the arguments that they are called with.

        Raises:
            PackageError: the kernel refused its arguments, or its results are not the declared.
        """
        late = {name: as_python(values[n]) for name, n in self.late_attributes.items()}
        if blocks:
            late["blocks"] = blocks
        try:
            results = self.call(*positional, **self.attributes, **late)
        except KERNEL_ERRORS as error:
            raise PackageError(first_line(error)) from None
        results = results if isinstance(results, tuple) else (results,)
        if len(results) != len(self.outputs):
            raise PackageError(
                f"it has {len(results)} outputs, the program declares {len(self.outputs)}"
            )
        return results


@dataclass
class CompiledBlock:
    """Steps that a loop or condition runs, over the same numbered values as the function.

    Attributes:
        arguments: numbers of the values that each run is handed.
        steps: in order of execution.
        results: numbers of the values that it gives.
        types: torch type of each argument, None for what is no tensor.
    """

    arguments: tuple[int, ...]
    steps: list[Step]
    results: tuple[int, ...]
    types: tuple[torch.dtype | None, ...]

    @property
    def captured(self) -> set[int]:
        """Numbers of the values that it takes from outside."""
        own = {*self.arguments, *(number for step in self.steps for number in step.outputs)}
        return {*self.results, *(n for step in self.steps for n in step.sources())} - own


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


def in_fp32(value: Any) -> Any:
    """Return an fp16 tensor in fp32, anything else as it is."""
    is_half = isinstance(value, Tensor) and value.dtype is torch.float16
    return value.float() if is_half else value


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
        self.constants = Constants(function)
        self.compiled = CompiledFunction(function, [], {}, [], {})
        self.constant_numbers: dict[tuple[str, bool], int] = {}

    def compile(self) -> CompiledFunction:
        for argument in (*self.function.arguments, *self.function.states):
            self._define(argument)
        self.compiled.steps += self._steps(self.function.operations)
        for name in self.function.results:
            if name not in self.compiled.types:
                raise PackageError(
                    f"function {self.function.name!r} returns {name!r}, which nothing defines"
                )
            if name not in self.compiled.numbers:
                number = self._argument_number(Reference(name), widened=False)
                self.compiled.numbers[name] = number
        return self.compiled

    def _steps(self, operations: Iterable[Operation]) -> list[Step]:
        steps = []
        for operation in operations:
            with errors_at(self.function.place(operation)):
                for name in operation.value_names:
                    if name not in self.compiled.types:
                        raise PackageError(f"{name!r} is used before it is defined")
                if operation.is_constant:
                    self._register_constant(operation)
                else:
                    steps.append(self._step(operation))
        return steps

    def _block(self, block: Block) -> CompiledBlock:
        # The two blocks of a loop may give their arguments the same names.
        numbers, types = dict(self.compiled.numbers), dict(self.compiled.types)
        compiled = CompiledBlock(
            arguments=tuple(self._define(argument) for argument in block.arguments),
            steps=self._steps(block.operations),
            results=tuple(
                self._argument_number(Reference(r), widened=False) for r in block.results
            ),
            types=tuple(self._dtype(argument.type) for argument in block.arguments),
        )
        # A constant is known by its name alone, so that no other may have it.
        types |= {n: t for n, t in self.compiled.types.items() if self.constants.has(n)}
        self.compiled.numbers, self.compiled.types = numbers, types
        return compiled

    def _declare(self, value: NamedValue) -> None:
        if value.name in self.compiled.types:
            raise PackageError(f"the value {value.name!r} is defined twice")
        self.compiled.types[value.name] = value.type

    def _define(self, value: NamedValue) -> int:
        self._declare(value)
        self.compiled.numbers[value.name] = number = self._new_value(None)
        return number

    def _new_value(self, value: Any) -> int:
        self.compiled.values.append(value)
        return len(self.compiled.values) - 1

    def _register_constant(self, operation: Operation) -> None:
        for output in operation.outputs:
            self._declare(output)
        if operation.op_type != "const":
            self._kernel(operation)
        elif len(operation.inputs.get("val", ())) != 1:
            raise PackageError("it has no value")
        for arguments in operation.inputs.values():
            self._check_constants(arguments)

    def _check_constants(self, arguments: Iterable[Argument]) -> None:
        for argument in arguments:
            if not self.constants.is_constant(argument):
                name = getattr(argument, "name", "")
                raise PackageError(f"{name!r} is no constant, as it must be here")

    def _kernel(self, operation: Operation) -> Kernel:
        kernel = find_kernel(operation.op_type, self.function.opset)
        if kernel is None or (operation.blocks and "blocks" not in kernel.attributes):
            newer = find_kernel(operation.op_type, 10**6)
            if newer is not None and kernel is None:
                raise PackageError(
                    f"it needs iOS {newer.first_opset}, the function is for "
                    f"iOS {self.function.opset}"
                )
            raise PackageError("the runtime does not implement this operation")
        unknown = set(operation.inputs) - kernel.attributes - set(kernel.tensors)
        if unknown:
            raise PackageError(f"unknown parameter {sorted(unknown)[0]!r}")
        present = {name for name, values in operation.inputs.items() if values}
        missing = kernel.required - present - ({"blocks"} if operation.blocks else set())
        if missing:
            raise PackageError(f"the parameter {sorted(missing)[0]!r} is missing")
        return kernel

    def _step(self, operation: Operation) -> Step:
        kernel = self._kernel(operation)
        attributes: dict[str, Any] = {}
        late: dict[str, int] = {}
        for name in sorted(kernel.attributes & set(operation.inputs)):
            arguments = operation.inputs[name]
            if len(arguments) == 1 and not self.constants.is_constant(arguments[0]):
                late[name] = self._argument_number(arguments[0], widened=False)
            else:
                self._check_constants(arguments)
                values = [self.constants.attribute(argument) for argument in arguments]
                attributes[name] = values[0] if len(values) == 1 else values
        return Step(
            operation,
            kernel.rounding,
            kernel.function,
            tuple(self._positional(operation, kernel, name) for name in kernel.tensors),
            late,
            # Before the outputs, which the blocks do not see.
            blocks=tuple(map(self._block, operation.blocks)),
            outputs=tuple(self._define(output) for output in operation.outputs),
            types=tuple(self._dtype(output.type) for output in operation.outputs),
            attributes=attributes,
        )

    def _positional(
        self, operation: Operation, kernel: Kernel, name: str
    ) -> int | tuple[int, ...] | None:
        widened = kernel.rounding == "widened"
        numbers = tuple(self._argument_number(a, widened) for a in operation.inputs.get(name, ()))
        if name in kernel.variadic:
            return numbers
        if len(numbers) > 1:
            raise PackageError(f"{len(numbers)} values are given for {name!r}")
        return numbers[0] if numbers else None

    def _argument_number(self, argument: Argument, widened: bool) -> int:
        """Return the number of a value; of a constant, in fp32 where fp16 has to be widened."""
        if isinstance(argument, Constant):
            return self._new_value(self._constant(argument, widened))
        name = argument.name
        if not self.constants.is_constant(argument):
            return self.compiled.numbers[name]
        if (name, widened) not in self.constant_numbers:
            number = self._new_value(self._constant(argument, widened))
            self.constant_numbers[name, widened] = number
            self.compiled.constants[name] = (*self.compiled.constants.get(name, ()), number)
        return self.constant_numbers[name, widened]

    def _constant(self, argument: Argument, widened: bool) -> Any:
        declared = self.constants.type_of(argument)
        dtype = self._dtype(declared, widened)
        if not self.decode and isinstance(declared, TensorType) and (declared.count or 0) > _SMALL:
            return torch.empty(declared.sizes, dtype=dtype, device="meta")
        array = self.constants.decode(argument)
        if dtype is None:
            return array
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        # A copy, because the array may be a read-only view of the file.
        return torch.from_numpy(np.array(array, order="C")).to(dtype)

    def _dtype(self, declared: ValueType, widened: bool = False) -> torch.dtype | None:
        """Return the type that a value is held in; None for what is no tensor."""
        if not isinstance(declared, TensorType) or declared.data_type.name == "string":
            return None
        dtype = torch_type(declared.data_type, self.arithmetic)
        return torch.float32 if widened and dtype is torch.float16 else dtype


def needed_steps(
    compiled: CompiledFunction, numbers: Iterable[int]
) -> list[tuple[Step, tuple[int, ...]]]:
    """Return the steps that lead to some values, each with the values that nothing needs after it.

    Args:
        compiled: the function.
        numbers: of the values.
    """
    needed = set(numbers)
    # Constants and what was asked for are never released.
    seen = needed | {number for number, value in enumerate(compiled.values) if value is not None}
    schedule: list[tuple[Step, tuple[int, ...]]] = []
    for step in reversed(compiled.steps):
        # What has no output writes a state.
        if needed.intersection(step.outputs) or not step.outputs:
            # On the way back, a value is met first where it is used last.
            values = {*step.sources(), *step.outputs}
            schedule.append((step, tuple(sorted(values - seen))))
            seen |= values
            needed.update(step.sources())
    return schedule[::-1]
