"""What differs between the operations and weights of two functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import ClosenessMeter
from mvit_coreml.inspection.changes import Change, WeightChange, changes_between
from mvit_coreml.inspection.matching import Matching, match_operations
from mvit_coreml.inspection.package_contents import census
from mvit_coreml.mil.program import Argument, Function, Operation, Reference
from mvit_coreml.mil.stored_weights import Constants, Weight, is_weight
from mvit_coreml.mil.value_types import TensorType


class FunctionComparison:
    """Two functions with their operations matched.

    Args:
        first: of the first package.
        second: of the second package.

    Attributes:
        compared: number of weights that were compared.
    """

    def __init__(self, first: Function, second: Function) -> None:
        self.first, self.second = first, second
        self.constants = Constants(first), Constants(second)
        self.matching: Matching = match_operations(first, second)
        self.shapes = _computed_shapes(first), _computed_shapes(second)
        self.compared = 0

    def graph(self) -> Iterator[Change]:
        """Yield what differs between the operations, weights apart."""
        name = self.first.name
        ours, theirs = census(self.first), census(self.second)
        counts = {
            f"number of {op_type}": (ours.get(op_type, 0), theirs.get(op_type, 0))
            for op_type in dict.fromkeys([*ours, *theirs])
        }
        yield from changes_between("graph", name, counts)
        for operation in self.matching.only_first:
            yield self._change(f"{operation.op_type} {operation.name}", "present", None)
        for operation in self.matching.only_second:
            yield self._change(f"{operation.op_type} {operation.name}", None, "present")
        types: Counter[tuple[str, str]] = Counter()
        following = 0
        for one, other in self.matching.pairs:
            yield from self._operation(one, other)
            shapes = _shapes(one), _shapes(other)
            if shapes[0] != shapes[1] and self._inputs_differ(one, other):
                following += 1
            elif shapes[0] != shapes[1]:
                place = f"{other.op_type} {other.name}: shape of the result"
                yield self._change(place, _plain(shapes[0]), _plain(shapes[1]))
            types[_element_type(one), _element_type(other)] += 1
        for (first, second), count in types.items():
            if first != second:
                yield self._change(f"element type of {count} results", first, second)
        if following:
            what = f"shapes of {following} results whose arguments have other shapes too"
            yield self._change(what, None, None)
        if len(self.first.results) == len(self.second.results):
            for result in zip(self.first.results, self.second.results, strict=True):
                if not self.matching.same_value(*result):
                    yield self._change(f"what the output {result[1]} is", *result)

    def _operation(self, one: Operation, other: Operation) -> Iterator[Change]:
        place = f"{other.op_type} {other.name}"
        for parameter in sorted({*one.inputs, *other.inputs}):
            if (other.op_type, parameter) == _LABELS:
                continue
            given = one.inputs.get(parameter, ()), other.inputs.get(parameter, ())
            values = [
                [self._value(side, argument) for argument in arguments]
                for side, arguments in enumerate(given)
            ]
            if not self._same(values[0], values[1]):
                yield self._change(f"{place}: {parameter}", _plain(values[0]), _plain(values[1]))

    def _inputs_differ(self, one: Operation, other: Operation) -> bool:
        """Whether two operations compute on values of different shapes."""
        shapes = [
            [
                self.shapes[side].get(argument.name)
                for arguments in step.inputs.values()
                for argument in arguments
                if isinstance(argument, Reference)
            ]
            for side, step in enumerate((one, other))
        ]
        return shapes[0] != shapes[1]

    def _value(self, side: int, argument: Argument) -> Any:
        """Return an attribute's value, or what stands for a weight or a computed value."""
        constants = self.constants[side]
        if not constants.is_constant(argument):
            return _Computed(getattr(argument, "name", ""))
        if is_weight(constants.type_of(argument)):
            return _WEIGHT
        return _Stored(constants.attribute(argument), _kind(constants.type_of(argument)))

    def _same(self, first: list[Any], second: list[Any]) -> bool:
        if len(first) != len(second):
            return False
        for one, other in zip(first, second, strict=True):
            if isinstance(one, _Computed) and isinstance(other, _Computed):
                if not self.matching.same_value(one.name, other.name):
                    return False
            elif isinstance(one, _Stored) and isinstance(other, _Stored):
                if not one.equals(other):
                    return False
            elif one != other:
                return False
        return True

    def weights(self) -> Iterator[WeightChange]:
        """Yield the weights that differ."""
        stored = [
            {
                (step.name, parameter): weight
                for weight in side.weights()
                for step, parameter in weight.users
            }
            for side in self.constants
        ]
        for one, other in self.matching.pairs:
            for parameter in sorted(one.inputs):
                first = stored[0].get((one.name, parameter))
                second = stored[1].get((other.name, parameter))
                if first is None or second is None:
                    continue
                self.compared += 1
                change = self._weight(other.name, parameter, first, second)
                if change is not None:
                    yield change

    def _weight(
        self, operation: str, parameter: str, first: Weight, second: Weight
    ) -> WeightChange | None:
        one = np.asarray(self.constants[0].decode(first.argument), np.float64)
        other = np.asarray(self.constants[1].decode(second.argument), np.float64)
        same_shape = one.shape == other.shape
        equal = same_shape and np.array_equal(one, other, equal_nan=True)
        if equal and first.scheme == second.scheme:
            return None
        meter = ClosenessMeter()
        if same_shape:
            meter.add(other, one)
        closeness = meter.result()
        return WeightChange(
            function=self.first.name,
            operation=operation,
            parameter=parameter,
            shape=other.shape,
            first_shape=one.shape,
            first_scheme=first.scheme,
            second_scheme=second.scheme,
            snr=closeness.snr if same_shape else None,
            max_error=closeness.max_error if same_shape else None,
            max_first=_largest(one),
        )

    def _change(self, what: str, first: Any, second: Any) -> Change:
        return Change(
            section="graph", function=self.first.name, what=what, first=first, second=second
        )


