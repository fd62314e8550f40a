"""Fine-tuning palettized weights by gradients: tables and vectors, with the indices as they are.

After the reconstruction layers fit their inputs one by one; what remains is how errors of
different layers add up at the answers. A few hundred images allow only small steps:
with ten times larger ones the answers on unseen images get worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    divergence,
    scores,
)
from mvit_coreml.compression.calibration.reconstruction import TunedWeights
from mvit_coreml.compression.palettized_weight import PalettizedWeight
from mvit_coreml.mil.parallel import parallel_map

# Step sizes, relative to the standard deviation of what is stepped.
_TABLE_STEP = 5e-5
_VECTOR_STEP = 4e-4
_WARM_UP = 10
_BATCH = 32
_MICRO_BATCH = 8
# Part of the area that a random view keeps at least.
_SMALLEST_VIEW = 0.35


class FineTuner:
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
        self.places = {n: torch.from_numpy(p.places) for n, p in start.palettes.items()}
        fixed = {n: v for n, v in start.constants.items() if n not in self.vectors}
        self.fixed = {name: _wide(value) for name, value in fixed.items()}
        self.steps = 0
        self._order = self._batches(seed)
        self._parameters = {**self.tables, **self.vectors}
        # Adam (Kingma and Ba, 2015)
        self._adam = torch.optim.Adam(
            [
                {"params": [tensor], "lr": size * float(tensor.std(correction=0))}
                for tensors, size in ((self.tables, _TABLE_STEP), (self.vectors, _VECTOR_STEP))
                for tensor in tensors.values()
            ],
            eps=1e-12,
        )
        self._warm_up = torch.optim.lr_scheduler.LambdaLR(
            self._adam, lambda steps: min(1.0, (steps + 1) / _WARM_UP)
        )

    def step(self) -> None:
        """Take one step on a batch of images."""
        batch = next(self._order)
        parts = torch.split(batch, _MICRO_BATCH)
        gradients = parallel_map(lambda part: self._gradients(part, len(batch)), parts)
        sums = [sum(tensors[1:], tensors[0]) for tensors in zip(*gradients, strict=True)]
        for tensor, gradient in zip(self._parameters.values(), sums, strict=True):
            tensor.grad = gradient
        self._adam.step()
        self._warm_up.step()
        self.steps += 1

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
        leaves = {n: tensor.clone().requires_grad_() for n, tensor in self._parameters.items()}
        constants = self.fixed | {name: self._rounded(leaf, name) for name, leaf in leaves.items()}
        for name, places in self.places.items():
            constants[name] = constants[name].flatten()[places]
        answers = self.function(self.pixels[images], constants)
        loss = divergence(answers, self.targets[images], self.function.activation)
        share = len(images) / total
        return list(
            torch.autograd.grad(
                loss * share, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        )

    def _rounded(self, tensor: Tensor, name: str) -> Tensor:
        """Round to the stored type; gradients pass as if nothing were rounded."""
        if self.function.dtypes[name] != np.float16:
            return tensor
        return tensor + (tensor.half().float() - tensor).detach()


def random_views(pixels: Tensor, count: int, seed: int) -> Tensor:
    """Return crops of pictures in turn, enlarged to the pictures' size; half of them mirrored.

    Args:
        pixels: (N, 3, height, width) from 0 to 255.
        count: how many to make.
        seed: of the draws.

    Returns:
        (count, 3, height, width), whole numbers from 0 to 255 as of an image.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = pixels.shape[2:]

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    views = []
    for index in range(count):
        picture = pixels[index % len(pixels)]
        side = uniform(_SMALLEST_VIEW, 1.0) ** 0.5
        rows, columns = round(side * height), round(side * width)
        top, left = round(uniform(0, height - rows)), round(uniform(0, width - columns))
        part = picture[None, :, top : top + rows, left : left + columns]
        if uniform(0, 1) < 0.5:
            part = part.flip(3)
        view = F.interpolate(part, (height, width), mode="bilinear", antialias=True)
        views.append(view.round().clamp(0, 255))
    return torch.cat(views) if views else pixels[:0]


def _wide(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
