"""The demo's pictures: reproducible, rightly labelled, and split by scan."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from digit_pictures import CLASS_LABELS, MASK_LABELS, Pictures, draw, split_samples
from PIL import Image
from sklearn.datasets import load_digits
from write_pictures import write_pictures

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.labeled_datasets import (
    read_labeled_images,
    read_mask,
    read_masked_images,
)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return draw("held-out", 60, seed=5)


def test_equal_arguments_draw_equal_pictures(pictures: Pictures) -> None:
    again = draw("held-out", 60, seed=5)
    for name in ("images", "masks", "labels", "samples"):
        assert np.array_equal(getattr(pictures, name), getattr(again, name)), name


def test_another_seed_draws_others(pictures: Pictures) -> None:
    assert not np.array_equal(pictures.images, draw("held-out", 60, seed=6).images)


def test_arrays_are_as_documented(pictures: Pictures) -> None:
    assert (pictures.images.shape, pictures.images.dtype) == ((60, 96, 96, 3), np.uint8)
    assert (pictures.masks.shape, pictures.masks.dtype) == ((60, 96, 96), np.uint8)
    assert (pictures.labels.shape, pictures.labels.dtype) == ((60,), np.int64)
    assert (pictures.samples.shape, pictures.samples.dtype) == ((60,), np.int64)


def test_no_scan_is_in_both_splits_and_none_is_lost() -> None:
    training, held_out = split_samples("training"), split_samples("held-out")
    assert not set(training) & set(held_out)
    assert sorted([*training, *held_out]) == list(range(1797))
    assert np.bincount(load_digits().target[held_out]).tolist() == [50] * 10


@pytest.mark.parametrize("split", ["training", "held-out"])
def test_pictures_use_the_scans_of_their_split(split: str) -> None:
    assert set(draw(split, 40).samples) <= set(split_samples(split))  # type: ignore[arg-type]


def test_every_scan_is_shown_once_before_any_is_shown_in_the_other_color(
    held_out: Pictures,
) -> None:
    assert set(held_out.samples[:500]) == set(split_samples("held-out"))
    first_color = dict(zip(held_out.samples[:500], held_out.labels[:500] // 10, strict=True))
    for sample, label in zip(held_out.samples[500:], held_out.labels[500:], strict=True):
        assert label // 10 != first_color[sample]


def test_labels_name_the_digit_that_was_scanned(pictures: Pictures) -> None:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    said = [CLASS_LABELS[label].split()[1] for label in pictures.labels]
    assert said == [names[digit] for digit in load_digits().target[pictures.samples]]


def test_ink_has_the_color_that_the_labels_name(pictures: Pictures) -> None:
    for image, mask, label in zip(pictures.images, pictures.masks, pictures.labels, strict=True):
        red, _, blue = np.median(image[mask > 0], axis=0)
        color = "red" if red > blue else "blue"
        assert CLASS_LABELS[label].startswith(color)
        assert {MASK_LABELS[index] for index in np.unique(mask)} == {"background", f"{color} digit"}


def test_masks_have_the_shape_of_the_scan(pictures: Pictures) -> None:
    """A mask, cut to its bounding box, resembles its own scan more than most others."""
    scans = load_digits().images
    ranks = []
    for mask, sample in zip(pictures.masks, pictures.samples, strict=True):
        rows, columns = (np.flatnonzero((mask > 0).any(axis)) for axis in (1, 0))
        box = Image.fromarray((mask > 0).astype(np.uint8) * 255).crop(
            (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        )
        drawn = np.asarray(box.resize((8, 8), Image.Resampling.BOX), float).ravel()
        scores = [np.corrcoef(drawn, _tight(scan))[0, 1] for scan in scans[pictures.samples]]
        own = np.corrcoef(drawn, _tight(scans[sample]))[0, 1]
        ranks.append(sum(score > own for score in scores))
    assert np.median(ranks) == 0


def _tight(scan: np.ndarray) -> np.ndarray:
    """A scan cut to its bounding box, 8 x 8 again."""
    rows, columns = (np.flatnonzero((scan > 4).any(axis)) for axis in (1, 0))
    cut = scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    return np.asarray(Image.fromarray(cut).resize((8, 8), Image.Resampling.BILINEAR)).ravel()


def test_digits_survive_the_classifiers_crop(pictures: Pictures) -> None:
    edge = round((96 - 96 * 64 / 72) / 2)
    cropped = pictures.masks[:, edge:-edge, edge:-edge]
    assert (cropped > 0).sum() >= 0.99 * (pictures.masks > 0).sum()


def test_swapping_red_and_blue_leaves_pictures_of_the_other_color(pictures: Pictures) -> None:
    """Ink of one colour, swapped, lies among the ink of the other: a model cannot tell."""
    inks = {color: [] for color in ("red", "blue")}
    for image, mask, label in zip(pictures.images, pictures.masks, pictures.labels, strict=True):
        inks[CLASS_LABELS[label].split()[0]].append(np.median(image[mask > 0], axis=0))
    red, blue = np.array(inks["red"])[:, ::-1], np.array(inks["blue"])
    assert np.abs(red.mean(0) - blue.mean(0)).max() < 25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("test", 1), "held-out"), (("training", -1), "negative"), (("training", 1, -1), "negative")],
)
def test_impossible_arguments_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw(*arguments)


def test_no_pictures_are_no_error() -> None:
    assert draw("training", 0).images.shape == (0, 96, 96, 3)


def test_without_scikit_learn_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        draw("training", 1)


def test_written_pictures_are_read_back_as_they_were_drawn(
    pictures: Pictures, tmp_path: Path
) -> None:
    table = write_pictures(pictures, tmp_path / "data")
    labeled = read_labeled_images(table, ModelClasses(count=20, labels=CLASS_LABELS))
    masked = read_masked_images(table)
    assert labeled.labels == tuple(pictures.labels)
    assert labeled.images == masked.images
    for index, (image, mask) in enumerate(zip(masked.images, masked.masks, strict=True)):
        assert np.array_equal(np.asarray(Image.open(image)), pictures.images[index])
        assert np.array_equal(read_mask(mask, 3), pictures.masks[index])
    with table.open(newline="") as stream:
        assert len({row["image"] for row in csv.DictReader(stream)}) == 60


def test_an_existing_folder_is_not_written_to(pictures: Pictures, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        write_pictures(pictures, tmp_path)
    assert not list(tmp_path.iterdir())