@dataclass(frozen=True)
class _Computed:
    """A value that an operation computes."""

    name: str


@dataclass(frozen=True)
class _Stored:
    """An attribute's value and element type."""

    value: Any
    kind: str

    def equals(self, other: _Stored) -> bool:
        """Whether two attributes are equal, up to the rounding that a change of type brings."""
        if self.value == other.value or self.kind == other.kind:
            return bool(self.value == other.value)
        try:
            one = np.asarray(self.value, np.float16)
            return np.array_equal(one, np.asarray(other.value, np.float16))
        except (TypeError, ValueError):
            return False


_WEIGHT = "a weight"
# Compared one by one, as a part of the interface.
_LABELS = ("classify", "classes")


def _plain(values: list[Any]) -> Any:
    """Return arguments as something to print: a single one by itself."""
    shown = [
        value.name
        if isinstance(value, _Computed)
        else value.value
        if isinstance(value, _Stored)
        else value
        for value in values
    ]
    return None if not shown else shown[0] if len(shown) == 1 else shown


def _kind(value_type: Any) -> str:
    return value_type.data_type.name if isinstance(value_type, TensorType) else str(value_type)


def _shapes(operation: Operation) -> list[Any]:
    return [
        output.type.shape for output in operation.outputs if isinstance(output.type, TensorType)
    ]


def _computed_shapes(function: Function) -> dict[str, Any]:
    """Return the shape of every value that is not stored in the package."""
    values = list(function.arguments)
    for operation in function.operations:
        if not operation.is_constant:
            values += operation.outputs
    return {value.name: value.type.shape for value in values if isinstance(value.type, TensorType)}


def _element_type(operation: Operation) -> str:
    types = [output.type for output in operation.outputs]
    return next((t.data_type.name for t in types if isinstance(t, TensorType)), "")


def _largest(values: NDArray[np.float64]) -> float:
    return float(np.abs(values).max(initial=0.0))
