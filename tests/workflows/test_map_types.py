"""Class maps of every form, their confidence, and embeddings, against transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from click.testing import CliRunner
from package_cache import converted_package
from packages import SavedPackage, converted, small_checkpoint
from PIL import Image
from standins import pictures, transformers_name

from mvit_coreml import ConvertOptions
from mvit_coreml.cli import cli
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.workflows.package_options import fill_in
from mvit_coreml.workflows.validate import validate

FAMILY, SEGMENTER = "mobilenet_v2", "semantic-segmentation"
INT32, INT8, IMAGE = ("int32", (64, 64)), ("int8", (64, 64)), ("image", ())


@cache
def photos(count: int = 4) -> list[Image.Image]:
    pixels = (255 * pictures(count, (72, 90), 3)).byte().movedim(1, -1).numpy()
    return [Image.fromarray(one) for one in pixels]


def segmenter(**options: Any) -> Any:
    return converted(FAMILY, SEGMENTER, **options)


def original(checkpoint: Any, target: PackageTarget, photo: Image.Image) -> Any:
    """Return what transformers' model with a checkpoint's weights says about a package's input."""
    fields = checkpoint.config.to_dict() | {"id2label": dict(checkpoint.config.id2label)}
    del fields["model_type"]
    name = transformers_name(checkpoint.config, checkpoint.task)
    model = getattr(transformers, name)(transformers.MobileNetV2Config(**fields)).eval()
    model.load_state_dict(checkpoint.weights)
    processor = ReferenceTarget.matching(target, checkpoint).processor
    pixel_values = processor.preprocess(
        target.preparation(photo).pixels,
        do_resize=False,
        do_center_crop=False,
        input_data_format="channels_last",
    )
    with torch.no_grad():
        return model(pixel_values)


def answers(path: Any) -> list[Any]:
    return list(PackageTarget(Predictor(path, engine="portable")).answer(photos()))


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({}, INT32),
        ({"map_type": "image", "ios": 16}, IMAGE),
        ({"map_type": "uint8"}, IMAGE),
        ({"map_type": "uint8", "ios": 26}, INT8),
        ({"map_type": "image", "ios": 26}, IMAGE),
    ],
)
def test_every_form_holds_the_same_classes(options: Any, form: Any) -> None:
    made, saved = segmenter(**options, confidence=True)
    assert saved.interface() == {"classes": form, "confidence": ("float32", (64, 64))}
    if form == IMAGE:
        image = saved.spec.description.output[0].type.imageType
        gray = load_coremltools().proto.FeatureTypes_pb2.ImageFeatureType.GRAYSCALE
        assert (image.width, image.height, image.colorSpace) == (64, 64, gray)
    plain = answers(segmenter()[0].path)
    for one, other in zip(answers(made.path), plain, strict=True):
        assert one.class_map().dtype == np.int32
        assert np.array_equal(one.class_map(), other.class_map())
        assert np.array_equal(one.photo_map(), other.photo_map())
    assert validate(made.path, small_checkpoint(FAMILY, SEGMENTER), photos()).sound


def test_the_confidence_is_the_largest_probability() -> None:
    made, _ = segmenter(confidence=True)
    target = PackageTarget(Predictor(made.path, engine="portable"))
    checkpoint = small_checkpoint(FAMILY, SEGMENTER)
    for answer, photo in zip(target.answer(photos()), photos(), strict=True):
        logits = original(checkpoint, target, photo).logits
        logits = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
        wanted = logits.softmax(1).amax(1)[0].numpy()
        assert np.abs(answer.outputs["confidence"] - wanted).max() < 0.02
        assert answer.photo_confidence().shape == (72, 90)


def test_nothing_stands_between_the_classes_and_their_map() -> None:
    tail = [op.op_type for op in segmenter()[1].program()][-2:]
    assert tail == ["reduce_argmax", "squeeze"]
    for options in ({}, {"map_type": "uint8", "ios": 26}, {"map_type": "image"}):
        program = segmenter(**options)[1].program()
        after = [op.op_type for op in program][
            1 + [op.op_type for op in program].index("reduce_argmax") :
        ]
        assert after.count("cast") == (1 if options else 0)


