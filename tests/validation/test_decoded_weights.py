"""Packages against PyTorch with their own weights: what rounding leaves, and faults above it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from faults.editor import PackageEditor
from foreign import Wrapped, compressed_again, open_target, plain_conversion
from packages import converted, small_checkpoint
from standins import enliven

from mvit_coreml import build_model
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.validation.decoded_weights import check_decoded_weights
from mvit_coreml.validation.synthetic_images import synthetic_pictures

CLASSIFIER, SEGMENTER = "image-classification", "semantic-segmentation"
# Half precision has 11 bits, 68 dB for one rounding of evenly spread numbers. Some hundred
# roundings one after the other, of up to three for each of fifty layers, add up to 22 dB; ten more
# are for rounding that lies worse.
FP16 = 68 - 22 - 10
# Likewise 24 bits, 146 dB.
FP32 = 146 - 22 - 10


def checked(path, checkpoint, pictures=4, function=None, **options):
    target = PackageTarget(Predictor(path, function=function, engine="portable"))
    size = (target.image.height, target.image.width)
    return check_decoded_weights(target, checkpoint, synthetic_pictures(pictures, size), **options)


def checked_of_another_tool(path, checkpoint):
    target = open_target(path, checkpoint)
    return check_decoded_weights(target, checkpoint, synthetic_pictures(4, (64, 64)))


# --- Packages of this project


@pytest.mark.parametrize(
    ("family", "task", "bits"),
    [
        ("mobilenet_v2", CLASSIFIER, None),
        ("mobilenet_v2", CLASSIFIER, 4),
        ("mobilenet_v2", SEGMENTER, 6),
        ("mobilevit", CLASSIFIER, 1),
        ("mobilevit", SEGMENTER, None),
        ("mobilevitv2", CLASSIFIER, 4),
        ("mobilevitv2", SEGMENTER, 6),
    ],
)
def test_only_rounding_is_left_whatever_the_bits(family, task, bits):
    package, _ = converted(family, task, bits=bits)
    decoded = checked(package.path, small_checkpoint(family, task))
    assert decoded.snr > FP16
    assert decoded.unmatched == ()


def test_in_single_precision_less_is_left():
    package, _ = converted("mobilevit", precision="fp32", bits=4)
    assert checked(package.path, small_checkpoint("mobilevit")).snr > FP32


@pytest.mark.parametrize("task", [CLASSIFIER, SEGMENTER])
def test_features_are_compared_where_there_are_no_scores(task):
    package, _ = converted("mobilenet_v2", task, output="features", bits=4)
    decoded = checked(package.path, small_checkpoint("mobilenet_v2", task))
    assert decoded.snr > FP16
    assert decoded.unmatched == ()


def test_every_function_has_its_own_answer():
    sizes = ((64, 64), (32, 64))
    package, _ = converted("mobilenet_v2", bits=4, ios=18, image_sizes=sizes)
    for name in ("size_64x64", "size_32x64"):
        decoded = checked(package.path, small_checkpoint("mobilenet_v2"), function=name)
        assert decoded.snr > FP16


def test_a_map_that_is_no_multiple_of_the_patch_keeps_the_folded_remainder():
    package, _ = converted("mobilevitv2", bits=4, image_sizes=((96, 64),))
    decoded = checked(package.path, small_checkpoint("mobilevitv2"))
    assert (decoded.snr > FP16, decoded.unmatched) == (True, ())


def test_the_channel_order_can_be_another_than_the_checkpoints():
    package, _ = converted("mobilenet_v2", bits=4, color_order="BGR")
    checkpoint = small_checkpoint("mobilenet_v2")
    assert checked(package.path, checkpoint, color_order="BGR").snr > FP16
    assert checked(package.path, checkpoint).snr < FP16


def test_deviations_of_the_channels_are_part_of_the_stored_weights(tmp_path):
    from mvit_coreml import ConvertOptions, convert

    checkpoint = small_checkpoint("mobilenet_v2")
    processor = checkpoint.image_processor.replace(
        image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.3, 0.5)
    )
    checkpoint = replace(checkpoint, image_processor=processor)
    options = ConvertOptions(bits=4, kmeans_only=True)
    made = convert(checkpoint, options, tmp_path / "A.mlpackage", check=False)
    assert checked(made.path, checkpoint).snr > FP16


def test_the_checkpoint_stays_as_it_was():
    checkpoint = small_checkpoint("mobilevit")
    before = {name: weight.clone() for name, weight in checkpoint.weights.items()}
    package, _ = converted("mobilevit", bits=1)
    checked(package.path, checkpoint)
    assert all(torch.equal(weight, before[name]) for name, weight in checkpoint.weights.items())


# --- What is no palette noise


def test_what_is_stored_is_taken_as_it_is():
    package, _ = converted("mobilenet_v2", bits=4)
    checkpoint = small_checkpoint("mobilenet_v2")
    editor = PackageEditor(package.path)
    editor.change(editor.ops("conv")[20], "bias", lambda bias: 1.1 * bias)
    assert checked(editor.save(), checkpoint).snr > FP16


def test_contents_of_two_weights_exchanged_are_found_whatever_their_names():
    package, _ = converted("mobilenet_v2", bits=None)
    editor = PackageEditor(package.path)
    by_shape = {}
    for conv in editor.convs(kernel=1):
        by_shape.setdefault(editor.array(editor.value(conv, "weight")).shape, []).append(conv)
    one, other = next(convs for convs in by_shape.values() if len(convs) > 1)[:2]
    values = [editor.array(editor.value(conv, "weight")) for conv in (one, other)]
    for conv, value in zip((one, other), reversed(values), strict=True):
        editor.store(editor.value(conv, "weight"), value)
    decoded = checked(editor.save(), small_checkpoint("mobilenet_v2"))
    assert decoded.unmatched == ()
    assert decoded.snr < FP16


def test_a_number_that_is_none_is_no_signal():
    package, _ = converted("mobilenet_v2", bits=4)
    editor = PackageEditor(package.path)
    editor.change(editor.ops("conv")[0], "weight", lambda weight: np.nan * weight)
    assert checked(editor.save(), small_checkpoint("mobilenet_v2")).snr < 0


@pytest.fixture(scope="module")
def trained_otherwise():
    """A checkpoint of the same architecture with other weights."""
    checkpoint = small_checkpoint("mobilenet_v2")
    model = build_model(checkpoint.config, CLASSIFIER)
    enliven(model, (64, 64), seed=1)
    return replace(checkpoint, weights=model.state_dict())


def test_a_package_of_other_weights_is_sound_though_not_faithful(trained_otherwise):
    package, _ = converted("mobilenet_v2", bits=4)
    decoded = checked(package.path, trained_otherwise)
    assert (decoded.snr > FP16, decoded.unmatched) == (True, ())


# --- Packages of other tools


@pytest.fixture(scope="module")
def transformers_package(tmp_path_factory):
    """A plain conversion of a transformers model, with its checkpoint."""
    checkpoint = small_checkpoint("mobilenet_v2", SEGMENTER)
    folder = tmp_path_factory.mktemp("transformers")
    checkpoint.save_pretrained(folder)
    model = transformers.MobileNetV2ForSemanticSegmentation.from_pretrained(folder).eval()
    half = [0.5] * 3
    return checkpoint, plain_conversion(Wrapped(model, half, half, softmax=True))


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("palettize", lambda c: c.OpPalettizerConfig(nbits=4, weight_threshold=0)),
        ("palettize", lambda c: c.OpPalettizerConfig(nbits=1, weight_threshold=0)),
        ("linear_quantize", lambda c: c.OpLinearQuantizerConfig(weight_threshold=0)),
    ],
    ids=["4 bits", "1 bit", "linear"],
)
def test_another_tools_weights_are_matched_by_their_values(transformers_package, kind, config):
    checkpoint, path = transformers_package
    decoded = checked_of_another_tool(compressed_again(path, kind, config), checkpoint)
    assert decoded.unmatched == ()
    assert decoded.snr > FP16


def test_other_weights_without_our_names_are_not_compared(transformers_package):
    checkpoint, path = transformers_package
    model = build_model(checkpoint.config, SEGMENTER)
    enliven(model, (64, 64), seed=1)
    another = replace(checkpoint, weights=model.state_dict())
    editor = PackageEditor(path)
    names = {op.outputs[0].name: f"c{i}" for i, op in enumerate(editor.ops("const"))}
    for op in editor.block.operations:
        for value in op.outputs:
            value.name = names.get(value.name, value.name)
        for argument in op.inputs.values():
            for binding in argument.arguments:
                if binding.name:
                    binding.name = names.get(binding.name, binding.name)
    assert checked_of_another_tool(editor.save(), another) is None
