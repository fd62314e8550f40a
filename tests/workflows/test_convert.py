"""From a checkpoint to a package through the library."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packages import converted, image, read_tree, small_checkpoint

from mvit_coreml import (
    ConvertOptions,
    ImageProcessor,
    MvitCoremlError,
    ValidateOptions,
    convert,
    validate,
)
from mvit_coreml.checkpoints.catalogue import CATALOGUE
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import InputError
from mvit_coreml.models.base import model_class
from mvit_coreml.workflows import build_package
from mvit_coreml.workflows.convert import default_destination

SEGMENTER = "semantic-segmentation"
# Palettes of k-means alone are quickly found, and what they keep of a random network is no matter.
ALONE = ConvertOptions(bits=4, kmeans_only=True, promise=Promise(min_snr=-100))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ios": 15}, "ios is 15; it must be one of 16, 17, 18, 26"),
        ({"precision": "int8"}, "precision is 'int8'; it must be one of fp16, mixed, fp32"),
        ({"bits": 3}, r"3 bits need iOS 18; this package is for iOS 17: --ios 18, or 2 or 4 bits"),
        ({"bits": 5}, "5 bits: a palette has indices of 1, 2, 3, 4, 6, 8 bits"),
        ({"fit": "cover"}, "fit is 'cover'; it must be one of crop, stretch, pad"),
        ({"color_order": "bgr"}, "color_order is 'bgr'; it must be one of RGB, BGR"),
        ({"ios": 18, "image_sizes": ((64, 64), (64, 64))}, "size is given twice; give each once"),
        (
            {"image_sizes": ((64, 64), (96, 96))},
            r"several image sizes need iOS 18 or newer \(--ios 18\); for iOS 17 convert one",
        ),
        ({"image_sizes": ((0, 64),)}, "image size 0x64 is empty"),
        ({"map_size": (64, 0)}, "map size 64x0 is empty"),
    ],
)
def test_impossible_options_are_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        ConvertOptions(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        (("mobilevit",), {}, ("probabilities", None, "crop", "BGR")),
        (("mobilenet_v2",), {}, ("probabilities", None, "crop", "RGB")),
        (("mobilenet_v2",), {"output": "logits"}, ("logits", None, "crop", "RGB")),
        (("mobilenet_v2", SEGMENTER), {}, ("classes", "input", "pad", "RGB")),
        (
            ("mobilenet_v2", SEGMENTER),
            {"output": "logits", "map_size": "input"},
            ("logits", "input", "pad", "RGB"),
        ),
    ],
)
def test_the_result_says_what_the_defaults_became(arguments, options, expected):
    package, _ = converted(*arguments, **options)
    made = package.options
    assert (made.output, made.map_size, made.fit, made.color_order) == expected
    assert made.image_sizes == ((64, 64),)
    assert package.functions == {"main": (64, 64)}
    assert set(package.preprocessing) == {"main"}


@pytest.mark.fast
@pytest.mark.parametrize("task", ["image-classification", SEGMENTER])
def test_the_options_of_a_result_make_the_same_package_again(task, tmp_path):
    package, saved = converted("mobilenet_v2", task, output="logits")
    convert(small_checkpoint("mobilenet_v2", task), package.options, tmp_path / "x.mlpackage")
    assert read_tree(tmp_path / "x.mlpackage") == saved.files()


def test_the_defaults_are_bits_for_the_promise_and_ios_17_in_half_precision():
    options = ConvertOptions()
    assert (options.bits, options.ios, options.precision) == ("auto", 17, "fp16")
    assert (options.kmeans_only, options.promise) == (False, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("apple/mobilevit-small", "mobilevit-small.mlpackage"),
        ("timm/mobilevitv2_100.cvnets_in1k", "mobilevitv2_100.cvnets_in1k.mlpackage"),
        ("mobilevitv2-1.0.pt", "mobilevitv2-1.0.mlpackage"),
        ("model.safetensors", "model.mlpackage"),
        ("my-model", "my-model.mlpackage"),
        ("weights.pth.tar", "weights.mlpackage"),
        ("last.ckpt", "last.mlpackage"),
    ],
)
def test_a_package_is_named_after_its_checkpoint(name, expected):
    checkpoint = small_checkpoint("mobilevit")
    named = replace(checkpoint, provenance=replace(checkpoint.provenance, name=name))
    assert default_destination(named) == Path(expected)


def test_a_processor_without_a_size_of_its_own_leaves_it_to_the_model():
    checkpoint = small_checkpoint("mobilevit")
    processor = ImageProcessor.for_mobilevit(image_size=80).replace(do_center_crop=False)
    assert replace(checkpoint, image_processor=processor).input_size == (64, 64)
    assert checkpoint.input_size == (64, 64)


@pytest.mark.parametrize(
    ("size", "trained", "wanted", "edge"),
    [
        (288, (256, 256), (128, 128), 144),
        (288, (256, 256), (256, 512), 576),
        (288, (256, 256), (512, 128), 576),
        ((280, 300), (256, 256), (128, 512), (140, 600)),
    ],
)
def test_another_size_keeps_the_margins_around_the_crop(size, trained, wanted, edge):
    processor = ImageProcessor.for_mobilevit(image_size=256).replace(size=size)
    resized = processor.for_input_size(wanted, trained)
    assert resized.crop_size == wanted
    assert resized.size == edge
    # The crop lies inside the resized photo, whatever its shape.
    for photo in ((300, 500), (500, 300)):
        placed = resized.place(photo)
        assert all(a >= b for a, b in zip(placed.resized_size, wanted, strict=True))


@pytest.fixture(scope="module")
def several_sizes(tmp_path_factory):
    """A palettized segmenter of two sizes, and the stages of its conversion."""
    stages = []
    package = convert(
        small_checkpoint("mobilenet_v2", SEGMENTER),
        replace(ALONE, bits=6, ios=18, image_sizes=((64, 64), (32, 64))),
        tmp_path_factory.mktemp("sizes") / "x.mlpackage",
        progress=stages.append,
    )
    return package, stages


def test_stages_are_told_in_order(several_sizes):
    _, stages = several_sizes
    assert stages == [*["trace", "convert", "write"] * 2, "palettize", "validate"]


def test_a_segmenter_says_how_photos_are_fitted():
    (note,) = [n for n in converted("mobilenet_v2", SEGMENTER)[0].notes if "--fit" in n]
    assert "padding it with black (--fit pad)" in note
    package, _ = converted("mobilenet_v2", SEGMENTER, fit="stretch")
    assert any("stretching the whole photo (--fit stretch)" in note for note in package.notes)
    assert package.preprocessing["main"]["fit"] == "stretch"


def test_another_colour_order_is_taken_and_said():
    package, saved = converted("mobilevit", color_order="RGB")
    assert "the colour order is RGB, not the checkpoint's" in package.notes
    assert saved.spec.description.input[0].type.imageType.colorSpace == 20
    assert package.preprocessing["main"]["color_order"] == "RGB"
    package, _ = converted("mobilevit")
    assert not any("colour order" in note for note in package.notes)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("mobilevitv2", {"bits": 4, "image_sizes": ((97, 65),)}),
        ("mobilenet_v2", {"output": "features", "layers": (1, 2), "precision": "fp32"}),
        ("mobilenet_v2", {"precision": "mixed", "fp32_operations": ("input_1",), "ios": 18}),
        ("mobilenet_v2", {"ios": 18, "image_sizes": ((64, 64), (96, 64)), "fit": "stretch"}),
    ],
)
def test_a_package_tells_the_options_it_was_made_with(family, options):
    package, saved = converted(family, **options)
    plain = replace(package.options, bits=None, kmeans_only=False, color_order=None)
    stored = ConvertOptions.from_json(saved.user_defined["mvit_coreml.options"])
    assert stored == plain


def test_the_options_of_packages_that_earlier_versions_made_are_read():
    stored = json.loads(ConvertOptions(ios=18, fit="pad").to_json())
    earlier = {
        name: stored[name]
        for name in stored
        if name not in ("activation", "map_type", "confidence", "share_constants")
    }
    options = ConvertOptions.from_json(json.dumps(earlier))
    assert (options.ios, options.fit, options.map_type) == (18, "pad", None)
    for damaged in ({"fit": "pad"}, earlier | {"colour": "red"}, [18]):
        with pytest.raises(ValueError, match="it must have the keys ios, "):
            ConvertOptions.from_json(json.dumps(damaged))


def test_palettized_segmenters_of_several_sizes_convert(several_sizes):
    """Each function has maps of its own size."""
    package, _ = several_sizes
    assert package.parity.differences == ()
    options = ValidateOptions(pictures=2)
    again = validate(package.path, small_checkpoint("mobilenet_v2", SEGMENTER), options=options)
    assert again.differences == ()


@pytest.mark.parametrize("images", [False, True], ids=["k-means", "fitted"])
def test_a_program_is_traced_and_built_once(images, tmp_path, monkeypatch):
    calls = []
    for name in ("trace", "build_program"):
        function = getattr(build_package, name)

        def counted(*args, name=name, function=function, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(build_package, name, counted)
    photos = [image((32, 32), seed=seed) for seed in range(16)] if images else None
    convert(
        small_checkpoint("mobilenet_v2", size=32),
        replace(ALONE, kmeans_only=not images),
        tmp_path / "x.mlpackage",
        images=photos,
        samples=2,
    )
    assert calls == ["trace", "build_program"]


def test_notes_of_the_checkpoint_are_passed_on(tmp_path):
    checkpoint = replace(small_checkpoint("mobilenet_v2"), notes=("The labels were guessed.",))
    package = convert(checkpoint, ConvertOptions(bits=None), tmp_path / "x.mlpackage")
    assert package.notes[0] == "The labels were guessed."


def test_a_model_of_four_channels_is_refused(tmp_path):
    checkpoint = small_checkpoint("mobilenet_v2")
    config = checkpoint.config.replace(num_channels=4)
    weights = dict(checkpoint.weights)
    name = "mobilenet_v2.conv_stem.first_conv.convolution.weight"
    weights[name] = weights[name][:, :1].repeat(1, 4, 1, 1)
    with pytest.raises(MvitCoremlError, match="the model takes 4 channels"):
        convert(
            replace(checkpoint, config=config, weights=weights),
            ConvertOptions(bits=None),
            tmp_path / "x.mlpackage",
        )
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_too_small_is_refused(tmp_path):
    with pytest.raises(InputError, match="8x8 pixels is too small"):
        convert(
            small_checkpoint("mobilenet_v2"),
            ConvertOptions(bits=None, image_sizes=((8, 8),)),
            tmp_path / "x.mlpackage",
        )


def test_heights_and_widths_of_odd_sizes_convert(tmp_path):
    package = convert(
        small_checkpoint("mobilevitv2"),
        ConvertOptions(bits=None, image_sizes=((97, 65),), output="logits"),
        tmp_path / "x.mlpackage",
    )
    assert package.functions == {"main": (97, 65)}


def test_the_package_lies_in_the_current_folder_by_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = convert(small_checkpoint("mobilenet_v2"), ConvertOptions(bits=None))
    assert package.path == Path("mobilenet_v2.mlpackage")
    assert (tmp_path / "mobilenet_v2.mlpackage" / "Manifest.json").is_file()


@pytest.fixture(scope="module")
def matrix():
    """The script that converts the whole catalogue."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "convert_matrix.py"
    spec = importlib.util.spec_from_file_location("convert_matrix", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_the_matrix_names_every_architecture_of_the_catalogue(matrix):
    """Numbers of parameters are those that were published."""
    for entry in CATALOGUE:
        with torch.device("meta"):
            config = matrix.configuration(entry)
            model = model_class(config, entry.task)(config)
        count = sum(parameter.numel() for parameter in model.parameters())
        assert entry.parameters in (None, count), entry.id


@pytest.mark.parametrize(
    ("name", "ios", "kind", "size"),
    [
        ("apple/deeplabv3-mobilevit-xx-small", 16, "classes", (64, 96)),
        ("timm/mobilevitv2_050.cvnets_in1k", 26, "features", (64, 64)),
        ("timm/mobilenetv2_050.lamb_in1k", 18, "probabilities", (64, 64)),
    ],
)
def test_a_part_of_the_matrix(name, ios, kind, size, matrix):
    (entry,) = [entry for entry in CATALOGUE if entry.id == name]
    row = matrix.run_case(matrix.checkpoint_of(entry), ios, kind, size)
    assert row.failure == ""
    assert row.operations > 50
    assert 1 < row.megabytes < 5
    assert row.rank == 4


def test_the_matrix_reports_what_failed(matrix):
    (entry,) = [entry for entry in CATALOGUE if entry.id == "google/mobilenet_v2_0.35_96"]
    row = matrix.run_case(matrix.checkpoint_of(entry), 17, "classes")
    assert row.failure.startswith("InputError: output 'classes' does not apply")
    assert "does not apply" in str(row)


def test_a_promise_that_takes_photos_is_refused_before_any_work(tmp_path: Path) -> None:
    stages: list[str] = []
    options = ConvertOptions(promise=Promise(min_agreement=0.9))
    with pytest.raises(InputError, match=r"takes photos \(--images\)"):
        convert(
            small_checkpoint("mobilenet_v2"),
            options,
            tmp_path / "x.mlpackage",
            progress=lambda stage, detail="": stages.append(stage),
        )
    assert not stages
    assert not list(tmp_path.iterdir())
