"""What a package stores, held against what it ought to store.

Faults smaller than the noise of palettization cannot be seen in a package's answers. They show
when its operations, attributes, weights, labels and metadata are compared one by one with a package
freshly converted from the same checkpoint and not palettized.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.parity.compressed import Compressed, decode_compressed
from mvit_coreml.parity.metrics import snr
from mvit_coreml.runtime.program import Constant, Function, Operation, Package, Reference

Aspect = Literal["interface", "graph", "attribute", "weight", "label", "metadata"]

# Keys of the metadata that depend on the checkpoint and the options, not on who converts or when.
_COMPARED_KEYS = (
    "com.apple.coreml.model.preview.type",
    "com.apple.coreml.model.preview.params",
    "mvit_coreml.labels",
    "mvit_coreml.preprocessing",
    "mvit_coreml.weights_sha256",
)
# Largest error of a weight, relative to the largest of its tensor, that rounding explains: half
# precision has 11 significant bits.
_ROUNDING = {"fp16": 2.0**-10, "fp32": 1e-5}
# Signal to noise in dB below which a palettized tensor is taken to be another one, by bits.
# A uniform quantiser of n bits has about 6n dB; heavy tails cost a k-means palette up to ten.
_PALETTE_SNR = {1: 1.0, 2: 4.0, 3: 8.0, 4: 12.0, 6: 22.0, 8: 32.0}
# A palette entry is the mean of its members; how far off it may be, in gaps between entries.
_ENTRY_TOLERANCE = 0.02


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
    if set(package.functions) != set(expected.functions):
        yield Difference(
            aspect="interface",
            place="functions",
            detail=f"{sorted(package.functions)} instead of {sorted(expected.functions)}",
        )
    if package.default_function != expected.default_function:
        yield Difference(
            aspect="interface",
            place="default function",
            detail=f"{package.default_function!r} instead of {expected.default_function!r}",
        )
    for name in sorted(set(package.functions) & set(expected.functions)):
        yield from _compare_functions(package.functions[name], expected.functions[name])
    yield from _compare_metadata(package, expected)


def _compare_functions(function: Function, expected: Function) -> Iterator[Difference]:
    if function.inputs != expected.inputs:
        yield Difference(
            aspect="interface",
            place=f"{function.name}/inputs",
            detail=f"{function.inputs} instead of {expected.inputs}",
        )
    if function.outputs != expected.outputs:
        yield Difference(
            aspect="interface",
            place=f"{function.name}/outputs",
            detail=f"{function.outputs} instead of {expected.outputs}",
        )
    if function.labels != expected.labels:
        yield Difference(
            aspect="label", place=f"{function.name}/labels", detail=_first_label(function, expected)
        )
    yield from _Program(function).compare(_Program(expected))


def _first_label(function: Function, expected: Function) -> str:
    labels, wanted = function.labels or (), expected.labels or ()
    if len(labels) != len(wanted):
        return f"{len(labels)} labels instead of {len(wanted)}"
    index = next(i for i, pair in enumerate(zip(labels, wanted, strict=True)) if pair[0] != pair[1])
    return f"class {index} is {labels[index]!r} instead of {wanted[index]!r}"


def _compare_metadata(package: Package, expected: Package) -> Iterator[Difference]:
    for key in _COMPARED_KEYS:
        found = package.metadata.user_defined.get(key)
        wanted = expected.metadata.user_defined.get(key)
        if _parsed(found) != _parsed(wanted):
            yield Difference(
                aspect="metadata", place=key, detail=f"{_short(found)} instead of {_short(wanted)}"
            )


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


class _Program:
    """A function's operations apart from its constants, and the constants by name."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.constants: dict[str, Operation] = {}
        self.steps: list[Operation] = []
        for operation in function.operations:
            if operation.is_constant:
                for output in operation.outputs:
                    self.constants[output.name] = operation
            else:
                self.steps.append(operation)

    def compare(self, expected: _Program) -> Iterator[Difference]:
        """Yield what differs from the expected program."""
        name = self.function.name
        types = [step.op_type for step in self.steps]
        wanted = [step.op_type for step in expected.steps]
        if types != wanted:
            yield Difference(aspect="graph", place=name, detail=_first_operation(types, wanted))
            return
        # Values go by the position of what defines them; their names do not matter.
        numbers, wanted_numbers = self._numbers(), expected._numbers()
        for step, other in zip(self.steps, expected.steps, strict=True):
            place = f"{name}/{other.name}"
            for parameter in sorted(set(step.inputs) | set(other.inputs)):
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
                    yield from self._compare_argument(
                        expected, a, b, f"{place}.{parameter}", numbers, wanted_numbers
                    )
            if [o.type for o in step.outputs] != [o.type for o in other.outputs]:
                yield Difference(
                    aspect="graph",
                    place=place,
                    detail=f"gives {step.outputs[0].type} instead of {other.outputs[0].type}",
                )

    def _compare_argument(
        self,
        expected: _Program,
        found: Any,
        ought: Any,
        place: str,
        numbers: dict[str, int],
        wanted_numbers: dict[str, int],
    ) -> Iterator[Difference]:
        a, b = self._constant(found), expected._constant(ought)
        if a is None or b is None:
            same = (
                a is None
                and b is None
                and numbers.get(found.name) == wanted_numbers.get(ought.name)
            )
            if not same:
                yield Difference(
                    aspect="graph", place=place, detail="is connected to another value"
                )
            return
        detail = _compare_values(a, b)
        if detail is not None:
            large = isinstance(b, np.ndarray) and b.size > 1
            weight = large or isinstance(a, Compressed)
            yield Difference(aspect="weight" if weight else "attribute", place=place, detail=detail)

    def _numbers(self) -> dict[str, int]:
        names = [argument.name for argument in self.function.arguments]
        names += [output.name for step in self.steps for output in step.outputs]
        return {name: number for number, name in enumerate(names)}

    def _constant(self, argument: Any) -> Any:
        """The value of a constant argument: an array, a string, or a palettized tensor."""
        if isinstance(argument, Constant):
            return argument.decode()
        assert isinstance(argument, Reference)
        operation = self.constants.get(argument.name)
        if operation is None:
            return None
        if operation.op_type == "const":
            (value,) = operation.inputs["val"]
            assert isinstance(value, Constant)
            return value.decode()
        given = {name: self._constant(values[0]) for name, values in operation.inputs.items()}
        return decode_compressed(operation, given, self.function.opset)


