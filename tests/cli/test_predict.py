"""``mvit-coreml predict`` against transformers' models on the images that Pillow reads."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from foreign import edited, with_two_functions
from packages import LABELS, converted, noise, small_checkpoint
from PIL import Image
from profiles import DISPLAY_P3, p3_to_srgb, rgb_profile
from standins import pictures, transformers_name

from mvit_coreml.cli import cli
from mvit_coreml.cli.prediction_results import top_classes
from mvit_coreml.evaluation.targets import Answer
from mvit_coreml.preprocessing.geometry import place

pytestmark = pytest.mark.fast

FAMILY = "mobilenet_v2"
UNIQUE_LABELS = [*LABELS[:5], "crane (5)", "maillot (6)"]


def run(*arguments):
    return CliRunner().invoke(cli, ["predict", *map(str, arguments)])


def document(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def error(*arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two photos of different sizes."""
    folder = tmp_path_factory.mktemp("photos")
    paths = []
    for index, (height, width) in enumerate([(90, 120), (128, 64)]):
        pixels = (255 * pictures(1, (height, width), index)[0]).byte().movedim(0, -1)
        paths.append(folder / f"photo{index}.png")
        Image.fromarray(pixels.numpy()).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def classifier():
    return converted(FAMILY)[0].path


@pytest.fixture(scope="module")
def segmenter():
    return converted(FAMILY, "semantic-segmentation")[0].path


@pytest.fixture(scope="module")
def backbone():
    return converted(FAMILY, output="features")[0].path


@cache
def original(task):
    """Return transformers' model with the small checkpoint's weights."""
    import transformers

    checkpoint = small_checkpoint(FAMILY, task)
    fields = checkpoint.config.to_dict() | {"id2label": dict(checkpoint.config.id2label)}
    del fields["model_type"]
    name = transformers_name(checkpoint.config, task)
    model = getattr(transformers, name)(transformers.MobileNetV2Config(**fields)).eval()
    model.load_state_dict(checkpoint.weights)
    return model


def pixel_values(image):
    """Prepare a photo with transformers' own processor."""
    from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
        MobileNetV2ImageProcessorPil,
    )

    processor = MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 96}, crop_size={"height": 64, "width": 64}, resample=2
    )
    return processor(image, return_tensors="pt")["pixel_values"]


def test_a_classifiers_likeliest_classes_are_those_of_transformers(classifier, photos):
    model = original("image-classification")
    found = document(classifier, *photos, "--top", 3)
    assert found["engine"] == "portable"
    assert [entry["image"] for entry in found["images"]] == [str(path) for path in photos]
    for path, entry in zip(photos, found["images"], strict=True):
        with torch.no_grad():
            expected = model(pixel_values(Image.open(path))).logits.softmax(-1)[0]
        indices = [row["index"] for row in entry["top"]]
        assert indices[0] == expected.argmax()
        assert [row["label"] for row in entry["top"]] == [UNIQUE_LABELS[i] for i in indices]
        # Classes nearly equal may change places in half precision.
        for values in (expected[indices].tolist(), expected.topk(3).values.tolist()):
            assert [row["probability"] for row in entry["top"]] == pytest.approx(values, abs=5e-3)


def test_the_table_lists_labels_with_probabilities(classifier, photos):
    entry = document(classifier, photos[0])["images"][0]
    lines = run(classifier, photos[0]).stdout.splitlines()
    assert lines[0] == str(photos[0])
    assert len(lines) == 1 + 5
    for rank, (line, row) in enumerate(zip(lines[1:], entry["top"], strict=True), 1):
        assert line.split()[:3] == [str(rank), f"{100 * row['probability']:.2f}", "%"]
        assert row["label"] in line


def test_logits_come_with_their_softmax():
    placement = place((4, 4), size=None, crop_size=(4, 4))
    answer = Answer(outputs={"logits": np.array([[0.0, 2.0, 1.0]])}, placement=placement)
    first, second = top_classes(answer, None, 2)
    assert (first["index"], first["label"], first["logit"]) == (1, "class 1", 2.0)
    assert first["probability"] == pytest.approx(np.exp(2) / (1 + np.e + np.exp(2)))
    assert second["index"] == 2


def test_masks_are_transformers_classes_in_the_packages_colours(segmenter, photos, tmp_path):
    # A photo of the input's size is not resized.
    photo = tmp_path / "photo.png"
    pixels = (255 * pictures(1, (64, 64), 5)[0]).byte().movedim(0, -1).numpy()
    Image.fromarray(pixels).save(photo)
    values = torch.from_numpy((pixels / 255 - 0.5) / 0.5).float().movedim(-1, 0)[None]
    with torch.no_grad():
        logits = original("semantic-segmentation")(values).logits
    resized = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    expected = resized.argmax(1)[0].numpy()
    found = document(segmenter, photo, "--mask", tmp_path / "mask.png")["images"][0]
    mask = Image.open(tmp_path / "mask.png")
    assert (np.asarray(mask) == expected).mean() > 0.98
    assert len(np.unique(expected)) > 1
    colors = json.loads(
        converted(FAMILY, "semantic-segmentation")[1].user_defined[
            "com.apple.coreml.model.preview.params"
        ]
    )["colors"]
    palette = np.array(mask.getpalette()).reshape(-1, 3)
    assert ["#{:02X}{:02X}{:02X}".format(*color) for color in palette[: len(colors)]] == colors
    shares = {row["index"]: row["pixels"] for row in found["classes"]}
    assert shares == dict(zip(*np.unique(np.asarray(mask), return_counts=True), strict=True))
    assert sum(row["share"] for row in found["classes"]) == pytest.approx(1)
    assert all(row["label"] == UNIQUE_LABELS[row["index"]] for row in found["classes"])


