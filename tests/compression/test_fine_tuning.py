"""Polishing takes Adam's steps down the divergence, in the stored types."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from functions import function_of, parameter_names, pictures, small
from torch import Tensor

from mvit_coreml.compression.calibration import fine_tuning as polishing
from mvit_coreml.compression.calibration.answer_quality import compare_scores, scores
from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.compression.calibration.fine_tuning import Polisher
from mvit_coreml.compression.calibration.reconstruction import TunedWeights
from mvit_coreml.compression.cluster_weights import ClusterJob, cluster_weights
from mvit_coreml.compression.palettized_weight import Choice

CHOICES = {
    "stem.weight": Choice(2),
    "grouped.weight": Choice(2, 3),
    "head.weight": Choice(3),
}


def start_of(function: DifferentiableFunction, **constants: np.ndarray) -> TunedWeights:
    names = parameter_names(function, small())
    jobs = {
        names[name]: ClusterJob(
            function.constants[names[name]].numpy().astype(function.dtypes[names[name]]), choice
        )
        for name, choice in CHOICES.items()
    }
    return TunedWeights(cluster_weights(jobs), constants)


def adam(
    function: DifferentiableFunction,
    start: TunedWeights,
    pixels: Tensor,
    sizes: tuple[float, float],
) -> dict:
    """Take 12 steps of torch's own Adam, on the module itself and all images at once."""
    names = parameter_names(function, small())
    leaves: dict[str, Tensor] = {}
    for name, parameter in small().named_parameters():
        if name in CHOICES:
            leaves[name] = torch.from_numpy(start.palettes[names[name]].lut.copy())
        elif parameter.dim() == 1:
            leaves[name] = parameter.detach().clone()
    rates = {
        name: sizes[0 if name in CHOICES else 1] * float(leaf.std(correction=0))
        for name, leaf in leaves.items()
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    optimizer = torch.optim.Adam(
        [{"params": [leaf], "name": name} for name, leaf in leaves.items()], eps=1e-12
    )
    with torch.no_grad():
        wanted = small()(pixels).softmax(1)
    for step in range(12):
        for group in optimizer.param_groups:
            group["lr"] = rates[group["name"]] * min(1.0, (step + 1) / 10)
        parameters = {}
        for name, leaf in leaves.items():
            if name in CHOICES:
                palette = start.palettes[names[name]]
                table_of = np.arange(len(palette.indices)) // palette.group_size
                indices = torch.from_numpy(palette.indices.astype(np.int64)).flatten(1)
                weight = torch.stack(
                    [leaf[table][own] for table, own in zip(table_of, indices, strict=True)]
                )
                parameters[name] = weight.reshape(palette.indices.shape)
            else:
                parameters[name] = leaf
        answers = torch.func.functional_call(small(), parameters, (pixels,))
        loss = (wanted * (wanted.log() - answers.log_softmax(1))).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: leaf.detach() for name, leaf in leaves.items()}


