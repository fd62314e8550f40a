"""Photos with several labels: how they are read, scored (against scikit-learn) and compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_score,
    recall_score,
)

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy import evaluate
from mvit_coreml.evaluation.agreement import AgreementMeter
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.labeled_datasets import MultiLabelImages, read_multi_label_images
from mvit_coreml.evaluation.metrics import average_precision, sigmoid
from mvit_coreml.evaluation.targets import Answer
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.preprocessing.geometry import Placement

pytestmark = pytest.mark.fast

CLASSES = ModelClasses(count=4, labels=("beach", "sea_side", "sunset", "dog park"))
PLACE = Placement(image_size=(4, 4), resized_size=(4, 4), input_size=(4, 4))


class Scripted:
    """A target that gives prepared answers."""

    labels = None

    def __init__(
        self, scores: np.ndarray, output: str = "logits", activation: HeadActivation = "sigmoid"
    ) -> None:
        self.name, self.output, self.activation = "tags", output, activation
        self.scores = scores if output == "logits" else sigmoid(scores)

    def answer(self, images: Any) -> Iterator[Answer]:
        for _, row in zip(images, self.scores, strict=True):
            yield Answer(outputs={self.output: row}, placement=PLACE, activation=self.activation)


def drawn(images: int = 60, labels: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tell labels well, but not always, and the truth; the last is on no image."""
    random = np.random.default_rng(seed)
    truth = random.random((images, labels)) < 0.3
    truth[:, -1] = False
    # Half precision makes ties.
    scores = np.round(random.normal(size=truth.shape) + 2 * truth - 1, 1)
    return scores, truth


def data_of(truth: np.ndarray) -> MultiLabelImages:
    return MultiLabelImages(
        name="data",
        images=tuple(Path(f"{index}.jpg") for index in range(len(truth))),
        labels=tuple(tuple(np.flatnonzero(row).tolist()) for row in truth),
    )


@pytest.mark.parametrize("output", ["logits", "probabilities"])
def test_figures_are_scikit_learns(output: str) -> None:
    scores, truth = drawn()
    result = evaluate([Scripted(scores, output)], data_of(truth), truth.shape[1])
    (accuracy,) = result.accuracies
    said = scores > 0
    figures = {name: share.value for name, share in accuracy.figures.items()}
    with_images = truth.any(0)
    assert figures == pytest.approx(
        {
            "mean_ap": average_precision_score(truth[:, with_images], scores[:, with_images]),
            "f1": f1_score(truth, said, average="micro"),
            "macro_f1": f1_score(truth, said, average="macro", zero_division=0),
            "exact_labels": accuracy_score(truth, said),
        }
    )
    assert [one.images for one in accuracy.labels] == truth.sum(0).tolist()
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        wanted = score(truth, said, average=None, zero_division=0)
        assert [getattr(one, name) for one in accuracy.labels] == pytest.approx(wanted.tolist())
    for label, one in enumerate(accuracy.labels):
        if with_images[label]:
            wanted = average_precision_score(truth[:, label], scores[:, label])
            assert one.average_precision == pytest.approx(wanted)
        else:
            assert one.average_precision is None


def test_an_image_that_counts_twice_is_two_images() -> None:
    scores, truth = drawn()
    weights = np.random.default_rng(1).integers(0, 4, (3, len(truth)))
    found = average_precision(scores[:, 0], truth[:, 0], weights)
    wanted = [average_precision_score(truth[:, 0], scores[:, 0], sample_weight=w) for w in weights]
    assert found == pytest.approx(wanted)
    assert np.isnan(average_precision(scores[:, -1], truth[:, -1], weights)).all()


def test_the_interval_holds_what_more_images_of_the_kind_lead_to() -> None:
    scores, truth = drawn(20_000)
    wanted = average_precision_score(truth[:, :-1], scores[:, :-1])
    holds = 0
    for seed in range(1, 21):
        few, few_truth = drawn(80, seed=seed)
        (accuracy,) = evaluate([Scripted(few)], data_of(few_truth), 5).accuracies
        share = accuracy.figures["mean_ap"]
        assert share.low < share.value < share.high
        holds += share.low <= wanted <= share.high
    # 95 % on average; 15 or fewer of 20 would come once in 4000 times.
    assert holds >= 16


def test_two_targets_agree_where_all_labels_of_an_image_are_the_same() -> None:
    scores, truth = drawn()
    other = scores + 0.4 * np.random.default_rng(2).normal(size=scores.shape)
    result = evaluate([Scripted(scores), Scripted(other, "probabilities")], data_of(truth), 5)
    first, second = scores > 0, other > 0
    assert result.agreement is not None
    assert result.agreement.share.value == accuracy_score(first, second)
    right = [(said == truth).all(1) for said in (first, second)]
    assert result.agreement.both_right == (right[0] & right[1]).sum()
    assert result.agreement.only_first == (right[0] & ~right[1]).sum()


