"""What differs between two packages: interface, graph, weights and metadata.

Internal names and the layout of the files do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mvit_coreml.evaluation.metrics import closeness
from mvit_coreml.evaluation.read_metadata import class_labels
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.files import parse_json
from mvit_coreml.inspection.input_arithmetic import read_baked_preprocessing
from mvit_coreml.inspection.package_contents import IOS_OF_SPECIFICATION, census
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Argument, Function, Operation, Package, Reference
from mvit_coreml.mil.stored_weights import Constants, Weight, is_weight
from mvit_coreml.mil.value_types import TensorType

Section = Literal["interface", "graph", "metadata"]

# Relative; scale and bias are composed of up to four numbers stored as fp32.
_BAKED_TOLERANCE = 1e-6
# coremltools appends these to names of operations that it moves to another precision.
_PRECISION_SUFFIXES = ("_cast_fp16", "_to_fp16", "_to_fp32", "_cast_fp32")
# Compared one by one, as a part of the interface.
_LABELS = ("classify", "classes")
_COMPUTED = "computed"


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that is one thing in the first package and another in the second.

    Attributes:
        section: ``interface``, ``graph`` or ``metadata``.
        function: name of the function, empty for the package as a whole.
        what: what differs.
        first: its value in the first package, ``None`` where it lacks it.
        second: its value in the second package, ``None`` where it lacks it.
    """

    section: Section
    function: str
    what: str
    first: Any = None
    second: Any = None


@dataclass(frozen=True, kw_only=True)
class WeightChange:
    """A weight that is stored differently or holds other values.

    Attributes:
        function: name of the function.
        operation: that takes it, by its name in the second package.
        parameter: it is given for.
        shape: in the second package.
        first_scheme: how the first package stores it, see
            :class:`~mvit_coreml.mil.stored_weights.Weight`.
        second_scheme: how the second does.
        snr: of the second package's values against the first's, in dB; 300 for equal values,
            ``None`` where the shapes differ.
        max_error: largest absolute difference; ``None`` where the shapes differ.
        max_first: largest absolute value in the first package.
        first_shape: in the first package.
    """

    function: str
    operation: str
    parameter: str
    shape: tuple[int, ...]
    first_shape: tuple[int, ...]
    first_scheme: str
    second_scheme: str
    snr: float | None
    max_error: float | None
    max_first: float


@dataclass(frozen=True, kw_only=True)
class PackageDifferences:
    """What differs between two packages.

    Attributes:
        first: path of the first.
        second: path of the second.
        sizes: bytes of both.
        changes: to interface, graph and metadata, in this order.
        weights: that differ, the worst first.
        compared_weights: number of weights that both have.
        equal_weights: number of those that are stored alike and hold the same values.
    """

    first: Path
    second: Path
    sizes: tuple[int, int]
    changes: tuple[Change, ...] = field(repr=False)
    weights: tuple[WeightChange, ...] = field(repr=False)
    compared_weights: int
    equal_weights: int

    @property
    def equal(self) -> bool:
        """Whether the packages do and say the same."""
        return not self.changes and not self.weights

    def section(self, name: Section) -> tuple[Change, ...]:
        """Return the changes of one section."""
        return tuple(change for change in self.changes if change.section == name)


def compare_packages(first: str | Path, second: str | Path) -> PackageDifferences:
    """Compare two packages of any tool.

    Operations are matched by name where both packages have an operation of that name and type, the
    others by their order among operations of the same type.

    Args:
        first: an .mlpackage folder.
        second: another one.

    Raises:
        PackageError: one of them cannot be read or decoded.
    """
    a, b = load_package(first), load_package(second)
    interface = list(_package_interface(a, b))
    graph: list[Change] = []
    weights: list[WeightChange] = []
    compared = 0
    for one, other in _function_pairs(a, b):
        interface += _interface(a, b, one, other)
        comparison = _FunctionComparison(one, other)
        graph += comparison.graph()
        weights += comparison.weights()
        compared += comparison.compared
    weights.sort(key=lambda change: change.snr if change.snr is not None else -np.inf)
    return PackageDifferences(
        first=a.path,
        second=b.path,
        sizes=(package_size(a.path), package_size(b.path)),
        changes=(*interface, *graph, *_metadata(a, b)),
        weights=tuple(weights),
        compared_weights=compared,
        equal_weights=compared - len(weights),
    )


