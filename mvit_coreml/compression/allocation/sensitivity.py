"""What each weight's palette does to a function's answers, predicted one weight at a time.

An error E of a layer's weights changes its outputs by E x at every position of its inputs x. To
second order the answers' divergence from what they were is half the squared change of the outputs
in the Fisher metric. Its diagonal alone would count the positions of a map as independent; but the
same error at every position adds up wherever gradients agree across positions, as they do before a
pooling. So the part of the change that is constant over a map is weighed by how far they agree, and
the rest by what remains. The mean over all images is left out, as a layer's bias takes it up.

One pass over some images predicts all choices of all weights. Measuring them instead, one run of
the network for each, orders weights no better on other images of the kind, and takes minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction, Execution
from mvit_coreml.compression.calibration.gptq import output_error
from mvit_coreml.compression.calibration.linear_layers import Layer, find_layers
from mvit_coreml.compression.calibration.reconstruction import (
    LayerFisher,
    LayerProgress,
    kmeans_palettes,
)
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.mil.compiler import Step
from mvit_coreml.mil.parallel import parallel_map

# Pixels of the images that are computed at a time.
_BATCH_PIXELS = 4 * 256 * 256
# Samples that the moments of a layer's inputs are taken of, all images together, and positions of
# an image at least.
_SAMPLES = 6400
_FEWEST_POSITIONS = 16


@dataclass(frozen=True)
class Sensitivity:
    """What a weight's palettes do to the answers while all other weights stay as they are.

    Attributes:
        name: of the weight.
        noise: choice to the predicted divergence of the answers, see :class:`Quality`; 0 for the
            uncompressed weight.
    """

    name: str
    noise: Mapping[Choice, float]


def predict_sensitivity(
    function: DifferentiableFunction,
    pixels: Tensor,
    candidates: Mapping[str, Sequence[Choice]],
    fisher: Mapping[str, LayerFisher],
    *,
    progress: LayerProgress = lambda done, total: None,
) -> list[Sensitivity]:
    """Predict what every weight's palettes, as k-means finds them, do to the answers.

    A weight that is not of a layer counts as if its operation's output were the answer: its noise
    is its own relative squared error.

    Args:
        function: as saved, not palettized.
        pixels: (N, 3, height, width) of images like those the network is for.
        candidates: weight name to the choices to predict.
        fisher: from :func:`~..calibration.reconstruction.fisher_information`.
        progress: called with the number of weights done and their total.

    Returns:
        One for each of ``candidates``, in program order.
    """
    errors = _palette_errors(function, candidates)
    layers = {layer.index: layer for layer in find_layers(function)}
    area = pixels.shape[2] * pixels.shape[3]
    batches = torch.split(pixels, max(1, _BATCH_PIXELS // area))
    executions = [function.start(batch) for batch in batches]
    positions = max(_FEWEST_POSITIONS, -(-_SAMPLES // len(pixels)))
    noise: dict[str, dict[Choice, float]] = {}
    for index, (step, released) in enumerate(function.schedule):
        layer = layers.get(index)
        if layer is not None and layer.weight in errors:
            name = layer.weight
            moments = _effective_moments(layer, executions, positions, fisher[name])
            rows = fisher[name].diagonal * fisher[name].positions
            noise[name] = {
                choice: output_error(layer.matrix(error), moments, rows)
                for choice, error in errors[name].items()
            }
            progress(len(noise), len(candidates))
        _advance(executions, step, released)
    scale = _scale(function, executions)
    noise = {name: {c: scale * v for c, v in own.items()} for name, own in noise.items()}
    for name in errors.keys() - noise.keys():
        power = function.constants[name].square().sum().clamp(min=1e-30)
        noise[name] = {c: float(e.square().sum() / power) for c, e in errors[name].items()}
    return [
        Sensitivity(name, {c: noise[name].get(c, 0.0) for c in candidates[name]})
        for name in function.constants
        if name in candidates
    ]


def _advance(executions: Sequence[Execution], step: Step, released: Sequence[int]) -> None:
    def advance(execution: Execution) -> None:
        with torch.no_grad():
            execution.advance(step, released)

    for _ in parallel_map(advance, executions):
        pass


def _palette_errors(
    function: DifferentiableFunction, candidates: Mapping[str, Sequence[Choice]]
) -> dict[str, dict[Choice, Tensor]]:
    """Return weight name to the errors of its elements under each choice of k-means."""
    choices = {choice for listed in candidates.values() for choice in listed} - {UNCOMPRESSED}
    errors: dict[str, dict[Choice, Tensor]] = {name: {} for name in candidates}
    for choice in choices:
        takers = {name: choice for name, listed in candidates.items() if choice in listed}
        for name, palette in kmeans_palettes(function, takers).items():
            decoded = torch.from_numpy(palette.decode().astype(np.float32))
            errors[name][choice] = function.constants[name] - decoded
    return errors


def _scale(function: DifferentiableFunction, executions: Sequence[Execution]) -> float:
    """Return what makes a squared change of an image's answers, by Fisher, their divergence.

    Of classes it is half that, as a mean over the positions of a map; of features it is relative
    to the signal, a mean over all images.
    """
    answers = torch.cat([function.answers(execution) for execution in executions])
    if function.of_classes:
        # (N, 1, C, ...)
        return 0.5 * answers.shape[2] / answers[0].numel()
    return len(answers) / float(answers.square().sum().clamp(min=1e-30))


def _effective_moments(
    layer: Layer, executions: Sequence[Execution], positions: int, fisher: LayerFisher
) -> Tensor:
    """Return the (G, K, K) moments of a layer's inputs, the part constant over maps weighed."""

    def samples(number: int) -> Tensor:
        execution = executions[number]
        with torch.no_grad():
            seen = layer.samples(execution.values[layer.source], positions, number)
        return seen.view(*seen.shape[:2], len(execution), -1)

    inputs = torch.cat(list(parallel_map(samples, range(len(executions)))), 2)
    if layer.bias is not None:
        inputs = inputs - inputs.mean((2, 3), keepdim=True)
    constant = inputs.mean(3)
    varying = (inputs - constant[..., None]).flatten(2)
    coherence = min(fisher.coherence, float(fisher.positions))
    return (
        coherence * (constant @ constant.mT) / constant.shape[2]
        + (1 - coherence / fisher.positions) * (varying @ varying.mT) / varying.shape[2]
    )
