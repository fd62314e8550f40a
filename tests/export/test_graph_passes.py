"""The graph: as lean as the rewrites allow, and passes that keep what they must not touch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from package_cache import converted_package
from packages import LAYOUT_OPS, NORM_OPS, SavedPackage, converted
from standins import PUBLISHED

from mvit_coreml import Checkpoint, ConvertOptions, ImageProcessor, build_model
from mvit_coreml.checkpoints.checkpoint import Provenance
from mvit_coreml.checkpoints.class_names import imagenet_names
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.export.graph_passes import (
    merge_padding_into_conv,
    share_small_constants,
    simplify_program,
)
from mvit_coreml.mil.kernels.convolution_and_pooling import conv as kernel_conv

SEGMENTER = "semantic-segmentation"


def published_checkpoint(name: str) -> Checkpoint:
    """Return an architecture as published, with ImageNet's names and weights that all differ."""
    config, task, size = PUBLISHED[name]
    names = imagenet_names()
    if len(config.id2label) == 1001:
        names = ("background", *names)
    config = config.replace(id2label=dict(enumerate(names)))
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for key, tensor in build_model(config, task).state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        weights[key] = 1 + noise.abs() if "running_var" in key else noise * 0.05
    return Checkpoint(
        config=config,
        task=task,
        weights=weights,
        image_processor=ImageProcessor.for_mobilevit(image_size=size),
        provenance=Provenance(
            name=f"apple/{name}", format="huggingface", revision="0" * 40, sha256="0" * 64, files=()
        ),
    )


@cache
def published_package(name: str) -> SavedPackage:
    """Convert a published architecture to half precision."""
    result = converted_package(published_checkpoint(name), ConvertOptions(bits=None))
    package = SavedPackage(result.path)
    assert result.size == package.size
    return package


@pytest.fixture
def published() -> Callable[[str], SavedPackage]:
    return published_package


def layout_ops(census):
    return sum(count for name, count in census.items() if name in LAYOUT_OPS)


def test_census_of_mobilevit_small(published):
    package = published("mobilevit-small")
    assert package.census() == {
        "conv": 71,
        "silu": 34,
        "reshape": 24,
        "layer_norm": 21,  # one a LayerNorm: two a layer, one a block
        "add": 20,  # a residual each: two a layer, two in the second stage
        "matmul": 18,
        "softmax": 10,
        "split": 9,  # query, key and value
        "transpose": 6,  # into and out of each block
        "concat": 3,
        "pixel_shuffle": 3,
        "pixel_unshuffle": 3,
        "cast": 2,
        "classify": 1,
        "linear": 1,
        "mul": 1,  # the image's scale
        "reduce_mean": 1,
    }
    assert package.census()["transpose"] <= 12
    assert layout_ops(package.census()) <= 50
    assert max(package.ranks()) <= 4


def test_census_of_mobilevitv2(published):
    package = published("mobilevitv2-1.0")
    census = package.census()
    assert not {"gather", "gather_along_axis", "gather_nd", "tile", "transpose"} & set(census)
    assert census["layer_norm"] == 21
    assert not (NORM_OPS - {"layer_norm"}) & set(census)
    # What a decomposed normalisation would leave behind.
    assert not {"square", "rsqrt", "sqrt", "real_div", "sub", "reduce_variance"} & set(census)
    assert census["reduce_mean"] == 1  # the pooling
    assert layout_ops(census) == census["reshape"] + census["split"] == 15
    assert max(package.ranks()) <= 4


@pytest.mark.parametrize("name", ["mobilevit-small", "mobilevitv2-1.0", "mobilenet_v2_1.0_224"])
def test_normalisations_bring_no_affine_and_convolutions_no_one_hot_weights(name, published):
    for op in published(name).program():
        if op.op_type == "layer_norm":
            assert op.gamma is None
            assert op.beta is None
        if op.op_type == "conv":
            values = np.unique(op.weight.val)
            assert not set(values.tolist()) <= {0, 1}, f"{op.name} only moves values"


def test_census_of_mobilenetv2(published):
    census = published("mobilenet_v2_1.0_224").census()
    assert census == {
        "conv": 52,
        "relu6": 35,
        "add": 10,
        "cast": 2,
        "mul": 1,
        "linear": 1,
        "softmax": 1,
        "classify": 1,
        "reduce_mean": 1,
    }


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("mobilevit-small", 11.3),
        ("mobilevit-xx-small", 2.8),
        ("mobilevitv2-1.0", 9.95),
        ("mobilenet_v2_1.0_224", 7.2),
        pytest.param("mobilevitv2-2.0", 37.1, marks=pytest.mark.slow),
    ],
)
def test_packages_are_hardly_larger_than_their_weights(name, limit, published):
    package = published(name)
    config, task, _ = PUBLISHED[name]
    weights = 2 * sum(p.numel() for p in build_model(config, task).parameters()) / 1e6
    assert weights * 0.98 < package.size / 1e6 <= limit