def _compare_values(found: Any, expected: Any) -> str | None:
    """Say how a constant differs from the expected one, or ``None``."""
    if isinstance(found, Compressed):
        if isinstance(expected, Compressed):
            expected = expected.values
        return _compare_palette(found, np.asarray(expected))
    if isinstance(found, np.ndarray) and isinstance(expected, np.ndarray):
        if found.dtype != expected.dtype or found.shape != expected.shape:
            return (
                f"is {found.dtype} {list(found.shape)} instead of "
                f"{expected.dtype} {list(expected.shape)}"
            )
        if found.size == 1 or not np.issubdtype(found.dtype, np.floating):
            same = np.array_equal(found, expected)
            return None if same else f"is {_short(found.tolist())}, not {_short(expected.tolist())}"
        error = np.abs(found.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0)
        precision = "fp16" if found.dtype == np.float16 else "fp32"
        largest = np.abs(expected.astype(np.float64)).max(initial=0.0)
        if error <= _ROUNDING[precision] * largest:
            return None
        return f"differs by up to {error:.3g} where its largest value is {largest:.3g}"
    return None if found == expected else f"is {_short(found)}, not {_short(expected)}"


def _compare_palette(found: Compressed, expected: NDArray[Any]) -> str | None:
    values = found.values
    if values.shape != expected.shape:
        return f"has shape {list(values.shape)} instead of {list(expected.shape)}"
    if found.table is None or found.indices is None:
        ratio = snr(values, expected)
        return None if ratio >= _PALETTE_SNR[8] else f"has {ratio:.1f} dB against its weights"
    bits = max(1, int(found.table.size - 1).bit_length())
    ratio = snr(values, expected)
    if ratio < _PALETTE_SNR[bits]:
        return (
            f"has {ratio:.1f} dB against its weights, where {bits} bits give {_PALETTE_SNR[bits]:g}"
        )
    return _misplaced_entry(found.table.ravel(), found.indices.ravel(), expected.ravel())


def _misplaced_entry(
    table: NDArray[Any], indices: NDArray[Any], weights: NDArray[Any]
) -> str | None:
    """Find an entry that is not the mean of its members, beyond what fitting leaves."""
    table, weights = table.astype(np.float64), weights.astype(np.float64)
    members = np.bincount(indices, minlength=table.size)
    sums = np.bincount(indices, weights=weights, minlength=table.size)
    used = members > 0
    means = sums[used] / members[used]
    order = np.argsort(means)
    means, entries = means[order], table[used][order]
    if means.size < 2:
        return None
    gaps = np.diff(means)
    reach = np.minimum(np.append(gaps, gaps[-1]), np.insert(gaps, 0, gaps[0]))
    allowed = _ENTRY_TOLERANCE * reach + 2.0**-10 * np.abs(means)
    worst = int(np.argmax(np.abs(entries - means) - allowed))
    if abs(entries[worst] - means[worst]) <= allowed[worst]:
        return None
    return f"has the palette entry {entries[worst]:.4g} for weights of mean {means[worst]:.4g}"


def _first_operation(types: list[str], wanted: list[str]) -> str:
    for index, (found, ought) in enumerate(zip(types, wanted, strict=False)):
        if found != ought:
            return f"operation {index} is {found} instead of {ought}"
    return f"{len(types)} operations instead of {len(wanted)}"


def stored_precision(package: Package, function: Function) -> tuple[str, int | None]:
    """Return what a function computes in and the fewest bits of its palettes.

    Args:
        package: any tool's.
        function: of the package.

    Returns:
        ``fp16`` or ``fp32``, and the number of bits or ``None`` without palettes.
    """
    program = _Program(function)
    convolutions = [s for s in program.steps if s.op_type in ("conv", "linear", "matmul")]
    types = {str(getattr(step.outputs[0].type, "data_type", "")) for step in convolutions}
    precision = "fp16" if any("fp16" in name or "float16" in name for name in types) else "fp32"
    bits = [
        max(1, (int(program._constant(operation.inputs["lut"][0]).size) - 1).bit_length())
        for operation in program.constants.values()
        if operation.op_type == "constexpr_lut_to_dense"
    ]
    del package
    return precision, min(bits, default=None)
