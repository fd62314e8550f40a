"""A package compared part by part with what its checkpoint converts to: structure and weights.

Faults smaller than the noise of palettization cannot be seen in a package's answers. They show
when its operations, attributes, weights, labels and metadata are compared one by one with a package
freshly converted from the same checkpoint and not palettized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, get_args

import numpy as np

from mvit_coreml.compression.apply_plan import PALETTIZED_SUFFIX
from mvit_coreml.compression.plan import PlanValues
from mvit_coreml.compression.quantization.apply_quantization import QUANTIZED_SUFFIX
from mvit_coreml.compression.quantization.grid import Grid
from mvit_coreml.compression.quantization.placement import READERS, live_inputs
from mvit_coreml.compression.quantization.quantization_plan import Quantization
from mvit_coreml.errors import PackageError
from mvit_coreml.files import parse_json
from mvit_coreml.mil.activation_pairs import read_pairs, without_pairs
from mvit_coreml.mil.digest import (
    DIGEST_KEY,
    VALUES_DIGEST_KEY,
    program_digest,
    values_digest,
)
from mvit_coreml.mil.program import Argument, Function, NamedValue, Package, Reference
from mvit_coreml.mil.stored_weights import Constants, is_weight, palette_bits, read_palette
from mvit_coreml.validation.weight_comparison import Values, compare_constants, short

Aspect = Literal["interface", "graph", "attribute", "weight", "label", "metadata", "digest", "plan"]

# Keys of the metadata that depend on the checkpoint and the options, not on who converts or when.
_COMPARED_KEYS = (
    "com.apple.coreml.model.preview.type",
    "com.apple.coreml.model.preview.params",
    "mvit_coreml.fp32_operations",
    "mvit_coreml.labels",
    "mvit_coreml.output",
    "mvit_coreml.precision",
    "mvit_coreml.preprocessing",
    "mvit_coreml.task",
    "mvit_coreml.weights_sha256",
)
# Compared one by one, as labels.
_LABELS = ("classify", "classes")
_BITS_KEY = "mvit_coreml.bits"
# Of a package that computes in 8 bits.
QUANTIZATION_KEY = "mvit_coreml.quantization"
_ACTIVATIONS_KEY = "mvit_coreml.activations"
# How the entries of the palettes came about; ``means`` where a package does not say.
VALUES_KEY = "mvit_coreml.palette_values"


@dataclass(frozen=True)
class Difference:
    """Something that a package stores otherwise than what its checkpoint converts to.

    Attributes:
        aspect: what kind of thing differs.
        place: function and operation, or the key of the metadata.
        detail: what is stored, and what was expected.
    """

    aspect: Aspect
    place: str
    detail: str


def compare_structure(package: Package, expected: Package) -> list[Difference]:
    """Compare a package with one freshly converted from its checkpoint, without compression.

    Of a package that computes in 8 bits, the graph is compared without the rounding of activations,
    which is held against what the package's metadata says about it.

    Args:
        package: the package in question.
        expected: what its checkpoint converts to.
    """
    return list(_differences(package, expected))


def compare_with_plan(package: Package, fitted: PlanValues | Quantization) -> list[Difference]:
    """Compare what a package stores with what that was fitted to be, bit for bit.

    What was fitted is not what the checkpoint holds, so that comparison has to allow much.

    Args:
        package: the package in question.
        fitted: the values of its plan, or with 8-bit activations all of it.
    """
    if isinstance(fitted, Quantization):
        values = fitted.values
        expected = {
            **{name + QUANTIZED_SUFFIX: one.decode() for name, one in values.weights.items()},
            **values.constants,
        }
    else:
        palettes = fitted.palettes.items()
        expected = {
            **{name + PALETTIZED_SUFFIX: value.decode() for name, value in palettes},
            **fitted.constants,
        }
    detail = "is not what the package's plan says it was fitted to be"
    unequal = [
        Difference("plan", f"{constants.function.name}/{name}", detail)
        for constants in map(Constants, package.functions.values())
        for name in sorted(constants.function.producers.keys() & expected.keys())
        if not np.array_equal(constants.decode(Reference(name)), expected[name])
    ]
    if isinstance(fitted, Quantization):
        grids = {name: _listed(grid) for name, grid in fitted.plan.grids.items()}
        for function in package.functions.values():
            unequal += check_grids(function, grids, "plan")
    return unequal


def _differences(package: Package, expected: Package) -> Iterator[Difference]:
    for place, actual, reference in (
        ("specification", package.specification_version, expected.specification_version),
        ("functions", sorted(package.functions), sorted(expected.functions)),
        ("default function", package.default_function, expected.default_function),
    ):
        yield from _unequal("interface", place, actual, reference)
    for key in _COMPARED_KEYS:
        stored = (_stored_json(side, key) for side in (package, expected))
        yield from _unequal("metadata", key, *stored)
    values = palette_values(package)
    for name in sorted(set(package.functions) & set(expected.functions)):
        function, reference_function = package.functions[name], expected.functions[name]
        yield from _compare_interfaces(function, reference_function)
        yield from _check_pairs(package, function)
        yield from _compare_graphs(without_pairs(function), reference_function, values)
    yield from _check_bits(package)
    yield from _check_digests(package, values, DIGEST_KEY in expected.metadata.user_defined)


def _check_digests(package: Package, values: Values, required: bool) -> Iterator[Difference]:
    """Hold the digests that the metadata states against what is stored."""
    digests = {DIGEST_KEY: program_digest}
    if values == "trained":
        digests[VALUES_DIGEST_KEY] = values_digest
    for key, digest_of in digests.items():
        stated = package.metadata.user_defined.get(key)
        if stated is None and required:
            yield Difference("digest", key, "is missing: every package is written with one")
        elif stated is not None and stated != digest_of(package):
            yield Difference("digest", key, "the package was changed after it was converted")


def palette_values(package: Package) -> Values:
    """Return how the entries of a package's palettes came about, as its metadata says.

    Raises:
        PackageError: the metadata says something unknown.
    """
    quantized = QUANTIZATION_KEY in package.metadata.user_defined
    stated = package.metadata.user_defined.get(VALUES_KEY, "trained" if quantized else "means")
    known: tuple[Values, ...] = get_args(Values)
    if stated not in known:
        raise PackageError(
            f"{package.path}: its metadata {VALUES_KEY} is {short(stated)}; "
            f"known are {', '.join(known)}"
        )
    return known[known.index(stated)]


def stored_precision(function: Function) -> tuple[str, int | None]:
    """Return what a function computes in and the fewest bits of its palettes.

    Args:
        function: of any tool's package.

    Returns:
        ``fp16`` or ``fp32``, and the number of bits or ``None`` without palettes.
    """
    computing = [s for s in function.steps if s.op_type in ("conv", "linear", "matmul")]
    types = {str(getattr(step.outputs[0].type, "data_type", "")) for step in computing}
    precision = "fp16" if any("fp16" in name or "float16" in name for name in types) else "fp32"
    return precision, min(palette_bits(Constants(function)), default=None)


def _unequal(aspect: Aspect, place: str, actual: Any, expected: Any) -> Iterator[Difference]:
    if actual != expected:
        yield Difference(aspect, place, _first_unequal(actual, expected))


def _first_unequal(actual: Any, expected: Any, place: str = "") -> str:
    """Say where two values differ first, looking into tuples, mappings and dataclasses."""
    if is_dataclass(actual) and is_dataclass(expected) and type(actual) is type(expected):
        actual, expected = vars(actual), vars(expected)
    if isinstance(actual, tuple) and isinstance(expected, tuple) and len(actual) == len(expected):
        actual, expected = dict(enumerate(actual)), dict(enumerate(expected))
    if isinstance(actual, dict) and isinstance(expected, dict):
        for key in [*expected, *actual]:
            one, other = actual.get(key), expected.get(key)
            if one != other:
                return _first_unequal(one, other, f"{place}.{key}" if place else str(key))
    return f"{place}{' is ' if place else ''}{short(actual)} instead of {short(expected)}"


def _stored_json(package: Package, key: str) -> Any:
    text = package.metadata.user_defined.get(key)
    try:
        return None if text is None else parse_json(text)
    except ValueError:
        return text


def _check_bits(package: Package) -> Iterator[Difference]:
    """Hold the numbers of bits that the metadata states against the palettes."""
    stated = package.metadata.user_defined.get(_BITS_KEY)
    if stated is None:
        return
    functions = package.functions.values()
    stored = {str(bits) for function in functions for bits in palette_bits(Constants(function))}
    if stored - set(stated.split(", ")):
        detail = f"{stated or 'no'} bits are stated, {', '.join(sorted(stored))} are stored"
        yield Difference("metadata", _BITS_KEY, detail)


def _check_pairs(package: Package, function: Function) -> Iterator[Difference]:
    """Hold the rounding of a function's activations against itself and the metadata."""
    pairs = read_pairs(function)
    for pair in pairs:
        if not pair.is_consistent:
            one, other = (f"scale {scale} and zero point {zero}" for scale, zero in pair.grids)
            place = f"{function.name}/{pair.dequantize.name}"
            yield Difference("attribute", place, f"has {other} where it is rounded with {one}")
    rounded = {pair.value for pair in pairs}
    constants = Constants(function)
    for step in function.steps:
        for name in live_inputs(step, constants) if step.op_type in READERS else ():
            if name in rounded:
                place = f"{function.name}/{step.name}"
                yield Difference("graph", place, f"reads {name} before it is rounded")
    if QUANTIZATION_KEY in package.metadata.user_defined:
        stated = _stored_json(package, _ACTIVATIONS_KEY)
        yield from check_grids(function, stated if isinstance(stated, dict) else {}, "metadata")