@pytest.mark.parametrize("task", ["image-classification", SEGMENTER])
@pytest.mark.parametrize("family", ["mobilevit", "mobilevitv2", "mobilenet_v2"])
def test_graphs_of_every_family_and_task(family, task):
    # Two attention layers see a single patch at this size; that changes no operation.
    _, package = converted(family, task)
    census = package.census()
    norms = {"mobilevit": 21, "mobilevitv2": 21, "mobilenet_v2": 0}[family]
    assert sum(census.get(name, 0) for name in NORM_OPS) == norms
    assert not {"gather", "gather_along_axis", "tile", "pad", "batch_norm"} & set(census)
    assert layout_ops(census) <= 50
    assert census.get("transpose", 0) <= 12
    assert max(package.ranks()) <= 4


# The passes, on programs small enough to know what must come out.


@pytest.fixture(scope="module")
def build():
    """Build a MIL program of a function of its builder and an input (1, 2, 5, 5)."""
    load_coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    def build(body):
        @mb.program(input_specs=[mb.TensorSpec((1, 2, 5, 5), types.fp32)])
        def program(x):
            return body(mb, x)

        return program

    return build


def run_pass(program, run):
    run(program)
    program.validate()
    return [op for op in program.functions["main"].operations if op.op_type != "const"]


WEIGHT = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
SAME = [0, 0, 0, 0, 0, 1, 1, 2]  # top 0, bottom 1, left 1, right 2


def pad_and_convolve(padding, *, mode="constant", value=0.0, **conv):
    def body(mb, x):
        padded = mb.pad(x=x, pad=padding, mode=mode, constant_val=value)
        return mb.conv(x=padded, weight=WEIGHT, strides=[2, 1], name="result", **conv)

    return body


def test_padding_moves_into_the_convolution(build):
    bias = np.arange(3, dtype=np.float32)
    (conv,) = run_pass(
        build(pad_and_convolve(SAME, pad_type="valid", bias=bias)), merge_padding_into_conv
    )
    assert (conv.op_type, conv.name, conv.outputs[0].name) == ("conv", "result", "result")
    assert list(conv.pad.val) == [0, 1, 1, 2]
    assert list(conv.strides.val) == [2, 1]
    x = torch.zeros(1, 2, 5, 5)
    expected = F.conv2d(F.pad(x, (1, 2, 0, 1)), torch.tensor(WEIGHT), stride=(2, 1)).shape
    assert conv.outputs[0].shape == tuple(expected)
    assert (conv.bias.val == bias).all()


@pytest.mark.parametrize(
    ("size", "stride", "dilation", "padding", "same"),
    [
        # TensorFlow's SAME: ceil(size / stride) outputs, the odd one out at the end.
        (8, 2, 1, [0, 1, 0, 1], True),
        (7, 2, 1, [1, 1, 1, 1], True),
        (8, 1, 2, [2, 2, 2, 2], True),
        (8, 2, 2, [1, 2, 1, 2], True),
        (8, 2, 1, [1, 0, 1, 0], False),
        (8, 2, 1, [1, 1, 1, 1], False),
        (7, 2, 1, [0, 1, 0, 1], False),
    ],
)
def test_padding_that_is_that_of_same_is_called_so_and_pads_alike(
    size, stride, dilation, padding, same
):
    load_coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    @mb.program(input_specs=[mb.TensorSpec((1, 2, size, size), types.fp32)])
    def program(x):
        padded = mb.pad(x=x, pad=[0] * 4 + padding, mode="constant", constant_val=0.0)
        return mb.conv(x=padded, weight=WEIGHT, strides=[stride] * 2, dilations=[dilation] * 2)

    (conv,) = run_pass(program, merge_padding_into_conv)
    assert conv.pad_type.val == ("same" if same else "custom")
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 2, size, size))).float()
    top, bottom, left, right = padding
    weight = torch.tensor(WEIGHT)
    expected = F.conv2d(
        F.pad(x, (left, right, top, bottom)), weight, stride=stride, dilation=dilation
    )
    pad = None if same else padding
    done = kernel_conv(
        x, weight, strides=[stride] * 2, pad_type=conv.pad_type.val, pad=pad,
        dilations=[dilation] * 2,
    )  # fmt: skip
    assert conv.outputs[0].shape == tuple(expected.shape)
    assert torch.equal(done, expected)


def test_groups_and_dilations_survive_the_merge(build):
    def body(mb, x):
        padded = mb.pad(x=x, pad=[1, 1, 1, 1], mode="constant", constant_val=0.0)
        return mb.conv(
            x=padded,
            weight=WEIGHT[:2, :1],
            groups=2,
            dilations=[2, 3],
            pad_type="custom",
            pad=[0, 0, 0, 0],
        )

    (conv,) = run_pass(build(body), merge_padding_into_conv)
    assert (conv.groups.val, list(conv.dilations.val)) == (2, [2, 3])
    assert list(conv.pad.val) == [1, 1, 1, 1]


