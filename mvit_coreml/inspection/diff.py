"""What differs between two packages: interface, graph, weights and metadata.

Internal names and the layout of the files do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mvit_coreml.evaluation.read_metadata import class_labels
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.inspection.function_diff import (
    Change,
    FunctionComparison,
    Section,
    WeightChange,
    changed,
)
from mvit_coreml.inspection.input_arithmetic import read_baked_preprocessing
from mvit_coreml.inspection.package_contents import IOS_OF_SPECIFICATION
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Function, Package
from mvit_coreml.mil.stored_weights import Constants

# Relative; scale and bias are composed of up to four numbers stored as fp32.
_BAKED_TOLERANCE = 1e-6


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
        comparison = FunctionComparison(one, other)
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
    changes = partial(changed, "interface", "")
    yield from changes("deployment target", _target(a), _target(b))
    yield from changes("functions", sorted(a.functions), sorted(b.functions))
    yield from changes("default function", a.default_function, b.default_function)


def _target(package: Package) -> str:
    ios = IOS_OF_SPECIFICATION.get(package.specification_version)
    return f"iOS {ios}" if ios else f"specification {package.specification_version}"


def _interface(a: Package, b: Package, one: Function, other: Function) -> Iterator[Change]:
    changes = partial(changed, "interface", one.name)
    for what, first, second in (
        ("input", one.inputs, other.inputs),
        ("output", one.outputs, other.outputs),
    ):
        ours = {feature.name: vars(feature) for feature in first}
        theirs = {feature.name: vars(feature) for feature in second}
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
                yield Change(
                    section="interface",
                    function=one.name,
                    what=f"preprocessing: {what}",
                    first=first,
                    second=second,
                )
    labels, others = class_labels(a, one), class_labels(b, other)
    counts = (None if names is None else len(names) for names in (labels, others))
    yield from changes("number of labels", *counts)
    if labels is not None and others is not None and len(labels) == len(others):
        for index, pair in enumerate(zip(labels, others, strict=True)):
            yield from changes(f"label of class {index}", *pair)


def _metadata(a: Package, b: Package) -> Iterator[Change]:
    ours, theirs = _flat_metadata(a), _flat_metadata(b)
    for key in dict.fromkeys([*ours, *theirs]):
        yield from changed("metadata", "", key, ours.get(key), theirs.get(key))


def _flat_metadata(package: Package) -> dict[str, Any]:
    """Return the metadata key by key, JSON inside values taken apart."""
    fields: dict[str, Any] = {
        name: value for name, value in vars(package.metadata).items() if name != "user_defined"
    }
    for key, text in sorted(package.metadata.user_defined.items()):
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
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict | list) else text
