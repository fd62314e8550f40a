"""What a package is said to cost, against an independent count and numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from foreign import (
    compressed,
    constant,
    edited,
    new_path,
    operations,
    program_package,
    random_weight,
    with_two_functions,
)
from package_cache import converted_package
from packages import converted, make_checkpoint
from standins import transformers_name
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mvit_coreml import ConvertOptions
from mvit_coreml.errors import PackageError
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.inspection.package_cost import estimate_cost
from mvit_coreml.inspection.roofline import CHIPS
from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig, MobileViTV2Config

CLASSES, MAPS = "image-classification", "semantic-segmentation"
XXS = {
    "hidden_sizes": (64, 80, 96),
    "neck_hidden_sizes": (16, 16, 24, 48, 64, 80, 320),
    "expand_ratio": 2.0,
}
# The architectures of published checkpoints: configuration, task, size, and the MACs of
# transformers' model that the package does without. Export projects the pooled branch of ASPP (256
# to 256 channels) before it is spread over the map, at one position, and leaves out the last layer
# of MobileNetV2's backbone (320 to 1280 channels), which its segmenter does not read.
PUBLISHED: dict[str, tuple[Any, Any, int, int]] = {
    "mobilevit-xx-small": (MobileViTConfig(**XXS, image_size=256), CLASSES, 256, 0),
    "mobilevit-small": (MobileViTConfig(image_size=256), CLASSES, 256, 0),
    "deeplabv3-mobilevit-xx-small": (
        MobileViTConfig(**XXS, image_size=256, output_stride=16),
        MAPS,
        256,
        (16 * 16 - 1) * 256 * 256,
    ),
    "mobilevitv2-1.0": (MobileViTV2Config(image_size=256), CLASSES, 256, 0),
    "mobilenet_v2_1.0_224": (MobileNetV2Config(), CLASSES, 224, 0),
    "deeplabv3_mobilenet_v2_1.0": (
        MobileNetV2Config(output_stride=8),
        MAPS,
        256,
        (32 * 32 - 1) * 256 * 256 + 32 * 32 * 320 * 1280,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_are_those_that_torch_counts_in_transformers_model(name: str) -> None:
    config, task, size, left_out = PUBLISHED[name]
    theirs = getattr(transformers, transformers_name(config, task))
    described = theirs.config_class.from_dict(config.to_dict())
    described._attn_implementation = "eager"
    model = theirs(described).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    checkpoint = make_checkpoint(config, task, size, name=name)
    package = converted_package(checkpoint, ConvertOptions(bits=None))
    function = estimate_cost(package.path).function()
    # FlopCounterMode counts two operations a MAC, of convolutions and matrix products.
    expected = counter.get_total_flops() / 2 - left_out
    assert function.macs == pytest.approx(expected, rel=1e-3)


def single(build: Any, shape: tuple[int, ...] = (1, 8, 4, 4), **options: Any) -> Any:
    return estimate_cost(program_package(build, shape, **options)).function()


def test_each_kind_of_product_is_counted_as_worked_out_by_hand() -> None:
    def build(mb: Any, x: Any) -> Any:
        # (1, 8, 4, 4) -> (1, 16, 2, 2): 64 outputs of 4 channels a group, 3 x 3.
        mb.conv(
            x=x, weight=random_weight(16, 4, 3, 3), groups=2, strides=[2, 2], pad_type="same",
            name="grouped",
        )  # fmt: skip
        # Each of 128 inputs goes to 6 channels, 2 x 2.
        mb.conv_transpose(x=x, weight=random_weight(8, 6, 2, 2), name="transposed")
        rows = mb.reshape(x=x, shape=[16, 8])
        mb.linear(x=rows, weight=random_weight(5, 8), bias=random_weight(5), name="linear")
        # (8, 16) x (16, 8)
        mb.matmul(x=rows, y=rows, transpose_x=True, name="squared")
        mb.einsum(
            values=[mb.reshape(x=x, shape=[1, 2, 8, 8]), mb.reshape(x=x, shape=[1, 8, 8, 2])],
            equation="nchw,nwhu->nchu", name="summed",
        )  # fmt: skip
        return mb.relu(x=x, name="none")

    macs = {one.name: one.macs for one in single(build).operations}
    assert macs["grouped"] == 64 * 4 * 9
    assert macs["transposed"] == 128 * 6 * 4
    assert macs["linear"] == 16 * 5 * 8
    assert macs["squared"] == 8 * 8 * 16
    assert macs["summed"] == 2 * 8 * 8 * 2
    assert macs["none"] == 0


def test_attention_and_recurrence_are_counted_as_torch_counts_them() -> None:
    def attend(mb: Any, x: Any) -> Any:
        query = mb.reshape(x=x, shape=[1, 2, 8, 8])
        key = mb.concat(values=[query, query], axis=2)
        return mb.scaled_dot_product_attention(query=query, key=key, value=key, name="seen")

    seen = next(one for one in single(attend, ios=18).operations if one.name == "seen")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        query, key = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 16, 8)
        (query @ key.transpose(-1, -2)) @ key
    assert seen.macs == counter.get_total_flops() // 2

    def remember(mb: Any, x: Any) -> Any:
        zero = np.zeros((2, 6), np.float16)
        return mb.lstm(
            x=x, initial_h=zero, initial_c=zero, weight_ih=random_weight(24, 8),
            weight_hh=random_weight(24, 6), name="remembered",
        )[0]  # fmt: skip

    made = single(remember, (5, 2, 8))
    (remembered,) = [one for one in made.operations if one.op_type == "lstm"]
    cell = nn.LSTMCell(8, 6)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for _ in range(5):
            cell(torch.zeros(2, 8))
    assert remembered.macs == counter.get_total_flops() // 2


def test_bytes_and_the_peak_are_those_of_a_program_worked_out_by_hand() -> None:
    def build(mb: Any, x: Any) -> Any:
        # 256 bytes of input; 512, 512 and 1024 of results; 64 of output.
        wide = mb.concat(values=[x, x], axis=1, name="wide")
        more = mb.relu(x=wide, name="more")
        joined = mb.concat(values=[wide, more], axis=1, name="joined")
        return mb.reduce_mean(x=joined, axes=[2, 3], keep_dims=True, name="pooled")

    function = single(build)
    costs = {one.name: one for one in function.operations}
    assert (costs["wide"].read_bytes, costs["wide"].written_bytes) == (256, 512)
    assert (costs["joined"].read_bytes, costs["joined"].written_bytes) == (1024, 1024)
    assert function.activation_bytes == 512 + 512 + 1024 + 64 + 64
    # The input is done with after the first operation.
    assert (function.peak_bytes, function.peak_at) == (512 + 512 + 1024, "joined")
    assert function.layout_operations == 2
    assert function.layout_bytes == 256 + 512 + 1024 + 1024


def test_a_result_that_nothing_reads_and_an_input_used_last_live_as_long_as_they_must() -> None:
    def build(mb: Any, x: Any) -> Any:
        mb.concat(values=[x] * 4, axis=1, name="unused")  # 1024 bytes, gone at once
        return mb.relu(x=mb.relu(x=x, name="first"), name="second")

    function = single(build)
    assert (function.peak_bytes, function.peak_at) == (256 + 1024, "unused")


def test_compressed_weights_count_as_they_are_stored() -> None:
    weight = random_weight(64, 32, 1, 1)

    def build(mb: Any, x: Any) -> Any:
        return mb.conv(x=x, weight=weight, name="layer")

    plain = single(build, (1, 32, 4, 4), ios=18)
    small = single(build, (1, 32, 4, 4), ios=18, compress=compressed("palette"))
    assert plain.weight_bytes == 2 * weight.size
    # 3 bits an element and eight fp16 values.
    assert small.weight_bytes == 3 * weight.size // 8 + 16
    assert small.operations[0].weight_bytes == small.weight_bytes
    assert plain.macs == small.macs == 64 * 32 * 16


def test_a_weight_that_two_operations_share_counts_once() -> None:
    weight = random_weight(8, 8, 1, 1)

    def build(mb: Any, x: Any) -> Any:
        shared = mb.const(val=weight)
        return mb.conv(x=mb.conv(x=x, weight=shared), weight=shared)

    function = single(build)
    assert function.weight_bytes == weight.nbytes
    assert [one.weight_bytes for one in function.operations[:2]] == [weight.nbytes] * 2


def test_two_constants_that_lie_in_the_same_place_count_once() -> None:
    def build(mb: Any, x: Any) -> Any:
        x = mb.conv(x=x, weight=random_weight(8, 8, 1, 1, seed=1), name="first")
        return mb.conv(x=x, weight=random_weight(8, 8, 1, 1, seed=2), name="second")

    def join(spec: Any) -> None:
        first, second = (constant(spec, op, "weight") for op in operations(spec, "conv"))
        second.blobFileValue.offset = first.blobFileValue.offset

    package = program_package(build)
    assert estimate_cost(package).function().weight_bytes == 2 * 128
    joined = estimate_cost(edited(package, join)).function()
    assert joined.weight_bytes == 128
    assert [one.weight_bytes for one in joined.operations[:2]] == [128, 128]


def test_intensity_and_rooflines_follow_from_the_bytes() -> None:
    weight = random_weight(8, 8, 1, 1)
    function = single(lambda mb, x: mb.conv(x=x, weight=weight, name="layer"))
    # The convolution, and the identity that ends these programs.
    macs, moved = 8 * 8 * 16, (256 + 256 + 128) + (256 + 256)
    assert function.moved_bytes == moved
    low, high = function.intensity
    assert low == pytest.approx(2 * macs / moved)
    assert high == pytest.approx(2 * macs / (256 + 128 + 256))
    for roof, chip in zip(function.roofs, CHIPS, strict=True):
        ridge = chip.teraops * 1e12 / (chip.bandwidth * 1e9)
        assert roof.ridge == pytest.approx(ridge)
        assert roof.peak_share == pytest.approx((low / ridge, high / ridge))
        assert roof.memory_bound_macs == 1


def flexible(default: int, other: int) -> Any:
    ct = load_coremltools()
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    shapes = ct.EnumeratedShapes(
        shapes=[(1, 3, default, default), (1, 3, other, other)], default=(1, 3, default, default)
    )
    path = new_path()
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(model, torch.zeros(1, 3, default, default))
        ct.convert(
            traced,
            inputs=[ct.TensorType("x", shape=shapes)],
            minimum_deployment_target=ct.target.iOS17,
            skip_model_load=True,
        ).save(str(path))
    return path


def test_of_several_sizes_the_default_one_is_counted_and_said_to_be() -> None:
    function = estimate_cost(flexible(32, 64)).function()
    assert "1x3x32x32" in function.counted_at
    assert "the default of several sizes" in function.counted_at
    assert function.macs == 8 * 32 * 32 * 27
    assert function.notes == ()


def test_each_function_has_its_cost_and_an_unknown_one_is_refused() -> None:
    cost = estimate_cost(with_two_functions(converted("mobilenet_v2")[0].path))
    assert cost.function().name == "first"
    assert cost.function("second").macs == cost.function("first").macs > 0
    with pytest.raises(PackageError, match=r"no function 'third'; it has: first, second"):
        cost.function("third")
