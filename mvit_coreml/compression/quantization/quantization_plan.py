"""A quantization plan: which values and weights of one model are 8-bit numbers, on which grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.compression.palettizable_weights import weight_sha256
from mvit_coreml.compression.plan import Scalar
from mvit_coreml.compression.quantization.grid import Grid, QuantizedWeight
from mvit_coreml.errors import InputError

# First target whose packages may round activations to 8 bits.
QUANTIZATION_IOS = 17


@dataclass(frozen=True)
class PlannedActivation:
    """A value that is rounded before what computes with it.

    Attributes:
        name: of the value in the program.
        grid: that it is rounded to.
    """

    name: str
    grid: Grid


@dataclass(frozen=True)
class PlannedLayer:
    """A layer that computes in 8 bits.

    Attributes:
        weight: name of its weight in the program.
        shape: of the weight.
        sha256: of the weight's elements before, by
            :func:`~mvit_coreml.compression.palettizable_weights.weight_sha256`.
    """

    weight: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class QuantizationPlan:
    """Which values and weights of one model are 8-bit numbers.

    Attributes:
        ios: deployment target that it was made for.
        source_sha256: of the checkpoint's weights.
        activations: in program order.
        layers: in program order; others compute in floating point.
        layer_snrs: of the outputs of the layer of each weight that can be palettized, in program
            order, in dB, see
            :func:`~mvit_coreml.compression.calibration.layer_fidelity.layer_snrs`; ``None`` where
            that was not measured.
        asked: what it was made to meet, name to value.
        measured: what its package was found to do, name to value.
        values_sha256: of the file with its :class:`QuantizationValues`.
        origin: what messages call it: its file.
    """

    ios: int
    source_sha256: str
    activations: tuple[PlannedActivation, ...]
    layers: tuple[PlannedLayer, ...]
    layer_snrs: tuple[float | None, ...] = ()
    asked: Mapping[str, Scalar] = field(default_factory=dict)
    measured: Mapping[str, Scalar] = field(default_factory=dict)
    values_sha256: str = ""
    origin: str = field(default="plan", compare=False)

    @property
    def grids(self) -> dict[str, Grid]:
        """Name of each value that is rounded to its grid."""
        return {one.name: one.grid for one in self.activations}

    def with_measured(self, **measured: Scalar) -> QuantizationPlan:
        """Return the plan with these results instead of its own."""
        return replace(self, measured=measured)


@dataclass(frozen=True, eq=False)
class QuantizationValues:
    """What a quantization plan needs beside the program.

    Attributes:
        weights: name of each 8-bit weight to its levels and scales.
        constants: name of another constant (a bias) to its corrected elements.
    """

    weights: Mapping[str, QuantizedWeight] = field(default_factory=dict)
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantization:
    """How a package computes in 8 bits.

    Attributes:
        plan: what is rounded.
        values: the numbers that the plan needs besides.
    """

    plan: QuantizationPlan
    values: QuantizationValues


def check_quantization(
    plan: QuantizationPlan,
    values: QuantizationValues,
    weights: Mapping[str, NDArray[Any]],
    known: Sequence[str],
    ios: int,
) -> None:
    """Refuse a plan that does not fit a program, or values that are not the plan's.

    Args:
        plan: the plan.
        values: that were written with it.
        weights: name to elements of the program's constants of floats.
        known: names of all values that the program computes.
        ios: the program's deployment target.

    Raises:
        InputError: naming what does not fit.
    """
    if ios < QUANTIZATION_IOS:
        raise InputError(
            f"{plan.origin}: 8-bit activations need iOS {QUANTIZATION_IOS} (--ios"
            f" {QUANTIZATION_IOS}); the package is for iOS {ios}"
        )
    again = "make the plan again for this checkpoint and these options"
    for layer in plan.layers:
        place = f"{plan.origin}: weight {layer.weight!r}"
        if layer.weight not in weights:
            raise InputError(f"{place}: the model has no such weight; {again}")
        if weight_sha256(weights[layer.weight]) != layer.sha256:
            raise InputError(f"{place}: the plan was made for other weights; {again}")
        stored = values.weights.get(layer.weight)
        if stored is None or stored.levels.shape != layer.shape:
            raise InputError(f"{place}: its 8-bit values are missing or of another shape; {again}")
        if stored.scale.dtype != weights[layer.weight].dtype:
            raise InputError(f"{place}: its scales are {stored.scale.dtype}; {again}")
    for one in plan.activations:
        if one.name not in known:
            raise InputError(f"{plan.origin}: the model has no value {one.name!r}; {again}")
    for name, array in values.constants.items():
        original = weights.get(name)
        if original is None or np.shape(original) != array.shape or original.dtype != array.dtype:
            raise InputError(
                f"{plan.origin}: the model has no constant {name!r} of this shape; {again}"
            )
