"""A function of its constants answers as the runtime does, for any batch, and differentiates."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from functions import SIZE, function_of, package_of, parameter_names, pictures, small, small_map
from packages import converted, image
from programs import FAMILIES, decompressed, saved

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package


def expected(package: Path, images: list[np.ndarray], value: str) -> np.ndarray:
    """Run a package image by image in fp32; return a value of the program."""
    runtime = Runtime(load_package(package), arithmetic="fp32")
    (name,) = [feature.name for feature in runtime.function.inputs]
    return np.concatenate(
        [
            runtime.run({name: picture}, outputs=[], intermediates=[value])[value]
            for picture in images
        ]
    )


def assert_close(found: torch.Tensor, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    error = np.abs(found.detach().numpy() - wanted).max() / np.abs(wanted).max()
    assert error < 1e-5


def stand_in(kind: str) -> Path:
    if kind in FAMILIES:
        return saved(kind)
    package, _ = converted(kind.removesuffix(" segmenter"), "semantic-segmentation")
    return package.path


@pytest.mark.parametrize("kind", [*FAMILIES, "mobilenet_v2 segmenter"])
def test_a_batch_gives_what_the_runtime_gives_image_by_image(kind: str) -> None:
    package = stand_in(kind)
    function = DifferentiableFunction(load_package(package))
    images = [image(seed=seed) for seed in range(3)]
    found = function(images)
    assert_close(found, expected(package, images, function.scores))
    assert_close(torch.cat([function([one]) for one in images]), found.detach().numpy())
    assert float(found.detach().std(0).min()) > 0


@pytest.mark.parametrize("family", ["mobilevitv2"])
def test_programs_arithmetic_rounds_as_the_runtime_does(family: str) -> None:
    package = load_package(saved(family))
    rounded = DifferentiableFunction(package, arithmetic="program")
    runtime, exact = Runtime(package), DifferentiableFunction(package)
    (name,) = [feature.name for feature in runtime.function.inputs]
    for seed in range(2):
        picture = image(seed=seed)
        given = {name: picture}
        wanted = runtime.run(given, outputs=[], intermediates=[rounded.scores])[rounded.scores]
        with torch.no_grad():
            found, unrounded = rounded([picture]).numpy(), exact([picture]).numpy()
        assert found.dtype == wanted.dtype == np.float16
        rounding = np.abs(found - unrounded).max()
        assert 0 < rounding < 0.02 * np.abs(unrounded).max()
        # Both round after each operation, mostly to the same numbers: sums of the same terms in
        # another order rarely lie on both sides of a half.
        assert np.abs(found - wanted).max() <= 0.3 * rounding
    with torch.no_grad():
        zeros = {name: torch.zeros_like(tensor) for name, tensor in rounded.constants.items()}
        assert float(rounded([image()], zeros).abs().max()) == 0
    assert {tensor.dtype for tensor in rounded.constants.values()} == {torch.float32}


def test_the_scores_of_a_segmenter_are_maps_before_they_are_enlarged() -> None:
    function = DifferentiableFunction(load_package(stand_in("mobilenet_v2 segmenter")))
    assert function.of_classes
    assert function([image()]).shape == (1, 7, 4, 4)


def test_a_converted_module_gives_what_torch_gives() -> None:
    for module in (small(), small_map(enlarge=False)):
        function = function_of(module)
        pixels = function.pixels(pictures(3))
        with torch.no_grad():
            assert_close(function(pixels), module(pixels).numpy())


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_constants_are_those_that_the_module_has(precision: str) -> None:
    function = function_of(small(), precision=precision)
    names = parameter_names(function, small())
    for name, parameter in small().named_parameters():
        stored = (
            parameter.detach().numpy().astype({"fp16": "float16", "fp32": "float32"}[precision])
        )
        found = function.constants[names[name]]
        assert found.dtype is torch.float32
        np.testing.assert_array_equal(found.numpy(), stored.astype(np.float32))
        assert function.dtypes[names[name]] == stored.dtype


def test_palettized_constants_come_decoded(tmp_path: Path) -> None:
    ct = load_coremltools()
    import coremltools.optimize.coreml as cto

    whole = ct.models.MLModel(str(package_of(small())), skip_model_load=True)
    config = cto.OpPalettizerConfig(mode="uniform", nbits=2, weight_threshold=0)
    with quiet():
        palettized = cto.palettize_weights(whole, cto.OptimizationConfig(config))
    package = tmp_path / "palettized.mlpackage"
    palettized.save(str(package))
    function = DifferentiableFunction(load_package(package))
    stored = {name: tensor for name, tensor in function.constants.items() if tensor.dim() > 1}
    decoded = [array for array in decompressed(package).values() if array.ndim > 1]
    assert len(stored) == 5
    for tensor in stored.values():
        assert any(np.array_equal(tensor.numpy(), array) for array in decoded)
        assert len(tensor.unique()) <= 4


def test_gradients_are_those_of_the_module() -> None:
    function = function_of(small())
    pixels = function.pixels(pictures(4))
    leaves = {n: t.clone().requires_grad_() for n, t in function.constants.items()}
    small().zero_grad()
    (function(pixels, leaves) ** 3).sum().backward()
    (small()(pixels) ** 3).sum().backward()
    for name, stored in parameter_names(function, small()).items():
        wanted = small().get_parameter(name).grad
        torch.testing.assert_close(leaves[stored].grad, wanted, rtol=1e-3, atol=1e-4)
    small().zero_grad()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_in_the_constants_of_every_family_are_finite_differences(family: str) -> None:
    function = DifferentiableFunction(load_package(saved(family)))
    pixels = function.pixels([image(seed=seed) for seed in range(2)]).double()
    generator = torch.Generator().manual_seed(0)
    directions = {
        name: torch.randn(tensor.shape, generator=generator) * tensor.std(correction=0)
        for name, tensor in function.constants.items()
    }
    probe = torch.randn(2, 7, generator=generator)

    def loss(step: torch.Tensor) -> torch.Tensor:
        moved = {n: t.double() + step * directions[n] for n, t in function.constants.items()}
        return (function(pixels, moved) * probe).sum()

    at = torch.zeros((), dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(at), at)
    with torch.no_grad():
        step = torch.tensor(1e-6, dtype=torch.double)
        difference = (loss(step) - loss(-step)) / (2 * step)
    assert float(gradient) == pytest.approx(float(difference), rel=1e-3)


def test_replaced_constants_take_part_in_place_of_the_stored_ones() -> None:
    function = function_of(small())
    name = parameter_names(function, small())["grouped.weight"]
    pixels = function.pixels(pictures(2))
    changed = torch.randn(
        function.constants[name].shape, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        wanted = torch.func.functional_call(small(), {"grouped.weight": changed}, (pixels,))
        before = function(pixels)
        assert_close(function(pixels, {name: changed}), wanted.numpy())
        torch.testing.assert_close(function(pixels), before, rtol=0, atol=0)
    assert float((wanted - before).abs().max()) > 0.05


def test_intermediate_values_have_an_axis_for_the_images_before_their_own() -> None:
    package = saved("mobilevit")
    function = DifferentiableFunction(load_package(package))
    declared = {
        output.name: tuple(output.type.shape)  # type: ignore[union-attr]
        for step, _ in function.schedule
        for output in step.operation.outputs
    }
    patches = [name for name, shape in declared.items() if shape[0] != 1]
    maps = [name for name, shape in declared.items() if shape[0] == 1]
    assert patches
    images = [image(seed=seed) for seed in range(2)]
    execution = function.start(function.pixels(images))
    for step, _ in function.schedule:
        execution.advance(step)
    for name in (patches[len(patches) // 2], maps[10], function.scores):
        wanted = expected(package, images, name).reshape(2, *declared[name])
        assert_close(execution.values[function.number(name)], wanted)


def test_an_image_has_the_colour_order_of_the_program() -> None:
    function = DifferentiableFunction(load_package(saved("mobilevit")))
    assert function.image.color_order == "bgr"
    picture = image()
    found = function.pixels([picture, picture[::-1]])
    np.testing.assert_array_equal(found[0].numpy(), picture[:, :, ::-1].transpose(2, 0, 1))
    np.testing.assert_array_equal(found[1].numpy(), picture[::-1, :, ::-1].transpose(2, 0, 1))


def test_live_bytes_are_those_of_one_images_values() -> None:
    function = function_of(small_map(enlarge=False))
    height, width = SIZE
    inside = (height // 2) * (width // 2)
    # Input, scaled, shifted; then both ends of every operation, channels x positions x 4 bytes.
    pixels = 3 * height * width
    wanted = [2 * pixels, 2 * pixels, pixels + 6 * inside, 12 * inside, (6 + 4) * inside]
    found = function.live_bytes(function.pixels(pictures(1)))
    assert found == [4 * numbers for numbers in wanted]


def test_numbers_and_names_of_constants_go_together() -> None:
    function = function_of(small())
    taken = {
        function.constant_name(number) for step, _ in function.schedule for number in step.sources()
    }
    assert set(function.constants) == taken - {None}
    assert function.constant_name(function.number(function.scores)) is None


def test_errors_name_what_is_wrong() -> None:
    function = function_of(small())
    images = pictures(1)
    with pytest.raises(InputError, match="no constant 'nonsense'"):
        function(images, {"nonsense": torch.zeros(1)})
    with pytest.raises(InputError, match=r"'stem_weight' has shape \[8\], not \[8, 3, 3, 3\]"):
        function(images, {"stem_weight": torch.zeros(8)})
    with pytest.raises(InputError, match="fit the image to 10x12 pixels"):
        function([images[0][:-1]])


def test_packages_that_take_something_else_than_one_image_are_refused() -> None:
    package = load_package(saved("mobilevit"))
    function = package.function()
    twice = dataclasses.replace(function, inputs=(*function.inputs, *function.inputs))
    changed = dataclasses.replace(package, functions={function.name: twice})
    with pytest.raises(PackageError):
        DifferentiableFunction(changed)
