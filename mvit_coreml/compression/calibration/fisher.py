"""The Fisher diagonal: how much each output channel of each layer matters for the answers.

The curvature of the answers' divergence from what they are now, in the outputs of a layer, is the
Gauss-Newton (or Fisher) matrix JᵀAJ, with A that of the softmax for scores of classes, and the
identity for features. Its diagonal is estimated by random signs (Hutchinson, 1989): for a vector r
whose outer product is A on average, the squared gradient of r·scores is JᵀAJ's diagonal on average.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.linear_layers import Layer
from mvit_coreml.mil.parallel import parallel_map

# Pixels of the images that are computed at a time, as all their activations are kept.
_PIXELS = 4 * 256 * 256
# Images that it is measured on; it changes little beyond. Larger ones count as several.
_IMAGES = 64
_IMAGE_PIXELS = 256 * 256
# What errors of a channel count beside its measured share, relative to the mean.
_ROW_FLOOR = 0.3


def fisher_diagonal(
    function: DifferentiableFunction, pixels: Tensor, layers: Sequence[Layer], *, seed: int = 0
) -> dict[str, Tensor]:
    """Return the curvature of the answers in each output channel of each layer.

    Args:
        function: as saved.
        pixels: (N, 3, height, width), see :meth:`DifferentiableFunction.pixels`; measured on the
            first 64 images, or fewer if they are large.
        layers: of the function.
        seed: of the random signs.

    Returns:
        Name of a layer's weight to (G, O), a mean over images and positions; not negative.
    """
    area = pixels.shape[2] * pixels.shape[3]
    pixels = pixels[: -(-_IMAGES // max(1, area // _IMAGE_PIXELS))]
    batches = torch.split(pixels, max(1, _PIXELS // area))
    sums = {layer.weight: torch.zeros(layer.channels) for layer in layers}

    def gradients(number: int) -> list[Tensor]:
        return _squared_gradients(function, batches[number], layers, seed + number)

    for squared in parallel_map(gradients, range(len(batches))):
        for layer, values in zip(layers, squared, strict=True):
            sums[layer.weight] += values
    return {
        layer.weight: (sums[layer.weight] / len(pixels)).reshape(layer.groups, -1)
        for layer in layers
    }


def row_weights(diagonal: Tensor) -> Tensor:
    """Return what the errors of a layer's output channels count, from its Fisher diagonal."""
    return diagonal / diagonal.mean().clamp(min=1e-30) + _ROW_FLOOR


def _squared_gradients(
    function: DifferentiableFunction, pixels: Tensor, layers: Sequence[Layer], seed: int
) -> list[Tensor]:
    """Return (C_out,) sums over images of the mean squared gradient over positions."""
    at = {layer.index: layer for layer in layers}
    execution = function.start(pixels.clone().requires_grad_())
    outputs = []
    for index, (step, released) in enumerate(function.schedule()):
        execution.advance(step, released)
        if index in at:
            outputs.append(execution.values[step.outputs[0]])
    scores = execution.values[function.number(function.scores)]
    probe = _probe(scores.detach(), function.of_classes, seed)
    gradients = torch.autograd.grad((scores * probe).sum(), outputs)
    squared = []
    for layer, gradient in zip(at.values(), gradients, strict=True):
        channel_axis = 2 if layer.is_convolution else gradient.dim() - 1
        by_channel = gradient.square().movedim(channel_axis, 1).flatten(2)
        squared.append(by_channel.mean(2).sum(0))
    return squared


def _probe(scores: Tensor, of_classes: bool, seed: int) -> Tensor:
    """Return a random vector whose outer product is the curvature on average."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, scores.shape, generator=generator) * 2.0 - 1.0
    if not of_classes:
        return signs
    # The classes lie on axis 1 of what the program gives, and (N, 1, C, ...) is that for N images.
    probabilities = scores.softmax(2)
    root = probabilities.sqrt() * signs
    return root - probabilities * root.sum(2, keepdim=True)
