"""Fine-tuning takes Adam's steps down the divergence, in the stored types; views are crops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from functions import function_of, parameter_names, pictures, small
from torch import Tensor

from mvit_coreml.compression.calibration import fine_tuning as module
from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    compare_scores,
    scores,
)
from mvit_coreml.compression.calibration.fine_tuning import FineTuner, random_views
from mvit_coreml.compression.calibration.reconstruction import TunedWeights
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettized_weight import Choice

pytestmark = pytest.mark.fast

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
        monkeypatch.setattr(module, "_TABLE_STEP", sizes[0])
        monkeypatch.setattr(module, "_VECTOR_STEP", sizes[1])
    function = function_of(small())
    names = parameter_names(function, small())
    start = start_of(function)
    # Two uneven micro-batches.
    pixels = function.pixels(pictures(13))
    tuner = FineTuner(function, start, pixels)
    for _ in range(12):
        tuner.step()
    assert tuner.steps == 12
    wanted = adam(function, start, pixels, sizes or (5e-5, 4e-4))
    found = tuner.weights()
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
    tuner = FineTuner(function, start, function.pixels(pictures(8)))
    for _ in range(3):
        tuner.step()
    found = tuner.weights()
    assert found.constants[names["expand.weight"]] is expand
    biases = {names[f"{part}.bias"] for part in ("stem", "depthwise", "grouped", "head")}
    assert set(found.constants) == biases | {names["expand.weight"]}
    for name in biases:
        assert found.constants[name].dtype == dtype
        wide = tuner.vectors[name].numpy()
        np.testing.assert_array_equal(found.constants[name], wide.astype(dtype))
        assert np.abs(wide - function.constants[name].numpy()).max() > 0
    assert list(found.palettes) == list(start.palettes)
    for name, palette in found.palettes.items():
        assert palette.lut.dtype == dtype
        np.testing.assert_array_equal(palette.lut, tuner.tables[name].numpy().astype(dtype))
        assert np.abs(tuner.tables[name].numpy() - start.palettes[name].lut).max() > 0


def test_gradients_of_rounded_entries_are_those_of_the_rounded_weights() -> None:
    function = function_of(small(), precision="fp16")
    names = parameter_names(function, small())
    start = start_of(function)
    pixels = function.pixels(pictures(6))
    tuner = FineTuner(function, start, pixels)
    name = names["head.weight"]
    table = tuner.tables[name]
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
            [*tuner.tables, *tuner.vectors],
            tuner._gradients(torch.arange(6), 6),
            strict=True,
        )
    )
    np.testing.assert_allclose(found[name][0].numpy(), by_entry, rtol=3e-5, atol=1e-7)


def test_it_starts_from_the_constants_it_is_given() -> None:
    function = function_of(small())
    name = parameter_names(function, small())["stem.bias"]
    given = np.linspace(-1, 1, 8).astype(np.float32)
    tuner = FineTuner(function, start_of(function, **{name: given}), function.pixels(pictures(4)))
    np.testing.assert_array_equal(tuner.weights().constants[name], given)


def test_every_image_takes_part_once_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    function = function_of(small())
    tuner = FineTuner(function, start_of(function), function.pixels(pictures(40)))
    seen: list[list[int]] = []
    gradients = tuner._gradients

    def watched(images: Tensor, total: int) -> list[Tensor]:
        seen.append(images.tolist())
        return gradients(images, total)

    monkeypatch.setattr(tuner, "_gradients", watched)
    for _ in range(4):
        tuner.step()
    drawn = [image for part in seen for image in part]
    assert sorted(drawn[:40]) == sorted(drawn[40:]) == list(range(40))
    assert drawn[:40] != drawn[40:]


def test_the_divergence_falls_also_on_other_images(monkeypatch: pytest.MonkeyPatch) -> None:
    # The steps that suit trained models are far too small to be seen here.
    monkeypatch.setattr(module, "_TABLE_STEP", 0.005)
    monkeypatch.setattr(module, "_VECTOR_STEP", 0.01)
    function = function_of(small(), precision="fp16")
    pixels, others = function.pixels(pictures(32)), function.pixels(pictures(32, seed=1))

    def noise(weights: TunedWeights, images: Tensor) -> float:
        found = scores(function, images, weights.tensors())
        return compare_scores(found, scores(function, images), function.activation).divergence

    start = start_of(function)
    tuner = FineTuner(function, start, pixels)
    for _ in range(25):
        tuner.step()
    found = tuner.weights()
    assert noise(found, pixels) < 0.6 * noise(start, pixels)
    assert noise(found, others) < 0.7 * noise(start, others)


def noise_pictures(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).float()


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("size", [(32, 32), (20, 48)])
def test_as_many_views_as_asked_for_have_the_size_of_pictures(
    count: int, size: tuple[int, int]
) -> None:
    found = random_views(noise_pictures(3, *size), count, seed=0)
    assert found.shape == (count, 3, *size)
    assert found.dtype is torch.float32
    assert torch.equal(found, found.round())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 255


def test_no_views_of_no_pictures_asked_for() -> None:
    assert random_views(noise_pictures(3, 8, 9), 0, seed=0).shape == (0, 3, 8, 9)


def test_pictures_take_turns() -> None:
    colours = torch.tensor([10.0, 90.0, 200.0])
    plain = colours[:, None, None, None].expand(3, 3, 16, 16)
    found = random_views(plain, 8, seed=3)
    wanted = [10, 90, 200, 10, 90, 200, 10, 90]
    assert [sorted(set(view.flatten().tolist())) for view in found] == [[each] for each in wanted]


def test_crops_keep_at_least_a_third_of_the_area_and_half_are_mirrored() -> None:
    width = 200
    ramp = torch.linspace(0, 255, width).expand(1, 3, width, width)
    both = torch.stack([ramp[0], ramp[0].mT])
    found = random_views(both, 400, seed=0)
    across, down = found[0::2, 0, 0, :], found[1::2, 0, :, 0]
    mirrored = across[:, 0] > across[:, -1]
    assert 70 < int(mirrored.sum()) < 130
    assert bool((down[:, 0] < down[:, -1]).all())
    for lines in (across, down):
        part = (lines.amax(1) - lines.amin(1)) / 255
        assert float(part.min()) > 0.35**0.5 - 0.02
        assert float(part.min()) < 0.65
        assert float(part.max()) > 0.97
    # Crops lie all over the picture.
    assert float(down[:, 0].max()) > 60
    assert float(down[:, -1].min()) < 195


def test_the_seed_alone_decides() -> None:
    pixels = noise_pictures(4, 24, 24)
    first, again, other = (random_views(pixels, 6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
