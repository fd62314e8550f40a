"""What a package says about itself."""

from __future__ import annotations

import importlib.metadata
import json
import socket
from pathlib import Path

import pytest
from package_cache import converted_package
from packages import LABELS, converted, small_checkpoint

from mvit_coreml import ImageProcessor
from mvit_coreml.checkpoints.class_names import voc_names
from mvit_coreml.export.image_input import bake_preprocessing
from mvit_coreml.export.metadata import describe_preprocessing, label_colors, preview, unique_labels
from mvit_coreml.preprocessing.image_processor import fit_image

SEGMENTER = "semantic-segmentation"
# The first colours of the VOC devkit's colour map.
VOC_START = ["#000000", "#800000", "#008000", "#808000", "#000080", "#800080"]


@pytest.mark.parametrize(
    ("labels", "expected", "changed"),
    [
        (["a", "b"], ["a", "b"], []),
        (["crane", "x", "crane"], ["crane", "x", "crane (2)"], ["crane (2)"]),
        (["a", "a", "a"], ["a", "a (1)", "a (2)"], ["a (1)", "a (2)"]),
        # A name that another class really has is not handed out.
        (["a", "a", "a (1)"], ["a", "a (1) (1)", "a (1)"], ["a (1) (1)"]),
        (["a (1)", "a", "a"], ["a (1)", "a", "a (2)"], ["a (2)"]),
        ([], [], []),
    ],
)
def test_names_are_unique_and_repeated_ones_get_their_index(labels, expected, changed):
    assert unique_labels(labels) == (expected, changed)


def test_voc_classes_get_the_colours_of_voc():
    colors = label_colors(voc_names())
    assert colors[:6] == VOC_START
    assert len(colors) == 21
    assert label_colors([name.upper() for name in voc_names()]) == colors


def test_other_classes_get_colours_that_differ():
    for count in (2, 21, 150):
        colors = label_colors([f"class {index}" for index in range(count)])
        assert len(set(colors)) == count
        assert all(color[0] == "#" and int(color[1:], 16) <= 0xFFFFFF for color in colors)
        assert all(len(color) == 7 for color in colors)


def test_a_background_is_black_and_no_other_class_is():
    colors = label_colors(["Background", "red digit", "blue digit"])
    assert colors[0] == "#000000"
    assert len(set(colors)) == 3
    assert colors[1:] == label_colors(["red digit", "blue digit"])


def test_a_backbone_has_no_preview():
    assert preview("backbone", ["a"]) == {}


def describe(processor, size=(64, 64), fit="crop"):
    return describe_preprocessing(processor, bake_preprocessing(processor, 3, size), fit)


def test_preprocessing_says_how_a_photo_becomes_the_input():
    processor = ImageProcessor.for_mobilevit(image_size=64, resize_edge=72)
    assert describe(processor) == {
        "version": 1,
        "width": 64,
        "height": 64,
        "fit": "crop",
        "resize": {"shortest_edge": 72},
        "resample": "bilinear",
        "crop": {"height": 64, "width": 64},
        "color_order": "BGR",
        "rescale_factor": 1 / 255,
        "mean": None,
        "std": None,
        "baked": {"scale": 1 / 255, "bias": [0, 0, 0]},
    }


def test_preprocessing_of_a_fixed_size_a_filter_and_a_normalisation():
    processor = ImageProcessor.for_mobilenet_v2(image_size=64).replace(
        size={"height": 64, "width": 48}, crop_size={"height": 64, "width": 48}, resample=3
    )
    found = describe(processor, (64, 48))
    assert found["resize"] == {"height": 64, "width": 48}
    assert (found["height"], found["width"], found["resample"]) == (64, 48, "bicubic")
    assert (found["mean"], found["std"]) == ([0.5] * 3, [0.5] * 3)
    assert found["baked"]["bias"] == [-1, -1, -1]


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_a_whole_photo_is_neither_resized_by_its_edge_nor_cropped(fit):
    found = describe(ImageProcessor.for_mobilevit(image_size=64), fit=fit)
    assert (found["fit"], found["resize"], found["crop"]) == (fit, None, None)


