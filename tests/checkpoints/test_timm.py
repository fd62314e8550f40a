"""timm's checkpoints against timm itself."""

from __future__ import annotations

import argparse
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from torchvision import transforms

from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.base import build_model

FAST = ["mobilevit_xxs", "mobilevitv2_050", "mobilenetv2_035"]
SLOW = [
    "mobilevit_xs",
    "mobilevit_s",
    *(f"mobilevitv2_{width}" for width in ("075", "100", "125", "150", "175", "200")),
    *(f"mobilenetv2_{width}" for width in ("050", "075", "100", "140")),
]
EVERY = [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
DEEPER = ["mobilenetv2_110d", "mobilenetv2_120d"]
# transformers' MobileNetV2 pads as TensorFlow or as PyTorch does; eps is a field of its config.


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "bare file"])
def test_transformers_answers_as_timm_does_with_the_renamed_weights(
    name, bare, random_timm, save_timm, image, rebuilt, assert_close, tmp_path
):
    model = random_timm(name)
    if bare:
        source = tmp_path / "weights.pth"
        torch.save(model.state_dict(), source)
    else:
        source = save_timm(model)

    checkpoint = load_checkpoint(source)

    assert checkpoint.provenance.format == "timm"
    assert checkpoint.task == "image-classification"
    with torch.no_grad():
        pixels = image(256)
        assert_close(rebuilt(checkpoint)(pixels).logits, model(pixels), 1e-4)


@pytest.mark.parametrize("name", DEEPER)
@pytest.mark.parametrize("bare", [False, True], ids=["folder", "bare file"])
def test_our_model_answers_as_timm_does_where_transformers_has_no_such_model(
    name, bare, random_timm, save_timm, image, assert_close, tmp_path
):
    model = random_timm(name)
    source = save_timm(model)
    if bare:
        source = source / "model.safetensors"
        (source.parent / "config.json").unlink()

    checkpoint = load_checkpoint(source)

    with torch.no_grad():
        pixels = image(128)
        assert_close(build_model(checkpoint)(pixels).logits, model(pixels), 1e-4)
    with pytest.raises(CheckpointError, match=r"cannot be written for transformers: \w+="):
        checkpoint.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name", [name for name in timm.list_models(["mobilevit*", "mobilenetv2*"]) if "_d" not in name]
)
def test_every_supported_architecture_is_read_from_its_name_and_from_its_shapes(name, tmp_path):
    with torch.device("meta"):
        model = timm.create_model(name)
    weights = {key: torch.zeros(w.shape, dtype=w.dtype) for key, w in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    from_shapes = load_checkpoint(tmp_path).config
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    from_name = load_checkpoint(tmp_path).config

    assert from_shapes.replace(id2label=from_name.id2label) == from_name
    assert from_name.num_labels == 1000


@pytest.mark.parametrize(
    "name",
    [
        "mobilevit_s.cvnets_in1k",
        "mobilevitv2_050.cvnets_in1k",
        "mobilevitv2_200.cvnets_in22k_ft_in1k_384",
        "mobilenetv2_100.ra_in1k",
    ],
)
def test_preprocessing_has_the_numbers_of_timms_own_transform(name, tmp_path):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    settings = resolve_data_config({}, model=model)
    expected = {type(step): step for step in create_transform(**settings).transforms}
    weights = {k: torch.zeros(w.shape, dtype=w.dtype) for k, w in model.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    config = {"architecture": model.pretrained_cfg["architecture"]}
    config["pretrained_cfg"] = {
        key: model.pretrained_cfg[key]
        for key in ("input_size", "interpolation", "crop_pct", "mean", "std", "num_classes")
    }
    (tmp_path / "config.json").write_text(json.dumps(config))

    checkpoint = load_checkpoint(tmp_path)
    processor = checkpoint.image_processor

    assert processor.size == expected[transforms.Resize].size
    assert processor.resample.name.lower() == expected[transforms.Resize].interpolation.value
    assert processor.crop_size == tuple(expected[transforms.CenterCrop].size)
    assert checkpoint.config.image_size == expected[transforms.CenterCrop].size[0]
    normalize = expected[transforms.Normalize]
    mean = torch.tensor(processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0))
    std = torch.tensor(processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0))
    assert torch.allclose(mean, normalize.mean)
    assert torch.allclose(std, normalize.std)
    assert not processor.do_flip_channel_order
    assert checkpoint.notes == (NAMES_NOTE,)


NAMES_NOTE = (
    "The checkpoint does not name its classes: as there are 1000, the names of ImageNet-1k were "
    "assumed; --labels gives others."
)


