"""The estimated Fisher diagonal is the Gauss-Newton one on average; gradients agree or not."""

from __future__ import annotations

import pytest
import torch
from functions import SIZE, Pooled, function_of, lively, parameter_names, pictures, small, small_map
from torch import Tensor, nn
from torch.autograd.functional import jacobian

from mvit_coreml.compression.calibration import reconstruction as module
from mvit_coreml.compression.calibration.linear_layers import find_layers
from mvit_coreml.compression.calibration.reconstruction import (
    LayerFisher,
    fisher_information,
)


def curvature(scores: Tensor, of_classes: bool) -> Tensor:
    """Return that of the divergence in flattened (1, C, ...) scores."""
    if not of_classes:
        return torch.eye(scores.numel())
    whole = torch.zeros(scores.numel(), scores.numel())
    places = torch.arange(scores.numel()).reshape(scores.shape[1], -1)
    for position in places.T:
        p = scores.flatten()[position].softmax(0)
        whole[position[:, None], position] = torch.diag(p) - p[:, None] * p
    return whole


def exact(module: nn.Module, part: str, pixels: Tensor, of_classes: bool) -> Tensor:
    """Return the mean over images and positions of the Gauss-Newton diagonal, (C_out,)."""
    layer = module.get_submodule(part)
    total: list[Tensor] = []
    for image in pixels[:, None]:
        shape = _output_shape(module, layer, image)

        def moved(change: Tensor, image: Tensor = image) -> Tensor:
            handle = layer.register_forward_hook(lambda _, given, output: output + change)
            try:
                return module(image)
            finally:
                handle.remove()

        with torch.no_grad():
            scores = module(image)
        rows = jacobian(moved, torch.zeros(shape)).reshape(scores.numel(), -1)
        diagonal = (rows * (curvature(scores, of_classes) @ rows)).sum(0)
        total.append(diagonal.reshape(shape[1], -1).mean(1))
    return torch.stack(total).mean(0)


def _output_shape(module: nn.Module, layer: nn.Module, image: Tensor) -> torch.Size:
    seen = []
    handle = layer.register_forward_hook(lambda _, given, output: seen.append(output.shape))
    with torch.no_grad():
        module(image)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("output", ["logits", "features"])
@pytest.mark.parametrize("kind", ["classifier", "segmenter"])
def test_the_estimate_is_the_gauss_newton_diagonal_on_average(kind: str, output: str) -> None:
    module = small() if kind == "classifier" else small_map(enlarge=False)
    function = function_of(module, output)
    assert function.of_classes == (output == "logits")
    layers = find_layers(function)
    pixels = function.pixels(pictures(3))
    found = [fisher_information(function, pixels, layers, seed=seed) for seed in range(120)]
    stored = parameter_names(function, module)
    for part, layer in zip(module._modules, layers, strict=True):
        name = stored[f"{part}.weight"]
        assert name == layer.weight
        draws = torch.stack([one[name].diagonal.flatten() for one in found])
        assert bool((draws >= 0).all())
        wanted = exact(module, part, pixels, function.of_classes)
        assert found[0][name].diagonal.shape == (layer.groups, len(wanted) // layer.groups)
        uncertainty = draws.std(0) / len(draws) ** 0.5
        assert bool(((draws.mean(0) - wanted).abs() <= 4.5 * uncertainty + 1e-5 * wanted).all())
        assert float((draws.mean(0) - wanted).norm() / wanted.norm()) < 0.1


def test_with_one_feature_the_estimate_is_exact_in_any_number_of_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    function = function_of(small(1), "features")
    layers = find_layers(function)
    pixels = function.pixels(pictures(5))
    whole = fisher_information(function, pixels, layers)
    monkeypatch.setattr(module, "_PIXELS", 2 * pixels.shape[2] * pixels.shape[3])
    split = fisher_information(function, pixels, layers, seed=7)
    for part, layer in zip(small(1)._modules, layers, strict=True):
        wanted = exact(small(1), part, pixels, of_classes=False)
        for found in (whole, split):
            diagonal = found[layer.weight].diagonal.flatten()
            torch.testing.assert_close(diagonal, wanted, rtol=1e-3, atol=1e-7)
        assert split[layer.weight].coherence == pytest.approx(
            whole[layer.weight].coherence, rel=1e-3
        )


def test_the_seed_alone_decides() -> None:
    function = function_of(small())
    layers = find_layers(function)
    pixels = function.pixels(pictures(3))
    first, again, other = (
        fisher_information(function, pixels, layers, seed=seed)["stem_weight"].diagonal
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def only_layer(module: nn.Module, output: str = "logits", count: int = 5) -> LayerFisher:
    function = function_of(module.eval(), output)
    (layer,) = find_layers(function)
    return fisher_information(function, function.pixels(pictures(count)), [layer])[layer.weight]


@pytest.mark.parametrize("output", ["logits", "features"])
def test_gradients_that_are_equal_at_all_positions_are_wholly_coherent(output: str) -> None:
    found = only_layer(lively(Pooled(torch.ones(1, 1, *SIZE))), output)
    assert found.positions == SIZE[0] * SIZE[1]
    assert found.coherence == pytest.approx(found.positions, rel=1e-3)


@pytest.mark.parametrize("output", ["logits", "features"])
def test_gradients_that_cancel_are_not_coherent_at_all(output: str) -> None:
    signs = torch.ones(1, 1, *SIZE)
    signs[..., 1::2] = -1
    assert only_layer(lively(Pooled(signs)), output).coherence == pytest.approx(0, abs=1e-3)


def test_gradients_at_some_of_the_positions_are_coherent_as_far_as_they_reach() -> None:
    places = torch.zeros(1, 1, *SIZE)
    places[..., :4, :5] = 1
    # At 20 of 120: their mean is 1/6, so is the mean of their squares, and 120 (1/6)² / (1/6) = 20.
    assert only_layer(lively(Pooled(places))).coherence == pytest.approx(20, rel=1e-3)


class Answering(nn.Module):
    """A convolution whose map is the answer, at every position for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, 4, H, W)."""
        return self.only(pixels / 255)


def test_gradients_that_are_independent_have_a_coherence_of_one_on_average() -> None:
    # Of 40 images and 4 channels: the mean of 120 independent signs has a square of 1/120 on
    # average, with a relative standard deviation of sqrt(2), which 160 draws make 0.11.
    found = only_layer(lively(Answering()), "features", count=40)
    assert found.positions == SIZE[0] * SIZE[1]
    assert found.coherence == pytest.approx(1, abs=0.45)
    torch.testing.assert_close(found.diagonal, torch.ones(1, 4))


def test_a_vector_has_one_position() -> None:
    function = function_of(small())
    layers = find_layers(function)
    name = parameter_names(function, small())["head.weight"]
    found = fisher_information(function, function.pixels(pictures(3)), layers)[name]
    assert found.positions == 1
    assert found.coherence == pytest.approx(1, rel=1e-5)
