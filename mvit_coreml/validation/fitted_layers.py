"""Fitted layers held to what the fitting wrote down about each of them.

Where no plan lies beside a package, nothing else says what its fitted weights and biases should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mvit_coreml.compression.apply_plan import PALETTIZED_SUFFIX
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.layer_fidelity import layer_snrs
from mvit_coreml.compression.palettizable_weights import function_weights
from mvit_coreml.compression.quantization.apply_quantization import QUANTIZED_SUFFIX
from mvit_coreml.files import parse_json
from mvit_coreml.mil.program import Package, Reference
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.validation.structure_comparison import Difference, palette_values
from mvit_coreml.validation.synthetic_images import synthetic_pictures

LAYERS_KEY = "mvit_coreml.layer_snr"

_PICTURES = 4
# Sums in another order on another processor, and a rounded number: what is left of an outlier.
_TOLERANCE = 0.5


def fitted_layer_snrs(
    function: DifferentiableFunction, values: Mapping[str, NDArray[Any]]
) -> dict[str, float]:
    """Return what fitted values leave of each layer's outputs, on the same pictures every time.

    Args:
        function: with the original constants.
        values: decoded, by the names of the constants that they replace.

    Returns:
        Name of a layer's weight to dB, see
        :func:`~mvit_coreml.compression.calibration.layer_fidelity.layer_snrs`.
    """
    size = function.image.height, function.image.width
    tensors = {name: torch.from_numpy(v.astype(np.float32)) for name, v in values.items()}
    return layer_snrs(function, function.pixels(synthetic_pictures(_PICTURES, size)), tensors)


def compare_fitted_layers(package: Package, expected: Package) -> list[Difference]:
    """Compare what each fitted layer makes of its original inputs with what the fitting wrote down.

    Args:
        package: the package in question; one whose values are not fitted has no differences.
        expected: what its checkpoint converts to, without palettes.
    """
    if palette_values(package) != "trained":
        return []
    function = DifferentiableFunction(expected)
    names = [info.name for info, _ in function_weights(function.function)]
    stated = _stated(package, len(names))
    if stated is None:
        detail = "is missing or damaged: fitted values come with what they leave of each layer"
        return [Difference("metadata", LAYERS_KEY, detail)]
    constants = Constants(package.function(function.function.name))
    stored = {
        name: constants.decode(Reference(place))
        for name in function.constants
        for place in (name, name + PALETTIZED_SUFFIX, name + QUANTIZED_SUFFIX)
        if constants.has(place)
    }
    stored = {name: v for name, v in stored.items() if v.shape == function.constants[name].shape}
    measured = fitted_layer_snrs(function, stored)
    return [
        Difference(
            "weight",
            f"{function.function.name}/{name}",
            f"leaves {measured[name]:.1f} dB of its layer's outputs, where the fitting left "
            f"{snr:.1f} dB",
        )
        for name, snr in zip(names, stated, strict=True)
        if snr is not None and name in measured and abs(measured[name] - snr) > _TOLERANCE
    ]


def _stated(package: Package, count: int) -> list[float | None] | None:
    """Read what the metadata says of each weight; ``None`` if it does not."""
    try:
        stated = parse_json(package.metadata.user_defined.get(LAYERS_KEY, ""))
    except ValueError:
        return None
    fits = isinstance(stated, list) and len(stated) == count
    if not fits or not all(snr is None or isinstance(snr, float) for snr in stated):
        return None
    return stated