def test_masks_and_overlays_have_the_photos_size_and_a_legend_below(segmenter, photos, tmp_path):
    result = run(segmenter, *photos, "--overlay", tmp_path, "--mask", tmp_path / "{name}-mask.png")
    assert result.exit_code == 0, result.output
    for photo in photos:
        image = np.asarray(Image.open(photo)).astype(int)
        height, width = image.shape[:2]
        mask = Image.open(tmp_path / f"{photo.stem}-mask.png")
        assert mask.size == (width, height)
        painted = np.asarray(Image.open(tmp_path / photo.name)).astype(int)
        assert painted.shape[0] > height
        indices = np.asarray(mask)
        colors = np.array(mask.getpalette()).reshape(-1, 3)[indices]
        expected = np.where(indices[..., None] == 0, image, (image + colors) / 2)
        np.testing.assert_allclose(painted[:height, :width], expected, atol=0.51)
        assert str(tmp_path / photo.name) in result.stdout


def test_what_a_crop_does_not_show_is_marked_in_the_mask(segmenter, tmp_path):
    def crop(spec):
        described = spec.description.metadata.userDefined
        preprocessing = json.loads(described["mvit_coreml.preprocessing"])
        preprocessing["main"] |= {"fit": "crop", "resize": {"shortest_edge": 64}}
        described["mvit_coreml.preprocessing"] = json.dumps(preprocessing)

    photo = tmp_path / "wide.png"
    noise((128, 64), 60).save(photo)
    found = document(edited(segmenter, crop), photo, "--mask", tmp_path / "mask.png")["images"][0]
    mask = np.asarray(Image.open(tmp_path / "mask.png"))
    assert (mask[:, :32] == 255).all()
    assert (mask[:, 96:] == 255).all()
    assert (mask[:, 32:96] < 7).all()
    assert found["seen"] == 0.5
    assert sum(row["share"] for row in found["classes"]) == pytest.approx(1)
    assert "of the 50.0 % of the image" in run(edited(segmenter, crop), photo).stdout


def test_features_are_saved_as_transformers_computes_them(backbone, photos, tmp_path):
    model = original("image-classification").mobilenet_v2
    folder = tmp_path / "vectors"
    found = document(backbone, *photos, "--features", folder)
    for path, entry in zip(photos, found["images"], strict=True):
        with torch.no_grad():
            expected = model(pixel_values(Image.open(path)))
        for name in ("last_hidden_state", "pooler_output"):
            values = np.load(folder / f"{path.stem}.{name}.npy")
            assert entry["features"][name]["file"] == str(folder / f"{path.stem}.{name}.npy")
            assert entry["features"][name]["shape"] == list(values.shape)
            wanted = expected[name].numpy().reshape(values.shape)
            np.testing.assert_allclose(values, wanted, atol=2e-2 * np.abs(wanted).max())
    assert "last_hidden_state: float32 1x" in run(backbone, photos[0]).stdout


def test_a_profile_is_ignored_with_a_note_or_applied(classifier, photos, tmp_path):
    plain = Image.new("RGB", (80, 80), (40, 200, 60))
    managed = Image.new("RGB", (80, 80), tuple(p3_to_srgb((40, 200, 60))))
    paths = [tmp_path / name for name in ("p3.png", "plain.png", "managed.png")]
    plain.save(paths[0], icc_profile=rgb_profile(DISPLAY_P3, "Display P3 by hand"))
    plain.save(paths[1])
    managed.save(paths[2])
    with_note = run(classifier, paths[0], "--json")
    assert "p3.png: its colour profile (Display P3 by hand) is ignored" in with_note.stderr
    scores = [
        [row["probability"] for row in json.loads(result.stdout)["images"][0]["top"]]
        for result in (
            with_note,
            run(classifier, paths[1], "--json"),
            run(classifier, paths[0], "--color-managed", "--json"),
            run(classifier, paths[2], "--json"),
        )
    ]
    assert scores[0] == scores[1]
    assert scores[2] == pytest.approx(scores[3], abs=1e-2)
    assert scores[0] != pytest.approx(scores[2], abs=1e-2)
    assert run(classifier, paths[0], "--color-managed").stderr == ""


