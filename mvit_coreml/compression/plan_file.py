"""Plans as files: TOML to read and edit, and beside it the fitted tables where there are any.

The latter are a safetensors file of tables, packed indices, and replaced constants.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from mvit_coreml.compression.palettized_weight import (
    BIT_WIDTHS,
    Choice,
    PalettizedWeight,
    pack_indices,
    packed_size,
    unpack_indices,
)
from mvit_coreml.compression.plan import (
    ConstantSource,
    PalettizationPlan,
    PlannedWeight,
    PlanValues,
    Scalar,
    ValueSource,
    check_values,
)
from mvit_coreml.errors import InputError, errors_at
from mvit_coreml.files import check_table, read_toml, write_file

FORMAT = 1
PLAN_SUFFIX = ".plan.toml"
VALUES_SUFFIX = ".safetensors"

_HEADER = """\
# Palettization plan: how each weight of one model is stored in its Core ML package.
# bits: 1, 2, 4, 6 or 8, from iOS 18 on also 3; "none" keeps a weight as it is.
# group_size: output channels that share a lookup table, from iOS 18 on; 0 is one for all.
# values: "kmeans" finds the table anew, so bits and group_size may be edited; "tuned" ones are
# stored in the file beside this one and hold for the bits and group_size given.
# snr: what these leave of the outputs of the weight's layer, in dB; validate holds a package to it.
# A weight that is not listed stays as it is.
"""
# Names of the stored arrays: one of these and the name of the weight or constant.
_LUT = "lut/"
_INDICES = "indices/"
_AXIS = "axis/"
_CONSTANT = "constant/"

_Text = Annotated[str, Field(description="a text in quotes")]
_Whole = Annotated[int, Field(description="a whole number")]


class _WeightTable(BaseModel, extra="forbid", strict=True):
    name: _Text
    shape: Annotated[
        list[Annotated[int, Field(gt=0)]],
        Field(min_length=1, description="the weight's sizes, as it had"),
    ]
    bits: Annotated[int | Literal["none"], Field(description='a whole number or "none"')]
    sha256: _Text
    group_size: _Whole = 0
    values: Annotated[ValueSource, Field(description='"kmeans" or "tuned"')] = "kmeans"
    reason: _Text = ""
    snr: Annotated[float | None, Field(description="a number")] = None


class _PlanTable(BaseModel, extra="forbid", strict=True):
    format: _Whole
    ios: _Whole
    source_sha256: _Text
    weights: Annotated[list[dict[str, Any]], Field(description="a list of { name = …, bits = … }")]
    values_sha256: _Text = ""
    constants: Annotated[ConstantSource, Field(description='"original" or "tuned"')] = "original"
    asked: Annotated[dict[str, Any], Field(description="a table")] = {}
    measured: Annotated[dict[str, Any], Field(description="a table")] = {}


def plan_beside(package: Path) -> Path:
    """Return where the plan of a package's palettes lies: beside it."""
    return package.with_suffix(PLAN_SUFFIX)


def values_path(path: Path) -> Path:
    """Return where the values of a plan's file lie: beside it, with another suffix."""
    return path.with_suffix(VALUES_SUFFIX)


def write_plan(
    plan: PalettizationPlan, path: str | Path, values: PlanValues | None = None
) -> PalettizationPlan:
    """Write a plan, and its values if it has any, each file all or nothing.

    Args:
        plan: the plan.
        path: file to write, ending in ``.toml``; an older one is replaced.
        values: what the plan needs beside the weights.

    Returns:
        The plan as it would be read back.

    Raises:
        InputError: the suffix is another, the values are not those of the plan, or the files
            cannot be written.
    """
    destination = Path(path)
    if destination.suffix != ".toml":
        raise InputError(f"{destination}: a plan's name must end in .toml")
    check_values(plan, values or PlanValues())
    contents: dict[Path, bytes] = {}
    digest = ""
    if plan.needs_values:
        data = _encode_values(plan, values or PlanValues())
        digest = hashlib.sha256(data).hexdigest()
        contents[values_path(destination)] = data
    written = replace(plan, values_sha256=digest, origin=str(destination))
    # The plan comes last: until then the old one, if any, still names what it belongs to.
    contents[destination] = plan_text(written).encode()
    for target, content in contents.items():
        write_file(target, content)
    return written