def test_an_answer_of_one_label_is_refused() -> None:
    scores, truth = drawn(3)
    target = Scripted(scores, activation="softmax")
    with pytest.raises(InputError, match="tags: does not classify images as the data set labels"):
        evaluate([target], data_of(truth), 5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / f"{name}.jpg").touch()
    return tmp_path


def read(folder: Path, *lines: str, **options: Any) -> MultiLabelImages:
    (folder / "tags.csv").write_text("\n".join(lines), encoding="utf-8")
    return read_multi_label_images(folder / "tags.csv", CLASSES, **options)


@pytest.mark.parametrize(
    "lines",
    [
        ("file,labels", "a.jpg,beach|Sea Side", "b.jpg,", "c.jpg,dog park"),
        ("file,labels", "a.jpg,beach ;sea-side", "b.jpg,", "c.jpg,dog park"),
        ("file,tags", 'a.jpg,"beach, sea side"', "b.jpg,", "c.jpg,dog park"),
        ("file,anything", "a.jpg,0 1", "b.jpg,", "c.jpg,3"),
        ("a.jpg,beach|sea side", "b.jpg,", "c.jpg,dog park"),
        ("image,beach,sea side,sunset,dog park", "a.jpg,1,1,0,0", "b.jpg,0,0,0,0", "c.jpg,0,0,0,1"),
        (
            "Dog_Park,Sunset,held_out,sea side,file,beach",
            "no,false,1,yes,a.jpg,TRUE",
            "0,0,0,0,b.jpg,0",
            "1.0,0,1,0,c.jpg,0.0",
        ),
    ],
)
def test_labels_stand_in_one_column_or_in_a_column_each(folder: Path, lines: Any) -> None:
    data = read(folder, *lines)
    assert [image.name for image in data.images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert data.labels == ((0, 1), (), (3,))


def test_some_of_the_images_keep_their_labels(folder: Path) -> None:
    data = read(folder, "file,labels", "a.jpg,beach|sunset", "b.jpg,sunset", "c.jpg,dog park")
    limited = data.limited(2)
    assert (
        dict(zip([p.name for p in limited.images], limited.labels, strict=True)).items()
        <= {
            "a.jpg": (0, 2),
            "b.jpg": (2,),
            "c.jpg": (3,),
        }.items()
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,labels", "a.jpg,beach|ocean"), "1 of 2 classes match none"),
        (("file,beach,sunset,sea side", "a.jpg,1,0,0"), "no column of 0 and 1 for 'dog park'"),
        (("file,who,when", "a.jpg,me,today"), "no column is certain to hold the labels"),
    ],
)
def test_labels_that_mean_nothing_are_refused(folder: Path, lines: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(folder, *lines)
    assert "tags.csv" in str(error.value)


def test_class_folders_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="gives a photo one label"):
        read_multi_label_images(folder, CLASSES)


def test_an_answer_is_lost_when_any_label_crosses_the_threshold() -> None:
    meter = AgreementMeter(several_labels=True)
    reference = np.array([[2.0, -1.0, 0.1], [2.0, -1.0, 0.1], [2.0, -1.0, 0.1], [3.0, 2.0, -4.0]])
    errors = np.array([[0, 0.5, 0], [0, 1.5, 0], [np.nan, 0, 0], [-1, 5, 1]])
    for one, error in zip(reference, errors, strict=True):
        meter.add(one + error, one)
    assert meter.result().agreement == 0.5


def test_the_bound_holds_on_other_photos_of_several_labels() -> None:
    random = np.random.default_rng(0)

    def photos(count: int) -> tuple[np.ndarray, np.ndarray]:
        # Photos differ in how clear their labels are.
        clear = random.gamma(4, 0.25, (count, 1))
        reference = clear * random.normal(-1, 3, (count, 10))
        return reference + 0.02 * random.standard_t(8, (count, 10)), reference

    scores, reference = photos(100_000)
    kept = ((scores > 0) == (reference > 0)).all(1).mean()
    assert 0.95 < kept < 0.99
    holds, bounds = 0, []
    for _ in range(60):
        meter = AgreementMeter(several_labels=True)
        for one, other in zip(*photos(40), strict=True):
            meter.add(one, other)
        estimate = meter.result()
        bounds.append(estimate.lower_bound)
        holds += estimate.lower_bound <= kept
    # A bound of 95 %; 51 or fewer of 60 would come once in a thousand times.
    assert holds >= 52
    # The count alone could not say more than 92.8 % of 40 photos, none lost (0.05 ** (1 / 41)).
    assert np.median(bounds) > 0.93