def check_grids(
    function: Function, stated: Mapping[str, Any], aspect: Aspect
) -> Iterator[Difference]:
    """Compare the grids that a function rounds its activations to with those it should have.

    Args:
        function: of a package.
        stated: name of each value that is rounded to its type, scale and zero point.
        aspect: of the differences.
    """
    stored = {pair.value: [pair.dtype, *pair.grids[0]] for pair in read_pairs(function)}
    for name in sorted({*stored, *stated}):
        if stored.get(name) != stated.get(name):
            detail = f"is {short(stored.get(name))} instead of {short(stated.get(name))}"
            yield Difference(aspect, f"{function.name}/{name} (rounding)", detail)


def _listed(grid: Grid) -> list[Any]:
    return [grid.dtype, grid.scale, grid.zero_point]


def _compare_interfaces(function: Function, expected: Function) -> Iterator[Difference]:
    for part, actual, reference in (
        ("opset", function.opset, expected.opset),
        ("inputs", _by_name(function.inputs), _by_name(expected.inputs)),
        ("outputs", _by_name(function.outputs), _by_name(expected.outputs)),
        ("predicted", function.predicted, expected.predicted),
    ):
        yield from _unequal("interface", f"{function.name}/{part}", actual, reference)
    if function.labels != expected.labels:
        labels, expected_labels = (list(map(repr, f.labels or ())) for f in (function, expected))
        detail = _first_other("class", "labels", labels, expected_labels)
        yield Difference("label", f"{function.name}/labels", detail)