def read_plan(path: str | Path) -> PalettizationPlan:
    """Read a plan, without its values.

    Raises:
        InputError: the file is missing, no TOML, or holds something that no plan does; the message
            names the line.
    """
    source = Path(path)
    text, content = read_toml(source, "plan")
    return _Reader(source, text).plan(content)


def read_values(plan: PalettizationPlan) -> PlanValues:
    """Read the values of a plan from the file beside it; there are none if it needs none.

    Args:
        plan: as :func:`read_plan` returned it.

    Raises:
        InputError: the file is missing, damaged, or not the one that was written with the plan.
    """
    if not plan.needs_values:
        return PlanValues()
    path = values_path(Path(plan.origin))
    remedy = "restore it, or make the plan again"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {plan.origin} needs it: {remedy}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != plan.values_sha256:
        raise InputError(
            f"{path}: not the file that was written with {plan.origin} (its sha256 differs):"
            f" {remedy}"
        )
    values = _decode_values(plan, data, path)
    check_values(plan, values)
    return values


def plan_text(plan: PalettizationPlan) -> str:
    """Return a plan as TOML, one line for each weight."""
    lines = [
        _HEADER,
        f"format = {FORMAT}",
        f"ios = {plan.ios}",
        f"source_sha256 = {toml_value(plan.source_sha256)}",
    ]
    if plan.values_sha256:
        lines.append(f"values_sha256 = {toml_value(plan.values_sha256)}")
    lines.append(f"constants = {toml_value(plan.constants)}")
    for table in ("asked", "measured"):
        entries: Mapping[str, Scalar] = getattr(plan, table)
        lines += [""] if entries else []
        lines += [f"{table}.{_key(name)} = {toml_value(value)}" for name, value in entries.items()]
    lines += ["", "weights = ["]
    rows = [_row(weight) for weight in plan.weights]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *row, last in rows:
        cells = [f"{cell},".ljust(width + 1) for cell, width in zip(row, widths[:-1], strict=True)]
        lines.append(f"  {{ {' '.join(cells)} {last} }},")
    lines.append("]")
    return "\n".join(lines) + "\n"


def _row(weight: PlannedWeight) -> list[str]:
    """Return what stands in a weight's line, the fields that people edit first."""
    bits = '"none"' if weight.choice.bits is None else str(weight.choice.bits)
    sha256 = f"sha256 = {toml_value(weight.sha256)}"
    if weight.reason:
        sha256 += f", reason = {toml_value(weight.reason)}"
    if weight.snr is not None:
        sha256 += f", snr = {toml_value(weight.snr)}"
    return [
        f"bits = {bits}",
        f"group_size = {weight.choice.group_size}",
        f"values = {toml_value(weight.values)}",
        f"name = {toml_value(weight.name)}",
        f"shape = {list(weight.shape)}",
        sha256,
    ]


def _key(name: str) -> str:
    bare = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if bare else toml_value(name)


