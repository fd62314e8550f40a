"""The noise of a choice is what replacing that one weight does to the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from functions import (
    Products,
    few_valued_products,
    function_of,
    parameter_names,
    pictures,
    shared_parameters,
    small,
)
from torch import Tensor, nn

from mvit_coreml.compression.allocation import sensitivity
from mvit_coreml.compression.allocation.sensitivity import measure_sensitivity
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.linear_layers import Layer
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, PalettizedWeight

CHOICES = (UNCOMPRESSED, Choice(1), Choice(2), Choice(4))
Recorded = dict[tuple[str, Choice], PalettizedWeight]


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Every palette that is made for a layer, by weight and choice."""
    found: Recorded = {}
    original: Callable[..., PalettizedWeight] = sensitivity.palettize_layer

    def watched(layer: Layer, *given: Any) -> PalettizedWeight:
        palette = original(layer, *given)
        found[layer.weight, given[3]] = palette
        return palette

    monkeypatch.setattr(sensitivity, "palettize_layer", watched)
    return found


def noise(
    function: DifferentiableFunction,
    module: nn.Module,
    name: str,
    weight: np.ndarray,
    pixels: Tensor,
) -> float:
    """Run the whole module with one weight replaced; return the divergence of the answers."""
    parameters = {stored: n for n, stored in parameter_names(function, module).items()}
    with torch.no_grad():
        before = module(pixels).double()
        after = torch.func.functional_call(
            module, {parameters[name]: torch.from_numpy(weight.astype(np.float32))}, (pixels,)
        ).double()
        p = before.softmax(1)
        return float((p * (before.log_softmax(1) - after.log_softmax(1))).sum(1).mean())


@pytest.mark.parametrize("count", [12, 40])
def test_noise_is_what_replacing_the_weight_does_to_the_first_images(
    count: int, recorded: Recorded
) -> None:
    function = function_of(small())
    weights = [name for name, tensor in function.constants.items() if tensor.dim() > 1]
    pixels = function.pixels(pictures(count))
    seen: list[tuple[int, int]] = []
    found = measure_sensitivity(
        function,
        pixels,
        dict.fromkeys(weights, CHOICES),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, len(weights)) for done in range(1, len(weights) + 1)]
    judging = pixels[: min(count // 2, 16)]
    for each in found:
        assert tuple(each.noise) == CHOICES
        assert each.noise[UNCOMPRESSED] == 0
        for choice in CHOICES[1:]:
            weight = recorded[each.name, choice].decode()
            assert recorded[each.name, choice].bits == choice.bits
            wanted = noise(function, small(), each.name, weight, judging)
            assert each.noise[choice] == pytest.approx(wanted, rel=2e-3, abs=2e-6)
        assert each.noise[Choice(1)] > each.noise[Choice(4)]


def test_weights_come_in_program_order_and_only_those_asked_for() -> None:
    function = function_of(small())
    names = parameter_names(function, small())
    asked = {names[f"{part}.weight"]: (Choice(2),) for part in ("head", "stem", "expand")}
    found = measure_sensitivity(function, function.pixels(pictures(4)), asked)
    assert [each.name for each in found] == [
        names[f"{part}.weight"] for part in ("stem", "expand", "head")
    ]
    assert all(list(each.noise) == [Choice(2)] for each in found)


def test_weights_of_no_single_layer_are_palettized_by_k_means() -> None:
    function = function_of(shared_parameters())
    pixels = function.pixels(pictures(8))
    (found,) = measure_sensitivity(function, pixels, {"twice_weight": (Choice(1),)})
    values = function.constants["twice_weight"].numpy()
    palette = cluster_weights({"": ClusterJob(values, Choice(1))})[""]
    wanted = noise(function, shared_parameters(), "twice_weight", palette.decode(), pixels[:4])
    assert found.noise[Choice(1)] == pytest.approx(wanted, rel=1e-3)


def test_groups_run_along_the_output_channels_wherever_these_lie() -> None:
    function = function_of(few_valued_products())
    choices = {name: (Choice(2, size), Choice(2)) for name, size in Products.GROUP_SIZES.items()}
    for each in measure_sensitivity(function, function.pixels(pictures(8)), choices):
        grouped, whole = each.noise.values()
        # Four values in each group of output channels are met by its four entries.
        assert grouped == pytest.approx(0, abs=1e-6)
        assert whole > 1e-5


def test_palettes_are_fitted_to_other_images_than_those_that_judge(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = function_of(small())
    name = parameter_names(function, small())["grouped.weight"]
    # The Fisher diagonal apart, which is measured on all images.
    monkeypatch.setattr(
        sensitivity,
        "fisher_diagonal",
        lambda function, pixels, layers: {
            layer.weight: torch.ones(layer.groups, layer.channels // layer.groups)
            for layer in layers
        },
    )
    first, second, third = (function.pixels(pictures(8, seed=seed)) for seed in range(3))

    def measured(*pixels: Tensor) -> tuple[bytes, float]:
        (found,) = measure_sensitivity(function, torch.cat(pixels), {name: (Choice(2),)})
        return recorded[name, Choice(2)].decode().tobytes(), found.noise[Choice(2)]

    palette, value = measured(first, second)
    same, other_value = measured(third, second)
    other, _ = measured(first, third)
    assert palette == same
    assert value != other_value
    assert palette != other


def test_features_are_compared_by_their_relative_error(recorded: Recorded) -> None:
    function = function_of(small(), "features")
    name = parameter_names(function, small())["expand.weight"]
    pixels = function.pixels(pictures(6))
    (found,) = measure_sensitivity(function, pixels, {name: (Choice(2),)})
    changed = torch.from_numpy(recorded[name, Choice(2)].decode())
    with torch.no_grad():
        before = small()(pixels[:3])
        after = torch.func.functional_call(small(), {"expand.weight": changed}, (pixels[:3],))
    wanted = float((after - before).square().sum() / before.square().sum())
    assert found.noise[Choice(2)] == pytest.approx(wanted, rel=1e-3)
