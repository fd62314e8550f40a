"""The bundled checkpoints on held-out scans, against labels, transformers and their packages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from demo_run import demo_run
from digit_pictures import Pictures
from PIL import Image

from mvit_coreml import build_model, load_checkpoint
from mvit_coreml.demo import KINDS, Kind, demo_checkpoint, demo_images, demo_masks
from mvit_coreml.mil.predictor import Predictor

ORACLES = {
    "classifier": "MobileViTForImageClassification",
    "segmenter": "MobileViTForSemanticSegmentation",
}


def logits(kind: Kind, images: np.ndarray, **overrides: object) -> torch.Tensor:
    """Answers of the project's own model to (N, 96, 96, 3) uint8."""
    checkpoint = load_checkpoint(demo_checkpoint(kind))
    model = build_model(checkpoint)
    with torch.inference_mode():
        return torch.cat(
            [
                model(checkpoint.image_processor.preprocess(images[i : i + 50], **overrides)).logits
                for i in range(0, len(images), 50)
            ]
        )


def mean_iou(maps: np.ndarray, masks: np.ndarray) -> float:
    """Mean over three classes of intersection over union, all pixels of all pictures together."""
    shares = []
    for index in range(3):
        found, true = maps == index, masks == index
        shares.append((found & true).sum() / (found | true).sum())
    return float(np.mean(shares))


@pytest.fixture(scope="module")
def classified(held_out: Pictures) -> np.ndarray:
    return logits("classifier", held_out.images).argmax(-1).numpy()


def test_classifier_is_right_on_held_out_scans(held_out: Pictures, classified: np.ndarray) -> None:
    assert len(classified) >= 500
    assert (classified == held_out.labels).mean() >= 0.98


def test_classifier_fails_when_it_gets_rgb(held_out: Pictures, classified: np.ndarray) -> None:
    swapped = logits("classifier", held_out.images[:200], do_flip_channel_order=False).argmax(-1)
    right = (classified[:200] == held_out.labels[:200]).mean()
    assert (swapped.numpy() == held_out.labels[:200]).mean() < right - 0.4


def test_segmenter_finds_the_ink_of_held_out_scans(held_out: Pictures) -> None:
    scores = logits("segmenter", held_out.images[:150])
    maps = torch.nn.functional.interpolate(scores, size=(96, 96), mode="bilinear").argmax(1)
    assert mean_iou(maps.numpy(), held_out.masks[:150]) >= 0.90


def test_segmenter_takes_red_for_blue_when_it_gets_rgb(held_out: Pictures) -> None:
    scores = logits("segmenter", held_out.images[:50], do_flip_channel_order=False)
    maps = torch.nn.functional.interpolate(scores, size=(96, 96), mode="bilinear").argmax(1)
    assert mean_iou(maps.numpy(), held_out.masks[:50]) < 0.5


def test_classifier_package_of_six_bits_agrees_with_pytorch(
    held_out: Pictures, classified: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """That of the demo."""
    checkpoint = load_checkpoint(demo_checkpoint("classifier"))
    package = demo_run(tmp_path_factory).results[0].package
    assert package.options.bits == 6
    names = [checkpoint.id2label[index] for index in range(20)]
    found = np.empty(200, int)
    predictor = Predictor(package.path, engine="portable")
    for index, image in enumerate(held_out.images[:200]):
        answer = predictor.run({"image": crop(image)})
        found[index] = names.index(answer["classLabel"])
    assert (found == classified[:200]).mean() >= 0.99


def crop(image: np.ndarray) -> np.ndarray:
    """What an app does by itself: shortest edge 72, central 64 pixels, RGB left as it is."""
    resized = Image.fromarray(image).resize((72, 72), Image.Resampling.BILINEAR)
    return np.asarray(resized)[4:68, 4:68]


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_loads_the_checkpoint_and_answers_alike(
    kind: Kind, held_out: Pictures
) -> None:
    folder = demo_checkpoint(kind)
    oracle = getattr(transformers, ORACLES[kind]).from_pretrained(folder).eval()
    assert oracle.dtype == torch.float32
    processor = transformers.MobileViTImageProcessorPil.from_pretrained(folder)
    images = held_out.images[:20]
    pixels = processor(list(images), return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = oracle(pixels).logits
    got = logits(kind, images)
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert oracle.config.id2label == dict(load_checkpoint(folder).id2label)


def test_bundled_images_are_classified_as_named() -> None:
    paths, labels = zip(*demo_images(), strict=True)
    id2label = load_checkpoint(demo_checkpoint("classifier")).id2label
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    found = [id2label[int(index)] for index in logits("classifier", images).argmax(-1)]
    assert found == list(labels)


def test_bundled_images_are_segmented_as_their_masks_say() -> None:
    pairs = demo_masks()
    images = np.stack([np.asarray(Image.open(image)) for image, _ in pairs])
    masks = np.stack([np.asarray(Image.open(mask)) for _, mask in pairs])
    scores = logits("segmenter", images)
    maps = torch.nn.functional.interpolate(scores, size=(96, 96), mode="bilinear").argmax(1)
    assert mean_iou(maps.numpy(), masks) >= 0.90
