"""Trained checkpoints, end to end: file to pixels to answers, against transformers and labels."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from standins import relative_error, transformers_name

from mvit_coreml import (
    ConvertOptions,
    build_model,
    convert,
    load_checkpoint,
    prepare_for_export,
)

FOLDERS = (
    "mobilenet_v2_1.0_224",
    "deeplabv3_mobilenet_v2_1.0_513_os16",
    "mobilevit_xxs_cifar10_64",
)


def sample_images(data: Path, folder: str) -> list[Path]:
    if "cifar" in folder:
        return sorted((data / "cifar10" / "evaluation").rglob("*.*"))[::50]
    if "deeplab" in folder:
        return [data / "voc" / "1_image.png", data / "voc" / "23_image.png"]
    return sorted((data / "imagenet").glob("*.jpg"))[::50]


def predict(model: Any, processor: Any, images: list[Path]) -> torch.Tensor:
    with torch.inference_mode():
        batches = [images[i : i + 25] for i in range(0, len(images), 25)]
        return torch.cat([model(processor.preprocess(batch)).logits for batch in batches])


@pytest.mark.parametrize("folder", FOLDERS)
def test_trained_checkpoint_answers_like_transformers(folder: str, real_data: Path) -> None:
    checkpoint = load_checkpoint(real_data / folder)
    name = transformers_name(checkpoint.config, checkpoint.task)
    oracle = getattr(transformers, name).from_pretrained(real_data / folder)
    model = build_model(checkpoint)
    pixels = checkpoint.image_processor.preprocess(sample_images(real_data, folder))
    with torch.inference_mode():
        expected = oracle(pixels, output_hidden_states=True)
        got = model(pixels, output_hidden_states=True)
        exported = prepare_for_export(model)(pixels, output_hidden_states=True)
    for output in (got, exported):
        assert relative_error(output.logits, expected.logits) <= 1e-5
        for ours, theirs in zip(output.hidden_states, expected.hidden_states, strict=True):
            assert relative_error(ours, theirs) <= 1e-5


@pytest.mark.parametrize("folder", FOLDERS)
def test_saved_again_transformers_gives_the_same_logits(
    folder: str, real_data: Path, tmp_path: Path
) -> None:
    checkpoint = load_checkpoint(real_data / folder)
    checkpoint.save_pretrained(tmp_path)
    name = transformers_name(checkpoint.config, checkpoint.task)
    model_class = getattr(transformers, name)
    pixels = checkpoint.image_processor.preprocess(sample_images(real_data, folder)[:2])
    with torch.inference_mode():
        before = model_class.from_pretrained(real_data / folder)
        after = model_class.from_pretrained(tmp_path)
        weights, expected = after.state_dict(), before.state_dict()
        assert set(weights) == set(expected)
        assert all(torch.equal(weights[name], expected[name]) for name in expected)
        # Equal weights elsewhere in memory: sums in another order.
        assert relative_error(after(pixels).logits, before(pixels).logits) <= 1e-5


@pytest.mark.parametrize(
    ("step", "top1"), [(4, 0.80), pytest.param(1, 0.84, marks=pytest.mark.slow)]
)
def test_mobilenet_v2_top1_on_its_images(step: int, top1: float, real_data: Path) -> None:
    """The share that transformers has right of every fourth image, and of all."""
    with (real_data / "imagenet" / "evaluation.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))[::step]
    checkpoint = load_checkpoint(real_data / "mobilenet_v2_1.0_224")
    images = [real_data / "imagenet" / row["file"] for row in rows]
    best = predict(build_model(checkpoint), checkpoint.image_processor, images).argmax(-1)
    labels = torch.tensor([int(row["label_1001"]) for row in rows])
    assert float((best == labels).float().mean()) == pytest.approx(top1, abs=1e-6)


def cifar_top1(data: Path, color_order: Any) -> float:
    checkpoint = load_checkpoint(data / "mobilevit_xxs_cifar10_64", color_order=color_order)
    images = sorted((data / "cifar10" / "evaluation").glob("*/*"))
    names = [checkpoint.id2label[i] for i in range(10)]
    labels = torch.tensor([names.index(image.parent.name) for image in images])
    best = predict(build_model(checkpoint), checkpoint.image_processor, images).argmax(-1)
    return float((best == labels).float().mean())


def test_mobilevit_top1_on_its_images(real_data: Path) -> None:
    assert cifar_top1(real_data, None) == pytest.approx(0.670, abs=1e-6)


def test_mobilevit_with_its_channels_swapped_fails_on_its_images(real_data: Path) -> None:
    assert cifar_top1(real_data, "RGB") < 0.45


@pytest.mark.parametrize(
    ("image", "mask", "iou"),
    [
        ("1_image.png", "1_target.png", 0.944),
        ("23_image.png", "23_target.png", 0.976),
        ("114_image.png", "114_target.png", 0.966),
        ("bird_segmentation.bmp", "bird_segmentation_mask.bmp", 0.903),
    ],
)
def test_segmenter_finds_the_objects_of_its_images(
    image: str, mask: str, iou: float, real_data: Path
) -> None:
    checkpoint = load_checkpoint(real_data / "deeplabv3_mobilenet_v2_1.0_513_os16")
    folder = real_data / "voc"
    truth = np.asarray(Image.open(folder / mask))
    if truth.ndim == 2:  # class indices: the bird is 3, and smoothing left 1 and 2 at its edge
        objects, void = truth == 3, np.zeros_like(truth, bool)
    else:  # colours: pixels in a near-white of their own belong to neither side
        objects, void = truth.any(-1), (truth == (224, 224, 192)).all(-1)
    with torch.inference_mode():
        logits = build_model(checkpoint)(checkpoint.image_processor.preprocess(folder / image))
        # The figures were measured with TensorFlow's resizing, which aligns the corners.
        maps = F.interpolate(
            logits.logits, size=truth.shape[:2], mode="bilinear", align_corners=True
        )
    found = maps[0].argmax(0).numpy() > 0
    overlap = (objects & found & ~void).sum() / ((objects & ~void) | (found & ~void)).sum()
    assert overlap == pytest.approx(iou, abs=0.0006)


@pytest.mark.parametrize("bits", [None, 6])
def test_checkpoints_that_answer_all_pictures_alike_are_converted(
    bits: int | None, real_data: Path, tmp_path: Path
) -> None:
    # These random weights give scores that differ between pictures by less than rounding.
    checkpoint = load_checkpoint(real_data / "cvnets" / "mobilevitv2_0.5.pt")
    package = convert(checkpoint, ConvertOptions(bits=bits), tmp_path / "Net.mlpackage")
    assert package.parity is not None
    assert package.parity.promised_snr > 50
    assert any("the same scores" in note for note in package.parity.notes)
