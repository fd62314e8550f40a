"""The linear layers of a program, convolutions included, as products of a matrix with samples."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.mil.compiler import Step
from mvit_coreml.mil.kernels.convolution_and_pooling import pad_amounts


@dataclass(frozen=True)
class Layer:
    """A ``conv``, ``linear`` or ``matmul`` whose weight, and bias if any, are stored constants.

    Its weight is seen as (G, O, K): G groups of O output channels, each a product with the K
    numbers that a position of the output sees in its group of the input.

    Attributes:
        index: of the step among those that lead to the scores.
        step: the operation.
        weight: name of its weight, which nothing else uses.
        bias: name of its bias, None where it has none or shares it.
        source: number of its input among the program's values.
        shape: of the weight: (C_out, C_in / G, kh, kw), (C_out, C_in) of a linear layer, or
            (C_in, C_out) of a ``matmul`` that takes its second argument as it is.
        groups: G; C_out for a depthwise convolution.
        axis: of the weight, on which C_out lies.
    """

    index: int
    step: Step
    weight: str
    bias: str | None
    source: int
    shape: tuple[int, ...]
    groups: int
    axis: int = 0

    @property
    def is_convolution(self) -> bool:
        """Whether it has an output for each position of a map."""
        return self.step.operation.op_type == "conv"

    @property
    def channels(self) -> int:
        """C_out."""
        return self.shape[self.axis]

    def matrix(self, weight: Tensor) -> Tensor:
        """View a weight as (G, O, K)."""
        rows = weight.movedim(self.axis, 0)
        return rows.reshape(self.groups, self.channels // self.groups, -1)

    def weight_of(self, matrix: Tensor) -> Tensor:
        """View (G, O, K) as a weight."""
        shape = self.shape if self.axis == 0 else self.shape[::-1]
        return matrix.reshape(shape).movedim(0, self.axis)

    def samples(self, source: Tensor, limit: int, seed: int) -> Tensor:
        """Return what positions of the output see of the input.

        Args:
            source: the layer's input for N images, as an execution holds it: (N, B, C_in, H, W)
                or (N, ..., C_in).
            limit: number of positions of each map, or of rows, that are drawn; all if there are
                no more.
            seed: of the draw.

        Returns:
            (G, K, samples).
        """
        if not self.is_convolution:
            rows = source.reshape(len(source), -1, source.shape[-1])
            rows = rows.index_select(1, _drawn(rows.shape[1], limit, seed))
            return rows.reshape(-1, source.shape[-1]).T[None]
        source = source.flatten(0, 1)
        images = len(source)
        places, padded = self._places((source.shape[2], source.shape[3]), limit, seed)
        if source.is_contiguous(memory_format=torch.channels_last):
            # A position is one piece of memory.
            by_place = source.permute(0, 2, 3, 1).flatten(1, 2)
            seen = by_place.index_select(1, places.flatten())
        else:
            seen = source.flatten(2).index_select(2, places.flatten()).transpose(1, 2)
        seen = seen.index_fill(1, padded, 0.0).reshape(images, *places.shape, self.groups, -1)
        # (N, kh kw, positions, G, C_in / G) as the weight's elements lie
        seen = seen.permute(3, 4, 1, 0, 2)
        return seen.reshape(self.groups, -1, images * places.shape[1])

    def _places(self, size: tuple[int, int], limit: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return the (kh kw, positions) places in a flattened map, and which are in its padding.

        The latter are indices of the flattened places.
        """
        attributes = self.step.attributes
        kernel = self.shape[2:]
        strides = attributes.get("strides") or [1, 1]
        dilations = attributes.get("dilations") or [1, 1]
        pad_type, pad = attributes.get("pad_type", "valid"), attributes.get("pad")
        padding = pad_amounts(pad_type, pad, [*size], [*kernel], strides, dilations)
        counts = [
            (size[axis] + sum(padding[axis]) - dilations[axis] * (kernel[axis] - 1) - 1)
            // strides[axis]
            + 1
            for axis in (0, 1)
        ]
        drawn = _drawn(counts[0] * counts[1], limit, seed)
        by_axis = [
            index * strides[axis]
            - padding[axis][0]
            + dilations[axis] * torch.arange(kernel[axis]).unsqueeze(1)
            for axis, index in enumerate((drawn // counts[1], drawn % counts[1]))
        ]
        # (kh, 1, positions) and (1, kw, positions)
        rows, columns = by_axis[0].unsqueeze(1), by_axis[1].unsqueeze(0)
        inside = ((rows >= 0) & (rows < size[0])) & ((columns >= 0) & (columns < size[1]))
        places = torch.where(inside, rows * size[1] + columns, 0).flatten(0, 1)
        return places, (~inside).flatten().nonzero().flatten()


def find_layers(function: DifferentiableFunction) -> list[Layer]:
    """Return the layers on the way to the scores, in order of execution.

    Left out are those whose weight another operation uses too, and one- and three-dimensional
    convolutions.
    """
    sources = (number for step, _ in function.schedule for number in step.sources())
    users = Counter(map(function.constant_name, sources))
    layers = []
    for index, (step, _) in enumerate(function.schedule):
        layer = _layer(function, index, step)
        if layer is None or users[layer.weight] > 1:
            continue
        if layer.bias is not None and users[layer.bias] > 1:
            layer = replace(layer, bias=None)
        layers.append(layer)
    return layers


def _layer(function: DifferentiableFunction, index: int, step: Step) -> Layer | None:
    if step.operation.op_type not in ("conv", "linear", "matmul"):
        return None
    source, weight, bias = (*step.arguments, None)[:3]
    name = function.constant_name(weight)
    if name is None or not isinstance(source, int):
        return None
    shape = tuple(function.constants[name].shape)
    if len(shape) != (4 if step.operation.op_type == "conv" else 2):
        return None
    axis = 0
    if step.operation.op_type == "matmul":
        if step.attributes.get("transpose_x"):
            return None
        bias, axis = None, 0 if step.attributes.get("transpose_y") else 1
    groups = int(step.attributes.get("groups", 1))
    return Layer(index, step, name, function.constant_name(bias), source, shape, groups, axis)


def _drawn(count: int, limit: int, seed: int) -> Tensor:
    """Return which of a number of positions are drawn, in order; all if there are no more."""
    if count <= limit:
        return torch.arange(count)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(count, generator=generator)[:limit].sort().values
