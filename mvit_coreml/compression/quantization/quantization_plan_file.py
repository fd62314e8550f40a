"""Quantization plans as files: TOML with the scales, and beside it the 8-bit weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from mvit_coreml.compression.plan import Scalar
from mvit_coreml.compression.plan_file import toml_value, values_path
from mvit_coreml.compression.quantization.grid import Grid, GridType, QuantizedWeight
from mvit_coreml.compression.quantization.quantization_plan import (
    PlannedActivation,
    PlannedLayer,
    Quantization,
    QuantizationPlan,
    QuantizationValues,
)
from mvit_coreml.errors import InputError, errors_at
from mvit_coreml.files import check_table, read_toml, write_file

# What tells such a plan from one of palettes.
KIND = "w8a8"
FORMAT = 1

_HEADER = """\
# Quantization plan: which values and weights of one model are 8-bit numbers in its Core ML package.
# activations: what is rounded, to scale * (level - zero_point).
# layers: whose weights are stored as 8-bit numbers, in the file beside this one.
# layer_snrs: of the layers' outputs, in dB, NaN where it was not measured.
"""
_LEVELS, _SCALE, _AXIS, _CONSTANT = "levels/", "scale/", "axis/", "constant/"


class _Activation(BaseModel, extra="forbid", strict=True):
    name: str
    dtype: GridType
    scale: float
    zero_point: int


class _Layer(BaseModel, extra="forbid", strict=True):
    weight: str
    shape: list[int]
    sha256: str


class _Plan(BaseModel, extra="forbid", strict=True):
    kind: str
    format: int
    ios: int
    source_sha256: str
    values_sha256: str
    activations: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    layer_snrs: list[float] = []
    asked: dict[str, Any] = {}
    measured: dict[str, Any] = {}


def is_quantization_plan(path: Path) -> bool:
    """Whether a plan's file says how to quantize, rather than how to palettize.

    Raises:
        InputError: the file is missing or no TOML.
    """
    return read_toml(path, "plan")[1].get("kind") == KIND


def write_quantization(quantization: Quantization, path: Path) -> None:
    """Write a plan and its values, each file all or nothing.

    Raises:
        InputError: the files cannot be written.
    """
    data = _encode(quantization.values)
    plan = replace(quantization.plan, values_sha256=hashlib.sha256(data).hexdigest())
    # The plan comes last: until then the old one, if any, still names what it belongs to.
    write_file(values_path(path), data)
    write_file(path, quantization_text(plan).encode())


def read_quantization(path: Path) -> Quantization:
    """Read a plan with its values.

    Raises:
        InputError: a file is missing, damaged, or does not go with the other.
    """
    plan = read_quantization_plan(path)
    place = values_path(path)
    try:
        data = place.read_bytes()
    except OSError as error:
        raise InputError(
            f"{place}: cannot be read: {error.strerror}; {path} needs it: restore it, or make the"
            " plan again"
        ) from None
    if hashlib.sha256(data).hexdigest() != plan.values_sha256:
        raise InputError(
            f"{place}: not the file that was written with {path} (its sha256 differs): restore it,"
            " or make the plan again"
        )
    return Quantization(plan, _decode(data, place))


def read_quantization_plan(path: Path) -> QuantizationPlan:
    """Read a plan without its values.

    Raises:
        InputError: the file is missing, no TOML, or holds something that no such plan does.
    """
    _, content = read_toml(path, "plan")

    def error(key: object, message: str) -> InputError:
        return InputError(f"{path}: {message}")

    table = check_table(_Plan, content, error)
    if table.format != FORMAT:
        raise InputError(f"{path}: format {table.format} is unknown; this version reads {FORMAT}")
    for section in (table.asked, table.measured):
        for name, value in section.items():
            if not isinstance(value, get_args(Scalar)):
                raise InputError(f"{path}: {name} must be a number, text or true or false")
    activations = []
    for entry in table.activations:
        one = check_table(_Activation, entry, error)
        with errors_at(f"{path}: activation {one.name!r}"):
            activations.append(
                PlannedActivation(one.name, Grid(one.scale, one.zero_point, one.dtype))
            )
    layers = [check_table(_Layer, entry, error) for entry in table.layers]
    return QuantizationPlan(
        ios=table.ios,
        source_sha256=table.source_sha256,
        activations=tuple(activations),
        layers=tuple(PlannedLayer(one.weight, tuple(one.shape), one.sha256) for one in layers),
        layer_snrs=tuple(None if math.isnan(snr) else snr for snr in table.layer_snrs),
        asked=table.asked,
        measured=table.measured,
        values_sha256=table.values_sha256,
        origin=str(path),
    )


def quantization_text(plan: QuantizationPlan) -> str:
    """Return a plan as TOML, one line for each activation and layer."""
    lines = [
        _HEADER,
        f"kind = {toml_value(KIND)}",
        f"format = {FORMAT}",
        f"ios = {plan.ios}",
        f"source_sha256 = {toml_value(plan.source_sha256)}",
        f"values_sha256 = {toml_value(plan.values_sha256)}",
    ]
    snrs = ", ".join("nan" if snr is None else repr(float(snr)) for snr in plan.layer_snrs)
    lines.append(f"layer_snrs = [{snrs}]")
    for table in ("asked", "measured"):
        entries: Mapping[str, Scalar] = getattr(plan, table)
        lines += [""] if entries else []
        lines += [f"{table}.{name} = {toml_value(value)}" for name, value in entries.items()]
    lines += ["", "activations = ["]
    lines += [
        f"  {{ dtype = {toml_value(one.grid.dtype)}, scale = {one.grid.scale!r},"
        f" zero_point = {one.grid.zero_point}, name = {toml_value(one.name)} }},"
        for one in plan.activations
    ]
    lines += ["]", "", "layers = ["]
    lines += [
        f"  {{ weight = {toml_value(one.weight)}, shape = {list(one.shape)},"
        f" sha256 = {toml_value(one.sha256)} }},"
        for one in plan.layers
    ]
    return "\n".join([*lines, "]"]) + "\n"


def _encode(values: QuantizationValues) -> bytes:
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    for name, weight in values.weights.items():
        arrays[_LEVELS + name], arrays[_SCALE + name] = weight.levels, weight.scale
        arrays[_AXIS + name] = np.array([weight.axis], dtype=np.uint8)
    arrays |= {_CONSTANT + name: array for name, array in values.constants.items()}
    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def _decode(data: bytes, path: Path) -> QuantizationValues:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays: dict[str, NDArray[Any]] = load(data)
        weights = {
            name.removeprefix(_LEVELS): QuantizedWeight(
                array,
                arrays[_SCALE + name.removeprefix(_LEVELS)],
                int(arrays[_AXIS + name.removeprefix(_LEVELS)][0]),
            )
            for name, array in arrays.items()
            if name.startswith(_LEVELS)
        }
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{path}: damaged: {error}") from None
    constants = {
        name.removeprefix(_CONSTANT): array
        for name, array in arrays.items()
        if name.startswith(_CONSTANT)
    }
    return QuantizationValues(weights, constants)