@pytest.mark.fast
def test_an_app_can_follow_the_stored_preprocessing():
    """Rebuild the input from nothing but the JSON, and compare with the image processor."""
    import numpy as np
    from PIL import Image

    _, package = converted("mobilevit")
    (stored,) = json.loads(package.user_defined["mvit_coreml.preprocessing"]).values()
    noise = np.random.default_rng(0).integers(0, 256, (150, 100, 3), dtype=np.uint8)
    photo = Image.fromarray(noise)
    edge = stored["resize"]["shortest_edge"]
    filters = {"bilinear": Image.Resampling.BILINEAR}
    resized = photo.resize((edge, edge * 150 // 100), filters[stored["resample"]])
    left = (resized.width - stored["crop"]["width"]) // 2
    top = (resized.height - stored["crop"]["height"]) // 2
    cropped = resized.crop((left, top, left + stored["width"], top + stored["height"]))
    processor = small_checkpoint("mobilevit").image_processor
    assert (np.asarray(cropped) == fit_image(photo, processor, "crop").pixels).all()
    pixels = np.asarray(cropped)[..., ::-1] * stored["baked"]["scale"]
    assert stored["color_order"] == "BGR"
    expected = processor.preprocess(photo, return_tensors="np")[0].transpose(1, 2, 0)
    assert np.abs(pixels - expected).max() < 1e-6


def test_a_classifier_says_what_it_is():
    _, package = converted("mobilevit")
    metadata = package.spec.description.metadata
    assert metadata.author == "owner"
    assert metadata.license == "not stated; see the source checkpoint"
    assert metadata.shortDescription == (
        "MobileViT for image classification, converted from owner/mobilevit."
    )
    assert metadata.versionString == "1.0"
    keys = package.user_defined
    assert keys["com.apple.coreml.model.preview.type"] == "imageClassifier"
    assert keys["com.github.apple.coremltools.version"] == importlib.metadata.version("coremltools")
    own = {key.removeprefix("mvit_coreml."): value for key, value in keys.items()}
    assert own["source"] == "owner/mobilevit"
    assert own["source_format"] == "huggingface"
    assert own["source_revision"] == ""
    assert own["weights_sha256"] == "5" * 64
    assert (own["task"], own["output"]) == ("image-classification", "probabilities")
    assert (own["precision"], own["bits"]) == ("fp16", "")
    assert json.loads(own["versions"]) == {
        name: importlib.metadata.version(name) for name in ("mvit-coreml", "coremltools", "torch")
    }


def test_own_words_replace_the_assumed_ones():
    _, package = converted(
        "mobilenet_v2", author="Ä", license="MIT", description="Fruit.", version="2.3"
    )
    metadata = package.spec.description.metadata
    assert (metadata.author, metadata.license) == ("Ä", "MIT")
    assert (metadata.shortDescription, metadata.versionString) == ("Fruit.", "2.3")


def test_the_catalogue_knows_licences():
    from dataclasses import replace

    from packages import SavedPackage

    from mvit_coreml import ConvertOptions

    checkpoint = small_checkpoint("mobilevit")
    provenance = replace(checkpoint.provenance, name="apple/mobilevit-xx-small", revision="abc")
    options = ConvertOptions(bits=None, output="logits")
    result = converted_package(replace(checkpoint, provenance=provenance), options)
    package = SavedPackage(result.path)
    metadata = package.spec.description.metadata
    assert (metadata.author, metadata.license) == ("apple", "Apple sample code license")
    assert package.user_defined["mvit_coreml.source_revision"] == "abc"
    # Without a classifier or a preview the names have no other place.
    assert len(json.loads(package.user_defined["mvit_coreml.labels"])) == len(LABELS)


def test_a_segmenter_has_a_preview_with_a_colour_for_every_class():
    _, package = converted("mobilenet_v2", SEGMENTER)
    keys = package.user_defined
    assert keys["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    params = json.loads(keys["com.apple.coreml.model.preview.params"])
    assert params["labels"][:2] == ["background", "tench"]
    assert len(set(params["colors"])) == len(LABELS)


def test_a_voc_segmenter_has_the_colours_of_voc():
    params = json.loads(preview(SEGMENTER, voc_names())["com.apple.coreml.model.preview.params"])
    assert params["colors"][:6] == VOC_START
    assert params["labels"] == list(voc_names())


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("mobilevit",), {}),
        (("mobilenet_v2", SEGMENTER), {}),
        (("mobilevit", SEGMENTER), {"output": "features", "layers": (4, 0)}),
        (("mobilenet_v2",), {"ios": 18, "image_sizes": ((64, 64), (96, 64))}),
    ],
    ids=["classifier", "segmenter", "features", "two sizes"],
)
def test_every_input_and_output_of_every_function_is_described(arguments, options):
    _, package = converted(*arguments, **options)
    description = package.spec.description
    functions = list(description.functions) or [description]
    assert len(functions) == len(options.get("image_sizes", [1]))
    for function in functions:
        assert [feature.name for feature in function.input] == ["image"]
        for feature in (*function.input, *function.output):
            assert len(feature.shortDescription) > 15, feature.name
            assert "{" not in feature.shortDescription


def test_a_package_of_several_sizes_keeps_everything():
    _, package = converted("mobilenet_v2", ios=18, image_sizes=((64, 64), (96, 64)))
    _, single = converted("mobilenet_v2", ios=18)
    metadata, expected = (saved.spec.description.metadata for saved in (package, single))
    for name in ("author", "license", "shortDescription", "versionString"):
        assert getattr(metadata, name) == getattr(expected, name) != ""
    assert set(package.user_defined) == set(single.user_defined)
    stored = json.loads(package.user_defined["mvit_coreml.preprocessing"])
    assert list(stored) == ["size_64x64", "size_96x64"]
    assert [(image["height"], image["width"]) for image in stored.values()] == [(64, 64), (96, 64)]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("mobilevit",), {}),
        (("mobilenet_v2", SEGMENTER), {}),
        (("mobilenet_v2",), {"ios": 18, "image_sizes": ((64, 64), (96, 64))}),
    ],
    ids=["classifier", "segmenter", "two sizes"],
)
def test_no_file_holds_a_date_a_path_or_a_host(arguments, options):
    _, package = converted(*arguments, **options)
    traces = [
        b"conversion_date",
        str(package.path.parent).encode(),
        package.path.parent.name.encode(),
        str(Path.cwd()).encode(),
        str(Path.home()).encode() + b"/",
        str(Path(__file__).resolve().parents[2]).encode(),
    ]
    if len(socket.gethostname()) > 5:
        traces.append(socket.gethostname().encode())
    for name, content in package.files().items():
        for trace in traces:
            assert trace not in content, f"{trace!r} in {name}"
