"""Digest (SHA-256) of what a package computes, to notice that it was changed after it was made.

Names of values, the order of protobuf maps, descriptions and metadata do not enter it; neither does
where a constant is stored. Two packages with equal digests give equal answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mvit_coreml.mil.kernels import as_python
from mvit_coreml.mil.program import (
    Argument,
    Block,
    Constant,
    Function,
    ImageFeature,
    Operation,
    Package,
)
from mvit_coreml.mil.stored_weights import Constants

# Metadata key that holds the digest of the program as it was converted.
DIGEST_KEY = "mvit_coreml.program_sha256"
# The same of the values alone that were fitted to images.
VALUES_DIGEST_KEY = "mvit_coreml.values_sha256"


def program_digest(package: Package) -> str:
    """Return the SHA-256, in hexadecimal, of all functions of a package.

    It covers the names and types of inputs and outputs, class labels, operations with their
    attributes and connections, and every constant that they use.

    Args:
        package: as loaded.

    Raises:
        PackageError: a constant's bytes do not fit its declared type.
    """
    digest = hashlib.sha256()
    lines = [[package.specification_version, package.default_function, sorted(package.functions)]]
    for _, function in sorted(package.functions.items()):
        lines += _FunctionWriter(function).lines()
    for line in lines:
        digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def values_digest(package: Package) -> str:
    """Return the SHA-256, in hexadecimal, of all weights of a package, as they are decoded.

    Args:
        package: as loaded.

    Raises:
        PackageError: a constant's bytes do not fit its declared type.
    """
    digest = hashlib.sha256()
    for _, function in sorted(package.functions.items()):
        constants = Constants(function)
        for weight in sorted(constants.weights(), key=lambda weight: weight.name):
            value = np.ascontiguousarray(constants.decode(weight.argument))
            digest.update(f"{weight.name} {weight.type} ".encode())
            digest.update(value.tobytes())
    return digest.hexdigest()


class _FunctionWriter:
    """Writes a function down as JSON values, with numbers in place of the names of values."""

    def __init__(self, function: Function) -> None:
        self.function = function
        # What stands for a value: a number if it is computed, a text if it is stored.
        self.values: dict[str, int | str] = {}
        self.count = 0

    def lines(self) -> Iterator[Any]:
        """Yield the interface, then one line for each operation that is no constant."""
        function = self.function
        yield ["function", function.name, function.opset, function.predicted]
        for feature in function.inputs:
            if isinstance(feature, ImageFeature):
                yield ["image", feature.name, feature.height, feature.width, feature.color_order]
            else:
                yield ["array", feature.name, feature.shape, feature.data_type]
        for output in function.outputs:
            yield ["output", output.name, output.kind, output.shape, output.data_type]
        for kind, values in (("argument", function.arguments), ("state", function.states)):
            for value in values:
                self._define(value.name)
                yield [kind, value.name, str(value.type)]
        yield from self._operations(function.operations)
        # Results are known by their names, whatever their order.
        yield ["results", sorted((name, self._value(name)) for name in function.results)]

    def _operations(self, operations: Iterable[Operation]) -> Iterator[list[Any]]:
        for operation in operations:
            if operation.is_constant:
                self._define_constant(operation)
            else:
                yield self._operation(operation)

    def _operation(self, operation: Operation) -> list[Any]:
        inputs = self._inputs(operation)
        for output in operation.outputs:
            self._define(output.name)
        types = [str(output.type) for output in operation.outputs]
        return [operation.op_type, inputs, types, [*map(self._block, operation.blocks)] or False]

    def _block(self, block: Block) -> list[Any]:
        for argument in block.arguments:
            self._define(argument.name)
        content = [*self._operations(block.operations)]
        return [[str(a.type) for a in block.arguments], content, [*map(self._value, block.results)]]

    def _inputs(self, operation: Operation) -> list[Any]:
        return [
            [parameter, [self._argument(argument) for argument in arguments]]
            for parameter, arguments in sorted(operation.inputs.items())
        ]

    def _define(self, name: str) -> None:
        self.values[name] = self.count
        self.count += 1

    def _define_constant(self, operation: Operation) -> None:
        if operation.op_type == "const":
            (value,), (output,) = operation.inputs["val"], operation.outputs
            same = isinstance(value, Constant) and value.type == output.type
            declared = "" if same else f" as {output.type}"
            self.values[output.name] = f"{self._argument(value)}{declared}"
            return
        types = [str(output.type) for output in operation.outputs]
        written = _sha256(json.dumps([operation.op_type, self._inputs(operation), types]).encode())
        for index, output in enumerate(operation.outputs):
            self.values[output.name] = f"{written} {index}"

    def _argument(self, argument: Argument) -> int | str:
        if isinstance(argument, Constant):
            value = argument.decode()
            is_numeric = isinstance(value, np.ndarray) and value.dtype != object
            plain = value.tobytes() if is_numeric else json.dumps(as_python(value)).encode()
            return f"{argument.type} {_sha256(plain)}"
        return self._value(argument.name)

    def _value(self, name: str) -> int | str:
        return self.values.get(name, "undefined")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