@pytest.mark.parametrize("sizes", [None, (0.02, 0.05)])
def test_steps_are_those_of_torchs_adam(
    sizes: tuple[float, float] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sizes is not None:
        # So large that gradients change from step to step.
        monkeypatch.setattr(polishing, "_TABLE_STEP", sizes[0])
        monkeypatch.setattr(polishing, "_VECTOR_STEP", sizes[1])
    function = function_of(small())
    names = parameter_names(function, small())
    start = start_of(function)
    # Two uneven micro-batches.
    pixels = function.pixels(pictures(13))
    polisher = Polisher(function, start, pixels)
    for _ in range(12):
        polisher.step()
    assert polisher.steps == 12
    wanted = adam(function, start, pixels, sizes or (5e-5, 4e-4))
    found = polisher.weights()
    for name, leaf in wanted.items():
        stored = names[name]
        if name in CHOICES:
            first, last = start.palettes[stored].lut, found.palettes[stored].lut
            np.testing.assert_array_equal(
                found.palettes[stored].indices, start.palettes[stored].indices
            )
        else:
            first, last = function.constants[stored].numpy(), found.constants[stored]
        moved = leaf.numpy() - first
        assert np.abs(moved).max() > 0
        # In fp32 entries of about 1 that move by 1e-5 are known to 1e-7.
        tolerance = 0.03 if sizes is None else 5e-4
        np.testing.assert_allclose(last - first, moved, atol=tolerance * np.abs(moved).max())


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_weights_come_in_the_stored_types(precision: str) -> None:
    function = function_of(small(), precision=precision)
    dtype = {"fp16": np.float16, "fp32": np.float32}[precision]
    names = parameter_names(function, small())
    expand = np.full((16, 12, 1, 1), 0.25, dtype)
    start = start_of(function, **{names["expand.weight"]: expand})
    polisher = Polisher(function, start, function.pixels(pictures(8)))
    for _ in range(3):
        polisher.step()
    found = polisher.weights()
    assert found.constants[names["expand.weight"]] is expand
    biases = {names[f"{part}.bias"] for part in ("stem", "depthwise", "grouped", "head")}
    assert set(found.constants) == biases | {names["expand.weight"]}
    for name in biases:
        assert found.constants[name].dtype == dtype
        wide = polisher.vectors[name].numpy()
        np.testing.assert_array_equal(found.constants[name], wide.astype(dtype))
        assert np.abs(wide - function.constants[name].numpy()).max() > 0
    assert list(found.palettes) == list(start.palettes)
    for name, palette in found.palettes.items():
        assert palette.lut.dtype == dtype
        np.testing.assert_array_equal(palette.lut, polisher.tables[name].numpy().astype(dtype))
        assert np.abs(polisher.tables[name].numpy() - start.palettes[name].lut).max() > 0


def test_gradients_of_rounded_entries_are_those_of_the_rounded_weights() -> None:
    function = function_of(small(), precision="fp16")
    names = parameter_names(function, small())
    start = start_of(function)
    pixels = function.pixels(pictures(6))
    polisher = Polisher(function, start, pixels)
    name = names["head.weight"]
    table = polisher.tables[name]
    table += 2e-4 * table
    rounded = table.half().float()
    assert not torch.equal(rounded, table)
    head = rounded[0, torch.from_numpy(start.palettes[name].indices.astype(np.int64))]
    head.requires_grad_()
    others = {n: t for n, t in start.tensors().items() if n != name}
    answers = function(pixels, {**others, name: head})
    wanted = function(pixels).detach().softmax(1)
    (wanted * (wanted.log() - answers.log_softmax(1))).sum(1).mean().backward()
    assert head.grad is not None
    by_entry = [
        float(head.grad[torch.from_numpy(start.palettes[name].indices == entry)].sum())
        for entry in range(8)
    ]
    found = dict(
        zip(
            [*polisher.tables, *polisher.vectors],
            polisher._gradients(torch.arange(6), 6),
            strict=True,
        )
    )
    np.testing.assert_allclose(found[name][0].numpy(), by_entry, rtol=3e-5, atol=1e-7)


def test_it_starts_from_the_constants_it_is_given() -> None:
    function = function_of(small())
    name = parameter_names(function, small())["stem.bias"]
    given = np.linspace(-1, 1, 8).astype(np.float32)
    polisher = Polisher(function, start_of(function, **{name: given}), function.pixels(pictures(4)))
    np.testing.assert_array_equal(polisher.weights().constants[name], given)


def test_every_image_takes_part_once_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    function = function_of(small())
    polisher = Polisher(function, start_of(function), function.pixels(pictures(40)))
    seen: list[list[int]] = []
    gradients = polisher._gradients

    def watched(images: Tensor, total: int) -> list[Tensor]:
        seen.append(images.tolist())
        return gradients(images, total)

    monkeypatch.setattr(polisher, "_gradients", watched)
    for _ in range(4):
        polisher.step()
    drawn = [image for part in seen for image in part]
    assert sorted(drawn[:40]) == sorted(drawn[40:]) == list(range(40))
    assert drawn[:40] != drawn[40:]


def test_the_divergence_falls_also_on_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # The steps that suit trained models are far too small to be seen here.
    monkeypatch.setattr(polishing, "_TABLE_STEP", 0.005)
    monkeypatch.setattr(polishing, "_VECTOR_STEP", 0.01)
    function = function_of(small(), precision="fp16")
    pixels, others = function.pixels(pictures(32)), function.pixels(pictures(32, seed=1))

    def noise(weights: TunedWeights, images: Tensor) -> float:
        found = scores(function, images, weights.tensors())
        return compare_scores(found, scores(function, images), function.of_classes).divergence

    start = start_of(function)
    polisher = Polisher(function, start, pixels)
    for _ in range(25):
        polisher.step()
    found = polisher.weights()
    assert noise(found, pixels) < 0.6 * noise(start, pixels)
    assert noise(found, others) < 0.7 * noise(start, others)
