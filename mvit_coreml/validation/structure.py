"""What a package stores, held against what it ought to store.

Faults smaller than the noise of palettization cannot be seen in a package's answers. They show
when its operations, attributes, weights, labels and metadata are compared one by one with a package
freshly converted from the same checkpoint and not palettized.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.program import (
    Argument,
    Function,
    NamedValue,
    Operation,
    Package,
)
from mvit_coreml.mil.stored_weights import Constants, is_weight, palette_bits, read_palette
from mvit_coreml.validation.weight_comparison import Values, compare_constants, short

Aspect = Literal["interface", "graph", "attribute", "weight", "label", "metadata", "seal"]

# Keys of the metadata that depend on the checkpoint and the options, not on who converts or when.
_COMPARED_KEYS = (
    "com.apple.coreml.model.preview.type",
    "com.apple.coreml.model.preview.params",
    "mvit_coreml.labels",
    "mvit_coreml.preprocessing",
    "mvit_coreml.task",
    "mvit_coreml.weights_sha256",
)
# Compared one by one, as labels.
_LABELS = ("classify", "classes")
_BITS_KEY = "mvit_coreml.bits"
# How the entries of the palettes came about; ``means`` where a package does not say.
VALUES_KEY = "mvit_coreml.palette_values"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that a package stores otherwise than it ought to.

    Attributes:
        aspect: what kind of thing differs.
        place: function and operation, or the key of the metadata.
        detail: what was expected and what was found.
    """

    aspect: Aspect
    place: str
    detail: str


def compare_structure(package: Package, expected: Package) -> list[Difference]:
    """Compare a package with one freshly converted from its checkpoint, without palettization.

    Args:
        package: the package in question.
        expected: what it ought to be.
    """
    return list(_differences(package, expected))


def _differences(package: Package, expected: Package) -> Iterator[Difference]:
    for name, found, wanted in (
        ("specification", package.specification_version, expected.specification_version),
        ("functions", sorted(package.functions), sorted(expected.functions)),
        ("default function", package.default_function, expected.default_function),
    ):
        if found != wanted:
            yield Difference(
                aspect="interface", place=name, detail=f"{found!r} instead of {wanted!r}"
            )
    yield from _compare_metadata(package, expected)
    values = palette_values(package)
    for name in sorted(set(package.functions) & set(expected.functions)):
        yield from _compare_functions(package.functions[name], expected.functions[name], values)
    yield from _check_bits(package)
    sealed = package.metadata.user_defined.get(DIGEST_KEY)
    if sealed is not None and sealed != program_digest(package):
        yield Difference(
            aspect="seal", place=DIGEST_KEY, detail="the package was changed after it was converted"
        )


def palette_values(package: Package) -> Values:
    """Return how the entries of a package's palettes came about, as its metadata says.

    Raises:
        PackageError: the metadata says something unknown.
    """
    stated = package.metadata.user_defined.get(VALUES_KEY, "means")
    for known in get_args(Values):
        if stated == known:
            return known
    raise PackageError(
        f"{package.path}: its metadata {VALUES_KEY} is {short(stated)}; "
        f"known are {', '.join(get_args(Values))}"
    )


def _compare_functions(
    function: Function, expected: Function, values: Values
) -> Iterator[Difference]:
    for what, found, wanted in (
        ("opset", function.opset, expected.opset),
        ("inputs", _by_name(function.inputs), _by_name(expected.inputs)),
        ("outputs", _by_name(function.outputs), _by_name(expected.outputs)),
        ("predicted", function.predicted, expected.predicted),
    ):
        if found != wanted:
            detail = _first_unequal(found, wanted)
            yield Difference(aspect="interface", place=f"{function.name}/{what}", detail=detail)
    if function.labels != expected.labels:
        yield Difference(
            aspect="label", place=f"{function.name}/labels", detail=_first_label(function, expected)
        )
    yield from _Comparison(function, expected, values).differences()


def _by_name(features: Sequence[Any]) -> dict[str, Any]:
    return {feature.name: feature for feature in features}


