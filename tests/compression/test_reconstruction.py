"""Layers reconstructed one after another do what they did, better than k-means makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from functions import (
    Products,
    SharedParameters,
    few_valued_products,
    function_of,
    package_of,
    parameter_names,
    pictures,
    shared_parameters,
    small,
)
from packages import image
from PIL import Image
from programs import saved
from torch import Tensor
from torch.nn import functional as F

from mvit_coreml import ConvertOptions, convert, load_checkpoint
from mvit_coreml.compression.apply_plan import apply_plan
from mvit_coreml.compression.calibration import reconstruction
from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    Quality,
    compare_scores,
    scores,
)
from mvit_coreml.compression.calibration.gptq import palettize_layer
from mvit_coreml.compression.calibration.linear_layers import Layer, find_layers
from mvit_coreml.compression.calibration.reconstruction import (
    TunedWeights,
    reconstruct,
)
from mvit_coreml.compression.calibration.tuner import Tuner
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettizable_weights import program_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.compression.plan import PlanValues, make_plan
from mvit_coreml.errors import InputError
from mvit_coreml.export.torch_to_mil import read_program
from mvit_coreml.mil.package_reader import load_package

WEIGHTS = ("stem", "depthwise", "grouped", "expand", "head")


def named(function: DifferentiableFunction, choices: dict[str, Choice]) -> dict[str, Choice]:
    names = parameter_names(function, small())
    return {names[f"{part}.weight"]: choice for part, choice in choices.items()}


def plain(function: DifferentiableFunction, choices: dict[str, Choice]) -> TunedWeights:
    """Palettize by k-means alone."""
    jobs = {
        name: ClusterJob(function.constants[name].numpy().astype(function.dtypes[name]), choice)
        for name, choice in choices.items()
    }
    return TunedWeights(cluster_weights(jobs))


def judge(function: DifferentiableFunction, weights: TunedWeights, pixels: Tensor) -> Quality:
    found = scores(function, pixels, weights.tensors())
    return compare_scores(found, scores(function, pixels), function.activation)


def relative(found: np.ndarray, wanted: Tensor) -> float:
    return float(np.linalg.norm(found - wanted.numpy()) / wanted.norm())


def test_many_entries_leave_weights_and_answers_nearly_unchanged() -> None:
    function = function_of(small())
    choices = named(function, dict.fromkeys(WEIGHTS, Choice(8)))
    found = reconstruct(function, function.pixels(pictures(24)), choices)
    assert list(found.palettes) == [name for name in function.constants if name in choices]
    for name, palette in found.palettes.items():
        assert relative(palette.decode(), function.constants[name]) < 0.01
    for name, bias in found.constants.items():
        np.testing.assert_allclose(bias, function.constants[name].numpy(), atol=0.02)
    assert judge(function, found, function.pixels(pictures(8, seed=1))).snr > 40


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_uncompressed_layers_come_as_constants_of_the_stored_type(precision: str) -> None:
    function = function_of(small(), precision=precision)
    names = parameter_names(function, small())
    choices = named(function, {"stem": Choice(2), "grouped": Choice(3), "head": UNCOMPRESSED})
    found = reconstruct(function, function.pixels(pictures(24)), choices)
    dtype = {"fp16": np.float16, "fp32": np.float32}[precision]
    assert set(found.palettes) == {names["stem.weight"], names["grouped.weight"]}
    kept = {names[f"{part}.weight"] for part in ("depthwise", "expand", "head")}
    biases = {names[f"{part}.bias"] for part in ("stem", "depthwise", "grouped", "head")}
    assert set(found.constants) == kept | biases
    for name, value in found.constants.items():
        assert value.dtype == dtype
        assert value.shape == tuple(function.constants[name].shape)
    for name, palette in found.palettes.items():
        assert palette.lut.dtype == dtype
        assert palette.bits == choices[name].bits
        assert palette.decode().dtype == dtype
        assert palette.indices.shape == tuple(function.constants[name].shape)
    decoded = found.tensors()
    assert set(decoded) == set(found.palettes) | set(found.constants)
    assert {tensor.dtype for tensor in decoded.values()} == {torch.float32}


def test_without_palettes_nothing_changes() -> None:
    function = function_of(small())
    found = reconstruct(function, function.pixels(pictures(24)), {})
    assert not found.palettes
    for name, value in found.constants.items():
        np.testing.assert_allclose(value, function.constants[name].numpy(), atol=1e-3)


def test_groups_of_channels_get_tables_of_their_own() -> None:
    function = function_of(small())
    choices = named(
        function, {"stem": Choice(2, 4), "depthwise": Choice(1, 2), "grouped": Choice(2, 3)}
    )
    pixels = function.pixels(pictures(24))
    found = reconstruct(function, pixels, choices)
    groups = [palette.lut.shape for palette in found.palettes.values()]
    assert sorted(groups) == [(2, 4), (4, 2), (4, 4)]
    for palette in found.palettes.values():
        decoded = palette.decode()
        for part, table in zip(np.split(decoded, palette.groups), palette.lut, strict=True):
            assert set(np.unique(part)) <= set(table)
    held_out = function.pixels(pictures(16, seed=1))
    quality = judge(function, found, held_out)
    assert quality.divergence < 0.8 * judge(function, plain(function, choices), held_out).divergence


def test_groups_run_along_the_output_channels_wherever_these_lie() -> None:
    function = function_of(few_valued_products())
    choices = {name: Choice(2, size) for name, size in Products.GROUP_SIZES.items()}
    pixels = function.pixels(pictures(16))
    found = reconstruct(function, pixels, choices)
    tuner = Tuner(function, pixels[:12], pixels[12:])
    for palettes in (found.palettes, tuner.reconstruct(choices).weights.palettes):
        for name, palette in palettes.items():
            assert palette.axis == Products.AXES[name]
            # Four values in each group of output channels are met by its four entries.
            np.testing.assert_array_equal(palette.decode(), function.constants[name].numpy())
    program, _ = read_program(package_of(few_valued_products()))
    weights = [(info, op.outputs[0].val) for info, op in program_weights(program)]
    values = PlanValues(palettes=found.palettes)
    plan = make_plan(weights, choices, ios=18, source_sha256="", values=values)
    for name, palette in apply_plan(program, plan, values).items():
        np.testing.assert_array_equal(palette.decode(), function.constants[name].numpy())


def test_the_same_comes_out_twice() -> None:
    function = function_of(small(), precision="fp16")
    choices = named(function, dict.fromkeys(WEIGHTS, Choice(2)))
    pixels = function.pixels(pictures(20))
    first, again = (reconstruct(function, pixels, choices) for _ in range(2))
    for name, palette in first.palettes.items():
        assert palette.lut.tobytes() == again.palettes[name].lut.tobytes()
        assert palette.indices.tobytes() == again.palettes[name].indices.tobytes()
    for name, value in first.constants.items():
        assert value.tobytes() == again.constants[name].tobytes()


def test_progress_counts_the_layers() -> None:
    function = function_of(small())
    seen = []
    reconstruct(
        function,
        function.pixels(pictures(8)),
        {},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(done, 5) for done in range(1, 6)]


def test_a_layer_behind_a_palettized_one_is_refitted_by_ridge_regression() -> None:
    function = function_of(small())
    names = parameter_names(function, small())
    pixels = function.pixels(pictures(24))
    found = reconstruct(function, pixels, named(function, {"stem": Choice(2)}))

    # What the second layer gets with the palettized first one, and got, from torch itself.
    def inputs(parameters: dict[str, Tensor]) -> np.ndarray:
        with torch.no_grad():
            x = pixels / 127.5 - 1
            x = F.conv2d(x, parameters["stem.weight"], parameters["stem.bias"], 2, 1)
            seen = F.unfold(F.silu(x), 3, padding=1)
        return seen.unflatten(1, (8, 9)).permute(1, 2, 0, 3).flatten(2).double().numpy()

    original = {name: parameter.detach() for name, parameter in small().named_parameters()}
    tensors = found.tensors()
    replaced = {part: tensors[names[part]] for part in ("stem.weight", "stem.bias")}
    now, before = inputs(original | replaced), inputs(original)
    weight = original["depthwise.weight"].reshape(8, 9).double().numpy()
    stored = tensors[names["depthwise.weight"]].reshape(8, 9).double().numpy()
    assert np.abs(stored - weight).max() > 0.01

    def fitted(ridge: float) -> np.ndarray:
        rows = []
        power = [((x - x.mean(1, keepdims=True)) ** 2).sum(1) for x in now]
        for own, x, y, energy in zip(weight, now, before, power, strict=True):
            x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
            strength = ridge * energy + 1e-3 * energy.mean() + 1e-6 * np.mean(power)
            design = np.concatenate([x.T, np.diag(np.sqrt(strength))])
            wanted = np.concatenate([own @ y, np.sqrt(strength) * own])
            rows.append(np.linalg.lstsq(design, wanted, rcond=None)[0])
        return np.stack(rows)

    misses = [np.abs(fitted(ridge) - stored).max() for ridge in reconstruction._RIDGES]
    assert min(misses) < 1e-3
    bias = original["depthwise.bias"].numpy() + (
        (weight * before.mean(2)).sum(1) - (stored * now.mean(2)).sum(1)
    )
    np.testing.assert_allclose(tensors[names["depthwise.bias"]].numpy(), bias, atol=1e-4)


def test_what_layers_share_is_palettized_by_k_means_and_shared_biases_stay() -> None:
    function = function_of(shared_parameters())
    assert isinstance(shared_parameters(), SharedParameters)
    choice = Choice(2)
    choices = dict.fromkeys(("stem_weight", "twice_weight", "left_weight"), choice)
    found = reconstruct(function, function.pixels(pictures(20)), choices)
    assert set(found.palettes) == set(choices)
    assert set(found.constants) == {"stem_bias", "right_weight"}
    alone = plain(function, {"twice_weight": choice}).palettes["twice_weight"]
    np.testing.assert_array_equal(found.palettes["twice_weight"].decode(), alone.decode())


@pytest.mark.parametrize(("family", "bits"), [("mobilevitv2", 3), ("mobilenet_v2", 4)])
def test_answers_on_other_images_are_far_closer_than_with_k_means(family: str, bits: int) -> None:
    function = DifferentiableFunction(load_package(saved(family)))
    pixels = function.pixels([image(seed=seed) for seed in range(28)])
    choices = {
        layer.weight: Choice(bits)
        for layer in find_layers(function)
        if function.constants[layer.weight].numel() > 500
    }
    found = reconstruct(function, pixels[:16], choices)
    alone = judge(function, plain(function, choices), pixels[16:])
    quality = judge(function, found, pixels[16:])
    assert quality.divergence < alone.divergence / 3
    assert quality.snr > alone.snr + 4


def watched(monkeypatch: pytest.MonkeyPatch) -> list[reconstruction._Palettizing]:
    """Keep every run that is started."""
    runs: list[reconstruction._Palettizing] = []

    class Watched(reconstruction._Palettizing):
        def join(self, index: int) -> None:
            super().join(index)
            if self not in runs:
                runs.append(self)
                self.sizes: list[int] = []
            self.sizes.append(sum(len(original) for original, _ in self.runs))

    monkeypatch.setattr(reconstruction, "_Palettizing", Watched)
    return runs


def test_images_that_join_later_lead_to_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    function = function_of(small())
    choices = named(function, dict.fromkeys(WEIGHTS, Choice(3)))
    pixels = function.pixels(pictures(64))
    held_out = function.pixels(pictures(32, seed=1))
    runs = watched(monkeypatch)
    whole = judge(function, reconstruct(function, pixels, choices), held_out)
    # Room for 20 images at the widest step, and for all of them later on.
    live = function.live_bytes(pixels[:1])
    monkeypatch.setattr(reconstruction, "_LIVE_BYTES", 2 * 20 * max(live))
    found = reconstruct(function, pixels, choices)
    assert set(runs[0].sizes) == {64}
    assert runs[1].sizes[0] == 16
    assert runs[1].sizes == sorted(runs[1].sizes)
    assert runs[1].sizes[-1] > 40
    part = judge(function, found, held_out)
    assert part.divergence < 2 * whole.divergence
    assert whole.divergence < 2 * part.divergence
    # Whenever images joined, they went through what the others had gone through.
    number = function.number(function.scores)
    before, now = (
        torch.cat([execution.values[number][:, 0] for execution in executions])
        for executions in zip(*runs[1].runs, strict=True)
    )
    seen = pixels[: len(now)]
    torch.testing.assert_close(now, scores(function, seen, found.tensors()))
    torch.testing.assert_close(before, scores(function, seen))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_few_images_are_enough_to_run(count: int) -> None:
    function = function_of(small())
    choices = named(function, dict.fromkeys(WEIGHTS, Choice(4)))
    found = reconstruct(function, function.pixels(pictures(count)), choices)
    assert judge(function, found, function.pixels(pictures(8, seed=1))).snr > 5


def test_groups_that_do_not_divide_the_channels_are_refused_by_name() -> None:
    function = function_of(small())
    choices = named(function, {"head": Choice(2, 2)})
    with pytest.raises(InputError, match=r"'head_weight': a group size of 2 does not divide its 5"):
        reconstruct(function, function.pixels(pictures(4)), choices)


@pytest.fixture(scope="module")
def trained(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = load_checkpoint(real_data / "mobilevit_xxs_cifar10_64")
    options = ConvertOptions(bits=None, output="logits")
    path = tmp_path_factory.mktemp("trained") / "xxs.mlpackage"
    return convert(checkpoint, options, path, check=False).path


def prepared(real_data: Path, kind: str, count: int) -> list[np.ndarray]:
    files = sorted(path for path in (real_data / "cifar10" / kind).rglob("*.*"))
    chosen = files[:: len(files) // count][:count]
    enlarged = [Image.open(path).resize((72, 72), Image.Resampling.BILINEAR) for path in chosen]
    return [np.asarray(picture)[4:68, 4:68] for picture in enlarged]


def test_a_trained_model_at_four_bits_agrees_far_more_often(real_data: Path, trained: Path) -> None:
    function = DifferentiableFunction(load_package(trained))
    choices = {
        layer.weight: Choice(4)
        for layer in find_layers(function)
        if function.constants[layer.weight].numel() > 2048
    }
    fitting = function.pixels(prepared(real_data, "calibration", 64))
    judging = function.pixels(prepared(real_data, "evaluation", 125))
    found = judge(function, reconstruct(function, fitting, choices), judging)
    alone = judge(function, plain(function, choices), judging)
    assert found.agreement is not None
    assert alone.agreement is not None
    assert found.agreement > alone.agreement + 0.1
    assert found.agreement > 0.93


def test_what_only_dead_inputs_use_stays_in_range():
    """Nothing in the images says what weights of inputs that are always zero should be."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 8, 32, generator=generator)
    # The largest weights, which nearly all entries are left for, are those of dead inputs.
    weight[:, :, 16:] *= 20
    samples = torch.randn(1, 32, 400, generator=generator)
    samples[:, 16:] *= 1e-4
    layer = Layer(0, cast(Any, None), "weight", None, 0, (8, 32, 1, 1), 1)
    found = palettize_layer(
        layer,
        weight,
        samples @ samples.mT,
        torch.ones(1, 8),
        Choice(6),
        np.dtype(np.float16),
    )
    assert np.abs(found.lut).max() < 1.1 * float(weight.abs().max())
