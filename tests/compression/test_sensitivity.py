"""The predicted noise of a choice is about what replacing that one weight does to the answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from functions import (
    SIZE,
    Pooled,
    Products,
    few_valued_products,
    function_of,
    lively,
    parameter_names,
    pictures,
    shared_parameters,
    small,
    small_map,
)
from torch import Tensor, nn

from mvit_coreml.compression.allocation import sensitivity
from mvit_coreml.compression.allocation.sensitivity import predict_sensitivity
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.linear_layers import find_layers
from mvit_coreml.compression.calibration.reconstruction import LayerFisher, fisher_information
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice

CHOICES = (UNCOMPRESSED, Choice(2), Choice(3), Choice(4), Choice(6))


def fisher_of(function: DifferentiableFunction, pixels: Tensor) -> dict[str, LayerFisher]:
    return fisher_information(function, pixels, find_layers(function))


def palettized(function: DifferentiableFunction, name: str, choice: Choice) -> Tensor:
    """Return a weight as k-means alone leaves it."""
    job = ClusterJob(function.constants[name].numpy(), choice, function.axes.get(name, 0))
    return torch.from_numpy(cluster_weights({"": job})[""].decode())


def answers_without_its_mean(
    module: nn.Module, part: str, weight: Tensor, pixels: Tensor
) -> Tensor:
    """Run a module with one layer's weight replaced, and its bias taking up the mean's change."""
    layer = module.get_submodule(part)

    def run(weight: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def watched(_: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen.append(output)
            return output + shift

        handle = layer.register_forward_hook(watched)
        with torch.no_grad():
            answers = torch.func.functional_call(module, {f"{part}.weight": weight}, (pixels,))
        handle.remove()
        return answers, seen[0]

    none = torch.zeros(())
    if layer.bias is None:
        return run(weight, none)[0]
    change = run(layer.get_parameter("weight"), none)[1] - run(weight, none)[1]
    about = [axis for axis in range(change.dim()) if axis != 1]
    return run(weight, change.mean(about, keepdim=True))[0]


def divergence(after: Tensor, before: Tensor, of_classes: bool) -> float:
    after, before = after.double(), before.double()
    if not of_classes:
        return float((after - before).square().sum() / before.square().sum())
    p = before.softmax(1)
    return float((p * (before.log_softmax(1) - after.log_softmax(1))).sum(1).mean())


@pytest.mark.parametrize(
    ("kind", "output"), [("classifier", "logits"), ("classifier", "features"), ("map", "logits")]
)
def test_predictions_are_close_to_what_replacing_the_weight_does(kind: str, output: str) -> None:
    module = small() if kind == "classifier" else small_map(enlarge=False)
    function = function_of(module, output)
    names = parameter_names(function, module)
    pixels = function.pixels(pictures(64))
    parts = [name for name, _ in module.named_children()]
    candidates = {names[f"{part}.weight"]: CHOICES for part in parts}
    found = predict_sensitivity(function, pixels, candidates, fisher_of(function, pixels))
    with torch.no_grad():
        before = module(pixels)
    ratios = []
    for part, each in zip(parts, found, strict=True):
        assert each.name == names[f"{part}.weight"]
        assert tuple(each.noise) == CHOICES
        for choice in CHOICES[1:]:
            weight = palettized(function, each.name, choice)
            after = answers_without_its_mean(module, part, weight, pixels)
            measured = divergence(after, before, function.of_classes)
            if torch.equal(weight, function.constants[each.name]):
                assert each.noise[choice] == 0
            else:
                ratios.append(each.noise[choice] / measured)
    # Predictions are of second order, and take the outputs' channels for independent: errors of
    # two channels that add up or cancel in the answers are not seen. That makes up for more than a
    # factor of two now and then, but not for another order of magnitude, and not on the whole.
    logs = np.abs(np.log2(ratios))
    assert len(ratios) >= 7
    assert np.mean(logs < 1) >= 0.7
    assert logs.max() < np.log2(6)
    assert abs(np.mean(np.log2(ratios))) < 0.7


def test_where_the_outputs_are_the_answers_the_prediction_is_exact() -> None:
    function = function_of(small(), "features")
    name = parameter_names(function, small())["head.weight"]
    pixels = function.pixels(pictures(40))
    fisher = fisher_of(function, pixels)
    (found,) = predict_sensitivity(function, pixels, {name: CHOICES}, fisher)
    with torch.no_grad():
        before = small()(pixels)
    for choice in CHOICES[1:]:
        weight = palettized(function, name, choice)
        after = answers_without_its_mean(small(), "head", weight, pixels)
        wanted = divergence(after, before, of_classes=False)
        assert found.noise[choice] == pytest.approx(wanted, rel=1e-3)


def test_images_in_batches_predict_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    function = function_of(small())
    pixels = function.pixels(pictures(10))
    fisher = fisher_of(function, pixels)
    names = [layer.weight for layer in find_layers(function)]
    candidates = dict.fromkeys(names, CHOICES)
    whole = predict_sensitivity(function, pixels, candidates, fisher)
    monkeypatch.setattr(sensitivity, "_BATCH_PIXELS", 3 * SIZE[0] * SIZE[1])
    seen: list[tuple[int, int]] = []
    split = predict_sensitivity(
        function,
        pixels,
        candidates,
        fisher,
        progress=lambda done, total: seen.append((done, total)),
    )
    for one, other in zip(whole, split, strict=True):
        assert other.noise == pytest.approx(one.noise, rel=1e-3)
    assert seen == [(done, len(names)) for done in range(1, len(names) + 1)]


def test_weights_come_in_program_order_and_only_those_asked_for() -> None:
    function = function_of(small())
    names = parameter_names(function, small())
    asked = {names[f"{part}.weight"]: (Choice(2),) for part in ("head", "stem", "expand")}
    pixels = function.pixels(pictures(4))
    found = predict_sensitivity(function, pixels, asked, fisher_of(function, pixels))
    assert [each.name for each in found] == [
        names[f"{part}.weight"] for part in ("stem", "expand", "head")
    ]
    assert all(list(each.noise) == [Choice(2)] for each in found)


def test_the_uncompressed_weight_has_no_noise_and_fewer_bits_have_more() -> None:
    function = function_of(small())
    names = [layer.weight for layer in find_layers(function)]
    pixels = function.pixels(pictures(8))
    candidates = dict.fromkeys(names, CHOICES)
    for each in predict_sensitivity(function, pixels, candidates, fisher_of(function, pixels)):
        noise = [each.noise[choice] for choice in CHOICES]
        assert noise[0] == 0
        assert noise[1] > noise[3] > noise[4] >= 0


def test_weights_of_no_single_layer_count_by_their_own_relative_error() -> None:
    function = function_of(shared_parameters())
    pixels = function.pixels(pictures(8))
    fisher = fisher_of(function, pixels)
    assert "twice_weight" not in fisher
    choices = (UNCOMPRESSED, Choice(1), Choice(3))
    (found,) = predict_sensitivity(function, pixels, {"twice_weight": choices}, fisher)
    assert found.noise[UNCOMPRESSED] == 0
    values = function.constants["twice_weight"].numpy()
    for choice in choices[1:]:
        error = palettized(function, "twice_weight", choice).numpy() - values
        wanted = np.square(error).sum() / np.square(values).sum()
        assert found.noise[choice] == pytest.approx(wanted, rel=1e-4)


def test_groups_run_along_the_output_channels_wherever_these_lie() -> None:
    function = function_of(few_valued_products())
    choices = {name: (Choice(2, size), Choice(2)) for name, size in Products.GROUP_SIZES.items()}
    pixels = function.pixels(pictures(8))
    for each in predict_sensitivity(function, pixels, choices, fisher_of(function, pixels)):
        grouped, whole = each.noise.values()
        # Four values in each group of output channels are met by its four entries.
        assert grouped == pytest.approx(0, abs=1e-6)
        assert whole > 1e-5


def plain_colours(count: int, seed: int = 0) -> list[np.ndarray]:
    colours = np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    return [np.broadcast_to(colour, (*SIZE, 3)).copy() for colour in colours]


def test_an_error_that_is_the_same_all_over_a_map_adds_up_in_its_mean() -> None:
    module = lively(Pooled(torch.ones(1, 1, *SIZE)))
    function = function_of(module, "features")
    name = parameter_names(function, module)["only.weight"]
    choice = Choice(1)
    weight = palettized(function, name, choice)

    def noise(pixels: Tensor, fisher: dict[str, LayerFisher]) -> float:
        (found,) = predict_sensitivity(function, pixels, {name: (choice,)}, fisher)
        return found.noise[choice]

    def measured(pixels: Tensor) -> float:
        after = answers_without_its_mean(module, "only", weight, pixels)
        with torch.no_grad():
            return divergence(after, module(pixels), of_classes=False)

    # The colour of each picture makes an error of its own, at all positions of the map.
    pixels = function.pixels(plain_colours(30))
    fisher = fisher_of(function, pixels)
    assert noise(pixels, fisher) == pytest.approx(measured(pixels), rel=1e-3)
    # Counted as independent they would nearly cancel in the mean: by the number of positions.
    independent = {name: replace(fisher[name], coherence=1.0)}
    positions = SIZE[0] * SIZE[1]
    assert noise(pixels, fisher) == pytest.approx(positions * noise(pixels, independent), rel=1e-3)
    # And what differs from position to position does cancel.
    pixels = function.pixels(pictures(30))
    fisher = fisher_of(function, pixels)
    assert noise(pixels, fisher) == pytest.approx(measured(pixels), rel=1e-2)


def test_what_all_images_share_is_taken_up_by_a_bias() -> None:
    alike = plain_colours(1) * 6
    for bias in (True, False):
        module = lively(Pooled(torch.ones(1, 1, *SIZE), bias))
        function = function_of(module, "features")
        name = parameter_names(function, module)["only.weight"]
        pixels = function.pixels(alike)
        choices = {name: (Choice(1),)}
        (found,) = predict_sensitivity(function, pixels, choices, fisher_of(function, pixels))
        if bias:
            assert found.noise[Choice(1)] == pytest.approx(0, abs=1e-6)
        else:
            assert found.noise[Choice(1)] > 1e-3