def _first_unequal(found: Any, wanted: Any, place: str = "") -> str:
    """Say where two values differ first, looking into tuples, mappings and dataclasses."""
    if is_dataclass(found) and is_dataclass(wanted) and type(found) is type(wanted):
        found, wanted = vars(found), vars(wanted)
    if isinstance(found, tuple) and isinstance(wanted, tuple) and len(found) == len(wanted):
        found, wanted = dict(enumerate(found)), dict(enumerate(wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in [*wanted, *found]:
            one, other = found.get(key), wanted.get(key)
            if one != other:
                return _first_unequal(one, other, f"{place}.{key}" if place else str(key))
    return f"{place}{' is ' if place else ''}{short(found)} instead of {short(wanted)}"


def _first_label(function: Function, expected: Function) -> str:
    labels, wanted = function.labels or (), expected.labels or ()
    if len(labels) != len(wanted):
        return f"{len(labels)} labels instead of {len(wanted)}"
    index = next(i for i, pair in enumerate(zip(labels, wanted, strict=True)) if pair[0] != pair[1])
    return f"class {index} is {labels[index]!r} instead of {wanted[index]!r}"


def _compare_metadata(package: Package, expected: Package) -> Iterator[Difference]:
    for key in _COMPARED_KEYS:
        found = _parsed(package.metadata.user_defined.get(key))
        wanted = _parsed(expected.metadata.user_defined.get(key))
        if found != wanted:
            yield Difference(aspect="metadata", place=key, detail=_first_unequal(found, wanted))


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _check_bits(package: Package) -> Iterator[Difference]:
    """Hold the numbers of bits that the metadata states against the palettes."""
    stated = package.metadata.user_defined.get(_BITS_KEY)
    if stated is None:
        return
    functions = package.functions.values()
    found = {str(bits) for function in functions for bits in palette_bits(Constants(function))}
    if found - set(stated.split(", ")):
        yield Difference(
            aspect="metadata",
            place=_BITS_KEY,
            detail=f"{stated or 'no'} bits are stated, {', '.join(sorted(found))} are stored",
        )


class _Comparison:
    """Two functions, operation by operation.

    Args:
        function: the one in question.
        expected: what it ought to be.
        values: how its palettes came about.
    """

    def __init__(self, function: Function, expected: Function, values: Values) -> None:
        self.function, self.expected, self.values = function, expected, values
        self.constants = Constants(function), Constants(expected)
        self.steps = _steps(function), _steps(expected)
        # Values go by the position of what defines them; their names do not matter.
        self.numbers = _numbers(function), _numbers(expected)

    def differences(self) -> Iterator[Difference]:
        """Yield what differs."""
        name = self.function.name
        types, wanted = ([step.op_type for step in steps] for steps in self.steps)
        if types != wanted:
            yield Difference(aspect="graph", place=name, detail=_first_operation(types, wanted))
            return
        yield from self._defined(
            f"{name}/arguments", self.function.arguments, self.expected.arguments
        )
        for step, other in zip(*self.steps, strict=True):
            place = f"{name}/{other.name}"
            for parameter in sorted(set(step.inputs) | set(other.inputs)):
                if (other.op_type, parameter) == _LABELS:
                    continue
                found = step.inputs.get(parameter, ())
                ought = other.inputs.get(parameter, ())
                if len(found) != len(ought):
                    yield Difference(
                        aspect="graph",
                        place=place,
                        detail=f"{parameter} takes {len(found)} values instead of {len(ought)}",
                    )
                    continue
                for a, b in zip(found, ought, strict=True):
                    yield from self._argument(a, b, f"{place}.{parameter}")
            yield from self._defined(place, step.outputs, other.outputs)
        results, wanted_results = (
            {result: numbers.get(result) for result in function.results}
            for function, numbers in zip((self.function, self.expected), self.numbers, strict=True)
        )
        if results != wanted_results:
            yield Difference(
                aspect="graph", place=f"{name}/results", detail="are other values than expected"
            )

    def _defined(
        self, place: str, found: tuple[NamedValue, ...], wanted: tuple[NamedValue, ...]
    ) -> Iterator[Difference]:
        types, ought = ([str(value.type) for value in values] for values in (found, wanted))
        if types != ought:
            detail = f"gives {', '.join(types)} instead of {', '.join(ought)}"
            yield Difference(aspect="graph", place=place, detail=detail)

    def _argument(self, found: Argument, ought: Argument, place: str) -> Iterator[Difference]:
        constants, wanted = self.constants
        if not constants.is_constant(found) or not wanted.is_constant(ought):
            # Constants have no numbers.
            numbers = [
                self.numbers[side].get(getattr(argument, "name", ""))
                for side, argument in enumerate((found, ought))
            ]
            if None in numbers or numbers[0] != numbers[1]:
                yield Difference(
                    aspect="graph", place=place, detail="is connected to another value"
                )
            return
        types = str(constants.type_of(found)), str(wanted.type_of(ought))
        if types[0] != types[1]:
            message = f"is declared {types[0]} instead of {types[1]}"
            yield Difference(aspect="graph", place=place, detail=message)
            return
        detail = compare_constants(
            constants.decode(found),
            wanted.decode(ought),
            read_palette(constants, found),
            self.values,
        )
        if detail is not None:
            weight = is_weight(wanted.type_of(ought))
            yield Difference(aspect="weight" if weight else "attribute", place=place, detail=detail)


def _steps(function: Function) -> list[Operation]:
    return [operation for operation in function.operations if not operation.is_constant]


def _numbers(function: Function) -> dict[str, int]:
    names = [argument.name for argument in function.arguments]
    names += [output.name for step in _steps(function) for output in step.outputs]
    return {name: number for number, name in enumerate(names)}


def _first_operation(types: list[str], wanted: list[str]) -> str:
    for index, (found, ought) in enumerate(zip(types, wanted, strict=False)):
        if found != ought:
            return f"operation {index} is {found} instead of {ought}"
    return f"{len(types)} operations instead of {len(wanted)}"


def stored_precision(function: Function) -> tuple[str, int | None]:
    """Return what a function computes in and the fewest bits of its palettes.

    Args:
        function: of any tool's package.

    Returns:
        ``fp16`` or ``fp32``, and the number of bits or ``None`` without palettes.
    """
    computing = [s for s in _steps(function) if s.op_type in ("conv", "linear", "matmul")]
    types = {str(getattr(step.outputs[0].type, "data_type", "")) for step in computing}
    precision = "fp16" if any("fp16" in name or "float16" in name for name in types) else "fp32"
    return precision, min(palette_bits(Constants(function)), default=None)
