"""The evaluate command on small models, with labels that transformers gave."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from packages import LABELS, converted, small_checkpoint
from PIL import Image
from standins import pictures

from mvit_coreml.cli import cli

SEGMENTATION = "semantic-segmentation"
IMAGES = 8


def run(*arguments):
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)])


def succeed(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A checkpoint of each kind and data that transformers labelled."""
    folder = tmp_path_factory.mktemp("evaluate")
    classes = ("MobileViTForImageClassification", "MobileNetV2ForSemanticSegmentation")
    sources = (("mobilevit", "image-classification"), ("mobilenet_v2", SEGMENTATION))
    arrays = (pictures(IMAGES, (64, 64)) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    files = [f"{index}.png" for index in range(IMAGES)]
    for name, array in zip(files, arrays, strict=True):
        Image.fromarray(array).save(folder / name)
    rows, masks = ["file,label"], ["image,mask"]
    for (family, task), class_name in zip(sources, classes, strict=True):
        small_checkpoint(family, task).save_pretrained(folder / family)
        oracle = getattr(transformers, class_name).from_pretrained(folder / family)
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255
        if task == SEGMENTATION:
            with torch.inference_mode():
                logits = oracle(2 * pixels - 1).logits
            logits = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")
            for name, found in zip(files, logits.argmax(1).numpy().astype(np.uint8), strict=True):
                Image.fromarray(found).save(folder / f"mask{name}")
                masks.append(f"{name},mask{name}")
            continue
        # The processor's resize from 64 to 96 and crop to 64.
        processor = transformers.MobileViTImageProcessorPil.from_pretrained(folder / family)
        inputs = processor([Image.open(folder / name) for name in files], return_tensors="pt")
        with torch.inference_mode():
            best = oracle(inputs["pixel_values"]).logits.argmax(1).tolist()
        rows += [f"{name},{label}" for name, label in zip(files, best, strict=True)]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    (folder / "masks.csv").write_text("\n".join(masks) + "\n")
    return folder


def package(family="mobilevit", task="image-classification", **options):
    return converted(family, task, **options)[1].path


def evaluate_labels(folder, source, *arguments):
    # Class 0 of the small classifiers is a background, so what numbers mean has to be said.
    return succeed(source, folder / "labels.csv", "--label-offset", 0, *arguments)


def test_package_and_checkpoint_give_the_labels_of_transformers(folder):
    result = evaluate_labels(folder, package(), "--against", folder / "mobilevit", "--json")
    report = json.loads(result.stdout)
    assert report["images"] == IMAGES
    assert [target["engine"] for target in report["targets"]] == ["portable", "pytorch"]
    assert report["targets"][1]["top1"]["value"] == 1.0
    assert report["targets"][0]["top1"]["value"] == 1.0
    assert report["agreement"]["share"]["value"] == 1.0
    assert report["agreement"]["both_right"] == IMAGES
    # Wilson: n / (n + z^2) where all are right.
    assert report["targets"][0]["top1"]["low"] == pytest.approx(8 / (8 + 1.96**2))


def test_segmenters_are_scored_on_masks(folder):
    saved = package("mobilenet_v2", SEGMENTATION)
    result = succeed(
        saved, folder / "masks.csv", "--against", folder / "mobilenet_v2", "--json", "-q"
    )
    report = json.loads(result.stdout)
    assert result.stderr == ""
    assert report["coverage"] == 1.0
    assert report["targets"][1]["mean_iou"]["value"] > 0.999
    assert report["targets"][0]["mean_iou"]["value"] > 0.97
    assert report["targets"][0]["pixel_accuracy"]["value"] > 0.99


def test_text_gives_figures_with_intervals_and_who_ran_it(folder):
    result = evaluate_labels(folder, package(), "--against", folder / "mobilevit")
    assert f"labels.csv: {IMAGES} images" in result.stdout
    assert result.stdout.count("100.0% (67.6 to 100.0)") >= 2
    assert "portable" in result.stdout
    assert "pytorch" in result.stdout
    assert "  images of the same class  100.0% (67.6 to 100.0)\n" in result.stdout
    assert "class" not in result.stdout.split("images of the same class")[0]


def test_progress_goes_to_stderr(folder):
    assert f"evaluating {IMAGES} images" in evaluate_labels(folder, package()).stderr
    assert evaluate_labels(folder, package(), "-q").stderr == ""


def test_text_says_where_maps_were_compared(folder, tmp_path):
    saved = package("mobilenet_v2", SEGMENTATION)
    whole = succeed(saved, folder / "masks.csv").stdout
    assert "over the whole original images" in whole
    part = succeed(folder / "mobilenet_v2", folder / "masks.csv", "--fit", "crop").stdout
    # 64 of 96 along both edges, which is the centres of 42 of the 64 pixels: 42 * 42 of 64 * 64.
    assert "that the input showed: 43.1% of their pixels" in part


def test_per_class_lists_the_classes_that_occur(folder):
    text = evaluate_labels(folder, package(), "--per-class").stdout
    rows = (folder / "labels.csv").read_text().split()[1:]
    occurring = {int(row.split(",")[1]) for row in rows}
    table = text.split("\n\n")[1].splitlines()
    assert {int(line.split()[0]) for line in table[1:]} == occurring
    assert "confuses nothing" in text


def test_limit_takes_images_spread_over_all(folder):
    report = json.loads(evaluate_labels(folder, package(), "--limit", 4, "--json").stdout)
    assert report["images"] == 4
    rows = (folder / "labels.csv").read_text().split()[1::2]
    counts = {row["class"]: row["images"] for row in report["targets"][0]["per_class"]}
    labels = [int(row.split(",")[1]) for row in rows]
    assert counts == {label: labels.count(label) for label in set(labels)}


def test_both_colour_orders_are_run_and_what_they_tell_is_said(folder):
    for source in (package(), folder / "mobilevit"):
        report = json.loads(
            evaluate_labels(folder, source, "--color-order", "both", "--json").stdout
        )
        assert [target["color_order"] for target in report["targets"]] == ["BGR", "RGB"]
        bgr, rgb = (target["top1"]["value"] for target in report["targets"])
        assert bgr == 1.0
        assert report["color_order"]["declared"] == "BGR"
        told = report["targets"][0]["top1"]["low"] > report["targets"][1]["top1"]["high"]
        assert report["color_order"]["trained"] == ("BGR" if told else None)
        assert rgb <= bgr
        text = evaluate_labels(folder, source, "--color-order", "both").stdout
        assert ("trained with BGR, as" if told else "cannot tell") in text


def test_a_wrongly_declared_colour_order_is_pointed_out(real_data, tmp_path):
    source = real_data / "mobilevit_xxs_cifar10_64"
    config = json.loads((source / "preprocessor_config.json").read_text())
    config["do_flip_channel_order"] = False  # the weights were trained with BGR
    processor = tmp_path / "preprocessor_config.json"
    processor.write_text(json.dumps(config))
    images = real_data / "cifar10" / "evaluation"
    text = succeed(
        source, images, "--color-order", "both", "--limit", 150, "--image-processor", processor
    ).stdout
    assert (
        "trained with BGR, but mobilevit_xxs_cifar10_64 declares RGB; "
        "convert with --color-order bgr"
    ) in text


def test_class_folders_are_matched_by_label(folder, tmp_path):
    for row in (folder / "labels.csv").read_text().split()[1:]:
        name, label = row.split(",")
        # Names that stand twice are told apart as in the package.
        label = LABELS[int(label)] + (f" ({label})" if LABELS.count(LABELS[int(label)]) > 1 else "")
        (tmp_path / label).mkdir(exist_ok=True)
        (tmp_path / label / name).write_bytes((folder / name).read_bytes())
    report = json.loads(succeed(package(), tmp_path, "--json").stdout)
    assert report["targets"][0]["top1"]["value"] == 1.0


def test_a_function_of_several_is_run(folder):
    saved = package("mobilenet_v2", ios=18, image_sizes=((64, 64), (96, 64)))
    for function in ("size_64x64", "size_96x64"):
        report = evaluate_labels(folder, saved, "--function", function, "--json")
        assert json.loads(report.stdout)["images"] == IMAGES
    assert (
        "no function 'size_1x1'"
        in run(saved, folder / "labels.csv", "--label-offset", 0, "--function", "size_1x1").stderr
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.mlpackage", "labels.csv"], "none.mlpackage"),
        (["{package}", "nowhere"], "there is no such data set"),
        (["{package}", "labels.csv", "--label-column", "x"], "no column 'x'"),
        (["{package}", "labels.csv", "--reduce-labels"], "masks of segmenters"),
        (["mobilenet_v2", "masks.csv", "--label-offset", "1"], "this is a segmenter"),
        (["{package}", "labels.csv", "--fit", "pad"], "whose fit was settled"),
        (["{package}", "labels.csv", "--color-order", "both", "--against", "x"], "--against"),
        (["{package}", "labels.csv", "--engine", "coreml"], "needs macOS"),
        (["{package}", "labels.csv", "--limit", "0"], "--limit"),
        (["{package}", "labels.csv", "--workers", "0"], "--workers"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    result = run(*(package() if argument == "{package}" else argument for argument in arguments))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_an_unreadable_image_is_named_with_exit_code_2(folder, tmp_path):
    (tmp_path / "0.png").write_bytes(b"no image")
    (tmp_path / "labels.csv").write_text("0.png,tench\n")
    for source in (package(), folder / "mobilevit"):
        result = run(source, tmp_path / "labels.csv")
        assert result.exit_code == 2
        assert "0.png" in result.stderr
        assert result.stdout == ""
