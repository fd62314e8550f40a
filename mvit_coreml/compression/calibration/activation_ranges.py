"""The grids of 8-bit activations: of each value the one with the least error on images.

The widest grid, from the least to the greatest value seen, spends its levels on outliers. What is
chosen instead has the least squared error, each channel's counted by what the layers behind it make
of it: by their weights, and by how much their outputs matter for the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.linear_layers import Layer
from mvit_coreml.compression.calibration.reconstruction import LayerFisher, row_weights
from mvit_coreml.compression.quantization.grid import LEVELS, Grid, GridType, storable_scale
from mvit_coreml.compression.quantization.placement import QuantizedValue
from mvit_coreml.mil.parallel import one_thread, parallel_map
from mvit_coreml.mil.value_types import DATA_TYPES

# Images that ranges are measured on, and pixels of those computed at a time.
_IMAGES = 96
_BATCH_PIXELS = 4 * 224 * 224
# Bins of a histogram between the least and the greatest value.
_BINS = 2048
# Parts of the full range that are tried.
_PARTS = torch.linspace(0.3, 1.0, 71)
# The same above zero and below for grids with a zero point.
_HIGHS = torch.linspace(0.3, 1.0, 36).tolist()
_LOWS = torch.linspace(0.4, 1.0, 13).tolist()
# A zero point has to take the squared error below this part of that without.
_WORTH_A_ZERO_POINT = 0.5


@dataclass(eq=False)
class ValueRange:
    """What one range of values looks like on images.

    Attributes:
        low: least value.
        high: greatest value.
        counts: (bins,) how much the errors of the values in equal steps between them count.
    """

    low: float = float("inf")
    high: float = -float("inf")
    counts: Tensor | None = None

    def bins(self) -> Tensor:
        """Return the (bins,) middles of the steps."""
        width = (self.high - self.low) / _BINS
        return self.low + width * (torch.arange(_BINS, dtype=torch.float64) + 0.5)


def choose_grids(
    function: DifferentiableFunction,
    pixels: Tensor,
    values: Sequence[QuantizedValue],
    layers: Sequence[Layer],
    fisher: Mapping[str, LayerFisher],
) -> dict[str, Grid]:
    """Choose the grid of every value that is rounded.

    Args:
        function: as saved, in floating point.
        pixels: (N, 3, height, width) of images, see :meth:`DifferentiableFunction.pixels`.
        values: of the function.
        layers: of the function.
        fisher: how much the layers' outputs matter.

    Returns:
        By name of the value.
    """
    ranges = measure_ranges(function, pixels, values, layers, fisher)
    return {value.name: best_grid(ranges[value.shares_range_with], value.dtype) for value in values}


def measure_ranges(
    function: DifferentiableFunction,
    pixels: Tensor,
    values: Sequence[QuantizedValue],
    layers: Sequence[Layer],
    fisher: Mapping[str, LayerFisher],
) -> dict[str, ValueRange]:
    """Measure the histogram of every range on images.

    Returns:
        By the name of the first value that has the range.
    """
    pixels = pixels[:_IMAGES]
    batches = torch.split(pixels, max(1, _BATCH_PIXELS // (pixels.shape[2] * pixels.shape[3])))
    group = {function.number(value.name): value.shares_range_with for value in values}
    importance = _channel_weights(function, layers, fisher)
    ranges = {name: ValueRange() for name in group.values()}

    def extremes(batch: Tensor) -> list[tuple[str, float, float]]:
        ranges: list[tuple[str, float, float]] = []

        def look(number: int, value: Tensor) -> None:
            low, high = value.aminmax()
            ranges.append((group[number], float(low), float(high)))

        _walk(function, batch, group, look)
        return ranges

    def histograms(batch: Tensor) -> list[tuple[str, Tensor]]:
        histograms: list[tuple[str, Tensor]] = []

        def look(number: int, value: Tensor) -> None:
            seen = ranges[group[number]]
            width = max(seen.high - seen.low, 1e-30)
            places = ((value - seen.low) * (_BINS / width)).long().clamp_(0, _BINS - 1)
            weights = importance.get(number)
            if weights is not None:
                axis = 2 if value.dim() == 5 else value.dim() - 1
                shape = [1] * value.dim()
                shape[axis] = -1
                weights = weights.reshape(shape).expand_as(value).flatten()
            counts = torch.bincount(places.flatten(), weights, minlength=_BINS).double()
            # Values of different sizes count alike in a range that they share.
            histograms.append((group[number], counts / value.numel()))

        _walk(function, batch, group, look)
        return histograms

    with one_thread():
        for part in parallel_map(extremes, batches):
            for name, low, high in part:
                ranges[name].low = min(ranges[name].low, low)
                ranges[name].high = max(ranges[name].high, high)
        for more in parallel_map(histograms, batches):
            for name, counts in more:
                before = ranges[name].counts
                ranges[name].counts = counts if before is None else before + counts
    return ranges


def best_grid(seen: ValueRange, dtype: str) -> Grid:
    """Return the grid with the least error for a range.

    Its zero is level 0 (of unsigned levels, where no value is negative), as computing is reported
    to be fastest then, unless another zero point halves the error, as it does behind silu, whose
    values reach from -0.28 far up.

    Args:
        seen: the range.
        dtype: element type of the values, ``fp16`` or ``fp32``.
    """
    kind: GridType = "uint8" if seen.low >= 0 else "int8"
    lowest, highest = LEVELS[kind]
    widest = max(seen.high / highest, seen.low / lowest if lowest else 0.0, 1e-30)
    grids = [(part * widest, 0, kind) for part in _PARTS.tolist()]
    error, grid = _least(seen, grids, dtype)
    if seen.low >= 0:
        return grid
    spans = [(below * seen.low, above * seen.high) for above in _HIGHS for below in _LOWS]
    top = LEVELS["uint8"][1]
    offset: list[tuple[float, int, GridType]] = []
    for low, high in spans:
        scale = max(high - low, 1e-30) / top
        offset.append((scale, min(top, max(0, round(-low / scale))), "uint8"))
    offset_error, offset_grid = _least(seen, offset, dtype)
    return offset_grid if offset_error < _WORTH_A_ZERO_POINT * error else grid


def _least(
    seen: ValueRange, candidates: Sequence[tuple[float, int, GridType]], dtype: str
) -> tuple[float, Grid]:
    """Return the least error of some scales, zero points and types, and the grid that has it."""
    assert seen.counts is not None
    middles, counts = seen.bins(), seen.counts
    exact = torch.tensor([scale for scale, _, _ in candidates])
    scales = storable_scale(exact, DATA_TYPES[dtype].numpy).tolist()
    best: tuple[float, Grid] | None = None
    for scale, (_, zero_point, kind) in zip(scales, candidates, strict=True):
        grid = Grid(scale, zero_point, kind)
        error = float(((grid.round(middles) - middles).square() * counts).sum())
        # The widest of equals: nothing is cut off for nothing.
        if best is None or error <= best[0]:
            best = error, grid
    assert best is not None
    return best


def _walk(
    function: DifferentiableFunction,
    batch: Tensor,
    numbers: Mapping[int, str],
    look: Callable[[int, Tensor], None],
) -> None:
    """Show every value with one of some numbers as soon as it is computed."""
    with torch.no_grad():
        execution = function.start(batch)
        for number in sorted(execution.batched & set(numbers)):
            look(number, execution.values[number])
        for step, released in function.schedule:
            execution.advance(step)
            for number in step.outputs:
                if number in numbers:
                    look(number, execution.values[number])
            execution.release(released)


def _channel_weights(
    function: DifferentiableFunction, layers: Sequence[Layer], fisher: Mapping[str, LayerFisher]
) -> dict[int, Tensor]:
    """Return what errors of the channels of each layer's input count, by number of the value."""
    weights: dict[int, Tensor] = {}
    for layer in layers:
        if layer.step.operation.op_type == "matmul":
            continue
        matrix = layer.matrix(function.constants[layer.weight])
        rows = row_weights(fisher[layer.weight].diagonal)[:, :, None]
        # (G, K): K holds C_in / G channels with the positions of the kernel after each.
        by_input = (rows * matrix.square()).sum(1)
        channels = by_input.reshape(-1, int(torch.tensor(layer.shape[2:]).prod()) or 1).sum(1)
        channels = channels / channels.mean().clamp(min=1e-30) + 1e-3
        before = weights.get(layer.source)
        weights[layer.source] = channels if before is None else before + channels
    return weights
