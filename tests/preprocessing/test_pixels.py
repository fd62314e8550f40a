"""Pixels and labels against transformers' Pillow processors, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairwise import pairwise
from PIL import Image
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
    MobileNetV2ImageProcessorPil,
)
from transformers.models.mobilevit.image_processing_pil_mobilevit import (
    MobileViTImageProcessorPil,
)

from mvit_coreml.preprocessing.image_processor import ImageProcessor

pytestmark = pytest.mark.fast

FAMILIES = ["mobilevit", "mobilenet_v2"]


def make(family: str, **options: Any) -> ImageProcessor:
    """The processor under test, small enough to be quick."""
    options = {"size": 40, "crop_size": 32} | options
    factory = {
        "mobilevit": ImageProcessor.for_mobilevit,
        "mobilenet_v2": ImageProcessor.for_mobilenet_v2,
    }[family]
    return factory(**options)


def make_oracle(family: str, **options: Any) -> Any:
    options = {
        "size": {"shortest_edge": 40},
        "crop_size": {"height": 32, "width": 32},
        "resample": 2,
        "do_convert_rgb": True,
    } | options
    oracle = {
        "mobilevit": MobileViTImageProcessorPil,
        "mobilenet_v2": MobileNetV2ImageProcessorPil,
    }[family]
    return oracle(**options)


def oracle_pixels(oracle: Any, images: Any, **options: Any) -> np.ndarray:
    return np.stack(oracle(images, **options)["pixel_values"])


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_identical(actual: Any, expected: Any) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert np.array_equal(actual, expected)


SIZES = [
    (1, 1),
    (1, 60),
    (60, 1),
    (2, 3),
    (31, 33),
    (32, 32),
    (40, 40),
    (41, 97),
    (200, 40),
    (255, 301),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("image_size", SIZES)
def test_images_of_any_size_give_the_published_pixels(
    family: str, image_size: tuple[int, int]
) -> None:
    image = Image.fromarray(noise((*image_size, 3)))
    actual = make(family).preprocess(image, return_tensors="np")
    assert actual.dtype == np.float32
    assert actual.shape == (1, 3, 32, 32)
    assert_identical(actual, oracle_pixels(make_oracle(family), image))


@pytest.mark.parametrize("image_size", [(480, 640), (100, 90)])
def test_family_defaults_are_the_published_configurations(image_size: tuple[int, int]) -> None:
    image = noise((*image_size, 3))
    mobilevit = MobileViTImageProcessorPil(size={"shortest_edge": 288}, resample=2)
    segmenter = MobileViTImageProcessorPil(
        size={"shortest_edge": 544}, crop_size={"height": 512, "width": 512}, resample=2
    )
    cases = [
        (ImageProcessor.for_mobilevit(), mobilevit),
        (ImageProcessor.for_mobilevit(image_size=512), segmenter),
        (ImageProcessor.for_mobilevit(image_size=512, resize_edge=544), segmenter),
        (ImageProcessor.for_mobilenet_v2(), MobileNetV2ImageProcessorPil()),
    ]
    for processor, oracle in cases:
        actual = processor.preprocess(image, return_tensors="np")
        assert_identical(actual, oracle_pixels(oracle, image))


OPTIONS: list[dict[str, Any]] = [
    {"do_resize": False},
    {"do_center_crop": False},
    {"do_resize": False, "do_center_crop": False},
    {"do_rescale": False},
    {"rescale_factor": 1 / 127.5},
    {"size": {"height": 37, "width": 52}},
    {"size": {"height": 20, "width": 60}},
    {"size": {"shortest_edge": 33}},
    {"size": 50},
    {"crop_size": {"height": 64, "width": 24}},
    {"crop_size": {"height": 25, "width": 71}},
    {"crop_size": 41},
    *({"resample": resample} for resample in range(6)),
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_acts_as_published(family: str, options: dict[str, Any]) -> None:
    image = noise((45, 58, 3))
    expected = oracle_pixels(make_oracle(family, **options), image)
    by_constructor = make(family, **options).preprocess(image, return_tensors="np")
    by_call = make(family).preprocess(image, return_tensors="np", **options)
    assert_identical(by_constructor, expected)
    assert_identical(by_call, expected)


def test_flip_is_optional_for_mobilevit() -> None:
    image = noise((45, 58, 3))
    expected = oracle_pixels(make_oracle("mobilevit", do_flip_channel_order=False), image)
    actual = make("mobilevit").preprocess(image, do_flip_channel_order=False, return_tensors="np")
    assert_identical(actual, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"do_normalize": False},
        {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
        {"image_mean": 0.25, "image_std": 0.75},
        {"do_rescale": False, "image_mean": 127.5, "image_std": 127.5},
    ],
    ids=str,
)
def test_normalisation_acts_as_published_for_mobilenet_v2(options: dict[str, Any]) -> None:
    image = noise((45, 58, 3))
    expected = oracle_pixels(make_oracle("mobilenet_v2", **options), image)
    actual = make("mobilenet_v2").preprocess(image, return_tensors="np", **options)
    assert_identical(actual, expected)


def test_mean_and_std_are_in_rgb_order_when_channels_are_flipped() -> None:
    image = noise((45, 58, 3))
    statistics = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    rgb = oracle_pixels(make_oracle("mobilenet_v2", **statistics), image)
    both = make("mobilevit").preprocess(image, do_normalize=True, return_tensors="np", **statistics)
    assert_identical(both, rgb[:, ::-1])


def test_none_in_a_call_keeps_the_processors_own_option() -> None:
    image = noise((45, 58, 3))
    processor = make("mobilevit")
    assert_identical(
        processor.preprocess(image, size=None, do_rescale=None), processor.preprocess(image)
    )


def as_dtype(image: np.ndarray, dtype: str) -> np.ndarray:
    if dtype.startswith("float"):
        return np.random.default_rng(0).random(image.shape).astype(dtype)
    return image.astype(dtype)


@pytest.mark.parametrize(
    ("family", "dtype", "layout", "kind"),
    pairwise(
        FAMILIES,
        ["uint8", "int16", "int64", "uint16", "float32", "float64"],
        ["channels_first", "channels_last"],
        ["array", "tensor"],
    ),
)
@pytest.mark.filterwarnings("ignore:an image holds floats up to 1")
def test_arrays_and_tensors_give_the_published_pixels(
    family: str, dtype: str, layout: str, kind: str
) -> None:
    image = as_dtype(noise((45, 58, 3)), dtype)
    image = np.moveaxis(image, -1, 0) if layout == "channels_first" else image
    image = np.ascontiguousarray(image)
    image = torch.from_numpy(image) if kind == "tensor" else image
    expected = oracle_pixels(make_oracle(family), image)
    assert_identical(make(family).preprocess(image, return_tensors="np"), expected)
    named = make(family).preprocess(image, input_data_format=layout, return_tensors="np")
    assert_identical(named, expected)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_fractions_that_are_not_resized_or_rescaled_keep_their_values(
    family: str, dtype: str
) -> None:
    image = np.random.default_rng(1).uniform(-2, 3, (45, 58, 3)).astype(dtype)
    options = {"do_resize": False, "do_rescale": False}
    expected = oracle_pixels(make_oracle(family, **options), image)
    assert_identical(make(family).preprocess(image, return_tensors="np", **options), expected)


def test_whole_numbers_as_floats_are_resized_like_integers() -> None:
    image = noise((45, 58, 3))
    expected = oracle_pixels(make_oracle("mobilevit"), image)
    actual = make("mobilevit").preprocess(image.astype(np.float32), return_tensors="np")
    assert_identical(actual, expected)


def test_bfloat16_tensors_are_read_as_float32() -> None:
    image = torch.rand(3, 45, 58, generator=torch.Generator().manual_seed(0)).bfloat16()
    processor = make("mobilevit", do_rescale=False)
    assert_identical(processor.preprocess(image), processor.preprocess(image.float()))


def test_an_axis_is_ambiguous_only_without_input_data_format() -> None:
    image = noise((3, 58, 3))
    processor = make("mobilevit")
    with pytest.warns(UserWarning, match=r"\(3, 58, 3\) is taken as \(channels, height, width\)"):
        inferred = processor.preprocess(image, return_tensors="np")
    assert_identical(inferred, oracle_pixels(make_oracle("mobilevit"), image))
    named = processor.preprocess(image, input_data_format="channels_last", return_tensors="np")
    oracle = make_oracle("mobilevit", input_data_format="channels_last")
    assert_identical(named, oracle_pixels(oracle, image))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("family", FAMILIES)
def test_pillow_modes_are_converted_to_rgb_as_published(family: str, mode: str) -> None:
    image = Image.fromarray(noise((45, 58, 3))).convert(mode)
    expected = oracle_pixels(make_oracle(family), image)
    assert_identical(make(family).preprocess(image, return_tensors="np"), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA"])
def test_channels_are_kept_without_rgb_conversion(mode: str) -> None:
    picture = Image.fromarray(noise((45, 58, 4)))
    image = picture.convert("RGB").convert(mode) if mode != "RGBA" else picture
    expected = oracle_pixels(make_oracle("mobilevit", do_convert_rgb=False), image)
    actual = make("mobilevit").preprocess(image, do_convert_rgb=False, return_tensors="np")
    assert_identical(actual, expected)


def test_gray_arrays_become_three_equal_channels() -> None:
    gray = noise((45, 58))
    expected = oracle_pixels(make_oracle("mobilevit"), Image.fromarray(gray))
    for image in (gray, gray[None], gray[..., None]):
        assert_identical(make("mobilevit").preprocess(image, return_tensors="np"), expected)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_alpha_of_arrays_is_dropped(layout: str) -> None:
    image = noise((45, 58, 4))
    expected = oracle_pixels(make_oracle("mobilevit"), image[..., :3])
    image = np.moveaxis(image, -1, 0) if layout == "channels_first" else image
    assert_identical(make("mobilevit").preprocess(image, return_tensors="np"), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_of_every_kind_give_the_same_pixels(family: str, tmp_path: Path) -> None:
    batch = noise((3, 45, 58, 3))
    expected = oracle_pixels(make_oracle(family), batch)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, batch, strict=True):
        Image.fromarray(image).save(path)
    channels_first = np.ascontiguousarray(np.moveaxis(batch, -1, 1))
    batches: list[Any] = [
        batch,
        list(batch),
        tuple(batch),
        [batch[:2], batch[2]],
        channels_first,
        torch.from_numpy(channels_first),
        list(torch.from_numpy(batch)),
        [Image.fromarray(image) for image in batch],
        paths,
        [str(path) for path in paths],
        [[paths[0]], [batch[1], Image.fromarray(batch[2])]],
    ]
    for images in batches:
        assert_identical(make(family).preprocess(images, return_tensors="np"), expected)


def test_images_of_a_batch_may_differ_in_size() -> None:
    images = [noise((45, 58, 3)), noise((20, 100, 3)), noise((64, 33, 3))]
    expected = oracle_pixels(make_oracle("mobilevit"), images)
    assert_identical(make("mobilevit").preprocess(images, return_tensors="np"), expected)


def test_return_tensors_chooses_tensor_array_or_list() -> None:
    images = [noise((45, 58, 3)), noise((45, 58, 3), seed=1)]
    processor = make("mobilevit")
    tensor = processor.preprocess(images)
    array = processor.preprocess(images, return_tensors="np")
    arrays = processor.preprocess(images, return_tensors=None)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert isinstance(array, np.ndarray)
    assert isinstance(arrays, list)
    assert_identical(tensor, array)
    assert_identical(arrays, array)
    different = processor.preprocess(
        [images[0], noise((45, 70, 3))], do_center_crop=False, return_tensors=None
    )
    assert [pixels.shape for pixels in different] == [(3, 40, 51), (3, 40, 62)]


def test_data_format_puts_the_channels_last() -> None:
    image = noise((45, 58, 3))
    processor = make("mobilenet_v2")
    last = processor.preprocess(image, data_format="channels_last")
    assert_identical(last, processor.preprocess(image).permute(0, 2, 3, 1))


def test_the_callers_image_is_left_alone() -> None:
    image, labels = noise((45, 58, 3)), noise((45, 58))
    image_before, labels_before = image.copy(), labels.copy()
    make("mobilevit", do_reduce_labels=True)(image, labels)
    assert np.array_equal(image, image_before)
    assert np.array_equal(labels, labels_before)


def test_fractions_that_are_rescaled_again_draw_a_warning() -> None:
    image = noise((45, 58, 3)) / 255
    with pytest.warns(UserWarning, match="pass do_rescale=False"):
        make("mobilevit").preprocess(image)


# Segmentation maps


MAP_OPTIONS: list[dict[str, Any]] = [
    {},
    {"do_reduce_labels": True},
    {"do_resize": False},
    {"do_center_crop": False},
    {"crop_size": {"height": 70, "width": 31}},
    {"size": {"height": 37, "width": 52}},
    {"do_reduce_labels": True, "crop_size": {"height": 70, "width": 70}},
]


@pytest.mark.parametrize(
    ("family", "options", "dtype"),
    pairwise(FAMILIES, MAP_OPTIONS, ["uint8", "int32", "int64", "float32"]),
    ids=str,
)
def test_segmentation_maps_follow_their_image(
    family: str, options: dict[str, Any], dtype: str
) -> None:
    image, labels = noise((45, 58, 3)), noise((45, 58), seed=1).astype(dtype)
    labels[:3, :3], labels[3, :4] = 255, [0, 1, 254, 255]
    expected = make_oracle(family, **options)(image, labels.copy(), return_tensors="np")
    actual = make(family, **options)(image, labels, return_tensors="np")
    assert set(actual) == {"pixel_values", "labels"}
    assert_identical(actual["pixel_values"], expected["pixel_values"])
    assert_identical(actual["labels"], expected["labels"])


@pytest.mark.parametrize("map_size", SIZES)
def test_maps_of_any_size_are_resized_as_published(map_size: tuple[int, int]) -> None:
    labels = noise(map_size)
    expected = make_oracle("mobilevit")(
        noise((*map_size, 3)), labels, input_data_format="channels_last"
    )
    actual = make("mobilevit").preprocess_segmentation_maps(labels, return_tensors="np")
    assert_identical(actual, np.stack(expected["labels"]))


def test_map_batches_of_every_kind_give_the_same_labels(tmp_path: Path) -> None:
    maps = noise((2, 45, 58))
    palette_map = Image.fromarray(maps[0])
    palette_map = palette_map.convert("P")
    palette_map.putpalette([value // 3 for value in range(768)])
    palette_map.save(tmp_path / "0.png")
    Image.fromarray(maps[1]).save(tmp_path / "1.png")
    oracle = make_oracle("mobilevit")
    expected = np.stack(oracle(noise((2, 45, 58, 3)), maps)["labels"])
    processor = make("mobilevit")
    batches: list[Any] = [
        maps,
        list(maps),
        torch.from_numpy(maps),
        [Image.fromarray(labels) for labels in maps],
        [tmp_path / "0.png", tmp_path / "1.png"],
    ]
    for batch in batches:
        labels = processor.preprocess_segmentation_maps(batch)
        assert labels.dtype == torch.int64
        assert_identical(labels, expected)


def test_maps_may_hold_more_than_256_classes_and_negative_fillers() -> None:
    labels = np.array([[0, 300], [70000, -100]])
    processor = make("mobilevit", size=(4, 4), crop_size=4)
    actual = processor.preprocess_segmentation_maps(labels, return_tensors="np")
    assert_identical(actual, labels.repeat(2, 0).repeat(2, 1)[None])


def test_without_maps_there_are_no_labels() -> None:
    assert set(make("mobilevit")(noise((45, 58, 3)))) == {"pixel_values"}


# Draws at random, and real images


def draw_case(rng: np.random.Generator) -> tuple[str, dict[str, Any], np.ndarray, np.ndarray]:
    def flag() -> bool:
        return bool(rng.integers(0, 4))

    def length() -> int:
        return int(rng.integers(1, 70))

    family = FAMILIES[rng.integers(0, 2)]
    options: dict[str, Any] = {
        "do_resize": flag(),
        "do_center_crop": flag(),
        "do_rescale": flag(),
        "do_reduce_labels": not flag(),
        "resample": int(rng.integers(0, 6)),
        "rescale_factor": float(rng.uniform(0.001, 0.1)),
        "crop_size": {"height": length(), "width": length()},
        "size": {"shortest_edge": length()} if flag() else {"height": length(), "width": length()},
        "input_data_format": "channels_last",
    }
    if family == "mobilevit":
        options["do_flip_channel_order"] = flag()
    else:
        options["do_normalize"] = flag()
        options["image_mean"] = rng.uniform(0, 1, 3).tolist()
        options["image_std"] = rng.uniform(0.1, 1, 3).tolist()
    height, width = length(), length()
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return family, options, image, rng.integers(0, 256, (height, width))


@pytest.mark.parametrize("seed", range(120))
def test_options_drawn_at_random_give_the_published_pixels_and_labels(seed: int) -> None:
    family, options, image, labels = draw_case(np.random.default_rng(seed))
    expected = make_oracle(family)(image, labels.copy(), return_tensors="np", **options)
    actual = make(family)(image, labels, return_tensors="np", **options)
    assert_identical(actual["pixel_values"], expected["pixel_values"])
    assert_identical(actual["labels"], expected["labels"])


CHECKPOINTS = [
    ("mobilenet_v2_1.0_224", MobileNetV2ImageProcessorPil),
    ("deeplabv3_mobilenet_v2_1.0_513_os16", MobileNetV2ImageProcessorPil),
    ("mobilevit_xxs_cifar10_64", MobileViTImageProcessorPil),
]


@pytest.mark.parametrize(("folder", "oracle"), CHECKPOINTS)
def test_published_files_give_the_published_pixels_of_real_images(
    real_data: Path, folder: str, oracle: Any
) -> None:
    data = json.loads((real_data / folder / "preprocessor_config.json").read_text())
    paths = sorted((real_data / "imagenet").glob("*.jpg"))[::34]
    assert len(paths) >= 11
    images = [Image.open(path).convert("RGB") for path in paths]
    actual = ImageProcessor.from_dict(data).preprocess(paths, return_tensors="np")
    assert_identical(actual, oracle_pixels(oracle.from_dict(data), images))


def test_voc_masks_follow_their_images(real_data: Path) -> None:
    image = real_data / "voc" / "bird_segmentation.bmp"
    mask = real_data / "voc" / "bird_segmentation_mask.bmp"
    with Image.open(image) as picture, Image.open(mask) as labels:
        oracle = MobileNetV2ImageProcessorPil(size={"shortest_edge": 513}, crop_size=513)
        expected = oracle(picture.convert("RGB"), labels, return_tensors="np")
    processor = ImageProcessor.for_mobilenet_v2(image_size=513, resize_edge=513)
    actual = processor(image, mask, return_tensors="np")
    assert_identical(actual["pixel_values"], expected["pixel_values"])
    assert_identical(actual["labels"], expected["labels"])
