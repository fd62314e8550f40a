"""Packages that compute in 8 bits: converted, made of others, judged, and their faults caught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults.editor import PackageEditor
from fitting import fitted_checkpoint, write_images
from packages import converted, read_tree, small_checkpoint
from plain_packages import SIDE, Plain, SmallNetwork, convert_plainly, write_photos

from mvit_coreml import (
    ConvertOptions,
    PaletteOptions,
    Promise,
    convert,
    inspect_package,
    palettize_package,
    quantize_package,
    validate,
)
from mvit_coreml.compression.quantization.quantization_plan_file import read_quantization
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.export.torch_to_mil import read_program
from mvit_coreml.inspection.diff import compare_packages
from mvit_coreml.mil.activation_pairs import read_pairs, without_pairs
from mvit_coreml.mil.digest import DIGEST_KEY, VALUES_DIGEST_KEY, program_digest, values_digest
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.validate import ValidateOptions

pytestmark = pytest.mark.usefixtures("conversions_shared")

# What a random network keeps is no matter here.
ANY = Promise(min_snr=-100)
W8A8 = ConvertOptions(bits=None, quantize="w8a8", promise=ANY)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), 20)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, images: list[Path]) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "quantized.mlpackage"
    return convert(fitted_checkpoint(), W8A8, path, images=images).path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.mlpackage"
    return convert(fitted_checkpoint(), ConvertOptions(bits=None), path, check=False).path


def test_a_checkpoint_becomes_a_package_that_computes_in_8_bits(
    quantized: Path, plain: Path, images: list[Path]
) -> None:
    (function,) = inspect_package(quantized).functions
    assert function.compute.int8_share == 1.0
    assert function.operations["quantize"] == function.operations["dequantize"] > 0
    (before,) = inspect_package(plain).functions
    assert (before.compute.int8_share, before.compute.macs) == (0, function.compute.macs)
    assert function.compute.moved_bytes["fp16"] < 0.1 * before.compute.moved_bytes["fp16"]
    options = ValidateOptions(promise=ANY)
    report = validate(quantized, fitted_checkpoint(), images, options)
    assert report.sound
    assert report.differences == ()
    assert "decoded_weights" in {gate.name for gate in report.gates}
    metadata = load_package(quantized).metadata.user_defined
    assert metadata["mvit_coreml.quantization"] == "w8a8"


def test_the_plan_leads_to_the_same_bytes_from_checkpoint_and_package(
    quantized: Path, plain: Path, tmp_path: Path, images: list[Path]
) -> None:
    plan = quantized.with_suffix(".plan.toml")
    options = ConvertOptions(bits=None, plan=plan)
    again = convert(fitted_checkpoint(), options, tmp_path / "again.mlpackage", check=False)
    assert read_tree(again.path) == read_tree(quantized)
    made = quantize_package(
        plain, tmp_path / "made.mlpackage", PaletteOptions(bits=None, plan=plan), check=False
    )
    assert read_tree(made.path) == read_tree(quantized)
    # And so does calibrating again.
    anew = PaletteOptions(bits=None, quantize="w8a8", promise=ANY)
    found = quantize_package(plain, tmp_path / "anew.mlpackage", anew, images=images)
    assert read_tree(found.path) == read_tree(quantized)
    assert found.parity is not None
    assert found.parity.sound


def test_pairs_hold_the_scales_of_the_plan_and_the_metadata(quantized: Path) -> None:
    package = load_package(quantized)
    plan = read_quantization(quantized.with_suffix(".plan.toml")).plan
    stated = json.loads(package.metadata.user_defined["mvit_coreml.activations"])
    pairs = read_pairs(package.function())
    assert [pair.value for pair in pairs] == [one.name for one in plan.activations]
    for pair, one in zip(pairs, plan.activations, strict=True):
        assert pair.is_consistent
        expected = [one.grid.dtype, one.grid.scale, one.grid.zero_point]
        assert [pair.dtype, *pair.grids[0]] == expected == stated[pair.value]


@pytest.mark.parametrize(
    ("ios", "stored"),
    [(17, "constexpr_affine_dequantize"), (18, "constexpr_blockwise_shift_scale")],
)
def test_weights_have_the_form_of_the_target_and_coremltools_reads_them(
    ios: int, stored: str, tmp_path: Path, images: list[Path]
) -> None:
    options = ConvertOptions(bits=None, quantize="w8a8", promise=ANY, ios=ios)
    made = convert(fitted_checkpoint(), options, tmp_path / "x.mlpackage", images=images)
    program, _ = read_program(made.path)
    load_coremltools()
    program.validate(check_essential_scope=False)
    operations = program.functions["main"].operations
    weights = [op for op in operations if op.op_type == stored]
    assert len(weights) == len({op.outputs[0].name for op in weights}) > 10
    for op in weights:
        data = op.quantized_data.val if ios == 17 else op.data.val
        # Signed levels are reported wrong in the older form.
        assert data.dtype == (np.uint8 if ios == 17 else np.int8)
        assert ios == 18 or op.zero_point.val == 128
    layers = [op for op in operations if op.op_type in ("conv", "linear")]
    assert {op.x.op.op_type for op in layers} == {"dequantize"}
    assert {op.weight.op.op_type for op in layers} == {stored}


@pytest.mark.parametrize("family", ["mobilenet_v2", "mobilevit", "mobilevitv2"])
def test_activation_and_convolution_are_one_unit_in_every_family(
    family: str, tmp_path: Path
) -> None:
    plain = converted(family)[0].path
    options = PaletteOptions(bits=None, quantize="w8a8", promise=ANY)
    made = quantize_package(plain, tmp_path / "x.mlpackage", options).path
    function = load_package(made).function()
    makers = function.producers
    patterns = 0
    for pair in read_pairs(function):
        maker = makers[pair.value]
        if maker.op_type in ("relu6", "silu"):
            # conv -> activation -> quantize -> dequantize
            assert makers[maker.inputs["x"][0].name].op_type in ("conv", "linear")
            patterns += 1
        readers = {s.op_type for s in function.steps if pair.rounded in s.value_names}
        assert readers <= {"conv", "linear", "add", "concat", "reduce_mean"}
        direct = {s.op_type for s in function.steps if pair.value in s.value_names}
        assert direct <= {"quantize", "layer_norm", "mul", "softmax"}
    assert patterns > 5
    (facts,) = inspect_package(made).functions
    assert facts.compute.int8_share > (0.99 if family == "mobilenet_v2" else 0.85)
    # Nothing but the rounding was added.
    stripped = [step.op_type for step in without_pairs(function).steps]
    assert stripped == [step.op_type for step in load_package(plain).function().steps]


def test_a_package_of_another_tool_is_quantized_by_itself(tmp_path: Path) -> None:
    made = convert_plainly(Plain(SmallNetwork()), SIDE, tmp_path / "theirs.mlpackage")
    photos = write_photos(tmp_path / "photos", 24)
    options = PaletteOptions(bits=None, quantize="w8a8", promise=ANY)
    found = quantize_package(made, tmp_path / "int8.mlpackage", options, images=photos)
    assert found.parity is not None
    assert found.parity.sound
    (facts,) = inspect_package(found.path).functions
    assert facts.compute.int8_share > 0.5
    changes = compare_packages(made, found.path)
    assert not changes.section("interface")


def test_pictures_answer_alike_in_8_bits(quantized: Path, plain: Path) -> None:
    pictures = [np.asarray(picture) for picture in synthetic_pictures(4, (32, 32))]
    before, after = (Runtime(load_package(path)) for path in (plain, quantized))
    for picture in pictures:
        one, other = (
            runtime.run({"image": picture})["classLabel_probs"] for runtime in (before, after)
        )
        assert max(abs(one[label] - other[label]) for label in one) < 0.2


def test_auto_leaves_few_layers_in_floating_point_until_the_promise_is_kept(
    plain: Path, images: list[Path], tmp_path: Path
) -> None:
    everything = PaletteOptions(bits=None, quantize="w8a8", promise=ANY)
    whole = quantize_package(plain, tmp_path / "whole.mlpackage", everything, images=images)
    assert whole.parity is not None
    more = Promise(min_snr=whole.parity.promised_snr + 1.5)
    strict = PaletteOptions(bits=None, quantize="w8a8", promise=more)
    with pytest.raises(GateError):
        quantize_package(plain, tmp_path / "x.mlpackage", strict, images=images)
    auto = PaletteOptions(bits=None, quantize="auto", promise=more)
    found = quantize_package(plain, tmp_path / "auto.mlpackage", auto, images=images)
    assert found.parity is not None
    assert found.parity.promised_snr >= whole.parity.promised_snr + 1.5
    assert any("in floating point" in note for note in found.notes)
    (facts,) = inspect_package(found.path).functions
    assert 0.84 < facts.compute.int8_share < 1
    # A promise that is kept anyway costs nothing.
    easy = PaletteOptions(bits=None, quantize="auto", promise=ANY)
    same = quantize_package(plain, tmp_path / "easy.mlpackage", easy, images=images)
    assert read_tree(same.path) == read_tree(whole.path)


# --- Faults


def first(package: PackageEditor, op_type: str) -> Any:
    return package.ops(op_type)[5]


def scale_off(package: PackageEditor) -> None:
    """Read one value back with a scale that is 2 % off."""
    op = first(package, "dequantize")
    package.set(op, "scale", np.float16(1.02) * package.array(package.value(op, "scale")))


def both_scales_off(package: PackageEditor) -> None:
    """Round one value with a scale that is 2 % off, and read it back so."""
    scale = package.value(first(package, "quantize"), "scale")
    package.store(scale, np.float16(1.02) * package.array(scale))


def saturating(package: PackageEditor) -> None:
    """Cut the range of one value to a tenth."""
    scale = package.value(first(package, "quantize"), "scale")
    package.store(scale, np.float16(0.1) * package.array(scale))


def scales_swapped(package: PackageEditor) -> None:
    """Exchange the scales of two values."""
    one, other = (package.value(package.ops("quantize")[n], "scale") for n in (0, 1))
    arrays = package.array(one), package.array(other)
    assert arrays[0] != arrays[1]
    package.store(one, arrays[1])
    package.store(other, arrays[0])


def zero_point_off(package: PackageEditor) -> None:
    """Shift the zero of one weight by one level."""
    weight = package.ops("constexpr_affine_dequantize")[3]
    package.store(package.value(weight, "zero_point"), np.uint8(129))


def weight_scale_off(package: PackageEditor) -> None:
    """Make one weight 2 % larger."""
    weight = package.ops("constexpr_affine_dequantize")[3]
    scale = package.value(weight, "scale")
    package.store(scale, package.array(scale) * np.float16(1.02))


def not_rounded(package: PackageEditor) -> None:
    """Let one convolution read its input before it is rounded."""
    pair = first(package, "quantize")
    rounded, value = first(package, "dequantize").outputs[0].name, pair.inputs["input"].arguments[0]
    for op in package.ops("conv"):
        for binding in op.inputs["x"].arguments:
            if binding.name == rounded:
                binding.name = value.name
                return


FAULTS = (
    scale_off,
    both_scales_off,
    saturating,
    scales_swapped,
    zero_point_off,
    weight_scale_off,
    not_rounded,
)


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_fault_is_caught_without_plan_and_digest(plant: Any, quantized: Path) -> None:
    editor = PackageEditor(quantized)
    plant(editor)
    written = load_package(editor.save())
    editor.metadata[DIGEST_KEY] = program_digest(written)
    editor.metadata[VALUES_DIGEST_KEY] = values_digest(written)
    options = ValidateOptions(promise=ANY)
    report = validate(editor.save(), fitted_checkpoint(), options=options)
    assert not report.sound
    assert {difference.aspect for difference in report.differences} - {"digest"}


def test_the_package_without_a_fault_is_sound(quantized: Path) -> None:
    options = ValidateOptions(promise=ANY)
    report = validate(PackageEditor(quantized).save(), fitted_checkpoint(), options=options)
    assert report.sound
    assert report.differences == ()


def test_a_weight_that_is_not_the_plans_is_told(quantized: Path, tmp_path: Path) -> None:
    editor = PackageEditor(quantized, copy=False)
    before = read_tree(quantized)
    weight_scale_off(editor)
    try:
        editor.save()
        report = validate(quantized, fitted_checkpoint(), options=ValidateOptions(promise=ANY))
        assert "plan" in {difference.aspect for difference in report.differences}
    finally:
        for name, content in before.items():
            (quantized / name).write_bytes(content)


# --- What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ios": 16}, "need iOS 17"),
        ({"bits": 4}, "takes no palettes"),
        ({"kmeans_only": True}, "takes no palettes"),
        ({"tune_minutes": 1.0}, "no palettes to tune"),
        ({"ios": 18, "image_sizes": ((64, 64), (96, 96))}, "one image size"),
        ({"quantize": "w4a4"}, "must be one of w8a8, auto"),
    ],
)
def test_what_does_not_go_with_8_bits_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConvertOptions(**{"bits": None, "quantize": "w8a8"} | options)


def test_packages_that_cannot_be_quantized_are_refused(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compressed already"):
        quantize_package(quantized, tmp_path / "x.mlpackage")
    old = converted("mobilenet_v2", ios=16)[0].path
    with pytest.raises(InputError, match="need iOS 17"):
        quantize_package(old, tmp_path / "x.mlpackage")
    with pytest.raises(InputError, match="nothing to quantize"):
        quantize_package(old, tmp_path / "x.mlpackage", PaletteOptions(bits=6))
    with pytest.raises(InputError, match="compressed already"):
        palettize_package(quantized, PaletteOptions(bits=6), tmp_path / "x.mlpackage")


def test_a_plan_for_other_weights_is_refused(quantized: Path, tmp_path: Path) -> None:
    plan = quantized.with_suffix(".plan.toml")
    other = small_checkpoint("mobilevit")
    with pytest.raises(InputError, match="make the plan again"):
        convert(other, ConvertOptions(bits=None, plan=plan), tmp_path / "x.mlpackage")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace('dtype = "int8"', 'dtype = "int4"'), "dtype"),
        (lambda text: text.replace("format = 1", "format = 9"), "format 9 is unknown"),
        (lambda text: text.replace("scale = 0", "scale = -0"), "must be positive"),
        (lambda text: text.replace('values_sha256 = "', 'values_sha256 = "0'), "not the file"),
        (lambda text: text.replace("layers = [", "layer = ["), "layer"),
    ],
)
def test_a_damaged_plan_is_refused(
    edit: Any, message: str, quantized: Path, tmp_path: Path
) -> None:
    plan, damaged = quantized.with_suffix(".plan.toml"), tmp_path / "damaged.plan.toml"
    text = plan.read_text()
    assert edit(text) != text
    damaged.write_text(edit(text))
    values = quantized.with_suffix(".plan.safetensors")
    (tmp_path / "damaged.plan.safetensors").write_bytes(values.read_bytes())
    with pytest.raises(InputError, match=message):
        read_quantization(damaged)


def test_a_broken_promise_writes_nothing(tmp_path: Path, images: list[Path]) -> None:
    path = tmp_path / "x.mlpackage"
    options = ConvertOptions(bits=None, quantize="w8a8", promise=Promise(min_snr=200))
    with pytest.raises(GateError, match="at least 200 dB"):
        convert(fitted_checkpoint(), options, path, images=images)
    assert list(tmp_path.iterdir()) == []
