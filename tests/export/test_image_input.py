"""Preprocessing inside the package, against the image processor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from package_cache import converted_package
from packages import SavedPackage, image, make_checkpoint

from mvit_coreml import ConvertOptions, ImageProcessor, build_model
from mvit_coreml.errors import InputError
from mvit_coreml.export.image_input import bake_preprocessing
from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig

MOBILEVIT = ImageProcessor.for_mobilevit(image_size=64)
RGB, BGR = 20, 30  # colorSpace in Apple's specification
IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
NORMALIZATIONS = {
    "rescaled only": {},
    "one mean and std": {"do_normalize": True},
    "a mean per channel": {"do_normalize": True, "image_mean": (0.2, 0.5, 0.7)},
    "mean and std per channel": {"do_normalize": True, **IMAGENET},
}


def baked(**changes):
    return bake_preprocessing(MOBILEVIT.replace(**changes), 3, (64, 64))


def test_a_mobilevit_input_is_bgr_and_scaled_to_one():
    result = baked()
    assert result.color_order == "BGR"
    assert result.scale == pytest.approx(1 / 255)
    assert result.bias == (0, 0, 0)
    assert result.weight_scale is None
    assert result.shape == (1, 3, 64, 64)


def test_one_std_goes_into_the_scale():
    result = baked(do_flip_channel_order=False, do_normalize=True)
    assert result.scale == pytest.approx(2 / 255)
    assert result.bias == pytest.approx((-1, -1, -1))
    assert result.weight_scale is None


def test_a_std_per_channel_goes_into_the_weights_and_bgr_turns_the_order_around():
    result = baked(do_normalize=True, **IMAGENET)
    assert result.scale == pytest.approx(1 / 255)
    assert result.bias == pytest.approx((-0.406, -0.456, -0.485))
    assert result.weight_scale == pytest.approx((1 / 0.225, 1 / 0.224, 1 / 0.229))


def test_pixels_that_are_not_rescaled_stay_as_they_are():
    assert baked(do_rescale=False).scale == 1


def test_height_comes_before_width():
    result = bake_preprocessing(MOBILEVIT, 3, (96, 64))
    assert (result.height, result.width, result.shape) == (96, 64, (1, 3, 96, 64))


def test_a_model_of_four_channels_is_refused_with_the_reason():
    with pytest.raises(InputError, match=r"takes 4 channels \(num_channels.*three.*num_channels 3"):
        bake_preprocessing(MOBILEVIT, 4, (64, 64))


CONFIGS = {
    # TensorFlow's padding is asymmetric, PyTorch's symmetric; both pad the first convolution.
    "mobilenet_v2": MobileNetV2Config(depth_multiplier=0.25, image_size=64),
    "mobilevit": MobileViTConfig(
        hidden_sizes=(16, 24, 32), neck_hidden_sizes=(8, 8, 8, 16, 16, 16, 32), image_size=64
    ),
}


def first_layer_of_package(package: SavedPackage, pixels: np.ndarray) -> torch.Tensor:
    """Run a saved package from its image to its first convolution on (H, W, 3) RGB pixels."""
    description = package.spec.description.input[0].type.imageType
    assert description.colorSpace in (RGB, BGR)
    assert (description.height, description.width) == pixels.shape[:2]
    seen = pixels[..., ::-1] if description.colorSpace == BGR else pixels
    values = {"image": torch.tensor(seen.transpose(2, 0, 1)[None].astype(np.float32))}

    def operand(op, name):
        var = op.inputs[name]
        return values[var.name] if var.val is None else torch.tensor(np.asarray(var.val).copy())

    for op in package.program():
        if op.op_type == "mul":
            result = operand(op, "x") * operand(op, "y")
        elif op.op_type == "add":
            result = operand(op, "x") + operand(op, "y")
        elif op.op_type == "cast":
            assert op.dtype.val == "fp16"
            result = operand(op, "x").half()
        else:
            assert op.op_type == "conv", f"{op.op_type} before the first convolution"
            x = operand(op, "x").float()
            top, bottom, left, right = op.pad.val
            if op.pad_type.val == "same":
                # The inputs here have even sides, the kernels 3 and the strides 2.
                top, bottom, left, right = 0, 1, 0, 1
            x = F.pad(x, (left, right, top, bottom))
            weight, bias = operand(op, "weight").float(), operand(op, "bias").float()
            return F.conv2d(x, weight, bias, stride=tuple(op.strides.val))
        values[op.outputs[0].name] = result
    raise AssertionError("no convolution")


def first_layer_of_model(checkpoint, pixels: np.ndarray) -> torch.Tensor:
    """Run the processor, then the first convolution with its batch norm."""
    model = build_model(checkpoint)
    outputs = []
    backbone = getattr(model, checkpoint.family)
    stem = backbone.conv_stem
    norm = getattr(stem, "first_conv", stem).normalization
    norm.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.inference_mode():
        model(checkpoint.image_processor.preprocess(pixels, do_resize=False, do_center_crop=False))
    return outputs[0]


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("flip", [False, True], ids=["RGB", "BGR"])
def test_the_saved_package_sees_what_the_processor_makes(flip, normalization):
    symmetric = normalization == "one mean and std" and not flip
    config = CONFIGS["mobilevit" if symmetric else "mobilenet_v2"]
    processor = MOBILEVIT.replace(do_flip_channel_order=flip, **NORMALIZATIONS[normalization])
    checkpoint = make_checkpoint(config, "image-classification", 64, processor)
    options = ConvertOptions(bits=None, precision="fp32", output="logits")
    package = SavedPackage(converted_package(checkpoint, options).path)
    assert package.spec.description.input[0].type.imageType.colorSpace == (BGR if flip else RGB)
    pixels = image()
    expected = first_layer_of_model(checkpoint, pixels)
    actual = first_layer_of_package(package, pixels)
    assert actual.shape == expected.shape
    assert expected.abs().max() > 0.5
    assert (actual - expected).abs().max() <= 3e-6 * expected.abs().max()


def test_a_half_precision_package_scales_in_single_precision():
    processor = MOBILEVIT.replace(do_normalize=True, **IMAGENET)
    checkpoint = make_checkpoint(CONFIGS["mobilevit"], "image-classification", 64, processor)
    package = SavedPackage(converted_package(checkpoint, ConvertOptions(bits=None)).path)
    pixels = image()
    expected = first_layer_of_model(checkpoint, pixels)
    actual = first_layer_of_package(package, pixels)
    # Of everything up to the convolution only its operands are rounded, to 11 bits.
    assert (actual - expected).abs().max() <= 2**-10 * expected.abs().max()