def test_one_padding_of_two_convolutions_moves_into_both(build):
    def body(mb, x):
        padded = mb.pad(x=x, pad=SAME, mode="constant", constant_val=0.0)
        first = mb.conv(x=padded, weight=WEIGHT, pad_type="valid")
        second = mb.conv(x=padded, weight=-WEIGHT, pad_type="valid")
        return mb.add(x=first, y=second)

    operations = run_pass(build(body), merge_padding_into_conv)
    assert [op.op_type for op in operations] == ["conv", "conv", "add"]
    assert all(list(op.pad.val) == [0, 1, 1, 2] for op in operations[:2])


@pytest.mark.parametrize(
    "body",
    [
        pad_and_convolve(SAME, mode="reflect"),
        pad_and_convolve(SAME, value=1.0),
        pad_and_convolve(SAME, pad_type="same"),
        pad_and_convolve(SAME, pad_type="custom", pad=[1, 1, 1, 1]),
        lambda mb, x: mb.relu(x=mb.pad(x=x, pad=SAME, mode="constant", constant_val=0.0)),
    ],
    ids=["reflected", "of ones", "before more padding of its own", "padded twice", "no conv"],
)
def test_other_padding_stays(body, build):
    assert run_pass(build(body), merge_padding_into_conv)[0].op_type == "pad"


def test_padding_of_channels_stays(build):
    def body(mb, x):
        padded = mb.pad(x=x, pad=[0, 0, 0, 1, 1, 1, 1, 1], mode="constant", constant_val=0.0)
        weight = np.concatenate([WEIGHT, WEIGHT[:, :1]], axis=1)
        return mb.conv(x=padded, weight=weight, pad_type="valid")

    assert run_pass(build(body), merge_padding_into_conv)[0].op_type == "pad"


def test_padding_that_is_used_elsewhere_stays(build):
    def body(mb, x):
        padded = mb.pad(x=x, pad=SAME, mode="constant", constant_val=0.0)
        return mb.conv(x=padded, weight=WEIGHT, pad_type="valid"), mb.relu(x=padded)

    assert run_pass(build(body), merge_padding_into_conv)[0].op_type == "pad"


def test_padding_that_is_an_output_stays(build):
    def body(mb, x):
        padded = mb.pad(x=x, pad=SAME, mode="constant", constant_val=0.0)
        return mb.conv(x=padded, weight=WEIGHT, pad_type="valid"), padded

    assert run_pass(build(body), merge_padding_into_conv)[0].op_type == "pad"


def constants(program):
    operations = program.functions["main"].operations
    return [op for op in operations if op.op_type == "const"]


def test_equal_small_constants_are_shared_and_different_ones_are_not(build):
    def body(mb, x):
        for _ in range(3):
            x = mb.transpose(x=x, perm=[0, 1, 3, 2])
        x = mb.transpose(x=x, perm=[0, 1, 2, 3])
        x = mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True)
        return mb.mul(x=mb.add(x=x, y=np.float32(2)), y=np.float32(-2))

    program = build(body)
    before = [op.inputs for op in program.functions["main"].operations if op.op_type != "const"]
    wanted = [{name: var.val for name, var in inputs.items()} for inputs in before]
    operations = run_pass(program, share_small_constants)
    found = [{name: var.val for name, var in op.inputs.items()} for op in operations]
    assert str(found) == str(wanted)
    values = [(op.outputs[0].dtype, str(op.val.val)) for op in constants(program)]
    assert len(values) == len(set(values)) == 6  # two permutations, axes, a flag, 2 and -2


def test_a_shared_constant_of_a_list_input_is_kept(build):
    def body(mb, x):
        part = np.zeros((1, 1, 1, 1), np.float32)
        row = mb.const(val=part, name="first")
        other = mb.const(val=part, name="second")
        mean = mb.reduce_mean(x=x, axes=[1, 2, 3], keep_dims=True)
        return mb.add(x=mb.concat(values=[mean, other], axis=1), y=row)

    operations = run_pass(build(body), share_small_constants)
    assert [op.op_type for op in operations] == ["reduce_mean", "concat", "add"]


def test_large_constants_stay_weights(build):
    def body(mb, x):
        weight = np.ones((1, 2, 5, 5), np.float32)
        return mb.add(x=mb.mul(x=x, y=weight), y=weight.copy())

    program = build(body)
    run_pass(program, share_small_constants)
    assert sum(np.size(op.val.val) == 50 for op in constants(program)) == 2


@pytest.mark.parametrize("shared", [True, False])
def test_sharing_constants_can_be_turned_off(shared, build):
    def body(mb, x):
        for _ in range(3):
            x = mb.relu(x=mb.transpose(x=x, perm=[0, 1, 3, 2]))
        return x

    program = build(body)
    simplify_program(program, fp16=False, share_constants=shared)
    assert len(constants(program)) == (1 if shared else 3)


@pytest.mark.parametrize("fp16", [False, True])
def test_simplifying_chooses_the_precision(fp16, build):
    program = build(lambda mb, x: mb.conv(x=x, weight=WEIGHT, pad_type="valid"))
    simplify_program(program, fp16=fp16)
    (conv,) = [op for op in program.functions["main"].operations if op.op_type == "conv"]
    assert conv.weight.val.dtype == (np.float16 if fp16 else np.float32)
