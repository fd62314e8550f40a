"""What each weight's palette does to a function's answers, measured one weight at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    Execution,
    Schedule,
    divergence,
)
from mvit_coreml.compression.calibration.gptq import palettize_layer
from mvit_coreml.compression.calibration.linear_layers import Layer, find_layers
from mvit_coreml.compression.calibration.reconstruction import (
    LayerProgress,
    fisher_diagonal,
    kmeans_palettes,
    row_weights,
)
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, PalettizedWeight
from mvit_coreml.mil.parallel import one_thread, parallel_map

# Pictures that the answers are compared on.
_JUDGING = 16
# Pixels of the images that are computed at a time.
_BATCH_PIXELS = 4 * 256 * 256
# Samples that the moments of a layer's inputs are taken of, all images together.
_SAMPLES = 4096


@dataclass(frozen=True)
class Sensitivity:
    """What a weight's palettes do to the answers while all other weights stay as they are.

    Attributes:
        name: of the weight.
        noise: choice to the divergence of the answers, see :class:`Quality`; 0 for the
            uncompressed weight.
    """

    name: str
    noise: Mapping[Choice, float]


def measure_sensitivity(
    function: DifferentiableFunction,
    pixels: Tensor,
    candidates: Mapping[str, Sequence[Choice]],
    *,
    progress: LayerProgress = lambda done, total: None,
) -> list[Sensitivity]:
    """Measure what every weight's palettes do to the answers.

    Each weight is palettized for its layer's inputs on the images, as
    :func:`reconstruct` does it, and the function is run with it in its place.

    Args:
        function: as saved, not palettized.
        pixels: (N, 3, height, width) of 2 images or more; the answers are compared on the first
            half, and the weights palettized for the other.
        candidates: weight name to the choices to measure.
        progress: called with the number of weights done and their total.

    Returns:
        One for each of ``candidates``, in program order.
    """
    with one_thread():
        return _measure(function, pixels, candidates, progress)


def _measure(
    function: DifferentiableFunction,
    pixels: Tensor,
    candidates: Mapping[str, Sequence[Choice]],
    progress: LayerProgress,
) -> list[Sensitivity]:
    run = _Measurement(function, pixels)
    layers = {layer.index: layer for layer in run.layers}
    first_use = _first_uses(function)
    at: dict[int, list[str]] = {}
    for name in function.constants:
        if name in candidates:
            at.setdefault(first_use[name], []).append(name)
    measured: dict[str, Sensitivity] = {}
    for index, (step, released) in enumerate(run.schedule):
        for name in at.get(index, ()):
            layer = layers.get(index)
            layer = layer if layer is not None and layer.weight == name else None
            measured[name] = run.measure(name, layer, candidates[name], index)
            progress(len(measured), len(candidates))
        run.advance(lambda e, step=step, released=released: e.advance(step, released))
    return list(measured.values())


class _Measurement:
    """A function on its way; at every weight it is continued with each of its palettes."""

    def __init__(self, function: DifferentiableFunction, pixels: Tensor) -> None:
        self.function = function
        self.layers = find_layers(function)
        self.fisher = fisher_diagonal(function, pixels, self.layers)
        self.schedule: Schedule = function.schedule()
        area = pixels.shape[2] * pixels.shape[3]
        size = max(1, min(_JUDGING // 2, len(pixels) // 2, _BATCH_PIXELS // area))
        self.executions = [function.start(batch) for batch in torch.split(pixels, size)]
        # Weights palettized for the same images would look better than they are.
        self.judging = min(len(self.executions) // 2, _JUDGING // size)
        self.positions = max(1, -(-_SAMPLES // len(pixels)))
        self.reference = self._finish(0, {})

    def advance(self, step: Any) -> None:
        """Take all micro-batches one step further."""

        def one(execution: Execution) -> None:
            with torch.no_grad():
                step(execution)

        for _ in parallel_map(one, self.executions):
            pass

    def measure(
        self, name: str, layer: Layer | None, choices: Iterable[Choice], index: int
    ) -> Sensitivity:
        """Measure the choices of a weight, with the function before the step that takes it."""
        noise = {}
        moments = None if layer is None else self._moments(layer)
        for choice in choices:
            if choice == UNCOMPRESSED:
                noise[choice] = 0.0
                continue
            palette = self._palettized(name, layer, moments, choice)
            decoded = torch.from_numpy(palette.decode().astype(np.float32))
            answers = self._finish(index, {name: decoded})
            change = float(divergence(answers, self.reference, self.function.of_classes))
            # Rounding can leave less than nothing.
            noise[choice] = max(change, 0.0)
        return Sensitivity(name, noise)

    def _palettized(
        self, name: str, layer: Layer | None, moments: Tensor | None, choice: Choice
    ) -> PalettizedWeight:
        tensor, dtype = self.function.constants[name], self.function.dtypes[name]
        if layer is None or moments is None:
            return kmeans_palettes(self.function, {name: choice})[name]
        rows = row_weights(self.fisher[name])
        return palettize_layer(layer, layer.matrix(tensor), moments, rows, choice, dtype)

    def _moments(self, layer: Layer) -> Tensor:
        def samples(number: int) -> Tensor:
            with torch.no_grad():
                source = self.executions[number].values[layer.source]
                return layer.samples(source, self.positions, number)

        parts = list(parallel_map(samples, range(self.judging, len(self.executions))))
        mean = torch.cat(parts, 2).mean(2, keepdim=True)
        centre = mean if layer.bias is not None else torch.zeros(())
        return torch.stack([(part - centre) @ (part - centre).mT for part in parts]).sum(0)

    def _finish(self, index: int, constants: Mapping[str, Tensor]) -> Tensor:
        """Return the answers on the judging images with some constants replaced from here on."""
        number = self.function.number(self.function.scores)

        def run(execution: Execution) -> Tensor:
            branch = execution.branch()
            for name, tensor in constants.items():
                self.function.replace(branch.values, name, tensor)
            with torch.no_grad():
                for step, released in self.schedule[index:]:
                    branch.advance(step, released)
            return torch.as_tensor(branch.values[number]).squeeze(1)

        return torch.cat(list(parallel_map(run, self.executions[: self.judging])))


def _first_uses(function: DifferentiableFunction) -> dict[str, int]:
    """Return the index of the first step that takes each constant."""
    uses: dict[str, int] = {}
    for index, (step, _) in enumerate(function.schedule()):
        for number in step.sources():
            name = function.constant_name(number)
            if name is not None:
                uses.setdefault(name, index)
    return uses
