"""Polishing palettized weights by gradients: tables and vectors, with the indices as they are.

After the reconstruction layers fit their inputs one by one; what remains is how errors of
different layers add up at the answers. A few hundred images allow only small steps:
with ten times larger ones the answers on unseen images get worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvit_coreml.compression.calibration.answer_quality import divergence, scores
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.reconstruction import TunedWeights
from mvit_coreml.compression.palettized_weight import PalettizedWeight
from mvit_coreml.mil.parallel import parallel_map

# Step sizes, relative to the standard deviation of what is stepped.
_TABLE_STEP = 5e-5
_VECTOR_STEP = 4e-4
_WARM_UP = 10
_BATCH = 32
_MICRO_BATCH = 8
_DECAYS = 0.9, 0.999


class Polisher:
    """Weights on their way down the divergence of the answers, step by step.

    Args:
        function: as saved, not palettized.
        start: where to begin.
        pixels: (N, 3, height, width) of the images to learn from.
        seed: of the order of the images.
    """

    def __init__(
        self, function: DifferentiableFunction, start: TunedWeights, pixels: Tensor, seed: int = 0
    ) -> None:
        self.function, self.start, self.pixels = function, start, pixels
        self.targets = scores(function, pixels)
        self.tables = {n: _wide(p.lut) for n, p in start.palettes.items()}
        self.vectors = {
            name: _wide(start.constants.get(name, tensor.numpy()))
            for name, tensor in function.constants.items()
            if tensor.dim() == 1 and tensor.numel() > 1
        }
        self.places = {n: torch.from_numpy(_places(p)) for n, p in start.palettes.items()}
        fixed = {n: v for n, v in start.constants.items() if n not in self.vectors}
        self.fixed = {name: _wide(value) for name, value in fixed.items()}
        self.steps = 0
        self._order = self._batches(seed)
        groups = (self.tables, _TABLE_STEP), (self.vectors, _VECTOR_STEP)
        self._adam = [
            (
                tensor,
                size * float(tensor.std(correction=0)),
                torch.zeros_like(tensor),
                torch.zeros_like(tensor),
            )
            for tensors, size in groups
            for tensor in tensors.values()
        ]

    def step(self) -> None:
        """Take one step of Adam (Kingma and Ba, 2015) on a batch of images."""
        batch = next(self._order)
        parts = torch.split(batch, _MICRO_BATCH)
        sums: list[Tensor] | None = None
        for gradients in parallel_map(lambda part: self._gradients(part, len(batch)), parts):
            sums = (
                gradients if sums is None else [a + b for a, b in zip(sums, gradients, strict=True)]
            )
        assert sums is not None
        self.steps += 1
        first, second = _DECAYS
        warm = min(1.0, self.steps / _WARM_UP)
        scale = warm * math.sqrt(1 - second**self.steps) / (1 - first**self.steps)
        for (tensor, size, mean, square), gradient in zip(self._adam, sums, strict=True):
            mean.mul_(first).add_(gradient, alpha=1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            tensor -= scale * size * mean / (square.sqrt() + 1e-12)

    def weights(self) -> TunedWeights:
        """Return the weights as they are by now, rounded to the types they are stored in."""
        palettes = {
            name: PalettizedWeight(
                self.tables[name].numpy().astype(palette.lut.dtype), palette.indices, palette.axis
            )
            for name, palette in self.start.palettes.items()
        }
        vectors = {
            name: tensor.numpy().astype(self.function.dtypes[name])
            for name, tensor in self.vectors.items()
        }
        return TunedWeights(palettes, {**self.start.constants, **vectors})

    def _batches(self, seed: int) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(self.pixels), generator=generator)
            yield from torch.split(order, _BATCH)

    def _gradients(self, images: Tensor, total: int) -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor, *_ in self._adam]
        found = dict(zip([*self.tables, *self.vectors], leaves, strict=True))
        constants: dict[str, Tensor] = dict(self.fixed)
        for name, leaf in found.items():
            rounded = self._rounded(leaf, name)
            if name in self.places:
                shape = self.start.palettes[name].indices.shape
                constants[name] = rounded.flatten()[self.places[name]].view(shape)
            else:
                constants[name] = rounded
        answers = self.function(self.pixels[images], constants)
        loss = divergence(answers, self.targets[images], self.function.of_classes)
        gradients = torch.autograd.grad(
            loss * (len(images) / total), leaves, allow_unused=True, materialize_grads=True
        )
        return list(gradients)

    def _rounded(self, tensor: Tensor, name: str) -> Tensor:
        """Round to the stored type; gradients pass as if nothing were rounded."""
        if self.function.dtypes[name] != np.float16:
            return tensor
        return tensor + (tensor.half().float() - tensor).detach()


def _wide(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _places(palette: PalettizedWeight) -> NDArray[np.int64]:
    """Return the place of every element's entry among those of all tables."""
    indices = palette.indices.astype(np.int64)
    table = np.repeat(np.arange(palette.groups), palette.group_size)
    shape = [1] * indices.ndim
    shape[palette.axis] = table.size
    return (indices + (table * palette.lut.shape[1]).reshape(shape)).ravel()
