"""The shape of every value of a function, also where the program leaves sizes open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.program import (
    Argument,
    ArrayFeature,
    Function,
    ImageFeature,
    NamedValue,
    Operation,
    Package,
    Reference,
)
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.mil.value_types import TensorType

# How many values the one line about unknown sizes names.
_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ValueShapes:
    """Types of a function's values for one size of its inputs.

    Attributes:
        types: of every tensor that the caller hands over or an operation computes, with no size
            left open; what could not be found out counts as 1.
        counted_at: which size of the inputs, in one line.
        flexible: names of the inputs that take several sizes.
        unknown: names of values whose size could not be found out.
        constants: of the function.
    """

    types: Mapping[str, TensorType] = field(repr=False)
    counted_at: str
    flexible: tuple[str, ...]
    unknown: tuple[str, ...]
    constants: Constants = field(repr=False)

    def of(self, argument: Argument) -> TensorType | None:
        """Type of an argument, ``None`` for one that is no tensor."""
        if isinstance(argument, Reference) and argument.name in self.types:
            return self.types[argument.name]
        if not self.constants.is_constant(argument):
            return None
        declared = self.constants.type_of(argument)
        return declared if isinstance(declared, TensorType) else None

    def input(self, operation: Operation, parameter: str) -> tuple[int, ...]:
        """Shape of what an operation is given for a parameter, () where there is none."""
        value = self.of(operation.inputs[parameter][0]) if parameter in operation.inputs else None
        return () if value is None else value.sizes

    def outputs(self, operation: Operation) -> tuple[TensorType, ...]:
        """Types of an operation's results that are tensors."""
        names = (output.name for output in operation.outputs)
        return tuple(self.types[name] for name in names if name in self.types)

    def output(self, operation: Operation) -> tuple[int, ...]:
        """Shape of an operation's first result, () where it is no tensor."""
        types = self.outputs(operation)
        return types[0].sizes if types else ()


def find_value_shapes(package: Package, function: Function) -> ValueShapes:
    """Find out the shape of every value.

    Where the program leaves sizes open, it is run once, on zeros of its default size.

    Args:
        package: as loaded.
        function: of it.
    """
    values = [*function.arguments, *function.states]
    for operation in function.walk():
        if not operation.is_constant:
            values += operation.outputs
        for block in operation.blocks:
            values += block.arguments
    declared = {value.name: value.type for value in values if isinstance(value.type, TensorType)}
    open_names = [name for name, value_type in declared.items() if None in value_type.shape]
    measured = _measure(package, function, open_names) if open_names else {}
    types = {name: _closed(value_type, measured.get(name)) for name, value_type in declared.items()}
    flexible = tuple(feature.name for feature in function.inputs if feature.sizes)
    return ValueShapes(
        types=types,
        counted_at=_counted_at(function, flexible),
        flexible=flexible,
        unknown=tuple(name for name in open_names if name not in measured),
        constants=Constants(function),
    )


def _closed(value_type: TensorType, measured: tuple[int, ...] | None) -> TensorType:
    if None not in value_type.shape:
        return value_type
    shape = measured or tuple(1 if size is None else size for size in value_type.shape)
    return TensorType(value_type.data_type, shape)


def _measure(package: Package, function: Function, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Run a function at its default size and take down the shapes of some values."""
    inputs = {feature.name: _zeros(feature) for feature in function.inputs}
    shapes = {
        value.name: np.shape(inputs[value.name])
        for value in function.arguments
        if value.name in names and value.name in inputs
    }
    for feature in function.inputs:
        if isinstance(feature, ImageFeature) and feature.name in names:
            shapes[feature.name] = feature.shape
    asked = [value.name for value in _computed(function) if value.name in names]
    try:
        runtime = Runtime(package, function.name)
        results = runtime.run(inputs, intermediates=asked, state=runtime.make_state())
    except PackageError:
        return shapes
    return shapes | {name: np.shape(results[name]) for name in asked if name in results}


def _computed(function: Function) -> list[NamedValue]:
    """Values that the function's own operations compute, those of loops left out."""
    return [output for step in function.steps for output in step.outputs]


def _zeros(feature: ImageFeature | ArrayFeature) -> Any:
    if isinstance(feature, ArrayFeature):
        kind = np.int32 if "int" in feature.data_type.lower() else np.float32
        return np.zeros(feature.shape, kind)
    gray = feature.color_order == "grayscale"
    return np.zeros(feature.size if gray else (*feature.size, 3), np.uint8)


def _counted_at(function: Function, flexible: tuple[str, ...]) -> str:
    """Say which size of the inputs was counted."""
    sizes = ", ".join(f"{f.name} {'x'.join(map(str, f.shape))}" for f in function.inputs)
    if not flexible:
        return sizes
    return f"{sizes}: the default of several sizes, no other was counted"


def unknown_in_words(names: tuple[str, ...]) -> str:
    """Say in one line which values have sizes that could not be found out."""
    more = ", …" if len(names) > _NAMED else ""
    return (
        f"the size of {len(names)} values only shows in a run, which the portable runtime could "
        f"not make; each counts as 1: {', '.join(names[:_NAMED])}{more}"
    )
