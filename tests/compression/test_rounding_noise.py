"""What rounding an activation is predicted to cost, held to what it does cost."""

from __future__ import annotations

import numpy as np
import torch
from packages import converted

from mvit_coreml.compression.calibration.activation_ranges import choose_grids
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction, divergence
from mvit_coreml.compression.calibration.linear_layers import find_layers
from mvit_coreml.compression.calibration.reconstruction import fisher_information
from mvit_coreml.compression.calibration.rounding_noise import rounding_noise
from mvit_coreml.compression.quantization.grid import Grid
from mvit_coreml.compression.quantization.placement import place_quantization
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.validation.synthetic_images import calibration_pictures


def test_noise_that_is_predicted_is_the_divergence_that_is_measured() -> None:
    package = load_package(converted("mobilenet_v2")[0].path)
    function = DifferentiableFunction(package)
    pixels = function.pixels(calibration_pictures(24, (64, 64)))
    values = place_quantization(package.function()).values
    layers = find_layers(function)
    fisher = fisher_information(function, pixels, layers)
    chosen = choose_grids(function, pixels, values, layers, fisher)
    # Coarser grids, whose cost is above that of adding in another order.
    grids = {n: Grid(4 * g.scale, g.zero_point // 4, g.dtype) for n, g in chosen.items()}
    predicted = rounding_noise(function, pixels, grids)
    with torch.no_grad():
        reference = function(pixels)
    measured = {name: _cost(function, pixels, reference, name, grids[name]) for name in grids}
    ranks = [np.argsort(np.argsort([of[name] for name in grids])) for of in (predicted, measured)]
    assert np.corrcoef(*ranks)[0, 1] > 0.8


def _cost(
    function: DifferentiableFunction,
    pixels: torch.Tensor,
    reference: torch.Tensor,
    name: str,
    grid: Grid,
) -> float:
    number = function.number(name)
    execution = function.start(pixels)
    with torch.no_grad():
        for step, released in function.schedule:
            execution.advance(step, released)
            if number in step.outputs:
                execution.values[number] = grid.round(execution.values[number])
        answers = function.answers(execution).squeeze(1)
    return float(divergence(answers, reference, function.activation))
