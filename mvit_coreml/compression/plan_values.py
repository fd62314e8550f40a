"""The values of a plan as one safetensors file: tables, packed indices, and replaced constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.compression.packing import pack_indices, packed_size, unpack_indices
from mvit_coreml.compression.palettized_weight import LUT_DTYPES, PalettizedWeight
from mvit_coreml.compression.plan import PalettizationPlan, PlannedWeight, PlanValues
from mvit_coreml.errors import InputError

# Names of the stored arrays: one of these and the name of the weight or constant.
_LUT = "lut/"
_INDICES = "indices/"
_AXIS = "axis/"
_CONSTANT = "constant/"


def encode_values(plan: PalettizationPlan, values: PlanValues) -> bytes:
    """Return the file's content: what the plan takes from ``values``, and no more."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {}
    for weight in plan.weights:
        if weight.values == "importance":
            arrays[_LUT + weight.name] = values.luts[weight.name]
        elif weight.values == "tuned":
            palette = values.palettes[weight.name]
            arrays[_LUT + weight.name] = palette.lut
            arrays[_INDICES + weight.name] = pack_indices(palette.indices, palette.bits)
            arrays[_AXIS + weight.name] = np.array([palette.axis], dtype=np.uint8)
    if plan.constants == "tuned":
        arrays |= {_CONSTANT + name: array for name, array in values.constants.items()}
    return bytes(save({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}))


def decode_values(plan: PalettizationPlan, data: bytes, path: Path) -> PlanValues:
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
    luts, palettes = {}, {}
    for weight in plan.weights:
        lut = arrays.get(_LUT + weight.name)
        if lut is None or weight.values == "kmeans":
            continue
        _check_lut(lut, weight, path)
        packed = arrays.get(_INDICES + weight.name)
        if packed is None:
            luts[weight.name] = lut
        else:
            axis = int(arrays.get(_AXIS + weight.name, np.zeros(1))[0])
            palettes[weight.name] = _palette(lut, packed, axis, weight, path)
    constants = {
        name.removeprefix(_CONSTANT): array
        for name, array in arrays.items()
        if name.startswith(_CONSTANT)
    }
    return PlanValues(luts, palettes, constants)


def _palette(
    lut: NDArray[Any], packed: NDArray[Any], axis: int, weight: PlannedWeight, path: Path
) -> PalettizedWeight:
    bits = lut.shape[1].bit_length() - 1
    expected = packed_size(int(np.prod(weight.shape)), bits)
    if packed.dtype != np.uint8 or packed.shape != (expected,):
        raise InputError(
            f"{path}: weight {weight.name!r}: indices of {packed.size} bytes where {expected} are"
            " expected: damaged, or the shape in the plan was changed"
        )
    try:
        return PalettizedWeight(lut, unpack_indices(packed, bits, weight.shape), axis)
    except InputError as error:
        raise InputError(f"{path}: weight {weight.name!r}: {error}") from None


def _check_lut(lut: NDArray[Any], weight: PlannedWeight, path: Path) -> None:
    two_axes = lut.ndim == 2 and lut.shape[1] in (2, 4, 8, 16, 64, 256)
    if lut.dtype not in LUT_DTYPES or not two_axes or not np.isfinite(lut).all():
        raise InputError(
            f"{path}: weight {weight.name!r}: no lookup tables, but {lut.dtype} of shape"
            f" {lut.shape}: damaged"
        )
