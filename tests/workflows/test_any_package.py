"""Packages that others made, run, judged and palettized without a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import edited
from packages import SavedPackage, read_tree
from PIL import Image
from plain_packages import (
    CLASSES,
    SIDE,
    Plain,
    Restyled,
    SmallNetwork,
    compress_plainly,
    convert_plainly,
    write_photos,
)
from torch import nn

from mvit_coreml import PaletteOptions, palettize_package
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError, InputError, MvitCoremlError
from mvit_coreml.evaluation.read_metadata import PreparationOptions
from mvit_coreml.inspection.diff import compare_packages
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.workflows.validate import ValidateOptions, validate_against_package

LABELS = tuple(f"label {index}" for index in range(CLASSES))
# What a random network keeps is no matter here.
ANY = Promise(min_snr=-100)
# Pictures to fit to, and others that no palette has seen.
FITTED = 32


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_photos(tmp_path_factory.mktemp("photos"), FITTED + 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A network whose result has no name but coremltools' own."""
    return convert_plainly(Plain(SmallNetwork()), SIDE, folder / "Plain.mlpackage")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> Path:
    """A classifier with labels, and with metadata of its author's."""
    path = convert_plainly(
        Plain(SmallNetwork(), softmax=True), SIDE, folder / "Labels.mlpackage", labels=LABELS
    )

    def sign(spec: Any) -> None:
        spec.description.metadata.author = "somebody"
        spec.description.metadata.userDefined["com.apple.coreml.model.preview.type"] = "imageCl"
        spec.description.input[0].shortDescription = "a picture of something"

    return edited(path, sign)


def fit(package: Path, folder: Path, photos: list[Path], **more: Any) -> Any:
    options = PaletteOptions(**{"bits": 4, "promise": ANY} | more.pop("options", {}))
    return palettize_package(
        package, options, folder / "Fitted.mlpackage", images=photos[:FITTED], **more
    )


def answers(package: Path, photos: list[Path]) -> np.ndarray:
    """What a package's only result is for photos that are stretched to its input."""
    predictor = Predictor(package, engine="portable")
    (name,) = [feature.name for feature in predictor.function.inputs]
    results = []
    for photo in photos:
        picture = Image.open(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        (value,) = predictor.run({name: picture}).values()
        results.append(np.asarray(value, np.float64))
    return np.stack(results)


def decibels(values: np.ndarray, expected: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(values - expected).sum()))


