"""The weights of a program in memory and of the package saved from it are the same list."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from packages import small_checkpoint
from programs import constants, program, saved

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.palettizable_weights import (
    function_weights,
    palettizable_weights,
    program_weights,
    weight_sha256,
)
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.export.image_input import bake_preprocessing
from mvit_coreml.export.output_heads import export_model
from mvit_coreml.export.torch_to_mil import build_program, save_program, trace
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.models.base import build_model


def in_memory(checkpoint: Checkpoint, ios: int, precision: str) -> object:
    image = bake_preprocessing(checkpoint.image_processor, 3, (64, 64))
    module = export_model(build_model(checkpoint), image, "logits", map_size="input", layers=())
    return build_program(
        trace(module, image),
        image,
        module.output_names,
        ios=ios,
        precision=precision,
        classifier=False,
    )


@pytest.mark.parametrize(
    ("family", "ios", "precision"),
    [("mobilevit", 16, "fp16"), ("mobilenet_v2", 18, "fp32")],
)
def test_names_order_and_elements_agree_between_memory_and_disk(
    family: str, ios: int, precision: str, tmp_path: object
) -> None:
    built = in_memory(small_checkpoint(family), ios, precision)
    listed = program_weights(built)
    before = [(info, weight_sha256(op.outputs[0].val)) for info, op in listed]
    package = tmp_path / "saved.mlpackage"  # type: ignore[operator]
    save_program(built, package, ios=ios, class_labels=None)
    stored = function_weights(load_package(package).function())
    assert [(info, weight_sha256(constant.decode())) for info, constant in stored] == before
    assert len(before) > 40


@pytest.mark.parametrize("family", ["mobilevitv2"])
def test_a_package_read_back_as_a_program_lists_the_same(family: str) -> None:
    from_program = palettizable_weights(program(family))
    from_package = palettizable_weights(load_package(saved(family)).function())
    assert from_program == from_package


@pytest.mark.parametrize("family", ["mobilevitv2"])
def test_every_tensor_of_two_axes_and_eighty_elements_is_listed(family: str) -> None:
    built = program(family)
    listed = {info.name: info.shape for info in palettizable_weights(built)}
    expected = {
        name: value.shape
        for name, value in constants(built).items()
        if value.ndim > 1 and value.size >= 80
    }
    assert listed == expected


def test_the_output_channels_are_found_in_every_place_a_weight_can_have(tmp_path: Path) -> None:
    load_coremltools()
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    def constant(*shape: int) -> np.ndarray:
        return np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    @mb.program(
        input_specs=[mb.TensorSpec((1, 12, 8, 8)), mb.TensorSpec((10, 12))],
        opset_version=ct.target.iOS17,
    )
    def built(x, y):  # type: ignore[no-untyped-def]
        a = mb.conv(x=x, weight=constant(20, 12, 1, 1), name="conv")
        b = mb.conv_transpose(x=x, weight=constant(12, 30, 2, 2), name="deconv")
        c = mb.linear(x=y, weight=constant(14, 12), name="linear")
        d = mb.matmul(x=y, y=constant(12, 16), name="right")
        e = mb.matmul(x=y, y=constant(18, 12), transpose_y=True, name="right_transposed")
        f = mb.matmul(x=constant(22, 10), y=y, name="left")
        g = mb.matmul(x=constant(10, 24), y=y, transpose_x=True, name="left_transposed")
        return a, b, c, d, e, f, g

    channels = {
        info.users[0] + str(info.shape): info.channels for info in palettizable_weights(built)
    }
    path = tmp_path / "built.mlpackage"
    save_program(built, path, ios=17, class_labels=None)
    assert palettizable_weights(load_package(path).function()) == palettizable_weights(built)
    assert channels == {
        "conv(20, 12, 1, 1)": 20,
        "conv_transpose(12, 30, 2, 2)": 30,
        "linear(14, 12)": 14,
        "matmul(12, 16)": 16,
        "matmul(18, 12)": 18,
        "matmul(22, 10)": 22,
        "matmul(10, 24)": 24,
    }


def test_the_digest_is_that_of_the_bytes_in_the_weight_file() -> None:
    package = load_package(saved("mobilevitv2"))
    info, constant = function_weights(package.function())[3]
    assert constant.weights is not None
    start = constant.weights.locate(constant.offset, constant.type)  # type: ignore[arg-type]
    content = constant.weights.path.read_bytes()[start : start + info.elements * 2]
    assert weight_sha256(constant.decode()) == hashlib.sha256(content).hexdigest()
