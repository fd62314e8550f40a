"""Where class names come from."""

from __future__ import annotations

import json

import pytest
from timm.data import ImageNetInfo

from mvit_coreml.checkpoints.class_names import imagenet_names, resolve_labels, voc_names
from mvit_coreml.errors import CheckpointError

pytestmark = pytest.mark.fast

FOURTH_OF_1001 = (
    "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias"
)


def unnamed(count):
    return {index: f"LABEL_{index}" for index in range(count)}


def test_imagenet_names_are_those_of_a_published_configuration(real_data):
    config = json.loads((real_data / "mobilenet_v2_1.0_224" / "config.json").read_text())
    published = [config["id2label"][str(index)] for index in range(1001)]
    assert ["background", *imagenet_names()] == published


def test_imagenet_names_are_timms():
    info = ImageNetInfo("imagenet-1k")
    assert list(imagenet_names()) == [
        info.index_to_description(i, detailed=False) for i in range(1000)
    ]


def test_voc_names_are_those_of_a_published_configuration(real_data):
    folder = real_data / "deeplabv3_mobilenet_v2_1.0_513_os16"
    published = json.loads((folder / "config.json").read_text())["id2label"]
    assert list(voc_names()) == [published[str(index)] for index in range(21)]


def test_a_checkpoints_own_names_are_kept():
    own = {0: "cat", 1: "LABEL_1"}
    assert resolve_labels(own, "image-classification", None) == (own, None)


@pytest.mark.parametrize(
    ("count", "task", "fourth", "data_set"),
    [
        (1000, "image-classification", "tiger shark, Galeocerdo cuvieri", "ImageNet-1k"),
        (1001, "image-classification", FOURTH_OF_1001, "ImageNet-1k after a background class"),
        (21, "semantic-segmentation", "bird", "PASCAL VOC"),
    ],
)
def test_unnamed_classes_of_a_well_known_count_get_its_names_and_a_note(
    count, task, fourth, data_set
):
    names, note = resolve_labels(unnamed(count), task, None)
    assert len(names) == count
    assert names[3] == fourth
    assert f"as there are {count}, the names of {data_set} were assumed" in note


@pytest.mark.parametrize(
    ("count", "task"),
    [(21, "image-classification"), (1000, "semantic-segmentation"), (7, "image-classification")],
)
def test_other_unnamed_classes_stay_unnamed_and_a_note_says_so(count, task):
    names, note = resolve_labels(unnamed(count), task, None)
    assert names == unnamed(count)
    assert note == f"The checkpoint names none of its {count} classes; --labels does."


def test_a_backbone_needs_no_names():
    assert resolve_labels(unnamed(2), "backbone", None) == (unnamed(2), None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "ant\nbee\ncrow\n"),
        ("names.txt", "\ufeffant\r\nbee\r\n\r\ncrow"),
        ("names.json", '["ant", "bee", "crow"]'),
        ("names.json", '{"1": "bee", "0": "ant", "2": "crow"}'),
    ],
)
def test_names_are_read_from_a_file(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    names, note = resolve_labels(unnamed(3), "image-classification", tmp_path / name)
    assert names == {0: "ant", 1: "bee", 2: "crow"}
    assert list(names) == [0, 1, 2]
    assert note is None


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("names.txt", "ant\nbee\n", "2 class names for a model of 3 classes"),
        ("names.json", '{"0": "a", "1": "b", "7": "c"}', "no name for class 2"),
        ("names.json", '{"a": 0, "b": 1, "c": 2}', "class indices must be whole numbers from 0"),
        ("names.json", "{", "not readable as JSON"),
        ("names.json", '"ant"', "must hold a list of names, or names by class index"),
        ("names.txt", None, "class names cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_does_not_name_every_class_is_refused(name, text, reason, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError) as error:
        resolve_labels(unnamed(3), "image-classification", tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(error.value)
