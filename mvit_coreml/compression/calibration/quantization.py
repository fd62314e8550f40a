"""Weights for 8-bit layers, fitted layer by layer to inputs that are rounded to 8 bits themselves.

As in :mod:`~mvit_coreml.compression.calibration.reconstruction`, but that each layer reads its
inputs on their grids, and that its weight is rounded to 8-bit levels with a scale for each output
channel: by GPTQ, so that the error of one element is made up for by others, or to the nearest
levels where that is closer. Biases take up the drift of the means (bias correction). Weights are
not refitted beyond that: of 8 bits there is little to make up for, and small maps overfit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction, Execution
from mvit_coreml.compression.calibration.gptq import round_to_tables, shrunk_moments
from mvit_coreml.compression.calibration.linear_layers import Layer
from mvit_coreml.compression.calibration.reconstruction import (
    LayerFisher,
    LayerProgress,
    Moments,
    Reconstruction,
    Refit,
)
from mvit_coreml.compression.quantization.grid import (
    WEIGHT_LEVELS,
    Grid,
    QuantizedWeight,
    storable_scale,
)
from mvit_coreml.compression.quantization.placement import READERS, Int8Layer
from mvit_coreml.compression.quantization.quantization_plan import QuantizationValues
from mvit_coreml.mil.compiler import Step
from mvit_coreml.mil.parallel import one_thread

# Parts of a channel's full range that are tried for its scale.
_PARTS = torch.linspace(0.75, 1.0, 11)


def quantize_weights(
    function: DifferentiableFunction,
    pixels: Tensor,
    grids: Mapping[str, Grid],
    int8_layers: Sequence[Int8Layer],
    layers: Sequence[Layer],
    fisher: Mapping[str, LayerFisher],
    *,
    progress: LayerProgress = lambda done, total: None,
) -> QuantizationValues:
    """Round the weights of 8-bit layers so that the answers on images change little.

    Args:
        function: as saved, in floating point.
        pixels: (N, 3, height, width) of images, see :meth:`DifferentiableFunction.pixels`.
        grids: of the values that are rounded, by name.
        int8_layers: whose weights become 8-bit numbers.
        layers: that are refitted, from
            :func:`~mvit_coreml.compression.calibration.linear_layers.find_layers`.
        fisher: how much their outputs matter.
        progress: called with the number of layers done and their total.
    """
    weights = {layer.weight for layer in int8_layers}
    with one_thread():
        run = _Quantizing(function, pixels, grids, weights, fisher)
        fitted = {layer.weight for layer in layers}
        for name in sorted(weights - fitted):
            # Shared by several layers, or without a way to the answers.
            run.round_weight(name)
        run.refit_all(layers, progress)
    order = [layer.weight for layer in int8_layers]
    return QuantizationValues({name: run.quantized[name] for name in order}, run.constants)


def nearest_levels(weight: np.ndarray[Any, Any], axis: int = 0) -> QuantizedWeight:
    """Round a weight to the nearest levels, with the scales of the least squared error.

    Args:
        weight: float16 or float32.
        axis: on which the output channels lie.
    """
    rows = torch.from_numpy(np.moveaxis(weight, axis, 0).astype(np.float32)).flatten(1)
    scale = _scales(rows, torch.ones(()), weight.dtype)
    levels = (rows / scale[:, None]).round().clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS)
    shaped = levels.numpy().reshape(np.moveaxis(weight, axis, 0).shape)
    return QuantizedWeight(
        np.ascontiguousarray(np.moveaxis(shaped, 0, axis)).astype(np.int8),
        scale.numpy().astype(weight.dtype),
        axis,
    )


class _Quantizing(Reconstruction):
    """Rounds activations where 8-bit layers read them, and these layers' weights."""

    def __init__(
        self,
        function: DifferentiableFunction,
        pixels: Tensor,
        grids: Mapping[str, Grid],
        weights: set[str],
        fisher: Mapping[str, LayerFisher],
    ) -> None:
        super().__init__(function, pixels, fisher)
        self.grids = {function.number(name): grid for name, grid in grids.items()}
        self.weights = weights
        self.quantized: dict[str, QuantizedWeight] = {}

    def execute(
        self, execution: Execution, step: Step, released: tuple[int, ...], *, new: bool
    ) -> None:
        """Take a micro-batch past a step, which reads its inputs on their grids if it does."""
        numbers = []
        if new and step.operation.op_type in READERS:
            numbers = [number for number in set(step.sources()) if number in self.grids]
        values = {number: execution.values[number] for number in numbers}
        for number, value in values.items():
            execution.values[number] = self.grids[number].round(value)
        execution.advance(step)
        for number, value in values.items():
            execution.values[number] = value
        execution.release(released)

    def source(self, layer: Layer, execution: Execution, *, new: bool) -> Tensor:
        """Return what a layer reads in one micro-batch."""
        value = super().source(layer, execution, new=new)
        grid = self.grids.get(layer.source) if new and layer.weight in self.weights else None
        return value if grid is None else grid.round(value)

    def target(self, original: Tensor, fitting: Moments, judging: Moments, rows: Tensor) -> Tensor:
        """Return the weight to come close to: the original one."""
        return original

    def stored(self, layer: Layer, refit: Refit) -> Tensor:
        """Round a weight to levels, and return what these decode to."""
        if layer.weight not in self.weights:
            return super().stored(layer, refit)
        dtype = self.function.dtypes[layer.weight]
        groups, rows, size = refit.target.shape
        moments = shrunk_moments(refit.moments.now)
        counts = moments.diagonal(dim1=1, dim2=2)[:, None, :].expand(-1, rows, -1)
        flat = refit.target.reshape(-1, size)
        scale = _scales(flat, counts.reshape(-1, size), dtype)
        steps = torch.arange(-WEIGHT_LEVELS, WEIGHT_LEVELS + 1, dtype=torch.float32)
        tables = steps * scale[:, None]
        table_of = torch.arange(groups * rows).reshape(groups, rows)
        places = round_to_tables(refit.target, tables, table_of, moments, refit.rows)
        levels = (layer.weight_of(places) - WEIGHT_LEVELS).contiguous().numpy().astype(np.int8)
        weight = QuantizedWeight(levels, scale.numpy().astype(dtype), layer.axis)
        self.quantized[layer.weight] = weight
        return torch.from_numpy(weight.decode().astype(np.float32))

    def round_weight(self, name: str) -> None:
        """Round a weight that is not refitted."""
        stored = self.function.constants[name].numpy().astype(self.function.dtypes[name])
        weight = self.quantized[name] = nearest_levels(stored)
        self.replace(name, torch.from_numpy(weight.decode().astype(np.float32)))


def _scales(rows: Tensor, counts: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Return the (channels,) scales with the least squared error.

    Args:
        rows: (channels, K) weights.
        counts: what the errors of each count.
        dtype: that scales are stored in.
    """
    widest = rows.abs().amax(1) / WEIGHT_LEVELS
    best = storable_scale(torch.where(widest > 0, widest, torch.ones(())), dtype)
    least = torch.full_like(best, float("inf"))
    for part in _PARTS.flip(0):
        scale = storable_scale(torch.where(widest > 0, part * widest, torch.ones(())), dtype)
        levels = (rows / scale[:, None]).round().clamp(-WEIGHT_LEVELS, WEIGHT_LEVELS)
        error = (counts * (rows - levels * scale[:, None]).square()).sum(1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(error, least)
    return best