@pytest.mark.parametrize(
    ("precision", "ios", "least"), [("fp32", 16, 80), ("fp16", 17, 45), ("fp16", 18, 45)]
)
def test_the_runtime_answers_as_pytorch_does(
    precision: str, ios: int, least: float, photos: list[Path], tmp_path: Path
) -> None:
    network = Plain(SmallNetwork())
    path = convert_plainly(network, SIDE, tmp_path / "x.mlpackage", ios=ios, precision=precision)
    pictures = [
        np.asarray(Image.open(photo).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        for photo in photos[:4]
    ]
    with torch.no_grad():
        expected = np.stack(
            [
                network(torch.from_numpy(pixels / 255.0).float().permute(2, 0, 1)[None]).numpy()
                for pixels in pictures
            ]
        )
    assert decibels(answers(path, photos[:4]), expected) >= least


def test_fitted_palettes_beat_those_of_coremltools_on_unseen_photos(
    plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    unseen = photos[FITTED:]
    expected = answers(plain, unseen)
    theirs = compress_plainly(plain, "4-bit palettes", tmp_path / "Theirs.mlpackage")
    ours = fit(plain, tmp_path, photos)
    gained = decibels(answers(ours.path, unseen), expected)
    assert gained >= decibels(answers(theirs, unseen), expected) + 3
    # Some hundred bytes of metadata say what was done, and what is left of each layer.
    assert ours.size <= 900 + sum(f.stat().st_size for f in theirs.rglob("*") if f.is_file())
    assert "as Core ML does by itself" in ours.notes[0]
    assert ours.parity.sound
    assert ours.parity.images == 8  # held out of the 32


def test_interface_labels_and_metadata_stay_as_they_are(
    classifier: Path, photos: list[Path], tmp_path: Path
) -> None:
    done = fit(classifier, tmp_path, photos)
    before, after = SavedPackage(classifier), SavedPackage(done.path)
    kept = {k: v for k, v in after.user_defined.items() if k in before.user_defined}
    assert kept == before.user_defined
    # What is added says what was done.
    added = sorted(after.user_defined.keys() - before.user_defined.keys())
    keys = ("bits", "layer_snr", "palette_values", "program_sha256", "values_sha256")
    assert added == [f"mvit_coreml.{key}" for key in keys]
    for spec in (before.spec, after.spec):
        spec.description.metadata.userDefined.clear()
    assert after.spec.description == before.spec.description
    assert after.spec.specificationVersion == before.spec.specificationVersion
    differences = compare_packages(classifier, done.path)
    assert {change.section for change in differences.changes} == {"metadata"}
    assert done.parity.differences == ()
    assert done.parity.estimate is not None  # classes are compared as such


def test_the_same_bytes_come_out_twice_and_of_the_plan(
    plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    first, second = (fit(plain, tmp_path / name, photos) for name in ("first", "second"))
    assert read_tree(first.path) == read_tree(second.path)
    planned = palettize_package(
        plain, PaletteOptions(plan=first.plan), tmp_path / "third" / "Fitted.mlpackage"
    )
    assert read_tree(planned.path) == read_tree(first.path)


def test_several_outputs_count_alike_whatever_their_units(
    photos: list[Path], tmp_path: Path
) -> None:
    """Boxes in pixels must not be all that is fitted, nor be forgotten."""
    network = Plain(SmallNetwork(boxes=True))
    path = convert_plainly(network, SIDE, tmp_path / "Two.mlpackage", outputs=["scores", "boxes"])
    theirs = compress_plainly(path, "4-bit palettes", tmp_path / "Theirs.mlpackage")
    ours = fit(path, tmp_path, photos).path
    unseen = photos[FITTED:]
    ours_report, their_report = (
        validate_against_package(one, path, unseen, ValidateOptions(promise=ANY))
        for one in (ours, theirs)
    )
    for name in ("scores", "boxes"):
        assert ours_report.outputs[name].snr >= their_report.outputs[name].snr + 3


def test_scores_that_a_classifier_takes_without_softmax_are_scores(
    photos: list[Path], tmp_path: Path
) -> None:
    """Its labels stand in the arguments of an operation and are read as a constant of their own."""
    path = convert_plainly(
        Plain(SmallNetwork()),
        SIDE,
        tmp_path / "Scores.mlpackage",
        ios=18,
        precision="fp32",
        labels=LABELS,
    )
    done = fit(path, tmp_path, photos)
    assert done.parity.estimate is not None
    assert done.parity.precision == "fp32"
    assert set(done.parity.outputs) == {"logits"}


@pytest.mark.parametrize("layout", ["BGR", "GRAYSCALE"])
def test_other_kinds_of_images_are_fitted_to(
    layout: str, photos: list[Path], tmp_path: Path
) -> None:
    gray = layout == "GRAYSCALE"
    network: nn.Module = SmallNetwork(channels=1) if gray else Plain(SmallNetwork())
    path = convert_plainly(network, SIDE, tmp_path / "x.mlpackage", image=layout)
    done = fit(path, tmp_path, photos)
    assert done.parity.sound
    assert done.parity.promised_snr > 10


def test_a_network_that_answers_a_picture_is_fitted_to_it(
    photos: list[Path], tmp_path: Path
) -> None:
    path = convert_plainly(Restyled(), SIDE, tmp_path / "Style.mlpackage", image_output=True)
    done = fit(path, tmp_path, photos)
    assert set(done.parity.outputs) == {"picture"}
    assert done.parity.promised_snr > 10


def test_photos_are_brought_to_the_input_as_asked(
    plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    """Cropped photos lead to other palettes than stretched ones, and nothing was assumed."""
    stretched = fit(plain, tmp_path, photos)
    (tmp_path / "cropped").mkdir()
    cropped = fit(plain, tmp_path / "cropped", photos, preparation=PreparationOptions(fit="crop"))
    assert read_tree(stretched.path) != read_tree(cropped.path)
    assert len(cropped.notes) == len(stretched.notes) - 1


def refused(package: Path, folder: Path, **options: Any) -> str:
    """Return the line that says why a package cannot be palettized; nothing may be left."""
    out = folder / "out"
    out.mkdir()
    with pytest.raises(MvitCoremlError) as caught:
        palettize_package(package, PaletteOptions(bits=4), out / "x.mlpackage", **options)
    assert not isinstance(caught.value, GateError)
    assert list(out.iterdir()) == []
    return str(caught.value)


@pytest.mark.parametrize("kind", ["4-bit palettes", "8-bit linear"])
def test_what_coremltools_compressed_is_run_but_not_compressed_again(
    kind: str, plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    compressed = compress_plainly(plain, kind, tmp_path / "Less.mlpackage")
    report = validate_against_package(compressed, plain, photos[:4], ValidateOptions(promise=ANY))
    assert report.sound
    assert 8 < report.promised_snr < 60
    assert "compressed already; give the package as it was before" in refused(compressed, tmp_path)


def test_a_package_of_arrays_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    path = convert_plainly(Plain(SmallNetwork()), SIDE, tmp_path / "Array.mlpackage", image=None)
    assert "does not take one image, but an array 'image'" in refused(path, tmp_path)


def test_packages_with_other_outputs_do_not_compare(
    plain: Path, photos: list[Path], tmp_path: Path
) -> None:
    two = convert_plainly(Plain(SmallNetwork(boxes=True)), SIDE, tmp_path / "Two.mlpackage")
    with pytest.raises(InputError, match=r"do not compare: one returns \w+ \(1x10\), the other"):
        validate_against_package(plain, two, photos[:2])
