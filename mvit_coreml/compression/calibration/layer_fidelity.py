"""How faithful each layer of a fitted package is to its own outputs, whatever the layers before do.

Fitted weights are not those of the checkpoint, so that comparing numbers says little of them. What
a layer makes of the original inputs does: the fitting writes it down, and a package of which that
is no longer true was changed since.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.linear_layers import Layer, find_layers
from mvit_coreml.evaluation.metrics import decibels

# Positions of a map that are looked at, and the most that a layer is said to have: beyond it is the
# rounding of half precision.
_POSITIONS = 64
_MOST_DB = 60.0


def layer_snrs(
    function: DifferentiableFunction, pixels: Tensor, constants: Mapping[str, Tensor]
) -> dict[str, float]:
    """Return what other constants leave of the outputs of each layer, given its original inputs.

    Args:
        function: with the original constants.
        pixels: (N, 3, height, width), see :meth:`DifferentiableFunction.pixels`.
        constants: in the place of stored ones, fp32, by name; the others stay.

    Returns:
        Name of a layer's weight to the power of its outputs about the mean of each channel over
        that of the difference, in dB, at most 60.
    """
    at = {layer.index: layer for layer in find_layers(function)}
    execution = function.start(pixels)
    snrs = {}
    with torch.no_grad():
        for index, (step, released) in enumerate(function.schedule):
            layer = at.get(index)
            if layer is not None:
                source = execution.values[layer.source]
                snrs[layer.weight] = _snr(function, layer, source, constants)
            execution.advance(step, released)
    return snrs


def _snr(
    function: DifferentiableFunction,
    layer: Layer,
    source: Tensor,
    constants: Mapping[str, Tensor],
) -> float:
    samples = layer.samples(source, _POSITIONS, seed=layer.index).double()
    original = function.constants[layer.weight]
    moved = constants.get(layer.weight, original) - original
    outputs, error = (layer.matrix(weight).double() @ samples for weight in (original, moved))
    if layer.bias is not None:
        bias = function.constants[layer.bias]
        error += (constants.get(layer.bias, bias) - bias).double().reshape(layer.groups, -1, 1)
    varying = outputs - outputs.mean(2, keepdim=True) if outputs.shape[2] > 1 else outputs
    signal, noise = (float(values.square().sum()) for values in (varying, error))
    return round(min(_MOST_DB, decibels(signal, noise)), 1)
