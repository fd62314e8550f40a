"""Which operation of one function is which of another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from mvit_coreml.mil.program import Function, Operation, Reference

# coremltools appends these to names of operations that it moves to another precision.
_PRECISION_SUFFIXES = ("_cast_fp16", "_to_fp16", "_to_fp32", "_cast_fp32")


@dataclass(frozen=True, eq=False)
class Matching:
    """Operations of two functions, matched.

    Attributes:
        pairs: matched operations, in the second function's order.
        only_first: those of the first function without a counterpart.
        only_second: those of the second function without a counterpart.
    """

    pairs: tuple[tuple[Operation, Operation], ...]
    only_first: tuple[Operation, ...]
    only_second: tuple[Operation, ...]
    _values: dict[str, str] = field(repr=False)
    _sources: tuple[dict[str, str], dict[str, str]] = field(repr=False)

    def same_value(self, first: str, second: str) -> bool:
        """Whether a value of the first function corresponds to one of the second."""
        first, second = _origin(first, self._sources[0]), _origin(second, self._sources[1])
        return self._values.get(second) == first


def match_operations(first: Function, second: Function) -> Matching:
    """Match the operations of two functions, constants and casts left out.

    By name, where all operations have the same names and types in both; a suffix for the precision
    does not count. Otherwise by the longest common runs of types, and what is left over by name.
    """
    ours, theirs = _steps(first), _steps(second)
    matched = _by_name(ours, theirs, range(len(ours)), range(len(theirs)))
    if not len(matched) == len(ours) == len(theirs):
        blocks = SequenceMatcher(
            None, [step.op_type for step in ours], [step.op_type for step in theirs], autojunk=False
        ).get_matching_blocks()
        matched = {block.a + step: block.b + step for block in blocks for step in range(block.size)}
        taken = set(matched.values())
        matched |= _by_name(
            ours,
            theirs,
            [index for index in range(len(ours)) if index not in matched],
            [index for index in range(len(theirs)) if index not in taken],
        )
    pairs = sorted(matched.items(), key=lambda pair: pair[1])
    values = {
        other.name: one.name for one, other in zip(first.arguments, second.arguments, strict=False)
    }
    for one, other in pairs:
        for mine, its in zip(ours[one].outputs, theirs[other].outputs, strict=False):
            values[its.name] = mine.name
    taken = set(matched.values())
    return Matching(
        pairs=tuple((ours[one], theirs[other]) for one, other in pairs),
        only_first=tuple(step for index, step in enumerate(ours) if index not in matched),
        only_second=tuple(step for index, step in enumerate(theirs) if index not in taken),
        _values=values,
        _sources=(_casts(first), _casts(second)),
    )


def _steps(function: Function) -> list[Operation]:
    return [
        operation
        for operation in function.operations
        if not operation.is_constant and operation.op_type != "cast"
    ]


def _by_name(
    ours: Sequence[Operation],
    theirs: Sequence[Operation],
    left: Iterable[int],
    right: Iterable[int],
) -> dict[int, int]:
    places = {_key(theirs[index]): index for index in right}
    return {index: places[_key(ours[index])] for index in left if _key(ours[index]) in places}


def _key(operation: Operation) -> tuple[str, str]:
    name = operation.name
    for suffix in _PRECISION_SUFFIXES:
        name = name.removesuffix(suffix)
    return operation.op_type, name


def _casts(function: Function) -> dict[str, str]:
    """Map the result of every cast to what is cast."""
    sources = {}
    for operation in function.operations:
        if operation.op_type == "cast" and isinstance(operation.inputs["x"][0], Reference):
            sources[operation.outputs[0].name] = operation.inputs["x"][0].name
    return sources


def _origin(name: str, casts: dict[str, str]) -> str:
    while name in casts:
        name = casts[name]
    return name