def test_a_bare_file_says_what_was_assumed(random_timm, tmp_path):
    torch.save(random_timm("mobilevit_xxs").state_dict(), tmp_path / "net.pth")
    notes = " ".join(load_checkpoint(tmp_path / "net.pth").notes)
    assert "4 attention heads" in notes
    assert "preprocessing at 256 pixels" in notes


def test_a_file_beside_its_configuration_is_read_with_it(random_timm, save_timm):
    folder = save_timm(random_timm("mobilevit_xxs", num_classes=5))
    by_file = load_checkpoint(folder / "model.safetensors")
    assert by_file.config == load_checkpoint(folder).config
    assert by_file.provenance.name == "model.safetensors"


def test_a_fine_tuned_folder_brings_its_class_names(random_timm, save_timm):
    labels = {"label_names": ["n1", "n2", "n3"], "label_descriptions": {"n2": "a fox"}}
    folder = save_timm(random_timm("mobilevit_xxs", num_classes=3), labels)
    assert load_checkpoint(folder).id2label == {0: "n1", 1: "a fox", 2: "n3"}


def test_a_model_without_classifier_is_a_backbone(random_timm, save_timm, image, rebuilt):
    model = random_timm("mobilevit_xxs", num_classes=0)
    checkpoint = load_checkpoint(save_timm(model))
    assert checkpoint.task == "backbone"
    with torch.no_grad():
        features = rebuilt(checkpoint)(image(64)).last_hidden_state
        expected = model.forward_features(image(64))
    assert torch.allclose(features, expected, atol=1e-4 * expected.abs().max())


@pytest.mark.parametrize("prefer_ema", [False, True])
def test_a_training_checkpoint_of_timm_is_unwrapped(prefer_ema, random_timm, tmp_path):
    model = random_timm("mobilevit_xxs", num_classes=4)
    weights = model.state_dict()
    ema = {f"module.{name}": tensor + 1 for name, tensor in weights.items()}
    content = {"epoch": 3, "arch": "mobilevit_xxs", "state_dict": weights, "optimizer": {}}
    content["args"] = argparse.Namespace(lr=0.1, model="mobilevit_xxs")
    if prefer_ema:
        content["state_dict_ema"] = ema
    torch.save(content, tmp_path / "model_best.pth.tar")

    checkpoint = load_checkpoint(tmp_path / "model_best.pth.tar")

    expected = weights["head.fc.weight"] + prefer_ema
    assert torch.equal(checkpoint.weights["classifier.weight"], expected)
    assert any("state_dict_ema was read" in note for note in checkpoint.notes) == prefer_ema


@pytest.mark.parametrize("architecture", ["semobilevit_s", "resnet50"])
def test_an_unsupported_architecture_names_the_supported_ones(architecture, random_timm, save_timm):
    folder = save_timm(random_timm("mobilevit_xxs"), {"architecture": architecture})
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    assert f"timm architecture '{architecture}' is not supported" in str(error.value)
    assert "mobilevit_xxs, mobilevit_xs, mobilevit_s, mobilevitv2_050" in str(error.value)


def test_a_bare_efficientnet_is_not_taken_for_a_mobilenet(tmp_path):
    with torch.device("meta"):
        model = timm.create_model("efficientnet_b0")
    weights = {key: torch.zeros(w.shape, dtype=w.dtype) for key, w in model.state_dict().items()}
    save_file(weights, tmp_path / "b0.safetensors")
    with pytest.raises(CheckpointError, match=r"^b0.safetensors: "):
        load_checkpoint(tmp_path / "b0.safetensors")


def test_a_configuration_of_another_width_names_the_first_weight_and_both_shapes(
    random_timm, save_timm
):
    folder = save_timm(random_timm("mobilevitv2_050"), {"architecture": "mobilevitv2_075"})
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    assert str(error.value) == (
        "timm-model: weight 'stem.conv.weight' is (16, 3, 3, 3), but the configuration makes it "
        "(24, 3, 3, 3)"
    )


def test_model_arguments_that_change_the_network_are_refused(random_timm, save_timm):
    folder = save_timm(random_timm("mobilevit_xxs"), {"model_args": {"act_layer": "relu"}})
    with pytest.raises(CheckpointError, match="model argument act_layer='relu' is not supported"):
        load_checkpoint(folder)


def test_a_crop_mode_without_counterpart_is_refused(random_timm, save_timm):
    folder = save_timm(random_timm("mobilevit_xxs"))
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"]["crop_mode"] = "border"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"crop_mode 'border'.*--image-processor"):
        load_checkpoint(folder)