def toml_value(value: Scalar) -> str:
    """Return a value as it stands in a TOML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    # TOML's escapes are those of JSON, and it wants this character escaped as well.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


class _Reader:
    """Checks what stands in a file and turns it into a plan."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.lines = text.splitlines()

    def plan(self, content: dict[str, Any]) -> PalettizationPlan:
        if content.get("format", FORMAT) != FORMAT:
            raise self.error(
                "format", f"format {content['format']!r} is unknown; this version reads {FORMAT}"
            )
        table = check_table(_PlanTable, content, lambda key, message: self.error(key[0], message))
        for section in ("asked", "measured"):
            for name, value in getattr(table, section).items():
                if not isinstance(value, get_args(Scalar)):
                    name = f"{section}.{name}"
                    raise self.error(name, f"{name} must be a number, text or true or false")
        weights = tuple(self.weight(entry, number) for number, entry in enumerate(table.weights, 1))
        for name, count in Counter(weight.name for weight in weights).items():
            if count > 1:
                raise self.error(toml_value(name), f"weight {name!r} is listed twice", last=True)
        own = table.model_dump(exclude={"format", "weights"})
        return PalettizationPlan(**own, weights=weights, origin=str(self.path))

    def weight(self, entry: dict[str, Any], number: int) -> PlannedWeight:
        name = entry.get("name", "")
        place = f"weight {name!r}" if name else f"weight {number}"

        def error(key: object, message: str) -> InputError:
            return self.error(toml_value(str(name)), f"{place}: {message}")

        table = check_table(_WeightTable, entry, error)
        try:
            choice = Choice(None if table.bits == "none" else table.bits, table.group_size)
        except InputError as impossible:
            raise error("bits", str(impossible)) from None
        own = table.model_dump(include={"name", "sha256", "values", "reason", "snr"})
        return PlannedWeight(**own, shape=tuple(table.shape), choice=choice)

    def error(self, needle: str, message: str, *, last: bool = False) -> InputError:
        """Return an error that names the line on which ``needle`` stands, if it does."""
        numbers = [
            number
            for number, line in enumerate(self.lines, 1)
            if needle and needle in line and not line.startswith("#")
        ]
        place = f"{self.path}, line {numbers[-1 if last else 0]}" if numbers else str(self.path)
        return InputError(f"{place}: {message}")


def _encode_values(plan: PalettizationPlan, values: PlanValues) -> bytes:
    """Return the file's content: what the plan takes from ``values``, and no more."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    for weight in plan.weights:
        if weight.values == "tuned":
            palette = values.palettes[weight.name]
            arrays[_LUT + weight.name] = palette.lut
            arrays[_INDICES + weight.name] = pack_indices(palette.indices, palette.bits)
            arrays[_AXIS + weight.name] = np.array([palette.axis], dtype=np.uint8)
    if plan.constants == "tuned":
        arrays |= {_CONSTANT + name: array for name, array in values.constants.items()}
    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def _decode_values(plan: PalettizationPlan, data: bytes, path: Path) -> PlanValues:
    """Read the file's content.

    Args:
        plan: that it was written with, possibly edited since.
        data: the content.
        path: for messages.

    Raises:
        InputError: the content is damaged, or does not fit the shapes of the plan's weights.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, NDArray[Any]] = load(data)
    except SafetensorError as error:
        raise InputError(f"{path}: damaged: {error}") from None
    palettes = {}
    for weight in plan.weights:
        lut, packed = (arrays.get(kind + weight.name) for kind in (_LUT, _INDICES))
        if lut is not None and packed is not None and weight.values == "tuned":
            axis = int(arrays.get(_AXIS + weight.name, np.zeros(1))[0])
            palettes[weight.name] = _palette(lut, packed, axis, weight, path)
    constants = {
        name.removeprefix(_CONSTANT): array
        for name, array in arrays.items()
        if name.startswith(_CONSTANT)
    }
    return PlanValues(palettes, constants)


def _palette(
    lut: NDArray[Any], packed: NDArray[Any], axis: int, weight: PlannedWeight, path: Path
) -> PalettizedWeight:
    bits = lut.shape[-1].bit_length() - 1 if lut.ndim else 0
    expected = packed_size(int(np.prod(weight.shape)), bits)
    if bits not in BIT_WIDTHS or packed.dtype != np.uint8 or packed.shape != (expected,):
        raise InputError(
            f"{path}: weight {weight.name!r}: lookup tables of shape {lut.shape} with"
            f" {packed.size} bytes of indices: damaged, or the shape in the plan was changed"
        )
    with errors_at(f"{path}: weight {weight.name!r}"):
        return PalettizedWeight(lut, unpack_indices(packed, bits, weight.shape), axis)
