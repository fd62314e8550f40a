"""What validation measures and says, against transformers, timm and coremltools' own decoding."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import timm
import torch
import torch.nn.functional as F
import transformers
from faults.editor import PackageEditor
from foreign import Wrapped, plain_conversion
from packages import LABELS, converted, small_checkpoint
from PIL import Image
from safetensors.torch import save_file
from standins import enliven
from torch import nn
from torch.overrides import TorchFunctionMode

from mvit_coreml import (
    Promise,
    ValidateOptions,
    build_model,
    load_checkpoint,
    prepare_for_export,
    validate,
)
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.validate import shortfall

SEGMENTER = "semantic-segmentation"
SIZE = (64, 64)
# As they are: what an input's size already is needs no resizing.
PHOTOS = synthetic_pictures(5, SIZE, seed=3)


def unresized(family, task="image-classification"):
    """A small checkpoint whose processor takes photos as they are."""
    checkpoint = small_checkpoint(family, task)
    return replace(
        checkpoint,
        image_processor=checkpoint.image_processor.replace(do_resize=False, do_center_crop=False),
    )


def oracle(checkpoint, folder, name):
    checkpoint.save_pretrained(folder)
    return getattr(transformers, name).from_pretrained(folder).eval()


def tensor(photo):
    return torch.from_numpy(photo).permute(2, 0, 1)[None] / 255


# --- Packages of other tools


@pytest.fixture(scope="module")
def transformers_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transformers")
    checkpoint = small_checkpoint("mobilenet_v2")
    return checkpoint, oracle(checkpoint, folder, "MobileNetV2ForImageClassification")


@pytest.mark.parametrize("labels", [None, tuple("abcdefg")], ids=["logits", "classifier"])
def test_a_plain_conversion_of_a_transformers_model_passes(transformers_model, labels):
    checkpoint, model = transformers_model
    half = [0.5] * 3
    package = plain_conversion(
        Wrapped(model, half, half, softmax=labels is not None), labels=labels
    )
    report = validate(package, checkpoint, options=ValidateOptions(pictures=3))
    assert report.passed
    assert report.scores.snr > 40
    assert report.differences is None
    assert "another tool made the package: its parts are not compared one by one" in report.notes
    follows = ["consistency"][: labels is not None]
    assert [gate.name for gate in report.gates] == ["snr", *follows, "decoded_weights"]
    assert report.answers_alike
    with pytest.raises(InputError, match="--layers needs a package that mvit-coreml converted"):
        validate(package, checkpoint, options=ValidateOptions(pictures=1, layers=True))


def test_a_timm_model_passes_and_fails_with_its_channels_in_the_wrong_order(tmp_path):
    model = timm.create_model("mobilenetv2_035", num_classes=7)
    enliven(model, SIZE)
    described = {key: model.pretrained_cfg[key] for key in ("interpolation", "crop_pct")}
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    described |= {"input_size": [3, *SIZE], "mean": mean, "std": std}
    config = {"architecture": "mobilenetv2_035", "num_classes": 7, "pretrained_cfg": described}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    checkpoint = load_checkpoint(tmp_path)
    package = plain_conversion(Wrapped(model, mean, std, softmax=False))
    options = ValidateOptions(pictures=3)
    assert validate(package, checkpoint, options=options).passed
    editor = PackageEditor(package)
    (picture,) = editor.spec.description.input
    picture.type.imageType.colorSpace = picture.type.imageType.BGR
    report = validate(editor.save(), checkpoint, options=options)
    assert {gate.name: gate.verdict for gate in report.gates} == {
        "snr": "broken",
        "decoded_weights": "broken",
    }
    assert (report.sound, report.faithful, report.passed) == (False, "broken", False)


def test_a_model_with_other_classes_is_one_line_of_error(transformers_model):
    checkpoint, _ = transformers_model
    five = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    package = plain_conversion(five)
    with pytest.raises((PackageError, InputError)) as caught:
        validate(package, checkpoint, options=ValidateOptions(pictures=1))
    assert "\n" not in str(caught.value)


# --- What is measured


def test_signal_to_noise_is_that_of_the_package_against_transformers(tmp_path):
    checkpoint = unresized("mobilenet_v2")
    model = oracle(checkpoint, tmp_path, "MobileNetV2ForImageClassification")
    path = converted("mobilenet_v2", output="logits")[0].path
    runtime = Runtime(load_package(path))
    with torch.inference_mode():
        expected = [model(2 * tensor(photo) - 1).logits.double().numpy()[0] for photo in PHOTOS]
    found = [runtime.run({"image": photo})["logits"].astype(np.float64)[0] for photo in PHOTOS]
    noise = np.square(np.subtract(found, expected)).sum()
    signal = np.square(expected).sum()
    # What all photos share says nothing of how well they are told apart.
    variation = len(PHOTOS) * np.var(expected, axis=0, ddof=1).sum()
    assert variation < signal / 2
    # The package's own metadata would resize the photos.
    editor = PackageEditor(path)
    editor.prepare(resize=None)
    report = validate(editor.save(), checkpoint, PHOTOS, ValidateOptions(structure=False))
    assert report.scores.snr == pytest.approx(10 * np.log10(signal / noise), abs=0.05)
    assert report.promised_snr == pytest.approx(10 * np.log10(variation / noise), abs=0.05)
    assert report.outputs["logits"].snr == pytest.approx(report.scores.snr)
    assert (report.images, report.synthetic) == (len(PHOTOS), False)


def test_agreement_is_the_share_of_photos_with_the_same_class(transformers_model):
    _, model = transformers_model
    editor = PackageEditor(converted("mobilenet_v2")[0].path)
    # A bias that makes class 2 win every time.
    editor.change(editor.ops("linear")[0], "bias", lambda bias: bias + 1000 * (np.arange(7) == 2))
    report = validate(
        editor.save(), unresized("mobilenet_v2"), PHOTOS, ValidateOptions(structure=False)
    )
    with torch.inference_mode():
        best = [int(model(2 * tensor(photo) - 1).logits.argmax()) for photo in PHOTOS]
    share = best.count(2) / len(best)
    assert share < 1
    assert report.agreement["top1"] == share
    (gate,) = [gate for gate in report.gates if gate.name == "top1_agreement"]
    assert (gate.value, gate.verdict) == (share, "broken")
    interval = scipy.stats.binomtest(best.count(2), 5).proportion_ci(method="wilson")
    assert (report.estimate.low, report.estimate.high) == pytest.approx(tuple(interval), abs=1e-4)
    low, high = (f"{100 * end:.1f}%" for end in interval)
    assert report.kept() == f"{100 * share:.1f}% of the answers ({low} to {high}) on 5 photos"


def test_the_worst_output_of_a_feature_package_is_judged():
    checkpoint = small_checkpoint("mobilenet_v2")
    editor = PackageEditor(converted("mobilenet_v2", output="features")[0].path)
    assert validate(
        editor.path, checkpoint, options=ValidateOptions(pictures=2, structure=False)
    ).passed
    # Only the pooled features are wrong, which come second.
    editor.ops("reduce_mean")[0].type = "reduce_max"
    report = validate(
        editor.save(), checkpoint, options=ValidateOptions(pictures=2, structure=False)
    )
    assert report.outputs["last_hidden_state"].snr > 30
    (gate,) = [gate for gate in report.gates if gate.name == "snr"]
    assert gate.value == report.promised_snr == report.outputs["pooler_output"].variation_snr
    assert gate.verdict == "broken"


def test_features_are_promised_decibels_on_photos_too():
    report = validate(
        converted("mobilenet_v2", output="features")[0].path,
        small_checkpoint("mobilenet_v2"),
        PHOTOS,
        ValidateOptions(structure=False),
    )
    assert report.promise == Promise(min_snr=22)
    assert report.features == tuple(report.outputs.values())
    assert (report.agreement, report.estimate) == ({}, None)
    assert report.answers_alike
    assert report.kept() == f"{report.promised_snr:.1f} dB on 5 photos"


def with_scores_raised(path, rows):
    """Raise a class's score in some rows of a segmenter's map, whatever is seen there."""
    editor = PackageEditor(path)
    (argmax,) = editor.ops("reduce_argmax")
    (scores,) = argmax.inputs["x"].arguments
    before = next(op for op in editor.block.operations if op.outputs[0].name == scores.name)
    raised = np.zeros((1, 7, *SIZE), np.float32)
    raised[:, 3, rows] = 1000
    add = type(before)(type="add")
    add.inputs["x"].arguments.add(name=scores.name)
    value = add.inputs["y"].arguments.add().value
    value.type.CopyFrom(before.outputs[0].type)
    value.immediateValue.tensor.floats.values.extend(raised.ravel().tolist())
    add.outputs.add(name="raised", type=before.outputs[0].type)
    scores.name = "raised"
    editor.insert_before(argmax, add)
    return editor.save()


def test_the_padding_of_a_segmenter_does_not_count():
    checkpoint = small_checkpoint("mobilenet_v2", SEGMENTER)
    path = converted("mobilenet_v2", SEGMENTER, precision="fp32")[0].path
    photos = [photo[:40] for photo in PHOTOS]
    preparation = PackageTarget(Predictor(path, engine="portable")).preparation
    seen = preparation(np.full((40, 64, 3), 255, np.uint8)).pixels.any(axis=(1, 2))
    assert 35 < seen.sum() < 45
    options = ValidateOptions(structure=False)
    spoilt = validate(with_scores_raised(path, ~seen), checkpoint, photos, options)
    assert spoilt.agreement == {"pixels": 1.0, "miou": 1.0}
    assert {result.agrees for result in spoilt.worst} == {1.0}
    assert spoilt.estimate.agreement == 1.0
    assert spoilt.outputs["classes"].max_error > 0
    # One row of what is seen counts.
    (first, *_) = np.flatnonzero(seen)
    report = validate(with_scores_raised(path, first), checkpoint, photos, options)
    assert 0 < 1 - report.agreement["pixels"] <= 1 / seen.sum()
    assert report.kept().startswith(f"{report.agreement['pixels']:.1%} of the pixels (")
    assert f" and an mIoU of {report.agreement['miou']:.3f} on 5 photos" in report.kept()


def test_class_maps_are_those_of_transformers_wherever_they_are_decided(tmp_path):
    checkpoint = small_checkpoint("mobilevit", SEGMENTER)
    model = oracle(checkpoint, tmp_path, "MobileViTForSemanticSegmentation")
    path = converted("mobilevit", SEGMENTER, precision="fp32")[0].path
    runtime = Runtime(load_package(path))
    decided = 0.0
    for photo in PHOTOS:
        with torch.inference_mode():
            logits = model(tensor(photo).flip(1)).logits
        logits = F.interpolate(logits, SIZE, mode="bilinear", align_corners=False)[0]
        best = logits.topk(2, dim=0)
        clear = (best.values[0] - best.values[1] > 2e-4 * logits.abs().max()).numpy()
        classes = runtime.run({"image": photo})["classes"]
        assert np.array_equal(classes[clear], best.indices[0].numpy()[clear])
        decided += clear.mean() / len(PHOTOS)
    assert decided > 0.9


class Recorder(TorchFunctionMode):
    """Takes note of the weight and bias of every convolution and linear layer that is run."""

    def __init__(self):
        super().__init__()
        self.layers = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.conv2d, F.linear):
            self.layers.append((args[1], args[2] if len(args) > 2 else None))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("family", ["mobilenet_v2", "mobilevit"])
def test_decoded_palettes_in_the_reference_model_answer_as_the_package(family):
    checkpoint = unresized(family)
    package, saved = converted(family, bits=6, output="logits")
    steps = [op for op in saved.program() if op.op_type in ("conv", "linear")]
    # The export is a copy, whose tensors may be overwritten.
    model = prepare_for_export(build_model(checkpoint))
    with torch.inference_mode(), Recorder() as recorder:
        model(torch.zeros(1, 3, *SIZE))
    palettes = 0
    for layer, step in zip(recorder.layers, steps, strict=True):
        for tensor, parameter in zip(layer, ("weight", "bias"), strict=True):
            stored = step.inputs.get(parameter)
            if stored is None:
                assert tensor is None
                continue
            value = stored.val
            if stored.op.op_type == "constexpr_lut_to_dense":
                value, palettes = stored.op.materialized_val_inference(), palettes + 1
            assert value.shape == tensor.shape
            tensor.copy_(torch.from_numpy(value.astype(np.float32)))
    assert palettes >= 8
    runtime = Runtime(load_package(package.path), arithmetic="fp32")
    for photo in PHOTOS:
        pixels = checkpoint.image_processor.preprocess(photo, input_data_format="channels_last")
        with torch.inference_mode():
            expected = model(pixels).logits.numpy()
        found = runtime.run({"image": photo})["logits"]
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


# --- What is said


def test_a_report_names_both_sides_and_the_worst_photos(tmp_path):
    names = []
    for index, photo in enumerate(PHOTOS):
        names.append(tmp_path / f"{index}.png")
        Image.fromarray(photo).save(names[-1])
    steps = []
    report = validate(
        converted("mobilenet_v2")[0].path,
        small_checkpoint("mobilenet_v2"),
        names,
        ValidateOptions(structure=False),
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(done, 5) for done in range(1, 6)]
    assert (report.source, report.function, report.engine) == (
        "owner/mobilenet_v2",
        "main",
        "portable",
    )
    assert (report.precision, report.bits) == ("fp16", None)
    assert sorted(result.image for result in report.worst) == [name.name for name in names]
    order = [(result.agrees, result.snr) for result in report.worst]
    assert order == sorted(order)
    assert not any("synthetic" in note for note in report.notes)


def test_synthetic_pictures_are_said_to_be_and_classes_on_them_are_not_judged():
    report = validate(
        converted("mobilenet_v2")[0].path,
        small_checkpoint("mobilenet_v2"),
        options=ValidateOptions(structure=False, pictures=2),
    )
    assert report.synthetic
    assert [gate.name for gate in report.gates] == ["snr", "consistency", "decoded_weights"]
    assert any(note.startswith("no photos were given") for note in report.notes)
    assert {result.image for result in report.worst} == {"synthetic 0", "synthetic 1"}
    assert len(LABELS) == 7
    assert (report.agreement, report.estimate, report.equal_classes) == ({}, None, None)
    assert report.promise == Promise(min_snr=22)
    assert report.kept() == f"{report.promised_snr:.1f} dB on 2 synthetic pictures"
    with pytest.raises(InputError, match="takes photos"):
        validate(
            converted("mobilenet_v2")[0].path,
            small_checkpoint("mobilenet_v2"),
            options=ValidateOptions(
                structure=False, pictures=2, promise=Promise(min_agreement=0.9)
            ),
        )


@pytest.fixture(scope="module")
def coarse():
    """Validate a package of 4-bit palettes that is promised something."""
    package, _ = converted("mobilenet_v2", bits=4)

    def judged(promise, images=None):
        options = ValidateOptions(pictures=3, structure=False, promise=promise)
        return validate(package.path, small_checkpoint("mobilenet_v2"), images, options)

    return judged


def test_coarse_palettes_are_sound_and_break_the_default_promise(coarse):
    report = coarse(None)
    assert (report.sound, report.faithful, report.binding) == (True, "broken", True)
    assert (report.passed, report.answers_alike) == (False, False)
    assert shortfall(report) == (
        f"keeps {report.kept()} of the checkpoint, where at least 22 dB is promised"
    )


def test_what_is_promised_is_what_is_judged(coarse):
    kept, broken = coarse(Promise(min_snr=-100)), coarse(Promise(min_snr=100))
    assert kept.answers_alike
    assert shortfall(kept) == ""
    assert not broken.passed
    assert "where at least 100 dB is promised" in shortfall(broken)


def test_a_size_alone_leaves_the_default_promise_but_does_not_bind(coarse):
    report = coarse(Promise(target_size=10**9))
    assert report.promise == Promise(min_snr=22)
    assert (report.sound, report.faithful, report.binding) == (True, "broken", False)
    assert (report.passed, report.answers_alike) == (True, False)
    # Together with a promise of answers it is that which counts.
    both = coarse(Promise(target_size=10**9, min_snr=50))
    assert (both.promise, both.binding, both.passed) == (Promise(min_snr=50), True, False)


def test_few_photos_leave_an_agreement_undecided_unless_margins_tell_more():
    def judged(photos):
        package, _ = converted("mobilenet_v2")
        options = ValidateOptions(structure=False)
        report = validate(package.path, small_checkpoint("mobilenet_v2"), photos, options)
        assert report.agreement["top1"] == 1
        assert report.promise == Promise(min_agreement=0.97)
        assert (report.passed, shortfall(report)) == (True, "")
        return report

    # Four of four are no proof of 97 %: in 89 of 100 times no answer of 97 % is lost.
    four = judged(PHOTOS[:4])
    assert (four.faithful, four.answers_alike) == ("undecided", False)
    assert four.kept() == "100.0% of the answers (51.0% to 100.0%) on 4 photos"
    # One more, and it counts that the errors are far below the margins.
    five = judged(PHOTOS)
    assert (five.faithful, five.answers_alike) == ("kept", True)
    assert five.kept() == "100.0% of the answers (56.6% to 100.0%) on 5 photos"


def test_a_package_that_is_not_sound_is_said_to_be_none_whatever_it_keeps():
    package, _ = converted("mobilenet_v2")
    options = ValidateOptions(pictures=2, structure=False, bounds={"decoded_weights": 200})
    report = validate(package.path, small_checkpoint("mobilenet_v2"), options=options)
    assert (report.sound, report.faithful) == (False, "kept")
    assert (report.passed, report.answers_alike) == (False, False)
    words = shortfall(report)
    assert words.startswith("is not sound: decoded_weights is ")
    assert words.endswith("does not compute what is stored in it; try --precision mixed, or fp32")


def test_nothing_to_compare_is_an_error():
    path, checkpoint = converted("mobilenet_v2")[0].path, small_checkpoint("mobilenet_v2")
    with pytest.raises(InputError, match="there is no image to compare"):
        validate(path, checkpoint, [], ValidateOptions(structure=False))


def test_images_in_memory_are_named_by_their_number_or_their_file(tmp_path):
    package, _ = converted("mobilenet_v2")
    pixels = PHOTOS[0]
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    images = [pixels, Image.fromarray(pixels), Image.open(tmp_path / "photo.png")]
    report = validate(
        package.path, small_checkpoint("mobilenet_v2"), images, ValidateOptions(structure=False)
    )
    assert sorted(result.image for result in report.worst) == ["image 0", "image 1", "photo.png"]


def test_a_package_without_stored_options_is_judged_by_its_answers(tmp_path):
    """As packages of older versions are."""
    package, _ = converted("mobilenet_v2")
    editor = PackageEditor(package.path)
    del editor.spec.description.metadata.userDefined["mvit_coreml.options"]
    path = editor.save()
    checkpoint = small_checkpoint("mobilenet_v2")
    report = validate(path, checkpoint, options=ValidateOptions(pictures=2))
    assert report.passed
    assert report.differences is None
    assert any(note.startswith("an older mvit-coreml made the package") for note in report.notes)
    with pytest.raises(InputError, match="--layers needs a package that mvit-coreml converted"):
        validate(path, checkpoint, options=ValidateOptions(pictures=1, layers=True))