def _by_name(features: Sequence[Any]) -> dict[str, Any]:
    return {feature.name: feature for feature in features}


def _first_other(one: str, several: str, actual: Sequence[str], expected: Sequence[str]) -> str:
    """Say where two sequences differ first, or how long they are."""
    for index, (entry, other) in enumerate(zip(actual, expected, strict=False)):
        if entry != other:
            return f"{one} {index} is {entry} instead of {other}"
    return f"{len(actual)} {several} instead of {len(expected)}"


class _FunctionValues:
    """The values of a function: constants, and the others by the position of what defines them.

    Two functions' values correspond whatever they are called.
    """

    def __init__(self, function: Function) -> None:
        self.constants = Constants(function)
        names = [argument.name for argument in function.arguments]
        names += [output.name for step in function.steps for output in step.outputs]
        self.positions = {name: position for position, name in enumerate(names)}

    def position(self, argument: Argument) -> int | None:
        """Where a value is defined; ``None`` for a constant."""
        return self.positions.get(getattr(argument, "name", ""))


def _compare_graphs(
    function: Function, expected: Function, palettes: Values
) -> Iterator[Difference]:
    """Compare two functions operation by operation."""
    name = function.name
    types, expected_types = ([step.op_type for step in f.steps] for f in (function, expected))
    if types != expected_types:
        detail = _first_other("operation", "operations", types, expected_types)
        yield Difference("graph", name, detail)
        return
    yield from _compare_types(f"{name}/arguments", function.arguments, expected.arguments)
    values = _FunctionValues(function), _FunctionValues(expected)
    for step, other in zip(function.steps, expected.steps, strict=True):
        place = f"{name}/{other.name}"
        for parameter in sorted({*step.inputs, *other.inputs}):
            if (other.op_type, parameter) == _LABELS:
                continue
            actual, reference = step.inputs.get(parameter, ()), other.inputs.get(parameter, ())
            if len(actual) != len(reference):
                detail = f"{parameter} takes {len(actual)} values instead of {len(reference)}"
                yield Difference("graph", place, detail)
                continue
            for pair in zip(actual, reference, strict=True):
                where = f"{place}.{parameter}"
                yield from _compare_arguments(where, pair, values, palettes)
        yield from _compare_types(place, step.outputs, other.outputs)
    results, expected_results = (
        {result: side.positions.get(result) for result in of.results}
        for of, side in zip((function, expected), values, strict=True)
    )
    if results != expected_results:
        yield Difference("graph", f"{name}/results", "are other values than expected")


def _compare_types(
    place: str, actual: Sequence[NamedValue], expected: Sequence[NamedValue]
) -> Iterator[Difference]:
    types, expected_types = ([str(v.type) for v in values] for values in (actual, expected))
    if types != expected_types:
        detail = f"gives {', '.join(types)} instead of {', '.join(expected_types)}"
        yield Difference("graph", place, detail)


def _compare_arguments(
    place: str,
    arguments: tuple[Argument, Argument],
    values: tuple[_FunctionValues, _FunctionValues],
    palettes: Values,
) -> Iterator[Difference]:
    (actual, expected), (ours, theirs) = arguments, values
    if not ours.constants.is_constant(actual) or not theirs.constants.is_constant(expected):
        position = ours.position(actual)
        if position is None or position != theirs.position(expected):
            yield Difference("graph", place, "is connected to another value")
        return
    declared, expected_type = ours.constants.type_of(actual), theirs.constants.type_of(expected)
    if str(declared) != str(expected_type):
        yield Difference("graph", place, f"is declared {declared} instead of {expected_type}")
        return
    unequal = compare_constants(
        ours.constants.decode(actual),
        theirs.constants.decode(expected),
        read_palette(ours.constants, actual),
        palettes,
    )
    if unequal is not None:
        aspect: Aspect = "weight" if is_weight(expected_type) else "attribute"
        yield Difference(aspect, place, unequal)