def test_headroom_lists_the_operations_nearest_to_the_limits(classifier, photos):
    operations = document(classifier, photos[0], "--headroom")["headroom"]
    largest = [operation["largest"] for operation in operations]
    assert largest == sorted(largest, reverse=True)
    assert operations[0]["headroom"] == pytest.approx(65504 / largest[0])
    convolutions = [operation for operation in operations if operation["op_type"] == "conv"]
    assert len(convolutions) == converted(FAMILY)[1].census()["conv"]
    lines = run(classifier, photos[0], "--headroom").stdout.splitlines()
    assert "operations nearest to fp16's largest number, 65504:" in lines


def test_fp32_arithmetic_comes_closer_to_pytorch(classifier, photos):
    with torch.no_grad():
        logits = original("image-classification")(pixel_values(Image.open(photos[0]))).logits
    expected = logits.softmax(-1)[0]
    errors = [
        max(
            abs(row["probability"] - float(expected[row["index"]]))
            for row in document(classifier, photos[0], "--arithmetic", kind)["images"][0]["top"]
        )
        for kind in ("program", "fp32")
    ]
    assert errors[1] < errors[0] < 1e-2


def test_a_function_is_chosen_by_name(classifier, photos):
    package = with_two_functions(classifier)
    answers = {
        name: document(package, photos[0], "--function", name) for name in ("first", "second")
    }
    assert [answers[name]["function"] for name in answers] == list(answers)
    assert document(package, photos[0])["images"] == answers["first"]["images"]
    # It stretches what the first crops.
    assert answers["first"]["images"] != answers["second"]["images"]
    assert "has no function 'absent'; it has: first, second" in error(
        package, photos[0], "--function", "absent"
    )


@pytest.fixture(scope="module")
def undescribed(classifier):
    """The classifier as another tool would make it."""

    def strip(spec):
        for key in list(spec.description.metadata.userDefined):
            del spec.description.metadata.userDefined[key]

    return edited(classifier, strip)


def test_packages_of_other_tools_can_be_told_how_to_prepare_images(
    undescribed, classifier, photos, tmp_path
):
    assumed = run(undescribed, photos[0])
    assert "they are stretched to 64x64 pixels, as Core ML does by itself" in assumed.stderr
    asked = run(undescribed, photos[0], "--fit", "stretch")
    assert (asked.stdout, asked.stderr) == (assumed.stdout, "")
    processor = small_checkpoint(FAMILY).image_processor
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(processor.to_dict()))
    expected = document(classifier, photos[0])["images"]
    assert document(undescribed, photos[0], "--image-processor", file)["images"] == expected
    assert document(undescribed, photos[0], "--image-processor", tmp_path)["images"] == expected
    stretched = document(undescribed, photos[0], "--image-processor", file, "--fit", "stretch")[
        "images"
    ]
    assert stretched != expected
    assert "--fit goes with --image-processor" in error(classifier, photos[0], "--fit", "pad")


def test_one_file_for_several_images_is_refused(segmenter, photos, tmp_path):
    message = error(segmenter, *photos, "--overlay", tmp_path / "one.png")
    assert "is one file for 2 images; name an existing folder, or a file with {name}" in message


def test_files_are_replaced_only_with_force_and_images_never(segmenter, photos, tmp_path):
    out = tmp_path / "out.png"
    out.write_bytes(b"precious")
    assert "exists already; use --force" in error(segmenter, photos[0], "--mask", out)
    assert out.read_bytes() == b"precious"
    assert run(segmenter, photos[0], "--mask", out, "--force").exit_code == 0
    assert Image.open(out).mode == "P"
    before = photos[0].read_bytes()
    message = error(segmenter, photos[0], "--overlay", photos[0], "--force")
    assert f"would replace the image {photos[0]}" in message
    assert photos[0].read_bytes() == before
    same = error(
        segmenter, photos[0], "--overlay", tmp_path / "a.png", "--mask", tmp_path / "a.png"
    )
    assert "--overlay and --mask name the same file" in same


def test_images_of_one_name_and_wrong_places_are_refused(segmenter, photos, tmp_path):
    twin = tmp_path / photos[0].name
    twin.write_bytes(photos[0].read_bytes())
    folder = tmp_path / "out"
    folder.mkdir()
    assert "have the same name" in error(segmenter, photos[0], twin, "--mask", folder)
    assert "must end in .png" in error(segmenter, twin, "--mask", tmp_path / "x.jpg")
    message = error(segmenter, twin, "--mask", tmp_path / "absent" / "x.png")
    assert "does not exist; create it first" in message


def test_options_that_do_not_fit_the_package_are_refused(classifier, segmenter, photos, tmp_path):
    assert "answers no class maps" in error(classifier, photos[0], "--mask", tmp_path / "m.png")
    assert "answers no features" in error(segmenter, photos[0], "--features", tmp_path)
    assert "needs macOS" in error(classifier, photos[0], "--engine", "coreml")


def test_images_that_cannot_be_read_are_named(classifier, photos, tmp_path):
    assert "absent.jpg: no such image file" in error(classifier, tmp_path / "absent.jpg")
    heic = tmp_path / "photo.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    assert "pip install pillow-heif" in error(classifier, heic)
    text = tmp_path / "text.png"
    text.write_text("no image")
    assert "text.png: is not an image" in error(classifier, text)