def _function_pairs(a: Package, b: Package) -> Iterator[tuple[Function, Function]]:
    if len(a.functions) == len(b.functions) == 1:
        yield a.function(), b.function()
        return
    for name in sorted(set(a.functions) & set(b.functions)):
        yield a.functions[name], b.functions[name]


def _package_interface(a: Package, b: Package) -> Iterator[Change]:
    changes = partial(_changed, "interface", "")
    yield from changes("deployment target", _target(a), _target(b))
    yield from changes("functions", sorted(a.functions), sorted(b.functions))
    yield from changes("default function", a.default_function, b.default_function)


def _target(package: Package) -> str:
    ios = IOS_OF_SPECIFICATION.get(package.specification_version)
    return f"iOS {ios}" if ios else f"specification {package.specification_version}"


def _interface(a: Package, b: Package, one: Function, other: Function) -> Iterator[Change]:
    changes = partial(_changed, "interface", one.name)
    for what in ("input", "output"):
        ours, theirs = (
            {feature.name: vars(feature) for feature in getattr(function, f"{what}s")}
            for function in (one, other)
        )
        yield from changes(f"{what}s", list(ours), list(theirs))
        for name in (name for name in ours if name in theirs):
            for attribute in {**ours[name], **theirs[name]}:
                if attribute != "name":
                    place = f"{what} {name}: {attribute.replace('_', ' ')}"
                    values = ours[name].get(attribute), theirs[name].get(attribute)
                    yield from changes(place, *values)
    baked = [read_baked_preprocessing(function, Constants(function)) for function in (one, other)]
    if baked[0] is not None and baked[1] is not None:
        for what in ("scale", "bias"):
            first, second = getattr(baked[0], what), getattr(baked[1], what)
            if not np.allclose(first, second, rtol=_BAKED_TOLERANCE, atol=0):
                yield from changes(f"preprocessing: {what}", first, second)
    labels, others = class_labels(a, one), class_labels(b, other)
    counts = (None if names is None else len(names) for names in (labels, others))
    yield from changes("number of labels", *counts)
    if labels is not None and others is not None and len(labels) == len(others):
        for index, pair in enumerate(zip(labels, others, strict=True)):
            yield from changes(f"label of class {index}", *pair)


def _metadata(a: Package, b: Package) -> Iterator[Change]:
    ours, theirs = _flat_metadata(a), _flat_metadata(b)
    for key in dict.fromkeys([*ours, *theirs]):
        yield from _changed("metadata", "", key, ours.get(key), theirs.get(key))


def _flat_metadata(package: Package) -> dict[str, Any]:
    """Return the metadata key by key, JSON inside values taken apart."""
    fields = dict(vars(package.metadata))
    for key, text in sorted(fields.pop("user_defined").items()):
        fields.update(_flatten(key, _parsed(text)))
    return fields


