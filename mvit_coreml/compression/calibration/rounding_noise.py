"""What rounding each activation to 8 bits does to the answers, predicted from gradients.

To first order, the answers move along the gradient times the error of the value. Its square, with
the gradient of a random vector whose outer product is the curvature of the answers' divergence, is
that divergence on average, as :func:`~.reconstruction.fisher_information` explains. One pass
forwards and one backwards tell it of all values.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.reconstruction import probe
from mvit_coreml.compression.quantization.grid import Grid
from mvit_coreml.mil.parallel import parallel_map

# Images that it is measured on; pixels of those computed at a time, as all values are kept.
_IMAGES = 48
_PIXELS = 4 * 224 * 224


def rounding_noise(
    function: DifferentiableFunction, pixels: Tensor, grids: Mapping[str, Grid], *, seed: int = 0
) -> dict[str, float]:
    """Return what rounding each value alone is predicted to cost.

    Args:
        function: as saved, in floating point.
        pixels: (N, 3, height, width) of images, see :meth:`DifferentiableFunction.pixels`.
        grids: of the values, by name.
        seed: of the random vectors.

    Returns:
        By name; the mean divergence of the answers, up to a factor that is the same for all.
    """
    pixels = pixels[:_IMAGES]
    batches = torch.split(pixels, max(1, _PIXELS // (pixels.shape[2] * pixels.shape[3])))

    def measured(number: int) -> Tensor:
        return _squares(function, batches[number], grids, seed + number)

    total = torch.stack(list(parallel_map(measured, range(len(batches))))).sum(0) / len(pixels)
    return dict(zip(grids, total.tolist(), strict=True))


def _squares(
    function: DifferentiableFunction, pixels: Tensor, grids: Mapping[str, Grid], seed: int
) -> Tensor:
    """Return the (values,) squared moves of the answers, summed over images."""
    execution = function.start(pixels.clone().requires_grad_())
    rounded = {function.number(name): name for name in grids}
    values = {
        rounded[number]: execution.values[number] for number in execution.batched & rounded.keys()
    }
    for step, released in function.schedule:
        execution.advance(step)
        for number in step.outputs:
            if number in rounded:
                values[rounded[number]] = execution.values[number]
        execution.release(released)
    scores = function.answers(execution)
    direction = probe(scores.detach(), function.activation, seed)
    gradients = torch.autograd.grad(
        (scores * direction).sum(),
        [values[name] for name in grids],
        allow_unused=True,
        materialize_grads=True,
    )
    moves = []
    for (name, grid), gradient in zip(grids.items(), gradients, strict=True):
        value = values[name].detach()
        moves.append(((grid.round(value) - value) * gradient).flatten(1).sum(1).square().sum())
    return torch.stack(moves)
