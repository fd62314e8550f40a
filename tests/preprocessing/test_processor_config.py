"""Reading and writing preprocessor_config.json, and the checks of every option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
    MobileNetV2ImageProcessorPil,
)
from transformers.models.mobilevit.image_processing_pil_mobilevit import (
    MobileViTImageProcessorPil,
)

from mvit_coreml.errors import ConfigError
from mvit_coreml.preprocessing.image_processor import ImageProcessor

pytestmark = pytest.mark.fast

ORACLES = {
    "MobileViTImageProcessor": MobileViTImageProcessorPil,
    "MobileNetV2ImageProcessor": MobileNetV2ImageProcessorPil,
}
IMAGE = np.random.default_rng(0).integers(0, 256, (300, 271, 3), dtype=np.uint8)


def pixels(processor: ImageProcessor, **options: Any) -> np.ndarray:
    result = processor.preprocess(IMAGE, return_tensors="np", **options)
    assert isinstance(result, np.ndarray)
    return result


def oracle_pixels(data: dict[str, Any], class_name: str) -> np.ndarray:
    oracle = ORACLES[class_name].from_dict(json.loads(json.dumps(data)))
    return np.stack(oracle(IMAGE)["pixel_values"])


# The generations of the file that are in circulation, each with the class that reads it and what
# transformers would have to be told to read it as it was meant.
MEANT_BILINEAR = {"resample": 2}
FILES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    (  # transformers 4.20, feature extractors
        {
            "crop_size": 256,
            "do_center_crop": True,
            "do_flip_channel_order": True,
            "do_resize": True,
            "feature_extractor_type": "MobileViTFeatureExtractor",
            "resample": 2,
            "size": 288,
        },
        "MobileViTImageProcessor",
        {},
    ),
    (  # transformers 4.26, image processors
        {
            "crop_size": {"height": 256, "width": 256},
            "do_center_crop": True,
            "do_flip_channel_order": False,
            "do_rescale": True,
            "do_resize": True,
            "image_processor_type": "MobileViTImageProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 288},
        },
        "MobileViTImageProcessor",
        {},
    ),
    (  # transformers 5: a mean that is never used
        {
            "crop_size": {"height": 256, "width": 256},
            "do_flip_channel_order": True,
            "do_reduce_labels": False,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "MobileViTImageProcessorFast",
            "size": {"shortest_edge": 288},
        },
        "MobileViTImageProcessor",
        MEANT_BILINEAR,
    ),
    (
        {"image_processor_type": "MobileViTImageProcessorPil"},
        "MobileViTImageProcessor",
        MEANT_BILINEAR,
    ),
    ({"size": 200, "resample": None}, "MobileViTImageProcessor", MEANT_BILINEAR),
    (
        {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "feature_extractor_type": "MobileNetV2FeatureExtractor",
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "MobileNetV2ImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 256},
        },
        "MobileNetV2ImageProcessor",
        {},
    ),
    (
        {"feature_extractor_type": "MobileNetV2FeatureExtractor", "size": 230},
        "MobileNetV2ImageProcessor",
        {},
    ),
    (
        {
            "image_processor_type": "MobileNetV2ImageProcessorFast",
            "do_normalize": False,
            "size": {"height": 240, "width": 250},
            "crop_size": [200, 224],
        },
        "MobileNetV2ImageProcessor",
        {},
    ),
]


@pytest.mark.parametrize(("data", "class_name", "meant"), FILES)
def test_every_generation_of_the_file_gives_the_pixels_it_meant(
    data: dict[str, Any], class_name: str, meant: dict[str, Any]
) -> None:
    processor = ImageProcessor.from_dict(data, "mobilevit")
    assert processor.image_processor_type == class_name
    assert np.array_equal(pixels(processor), oracle_pixels(data | meant, class_name))


def test_the_family_decides_where_a_file_names_no_class() -> None:
    for model_type in ("mobilevit", "mobilevitv2"):
        processor = ImageProcessor.from_dict({}, model_type)
        assert processor.image_processor_type == "MobileViTImageProcessor"
        assert (processor.size, processor.crop_size) == (224, (256, 256))
        assert (processor.do_flip_channel_order, processor.do_normalize) == (True, False)
        assert processor.resample == Image.Resampling.BILINEAR
    processor = ImageProcessor.from_dict({}, "mobilenet_v2")
    assert processor.image_processor_type == "MobileNetV2ImageProcessor"
    assert (processor.size, processor.crop_size) == (256, (224, 224))
    assert (processor.do_flip_channel_order, processor.do_normalize) == (False, True)


def test_a_class_named_in_the_file_overrules_the_family() -> None:
    data = {"image_processor_type": "MobileNetV2ImageProcessor"}
    processor = ImageProcessor.from_dict(data, "mobilevit")
    assert processor.do_normalize


@pytest.mark.parametrize(
    ("class_name", "step"),
    [
        ("MobileViTImageProcessor", "do_normalize"),
        ("MobileNetV2ImageProcessor", "do_flip_channel_order"),
    ],
)
def test_a_step_that_the_class_does_not_have_is_skipped_with_a_warning(
    class_name: str, step: str
) -> None:
    data = {"image_processor_type": class_name, step: True, "resample": 2}
    with pytest.warns(UserWarning, match=f"{class_name} skips {step}"):
        processor = ImageProcessor.from_dict(data)
    assert np.array_equal(pixels(processor), oracle_pixels(data, class_name))
    assert not np.array_equal(pixels(processor), pixels(processor, **{step: True}))


WRITTEN = [
    ImageProcessor.for_mobilevit(),
    ImageProcessor.for_mobilevit(do_flip_channel_order=False, resample=3),
    ImageProcessor.for_mobilevit(do_flip_channel_order=False, do_normalize=True),
    ImageProcessor.for_mobilevit(image_size=64, resize_edge=72, do_rescale=False),
    ImageProcessor.for_mobilenet_v2(),
    ImageProcessor.for_mobilenet_v2(
        image_mean=(0.485, 0.456, 0.406), image_std=(0.229, 0.224, 0.225), resample=3
    ),
    ImageProcessor.for_mobilenet_v2(do_normalize=False, do_flip_channel_order=True),
    ImageProcessor.for_mobilenet_v2(do_normalize=False, size=(100, 120), crop_size=(90, 130)),
    ImageProcessor.for_mobilenet_v2(do_center_crop=False, rescale_factor=1 / 127.5),
]


@pytest.mark.parametrize("processor", WRITTEN)
def test_transformers_reads_the_written_file_back_to_the_same_pixels(
    processor: ImageProcessor,
) -> None:
    data = json.loads(json.dumps(processor.to_dict()))
    expected = oracle_pixels(data, data["image_processor_type"])
    assert np.array_equal(pixels(processor), expected)
    assert np.array_equal(pixels(ImageProcessor.from_dict(data)), expected)


def test_the_written_file_names_the_class_of_its_family() -> None:
    for processor in (ImageProcessor.for_mobilevit(), ImageProcessor.for_mobilenet_v2()):
        assert processor.to_dict()["image_processor_type"] == processor.image_processor_type
        assert ImageProcessor.from_dict(processor.to_dict()) == processor


def test_steps_that_no_class_combines_are_kept_in_a_file_that_transformers_refuses() -> None:
    processor = ImageProcessor.for_mobilevit(do_normalize=True)
    data = processor.to_dict()
    assert data["image_processor_type"] == "ImageProcessor"
    again = ImageProcessor.from_dict(json.loads(json.dumps(data)))
    assert np.array_equal(pixels(again), pixels(processor))
    assert again.to_dict() == data


def test_real_files_are_read_as_they_say(real_data: Path) -> None:
    def read(folder: str) -> ImageProcessor:
        path = real_data / folder / "preprocessor_config.json"
        return ImageProcessor.from_dict(json.loads(path.read_text()))

    mobilenet = ImageProcessor.for_mobilenet_v2()
    assert read("mobilenet_v2_1.0_224") == mobilenet
    assert read("deeplabv3_mobilenet_v2_1.0_513_os16") == mobilenet.replace(size=513, crop_size=513)
    cifar = ImageProcessor.for_mobilevit(image_size=64, resize_edge=72)
    assert read("mobilevit_xxs_cifar10_64") == cifar


def test_options_are_held_in_one_form() -> None:
    forms: list[dict[str, Any]] = [
        {"size": 288, "crop_size": 256},
        {"size": {"shortest_edge": 288}, "crop_size": {"height": 256, "width": 256}},
        {"size": {"shortest_edge": 288, "longest_edge": None}, "crop_size": [256, 256]},
        {"image_mean": 0.5, "image_std": [0.5, 0.5, 0.5], "resample": 2},
    ]
    processors = {ImageProcessor.for_mobilevit(**form) for form in forms}
    assert processors == {ImageProcessor.for_mobilevit()}
    both = ImageProcessor.for_mobilevit(size={"height": 10, "width": 20})
    assert both.size == (10, 20)
    assert both == ImageProcessor.for_mobilevit(size=[10, 20])


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"size is 0; it must be pixels as a whole number, \{\"shortest_edge\": n\}"),
        ({"size": True}, "size is True"),
        ({"size": {"longest_edge": 9}}, r"size is \{'longest_edge': 9\}"),
        ({"size": {"height": 9}}, "size is"),
        ({"size": {"shortest_edge": 9, "longest_edge": 12}}, "size is"),
        ({"size": [9, 9, 9]}, r"size is \[9, 9, 9\]"),
        ({"size": "288"}, "size is '288'"),
        ({"crop_size": -1}, "crop_size is -1; it must be pixels as a whole number or"),
        ({"crop_size": {"shortest_edge": 9}}, "crop_size is"),
        ({"crop_size": 25.5}, "crop_size is 25.5"),
        ({"resample": 99}, r"resample is 99; it must be one of 0 \(nearest\), 4 \(box\), 2 "),
        ({"resample": "bilinear"}, "resample is 'bilinear'"),
        ({"rescale_factor": 0}, "rescale_factor is 0; it must be a number above 0"),
        ({"rescale_factor": float("nan")}, "rescale_factor is nan"),
        ({"image_mean": [0.5, 0.5]}, r"image_mean is \[0.5, 0.5\]; it must be three numbers"),
        ({"image_mean": "imagenet"}, "image_mean is 'imagenet'"),
        ({"image_std": [1, 0, 1]}, r"image_std is \[1, 0, 1\]; it must be three numbers above 0"),
        ({"do_resize": "yes"}, "do_resize is 'yes'; it must be true or false"),
        ({"do_normalize": 1}, "do_normalize is 1; it must be true or false"),
    ],
    ids=str,
)
def test_an_impossible_value_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match="^image processor: " + message):
        ImageProcessor.for_mobilevit(**options)
    with pytest.raises(ConfigError, match="^image processor: " + message):
        ImageProcessor.for_mobilevit().preprocess(IMAGE, **options)
    with pytest.raises(ConfigError, match="^image processor: " + message):
        ImageProcessor.from_dict(options, "mobilenet_v2")


def test_the_class_of_another_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="'ViTImageProcessor' is not supported; supported are"):
        ImageProcessor.from_dict({"image_processor_type": "ViTImageProcessor"}, "mobilevit")
    with pytest.raises(ConfigError, match="image_processor_type is 'ViT'"):
        ImageProcessor(image_processor_type="ViT", size=9, crop_size=(9, 9))


@pytest.mark.parametrize("model_type", [None, "resnet"])
def test_a_file_without_class_needs_a_known_family(model_type: str | None) -> None:
    with pytest.raises(ConfigError, match=f"model_type {model_type!r} is none of mobilevit"):
        ImageProcessor.from_dict({}, model_type)


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("do_flip_chanel_order", "do_flip_channel_order"),
        ("do_normalise", "do_normalize"),
        ("cropsize", "crop_size"),
        ("do_reduce_label", "do_reduce_labels"),
    ],
)
def test_a_misspelt_key_is_not_lost_in_silence(misspelt: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown key '{misspelt}'; did you mean '{meant}'"):
        ImageProcessor.from_dict({misspelt: True}, "mobilevit")


def test_keys_of_other_processors_are_ignored() -> None:
    foreign = {
        "processor_class": None,
        "do_pad": False,
        "pad_size": None,
        "default_to_square": False,
        "data_format": "channels_first",
        "input_data_format": None,
        "return_tensors": None,
        "device": None,
        "disable_grouping": None,
        "image_seq_length": None,
        "crop_pct": 0.9,
        "size_divisor": 32,
        "_valid_processor_keys": ["images"],
    }
    assert ImageProcessor.from_dict(foreign, "mobilevit") == ImageProcessor.from_dict(
        {}, "mobilevit"
    )