def test_a_byte_holds_256_classes_and_an_8_bit_array_128() -> None:
    def chosen(classes: int, **options: Any) -> str | None:
        labels = {index: f"class {index}" for index in range(classes)}
        checkpoint = small_checkpoint(FAMILY, SEGMENTER)
        wide = replace(checkpoint, config=checkpoint.config.replace(id2label=labels))
        return fill_in(ConvertOptions(**options), wide).map_type

    assert chosen(300) == "int32"
    assert chosen(128, map_type="uint8", ios=26) == "uint8"
    assert chosen(129, map_type="uint8", ios=26) == "image"
    assert chosen(256, map_type="uint8") == "image"
    with pytest.raises(InputError, match="257 classes do not fit"):
        chosen(257, map_type="uint8")


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("image-classification", {"map_type": "uint8"}, "a map type does not apply"),
        (SEGMENTER, {"map_type": "image", "output": "logits"}, "a map type does not apply"),
        (SEGMENTER, {"confidence": True, "output": "logits"}, "a confidence does not apply"),
    ],
)
def test_what_is_no_class_map_has_neither_form_nor_confidence(
    task: str, options: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fill_in(ConvertOptions(**options), small_checkpoint(FAMILY, task))


def test_labels_and_colours_are_stored_and_xcode_previews_maps_of_32_bits() -> None:
    kinds = {}
    for options in ({}, {"map_type": "image"}):
        own = segmenter(**options)[1].user_defined
        params = json.loads(own["com.apple.coreml.model.preview.params"])
        assert len(params["labels"]) == len(params["colors"]) == 7
        kinds[bool(options)] = own.get("com.apple.coreml.model.preview.type")
    assert kinds == {False: "imageSegmenter", True: None}


def test_predict_reads_every_form_and_says_how_sure_it_is(tmp_path: Any) -> None:
    photos()[0].save(tmp_path / "photo.png")

    def predicted(**options: Any) -> Any:
        mask = tmp_path / f"mask-{len(list(tmp_path.iterdir()))}.png"
        arguments = [
            "predict",
            segmenter(**options)[0].path,
            tmp_path / "photo.png",
            "--mask",
            mask,
        ]
        result = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
        assert result.exit_code == 0, result.output
        document = json.loads(result.stdout)["images"][0]
        return document["classes"], np.asarray(Image.open(mask))

    plain, mask = predicted()
    for options in ({"map_type": "image"}, {"map_type": "uint8", "ios": 26}):
        shares, other = predicted(**options, confidence=True)
        assert np.array_equal(mask, other)
        assert all(1 / 7 <= share.pop("confidence") <= 1 for share in shares)
        assert shares == plain


@pytest.mark.parametrize("task", ["image-classification", SEGMENTER, "backbone"])
def test_an_embedding_is_the_pooled_features_at_length_1(task: str) -> None:
    checkpoint = small_checkpoint(FAMILY, task)
    made = converted_package(checkpoint, ConvertOptions(bits=None, output="embedding"))
    assert SavedPackage(made.path).interface() == {"embedding": ("float32", (1, 1280))}
    target = PackageTarget(Predictor(made.path, engine="portable"))
    features = converted_package(checkpoint, ConvertOptions(bits=None, output="features"))
    pooled = PackageTarget(Predictor(features.path, engine="portable"))
    for one, other in zip(target.answer(photos()), pooled.answer(photos()), strict=True):
        vector = one.outputs["embedding"]
        assert np.linalg.norm(vector) == pytest.approx(1, abs=2e-3)
        wanted = F.normalize(torch.from_numpy(other.outputs["pooler_output"]))
        assert float((vector * wanted.numpy()).sum()) == pytest.approx(1, abs=1e-3)
    report = validate(made.path, checkpoint, photos())
    assert report.passed
    assert {gate.name for gate in report.gates} >= {"snr", "structure"}


def test_an_embedding_is_transformers_pooler_output() -> None:
    checkpoint = small_checkpoint(FAMILY, "backbone")
    made = converted_package(checkpoint, ConvertOptions(bits=None, output="embedding"))
    target = PackageTarget(Predictor(made.path, engine="portable"))
    for answer, photo in zip(target.answer(photos()), photos(), strict=True):
        wanted = F.normalize(original(checkpoint, target, photo).pooler_output)
        assert np.abs(answer.outputs["embedding"] - wanted.numpy()).max() < 2e-3


def test_palettes_are_fitted_to_embeddings() -> None:
    checkpoint = small_checkpoint(FAMILY)
    made = converted_package(checkpoint, ConvertOptions(bits=6, output="embedding"))
    report = validate(made.path, checkpoint, photos())
    assert report.sound
    # 6 bits of an embedding as of features; by chance it would be below 0.
    assert report.promised_snr > 10
