"""The catalogue against the libraries that name and size the checkpoints."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import transformers

from mvit_coreml.checkpoints.catalogue import CATALOGUE, find

BY_ID = {entry.id: entry for entry in CATALOGUE}
TIMM_IDS = timm.list_models(["mobilevit_*", "mobilevitv2_*", "mobilenetv2_*"], pretrained=True)
XS = {"hidden_sizes": [96, 120, 144], "neck_hidden_sizes": [16, 32, 48, 64, 80, 96, 384]}
XXS = {
    "hidden_sizes": [64, 80, 96],
    "neck_hidden_sizes": [16, 16, 24, 48, 64, 80, 320],
    "expand_ratio": 2.0,
}
HUGGING_FACE = {
    "apple/mobilevit-small": {},
    "apple/mobilevit-x-small": XS,
    "apple/mobilevit-xx-small": XXS,
    "apple/deeplabv3-mobilevit-small": {},
    "apple/deeplabv3-mobilevit-x-small": XS,
    "apple/deeplabv3-mobilevit-xx-small": XXS,
    "apple/mobilevitv2-1.0-imagenet1k-256": {},
    "apple/mobilevitv2-1.0-voc-deeplabv3": {},
    "shehan97/mobilevitv2-1.0-imagenet1k-256": {},
    "shehan97/mobilevitv2-1.0-voc-deeplabv3": {},
    "google/mobilenet_v2_1.4_224": {"depth_multiplier": 1.4},
    "google/mobilenet_v2_1.0_224": {},
    "google/mobilenet_v2_0.75_160": {"depth_multiplier": 0.75},
    "google/mobilenet_v2_0.35_96": {"depth_multiplier": 0.35},
    "google/deeplabv3_mobilenet_v2_1.0_513": {},
}
PREFIXES = {
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViTV2",
    "mobilenet_v2": "MobileNetV2",
}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_ids_are_unique():
    assert len(BY_ID) == len(CATALOGUE)


def test_timm_ids_are_exactly_the_pretrained_ones_of_timm():
    assert {entry.id for entry in CATALOGUE if entry.format == "timm"} == {
        f"timm/{name}" for name in TIMM_IDS
    }


@pytest.mark.parametrize("name", TIMM_IDS)
def test_timm_entries_agree_with_timm(name):
    entry, config = BY_ID[f"timm/{name}"], timm.get_pretrained_cfg(name)
    with torch.device("meta"):
        assert entry.parameters == parameters(timm.create_model(name.split(".")[0]))
    assert entry.id == config.hf_hub_id
    assert entry.image_size == config.input_size[-1]
    assert entry.license == config.license
    assert entry.in_transformers == (not config.architecture.endswith("d"))


def test_hugging_face_ids_are_the_known_ones():
    listed = {entry.id for entry in CATALOGUE if entry.format == "huggingface"}
    assert listed == set(HUGGING_FACE)


@pytest.mark.parametrize(("name", "fields"), HUGGING_FACE.items())
def test_hugging_face_entries_have_the_size_of_transformers_model(name, fields):
    entry = BY_ID[name]
    segments = entry.task == "semantic-segmentation"
    cls = getattr(
        transformers,
        PREFIXES[entry.family]
        + ("ForSemanticSegmentation" if segments else "ForImageClassification"),
    )
    classes = 21 if segments else 1001 if entry.family == "mobilenet_v2" else 1000
    with torch.device("meta"):
        model = cls(cls.config_class(num_labels=classes, **fields))
    assert entry.parameters == parameters(model)


def test_cvnets_architectures_are_the_recognised_ones(real_data):
    listed = {entry.id: entry for entry in CATALOGUE if entry.format == "cvnets"}
    keys = json.loads((real_data / "cvnets" / "keys.json").read_text())
    assert set(listed) == set(keys)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    for name, shapes in keys.items():
        if name.startswith("deeplabv3"):
            continue
        count = sum(
            torch.Size(shape).numel() for key, shape in shapes.items() if not key.endswith(buffers)
        )
        assert listed[name].parameters == count


def test_published_accuracies_are_where_they_belong():
    values = {entry.id: entry.metric.value for entry in CATALOGUE if entry.metric}
    assert values["apple/mobilevit-xx-small"] == 69.0
    assert values["apple/deeplabv3-mobilevit-small"] == 79.1
    assert values["timm/mobilevitv2_200.cvnets_in22k_ft_in1k_384"] == 83.4
    assert values["deeplabv3_mobilevitv2_0.5"] == 75.1
    assert "timm/mobilevitv2_150.cvnets_in22k_ft_in1k_384" not in values


def test_find_filters_by_family_and_task():
    assert find() == CATALOGUE
    found = find("mobilevitv2", "semantic-segmentation")
    assert {entry.id for entry in found} == {
        "apple/mobilevitv2-1.0-voc-deeplabv3",
        "shehan97/mobilevitv2-1.0-voc-deeplabv3",
        "deeplabv3_mobilevitv2_0.5",
        "deeplabv3_mobilevitv2_1.0",
    }
