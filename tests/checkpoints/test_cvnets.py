"""cvnets files against the answers that cvnets gave, and the names it gives its weights."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mvit_coreml.checkpoints.formats import cvnets
from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.base import build_model
from mvit_coreml.models.config import architecture_name

ARCHITECTURES = [
    *(f"mobilevit_{size}" for size in ("xx_small", "x_small", "small")),
    *(f"mobilevitv2_{width}" for width in ("0.5", "0.75", "1.0", "1.25", "1.5", "1.75", "2.0")),
    *(f"deeplabv3_mobilevit_{size}" for size in ("xx_small", "x_small", "small")),
    *(f"deeplabv3_mobilevitv2_{width}" for width in ("0.5", "1.0")),
]
HIDDEN_SIZES = {"xx_small": (64, 80, 96), "x_small": (96, 120, 144), "small": (144, 192, 240)}


@pytest.fixture(scope="module")
def keys(real_data):
    listed = json.loads((real_data / "cvnets" / "keys.json").read_text())
    assert list(listed) == ARCHITECTURES
    return listed


def given_input(size):
    values = (torch.arange(3 * size * size) * 7919) % 256
    return values.float().view(1, 3, size, size) / 255


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("mobilevit_xx_small", {}, 256),
        ("mobilevitv2_0.5", {}, 256),
        ("deeplabv3_mobilevit_xx_small", {"output_stride": 8}, 512),
    ],
)
def test_renamed_weights_answer_as_cvnets_did(
    name, options, size, real_data, rebuilt, assert_close
):
    checkpoint = load_checkpoint(real_data / "cvnets" / f"{name}.pt", **options)
    (expected,) = load_file(real_data / "cvnets" / f"{name}.logits.safetensors").values()

    assert checkpoint.provenance.format == "cvnets"
    with torch.no_grad():
        assert_close(rebuilt(checkpoint)(given_input(size)).logits, expected, 1e-4)
        assert_close(build_model(checkpoint)(given_input(size)).logits, expected, 1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_weight_of_every_architecture_has_its_place(name, keys):
    with torch.device("meta"):
        tensors = {key: torch.empty(shape) for key, shape in keys[name].items()}
        reading = cvnets.read(tensors, None)
        cls = getattr(transformers, architecture_name(reading.config, reading.task))
        model = cls(cls.config_class(**reading.config.to_dict()))

    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tensor.shape for key, tensor in reading.weights.items()} == expected
    dropped = set(tensors) - set(reading.origins.values())
    unused = ("encoder.classifier.", "encoder.conv_1x1_exp.", "seg_head.aux_head.")
    assert all(key.startswith(unused) for key in dropped)
    assert bool(dropped) == name.startswith("deeplabv3")
    if "v2" in name:
        assert reading.config.width_multiplier == float(name.rsplit("_", 1)[1])
        assert reading.config.patch_grid == "interpolate"
    else:
        assert reading.config.hidden_sizes == HIDDEN_SIZES[name.split("mobilevit_")[1]]


@pytest.mark.parametrize(
    ("name", "stride", "order"),
    [
        ("mobilevit_xx_small", 32, "BGR"),
        ("mobilevitv2_0.5", 32, "RGB"),
        ("deeplabv3_mobilevit_xx_small", 16, "BGR"),
    ],
)
def test_what_the_file_cannot_tell_is_said(name, stride, order, real_data):
    checkpoint = load_checkpoint(real_data / "cvnets" / f"{name}.pt")
    notes = " ".join(checkpoint.notes)
    assert checkpoint.config.output_stride == stride
    assert f"output stride: {stride} was assumed; --output-stride names another" in notes
    size = 512 if stride == 16 else 256
    assert f"{order} at {size} pixels was assumed; --color-order or --image-processor" in notes
    assert checkpoint.image_processor.do_flip_channel_order == (order == "BGR")
    assert checkpoint.image_processor.size == size + 32
    assert checkpoint.image_processor.crop_size == (size, size)
    assert ("attention heads: 4 were assumed" in notes) == ("v2" not in name)
    assert ("atrous rates: 6, 12, 18" in notes) == (stride == 16)
    data_set = "PASCAL VOC" if stride == 16 else "ImageNet-1k"
    assert f"the names of {data_set} were assumed; --labels gives others" in notes


def test_a_stride_that_was_given_is_not_said_to_be_assumed(real_data):
    file = real_data / "cvnets" / "deeplabv3_mobilevit_xx_small.pt"
    checkpoint = load_checkpoint(file, output_stride=8)
    assert not any("output stride" in note for note in checkpoint.notes)
    assert "atrous rates: 12, 24, 36 were assumed" in " ".join(checkpoint.notes)
    assert checkpoint.config.atrous_rates == (12, 24, 36)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"model_state_dict": weights, "epoch": 299, "best_metric": 74.0},
        lambda weights: {"module." + name: tensor for name, tensor in weights.items()},
        lambda weights: {"_orig_mod.module." + name: tensor for name, tensor in weights.items()},
        lambda weights: {"ema_state_dict": weights, "model_state_dict": {}},
    ],
    ids=["training checkpoint", "data parallel", "compiled", "averaged"],
)
def test_wrapped_weights_are_found(wrap, real_data, tmp_path):
    file = real_data / "cvnets" / "mobilevitv2_0.5.pt"
    torch.save(wrap(torch.load(file, weights_only=True)), tmp_path / "checkpoint.pt")
    wrapped, plain = load_checkpoint(tmp_path / "checkpoint.pt"), load_checkpoint(file)
    assert all(torch.equal(wrapped.weights[name], plain.weights[name]) for name in plain.weights)


def test_a_changed_number_of_classes_loads(real_data, tmp_path):
    weights = torch.load(real_data / "cvnets" / "mobilevitv2_0.5.pt", weights_only=True)
    weights["classifier.1.weight"] = weights["classifier.1.weight"][:5].clone()
    weights["classifier.1.bias"] = weights["classifier.1.bias"][:5].clone()
    torch.save(weights, tmp_path / "five.pt")
    checkpoint = load_checkpoint(tmp_path / "five.pt", labels=list("abcde"))
    assert checkpoint.id2label == dict(enumerate("abcde"))
    assert checkpoint.weights["classifier.weight"].shape == (5, 256)


def test_leftovers_are_named_as_the_file_names_them(real_data, tmp_path):
    weights = torch.load(real_data / "cvnets" / "mobilevitv2_0.5.pt", weights_only=True)
    weights["layer_3.1.extra.block.conv.weight"] = torch.zeros(3)
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path / "odd.pt")
    assert str(error.value) == (
        "odd.pt: 1 weights have no place in MobileViTV2ForImageClassification, the first is "
        "'layer_3.1.extra.block.conv.weight'"
    )


def test_a_width_that_no_multiplier_gives_is_refused(real_data, tmp_path):
    weights = torch.load(real_data / "cvnets" / "mobilevitv2_0.5.pt", weights_only=True)
    weights["conv_1.block.conv.weight"] = torch.zeros(17, 3, 3, 3)
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"^odd.pt: no width multiplier of MobileViTV2"):
        load_checkpoint(tmp_path / "odd.pt")


def test_two_weights_for_one_place_are_refused(real_data, tmp_path):
    weights = torch.load(real_data / "cvnets" / "mobilevitv2_0.5.pt", weights_only=True)
    weights["encoder.conv_1.block.conv.weight"] = weights["conv_1.block.conv.weight"].clone()
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"are both 'mobilevitv2.conv_stem.convolution"):
        load_checkpoint(tmp_path / "odd.pt")