def _flatten(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _flatten(f"{key}/{name}", item)
    else:
        yield key, value


def _parsed(text: str) -> Any:
    try:
        value = parse_json(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text


def _changed(
    section: Section, function: str, what: str, first: Any, second: Any
) -> Iterator[Change]:
    """Yield a change if two values differ."""
    if first != second:
        yield Change(section=section, function=function, what=what, first=first, second=second)


class _FunctionComparison:
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
        self.shapes = _computed_shapes(first), _computed_shapes(second)
        self.uncast = _uncast(first), _uncast(second)
        self.pairs, self.unmatched = _match_operations(first, second)
        outputs = (zip(one.outputs, other.outputs, strict=False) for one, other in self.pairs)
        values = chain(zip(first.arguments, second.arguments, strict=False), *outputs)
        self.counterparts = {other.name: one.name for one, other in values}
        self.compared = 0

    def graph(self) -> Iterator[Change]:
        """Yield what differs between the operations, weights apart."""
        ours, theirs = census(self.first), census(self.second)
        for op_type in dict.fromkeys([*ours, *theirs]):
            counts = ours.get(op_type, 0), theirs.get(op_type, 0)
            yield from self._changes(f"number of {op_type}", *counts)
        for operation in self.unmatched[0]:
            yield from self._changes(f"{operation.op_type} {operation.name}", "present", None)
        for operation in self.unmatched[1]:
            yield from self._changes(f"{operation.op_type} {operation.name}", None, "present")
        types: Counter[tuple[str, str]] = Counter()
        following = 0
        for one, other in self.pairs:
            yield from self._parameters(one, other)
            shapes, other_shapes = (
                [value_type.shape for value_type in step.tensor_types] for step in (one, other)
            )
            if shapes != other_shapes and self._inputs_differ(one, other):
                following += 1
            else:
                place = f"{other.op_type} {other.name}: shape of the result"
                yield from self._changes(place, _single(shapes), _single(other_shapes))
            types[_element_type(one), _element_type(other)] += 1
        for pair, count in types.items():
            yield from self._changes(f"element type of {count} results", *pair)
        if following:
            what = f"shapes of {following} results whose arguments have other shapes too"
            yield Change(section="graph", function=self.first.name, what=what)
        if len(self.first.results) == len(self.second.results):
            for result in zip(self.first.results, self.second.results, strict=True):
                if not self._same_value(*result):
                    yield from self._changes(f"what the output {result[1]} is", *result)

    def _parameters(self, one: Operation, other: Operation) -> Iterator[Change]:
        """Yield the parameters that are something else in the second operation."""
        for parameter in sorted({*one.inputs, *other.inputs}):
            if (other.op_type, parameter) == _LABELS:
                continue
            first, second = (
                [self._argument(side, argument) for argument in step.inputs.get(parameter, ())]
                for side, step in enumerate((one, other))
            )
            if len(first) == len(second) and all(map(self._same, first, second)):
                continue
            yield Change(
                section="graph",
                function=self.first.name,
                what=f"{other.op_type} {other.name}: {parameter}",
                first=_single([value for _, value in first]),
                second=_single([value for _, value in second]),
            )

    def _inputs_differ(self, one: Operation, other: Operation) -> bool:
        """Whether two operations compute on values of different shapes."""
        first, second = self.shapes
        return [first.get(n) for n in one.value_names] != [second.get(n) for n in other.value_names]

    def _argument(self, side: int, argument: Argument) -> tuple[str, Any]:
        """Return what an operation takes, as a kind and a value.

        The element type and value of an attribute; ``computed`` and a name; or a word for a weight.
        """
        constants = self.constants[side]
        if not constants.is_constant(argument):
            return _COMPUTED, getattr(argument, "name", "")
        declared = constants.type_of(argument)
        if is_weight(declared):
            return "weight", "a weight"
        is_tensor = isinstance(declared, TensorType)
        kind = declared.data_type.name if is_tensor else str(declared)
        return kind, constants.attribute(argument)

    def _same(self, first: tuple[str, Any], second: tuple[str, Any]) -> bool:
        """Whether two arguments are equal, up to the rounding that a change of type brings."""
        (kind, value), (other_kind, other) = first, second
        if _COMPUTED in (kind, other_kind):
            return kind == other_kind and self._same_value(value, other)
        if value == other or kind == other_kind:
            return bool(value == other)
        try:
            return np.array_equal(np.asarray(value, np.float16), np.asarray(other, np.float16))
        except (TypeError, ValueError):
            return False

    def _same_value(self, first: str, second: str) -> bool:
        """Whether a value of the first function corresponds to one of the second."""
        first, second = self.uncast[0].get(first, first), self.uncast[1].get(second, second)
        return self.counterparts.get(second) == first

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
        for one, other in self.pairs:
            for parameter in sorted(one.inputs):
                first = stored[0].get((one.name, parameter))
                second = stored[1].get((other.name, parameter))
                if first is not None and second is not None:
                    self.compared += 1
                    yield from self._weight(other.name, parameter, first, second)

    def _weight(
        self, operation: str, parameter: str, first: Weight, second: Weight
    ) -> Iterator[WeightChange]:
        one = np.asarray(self.constants[0].decode(first.argument), np.float64)
        other = np.asarray(self.constants[1].decode(second.argument), np.float64)
        same_shape = one.shape == other.shape
        equal = same_shape and np.array_equal(one, other, equal_nan=True)
        if equal and first.scheme == second.scheme:
            return
        close = closeness(other, one) if same_shape else None
        yield WeightChange(
            function=self.first.name,
            operation=operation,
            parameter=parameter,
            shape=other.shape,
            first_shape=one.shape,
            first_scheme=first.scheme,
            second_scheme=second.scheme,
            snr=None if close is None else close.snr,
            max_error=None if close is None else close.max_error,
            max_first=float(np.abs(one).max(initial=0.0)),
        )

    def _changes(self, what: str, first: Any, second: Any) -> Iterator[Change]:
        return _changed("graph", self.first.name, what, first, second)


def _single(values: list[Any]) -> Any:
    """Return something to print: a single value by itself."""
    return None if not values else values[0] if len(values) == 1 else values


def _element_type(operation: Operation) -> str:
    return next((value_type.data_type.name for value_type in operation.tensor_types), "")


def _computed_shapes(function: Function) -> dict[str, Any]:
    """Return the shape of every value that is not stored in the package."""
    values = [*function.arguments, *(o for step in function.steps for o in step.outputs)]
    return {value.name: value.type.shape for value in values if isinstance(value.type, TensorType)}


def _match_operations(
    first: Function, second: Function
) -> tuple[list[tuple[Operation, Operation]], tuple[list[Operation], list[Operation]]]:
    """Match the operations of two functions, constants and casts left out.

    By name, where all operations have the same names and types in both; a suffix for the precision
    does not count. Otherwise by the longest common runs of types, and what is left over by name.

    Returns:
        The pairs in the second function's order, and what each function has left.
    """
    ours, theirs = ([s for s in f.steps if s.op_type != "cast"] for f in (first, second))
    matched = _by_name(ours, theirs, {})
    if not len(matched) == len(ours) == len(theirs):
        blocks = SequenceMatcher(
            None, [step.op_type for step in ours], [step.op_type for step in theirs], autojunk=False
        ).get_matching_blocks()
        matched = {block.a + step: block.b + step for block in blocks for step in range(block.size)}
        matched |= _by_name(ours, theirs, matched)
    pairs = [(ours[a], theirs[b]) for a, b in sorted(matched.items(), key=lambda pair: pair[1])]
    taken = set(matched.values())
    left = [step for index, step in enumerate(ours) if index not in matched]
    return pairs, (left, [step for index, step in enumerate(theirs) if index not in taken])


def _by_name(
    ours: Sequence[Operation], theirs: Sequence[Operation], matched: Mapping[int, int]
) -> dict[int, int]:
    """Match by name what is not matched yet."""
    taken = set(matched.values())
    places = {_key(step): index for index, step in enumerate(theirs) if index not in taken}
    keys = {index: _key(step) for index, step in enumerate(ours) if index not in matched}
    return {index: places[key] for index, key in keys.items() if key in places}


def _key(operation: Operation) -> tuple[str, str]:
    name = operation.name
    for suffix in _PRECISION_SUFFIXES:
        name = name.removesuffix(suffix)
    return operation.op_type, name


def _uncast(function: Function) -> dict[str, str]:
    """Map the result of every cast to the value that was cast first."""
    origins: dict[str, str] = {}
    for step in function.steps:
        source = step.inputs["x"][0] if step.op_type == "cast" else None
        if isinstance(source, Reference):
            origins[step.outputs[0].name] = origins.get(source.name, source.name)
    return origins
