"""How often a target is right on labelled images, and how often two targets agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.labeled_datasets import (
    VOID,
    LabeledImages,
    MaskedImages,
    MultiLabelImages,
    read_labeled_images,
    read_mask,
    read_masked_images,
    read_multi_label_images,
)
from mvit_coreml.evaluation.metrics import (
    ConfusionMatrix,
    average_precision,
    top_k,
    wilson_interval,
)
from mvit_coreml.evaluation.targets import (
    NOT_SEEN,
    Answer,
    PackageTarget,
    ReferenceTarget,
    Target,
    head_activation_of,
)
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.models.config import HeadActivation

Progress = Callable[[int], None]
Metric = Literal[
    "top1", "top5", "mean_ap", "f1", "macro_f1", "exact_labels", "mean_iou", "pixel_accuracy"
]
Data = LabeledImages | MultiLabelImages | MaskedImages

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share from 0 to 1 with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, total: int) -> Share:
        """Share of independent images, with Wilson's interval."""
        low, high = wilson_interval(hits, total)
        return cls(value=hits / total, low=low, high=high)

    def overlaps(self, other: Share) -> bool:
        """Whether the two intervals have anything in common."""
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelAccuracy:
    """How well one target tells one label of several.

    Attributes:
        label: its class index.
        images: that have it.
        average_precision: area under the precision-recall curve; ``None`` where no image has it.
        precision: of the images that are said to have it, the share that do.
        recall: of the images that have it, the share that are said to.
        f1: harmonic mean of the two.
    """

    label: int
    images: int
    average_precision: float | None
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Accuracy:
    """How well one target did.

    Attributes:
        target: its name.
        figures: the first is the main one: ``top1`` and, from six classes on, ``top5`` of a
            classifier; ``mean_ap`` (over the labels that occur), ``f1`` of all decisions together,
            ``macro_f1`` (over all labels) and ``exact_labels`` (images with all labels right) where
            a photo may have several labels; ``mean_iou`` (over the classes that occur) and
            ``pixel_accuracy`` of a segmenter.
        confusion: true and predicted classes, of images or of pixels; of several labels empty.
        predictions: (images,) best class of each image; of a segmenter empty.
        labels: where a photo may have several labels, each of them.
    """

    target: str
    figures: dict[Metric, Share]
    confusion: ConfusionMatrix = field(repr=False)
    predictions: NDArray[np.int64] = field(repr=False)
    labels: tuple[LabelAccuracy, ...] = field(default=(), repr=False)

    @property
    def main(self) -> Share:
        """The figure that targets are compared by."""
        return next(iter(self.figures.values()))

    def confused_pairs(self, count: int = 10) -> list[tuple[int, int, int]]:
        """Return the (true, predicted, how often) that were confused most."""
        counts = self.confusion.counts.copy()
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:count]
        pairs = (divmod(int(position), len(counts)) for position in order)
        return [
            (true, predicted, int(counts[true, predicted]))
            for true, predicted in pairs
            if counts[true, predicted]
        ]

    def confusions_as_json(self) -> list[dict[str, int]]:
        """Return :meth:`confused_pairs` with names."""
        return [
            {"true": true, "predicted": predicted, "count": number}
            for true, predicted, number in self.confused_pairs()
        ]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two targets answer alike, right or wrong.

    Attributes:
        share: of the images with the same best class or all the same labels, or of the pixels with
            the same class.
        worst_image: where a segmenter's two class maps differ most.
        both_right: images of a classifier, or scored pixels of a segmenter.
        only_first: those that only the first target has right.
        only_second: those that only the second target has right.
        both_wrong: the rest.
    """

    share: Share
    worst_image: str | None
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The figures of one or two targets on a data set.

    Attributes:
        dataset: its name.
        images: number of images.
        accuracies: one for each target.
        agreement: of the first two targets, if there are two.
        coverage: share of the photos' pixels that a segmenter was scored on: those that its input
            showed, void ones included; 1 is the whole photos.
    """

    dataset: str
    images: int
    accuracies: tuple[Accuracy, ...]
    agreement: Agreement | None
    coverage: float | None = None


def evaluate(
    targets: Sequence[Target],
    dataset: Data,
    num_classes: int,
    progress: Progress = lambda done: None,
    names: Sequence[str] | None = None,
) -> Evaluation:
    """Measure how often one or two targets are right, image by image.

    A classifier's intervals are Wilson's. Those of a segmenter and of several labels come from
    resampling whole images (bootstrap, 1000 times, always the same way), as the pixels and labels
    of an image are not independent.
    A class map is laid back on the photo and compared at the photo's resolution, wherever all
    targets' inputs showed it. A map of scores smaller than the input is first enlarged bilinearly.

    Args:
        targets: one or two.
        dataset: the images and what they show.
        num_classes: number of classes of all targets.
        progress: called with the number of images done.
        names: what to call the targets; by default by their own names.

    Raises:
        InputError: an image or mask that cannot be used, or a target of another kind.
    """
    names = names or [target.name for target in targets]
    scorer = accuracy_scorer(names, dataset, num_classes)
    with ExitStack() as stack:
        # Closing ends the workers of one target when the other one fails.
        streams = [
            stack.enter_context(closing(target.answer(dataset.images))) for target in targets
        ]
        for index, answers in enumerate(zip(*streams, strict=True)):
            scorer.add(index, answers)
            progress(index + 1)
    return scorer.result()


class MeasuredDrop(Protocol):
    """What measures how much less often packages are right than what they were made from."""

    def of(self, package: Path) -> float:
        """Return what a package loses, in percentage points; negative if it gains."""


class AccuracyDrop:
    """Measures how much less often packages are right than the PyTorch reference.

    Args:
        checkpoint: of all packages.
        dataset: folder or CSV, as ``mvit-coreml evaluate`` takes it.
        color_order: order that the reference gets, ``RGB`` or ``BGR``; the checkpoint's own if
            ``None``.
        activation: of the packages, if it is not the checkpoint's.

    Raises:
        InputError: the data set cannot be read, or has other classes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dataset: Path,
        color_order: str | None = None,
        activation: HeadActivation | None = None,
    ) -> None:
        self.checkpoint, self.color_order = checkpoint, color_order
        self.dataset = read_dataset(checkpoint, dataset, activation)
        self._original: float | None = None

    def of(self, package: Path) -> float:
        """Return what a package loses, in percentage points; negative if it gains."""
        target = PackageTarget(Predictor(package, engine="portable"))
        if self._original is None:
            reference = ReferenceTarget.matching(target, self.checkpoint, self.color_order)
            self._original = self._accuracy(reference)
        return 100 * (self._original - self._accuracy(target))

    def _accuracy(self, target: Target) -> float:
        classes = self.checkpoint.config.num_labels
        return evaluate([target], self.dataset, classes).accuracies[0].main.value


class PackageAccuracyDrop:
    """Measures how much less often packages are right than the one that they were made from.

    Args:
        original: that one, run by the portable runtime.
        classes: that it tells apart.
        dataset: folder or CSV, as ``mvit-coreml evaluate`` takes it.

    Raises:
        InputError: the data set cannot be read, or has other classes.
    """

    def __init__(self, original: PackageTarget, classes: ModelClasses, dataset: Path) -> None:
        self.original, self.classes = original, classes
        maps = any(role.is_map for role in original.roles)
        several = original.activation == "sigmoid"
        self.dataset: Data = (
            read_masked_images(dataset)
            if maps
            else read_multi_label_images(dataset, classes)
            if several
            else read_labeled_images(dataset, classes)
        )
        self._original: float | None = None

    def of(self, package: Path) -> float:
        """Return what a package loses, in percentage points; negative if it gains."""
        if self._original is None:
            self._original = self._accuracy(self.original)
        predictor = Predictor(package, engine="portable")
        target = PackageTarget(predictor, self.original.preparation, self.classes.count)
        return 100 * (self._original - self._accuracy(target))

    def _accuracy(self, target: PackageTarget) -> float:
        return evaluate([target], self.dataset, self.classes.count).accuracies[0].main.value


def read_dataset(
    checkpoint: Checkpoint, path: Path, activation: HeadActivation | None = None
) -> Data:
    """Read the labelled images of a data set for the task of a checkpoint.

    Args:
        checkpoint: whose classes the labels are.
        path: folder or CSV, as ``mvit-coreml evaluate`` takes it.
        activation: what a classifier's logits go through, if it is not the checkpoint's.

    Raises:
        InputError: the data set cannot be read, or has other classes.
    """
    if checkpoint.task == "semantic-segmentation":
        reduced = checkpoint.image_processor.do_reduce_labels
        return read_masked_images(path, reduce_labels=reduced)
    labels = tuple(checkpoint.id2label.values())
    several = (activation or head_activation_of(checkpoint)) == "sigmoid"
    read = read_multi_label_images if several else read_labeled_images
    return read(path, ModelClasses(count=checkpoint.config.num_labels, labels=labels))


def trained_color_order(orders: Sequence[str], evaluation: Evaluation) -> str | None:
    """Tell in which colour order the weights were trained.

    Args:
        orders: the order that each of the evaluation's targets was run in.
        evaluation: of the same weights, once in each order.

    Returns:
        The order with the better main figure, or ``None`` if the intervals overlap.
    """
    first, second = (accuracy.main for accuracy in evaluation.accuracies)
    if first.overlaps(second):
        return None
    return orders[0] if first.value > second.value else orders[1]


def accuracy_scorer(
    names: Sequence[str], dataset: Data, num_classes: int
) -> ClassScorer | LabelScorer | MapScorer:
    """Return what scores the answers of one or two targets to the images of a data set.

    Args:
        names: of the targets.
        dataset: the images and what they show.
        num_classes: number of classes of all targets.

    Raises:
        InputError: the data set has no images.
    """
    if not dataset.images:
        raise InputError(f"{dataset.name}: there are no images to evaluate")
    if isinstance(dataset, LabeledImages):
        return ClassScorer(names, dataset, num_classes)
    if isinstance(dataset, MultiLabelImages):
        return LabelScorer(names, dataset, num_classes)
    return MapScorer(names, dataset, num_classes)


class ClassScorer:
    """Scores classifiers, see :func:`accuracy_scorer`."""

    def __init__(self, names: Sequence[str], dataset: LabeledImages, num_classes: int) -> None:
        self.names, self.dataset, self.num_classes = names, dataset, num_classes
        self.labels = np.array(dataset.labels, np.int64)
        # Of each target and image: the likeliest classes, the likeliest first.
        self.best = np.full((len(names), len(self.labels), 5), -1)

    def add(self, index: int, answers: Sequence[Answer]) -> None:
        """Take in every target's answer to the image at a position of the data set."""
        for number, (name, answer) in enumerate(zip(self.names, answers, strict=True)):
            best = top_k(_checked_scores(name, answer.scores(), self.num_classes), 5)
            self.best[number, index, : len(best)] = best

    def result(self) -> Evaluation:
        """Return the figures over all images."""
        predictions, total = self.best[:, :, 0], len(self.labels)
        right = self.best == self.labels[:, None]
        accuracies = []
        for name, predicted, hits in zip(self.names, predictions, right, strict=True):
            confusion = ConfusionMatrix(self.num_classes, ignore=-1)  # every label counts
            confusion.add(predicted, self.labels)
            figures: dict[Metric, Share] = {"top1": Share.of(int(hits[:, 0].sum()), total)}
            if self.num_classes > 5:
                figures["top5"] = Share.of(int(hits.any(axis=1).sum()), total)
            accuracies.append(
                Accuracy(target=name, figures=figures, confusion=confusion, predictions=predicted)
            )
        agreement = None
        if len(self.names) > 1:
            same = Share.of(int((predictions[0] == predictions[1]).sum()), total)
            agreement = _agreement(same, None, _count_right(*right[:, :, 0]))
        return Evaluation(
            dataset=self.dataset.name,
            images=total,
            accuracies=tuple(accuracies),
            agreement=agreement,
        )


class LabelScorer:
    """Scores classifiers of several labels, see :func:`accuracy_scorer`.

    A label is said to be there where it is likelier than not.
    """

    def __init__(self, names: Sequence[str], dataset: MultiLabelImages, num_classes: int) -> None:
        self.names, self.dataset, self.num_classes = names, dataset, num_classes
        self.truth = np.zeros((len(dataset.images), num_classes), bool)
        for row, labels in zip(self.truth, dataset.labels, strict=True):
            row[list(labels)] = True
        self.scores = np.zeros((len(names), *self.truth.shape))

    def add(self, index: int, answers: Sequence[Answer]) -> None:
        """Take in every target's answer to the image at a position of the data set."""
        for number, (name, answer) in enumerate(zip(self.names, answers, strict=True)):
            scores = _checked_scores(name, answer.label_scores(), self.num_classes)
            self.scores[number, index] = scores

    def result(self) -> Evaluation:
        """Return the figures over all images."""
        predicted, total = self.scores > 0, len(self.truth)
        right = (predicted == self.truth).all(axis=2)
        accuracies = tuple(
            self._accuracy(*scored) for scored in zip(self.names, self.scores, right, strict=True)
        )
        agreement = None
        if len(self.names) > 1:
            same = Share.of(int((predicted[0] == predicted[1]).all(axis=1).sum()), total)
            agreement = _agreement(same, None, _count_right(*right))
        return Evaluation(
            dataset=self.dataset.name, images=total, accuracies=accuracies, agreement=agreement
        )

    def _accuracy(
        self, name: str, scores: NDArray[np.float64], right: NDArray[np.bool_]
    ) -> Accuracy:
        truth, predicted = self.truth, scores > 0
        # Of each image: its labels, those said to be there, and those of both.
        counts = np.stack([truth, predicted, truth & predicted], axis=1)
        occurring = np.flatnonzero(truth.any(axis=0))

        def mean_precision(weights: NDArray[Any]) -> NDArray[Any]:
            each = [average_precision(scores[:, i], truth[:, i], weights) for i in occurring]
            # A resample may lack a label that only a few images have.
            counted = np.isfinite(each).sum(axis=0).clip(min=1)
            return np.nansum(each, axis=0) / counted if each else np.zeros(len(weights))

        figures: dict[Metric, Share] = {
            "mean_ap": _resampled_share(mean_precision, len(truth)),
            "f1": bootstrap(counts.sum(axis=2), _f1),
            "macro_f1": bootstrap(counts.reshape(len(counts), -1), _macro_f1),
            "exact_labels": Share.of(int(right.sum()), len(right)),
        }
        once = np.ones((1, len(truth)))
        precisions = {
            int(i): float(average_precision(scores[:, i], truth[:, i], once)[0]) for i in occurring
        }
        labels = tuple(
            _label_accuracy(index, precisions.get(index), *of_label)
            for index, of_label in enumerate(counts.sum(axis=0).T.tolist())
        )
        return Accuracy(
            target=name,
            figures=figures,
            confusion=ConfusionMatrix(self.num_classes),
            predictions=np.zeros(0, np.int64),
            labels=labels,
        )


def _label_accuracy(
    label: int, precision: float | None, true: int, predicted: int, hits: int
) -> LabelAccuracy:
    return LabelAccuracy(
        label=label,
        images=true,
        average_precision=precision,
        precision=hits / predicted if predicted else 0.0,
        recall=hits / true if true else 0.0,
        f1=2 * hits / (true + predicted) if true + predicted else 0.0,
    )


def _checked_scores(name: str, scores: NDArray[Any] | None, num_classes: int) -> NDArray[Any]:
    """Return a classifier's scores; refuse other answers, and those of other classes."""
    if scores is None:
        raise InputError(f"{name}: does not classify images as the data set labels them")
    if scores.size != num_classes:
        raise InputError(
            f"{name}: answers {scores.size} scores where {num_classes} classes were expected"
        )
    return scores


class MapScorer:
    """Scores segmenters, see :func:`accuracy_scorer`."""

    def __init__(self, names: Sequence[str], dataset: MaskedImages, num_classes: int) -> None:
        self.names, self.dataset, self.num_classes = names, dataset, num_classes
        self.confusions = [ConfusionMatrix(num_classes, VOID) for _ in names]
        # Of each image and target: correct, true and predicted pixels of every class.
        shape = (len(names), len(dataset.images), 3, num_classes)
        self.counts = np.zeros(shape, np.int64)
        self.same = np.zeros((len(dataset.images), 2), np.int64)
        self.right = np.zeros(4, np.int64)
        self.seen = self.pixels = 0

    def add(self, index: int, answers: Sequence[Answer]) -> None:
        """Take in every target's answer to the image at a position of the data set."""
        image, mask = self.dataset.images[index], self.dataset.masks[index]
        truth = read_mask(mask, self.num_classes, reduce_labels=self.dataset.reduce_labels)
        maps = []
        for name, answer in zip(self.names, answers, strict=True):
            photo_map = answer.photo_map()
            if photo_map is None:
                raise InputError(f"{name}: does not segment images")
            maps.append(photo_map)
        if truth.shape != maps[0].shape:
            raise InputError(
                f"{mask}: is {_size(truth)} pixels, but its image {image.name} is {_size(maps[0])}"
            )
        seen = np.logical_and.reduce([photo_map != NOT_SEEN for photo_map in maps])
        self.seen += int(seen.sum())
        self.pixels += seen.size
        truth, maps = truth[seen], [photo_map[seen] for photo_map in maps]
        for number, predicted in enumerate(maps):
            confusion = ConfusionMatrix(self.num_classes, VOID)
            confusion.add(predicted, truth)
            counts = confusion.counts
            self.confusions[number].counts += counts
            self.counts[number, index] = np.diag(counts), counts.sum(1), counts.sum(0)
        if len(maps) > 1:
            self.same[index] = (maps[0] == maps[1]).sum(), truth.size
            scored = truth != VOID
            self.right += _count_right(*((predicted == truth)[scored] for predicted in maps))

    def result(self) -> Evaluation:
        """Return the figures over all images."""
        accuracies = []
        for name, counts, confusion in zip(self.names, self.counts, self.confusions, strict=True):
            figures: dict[Metric, Share] = {
                "mean_iou": bootstrap(counts.reshape(len(counts), -1), _mean_iou),
                "pixel_accuracy": bootstrap(counts.sum(axis=2)[:, :2], _ratio),
            }
            none = np.zeros(0, np.int64)
            accuracies.append(
                Accuracy(target=name, figures=figures, confusion=confusion, predictions=none)
            )
        agreement = None
        if len(self.names) > 1:
            shares = self.same[:, 0] / self.same[:, 1].clip(min=1)
            worst = self.dataset.images[int(shares.argmin())].name
            agreement = _agreement(bootstrap(self.same, _ratio), worst, self.right)
        return Evaluation(
            dataset=self.dataset.name,
            images=len(self.dataset.images),
            accuracies=tuple(accuracies),
            agreement=agreement,
            coverage=self.seen / self.pixels,
        )


def _count_right(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count what neither target has right, only the second, only the first, and both."""
    return np.bincount(2 * first + second, minlength=4)


def _agreement(share: Share, worst_image: str | None, right: NDArray[np.int64]) -> Agreement:
    names = ("both_wrong", "only_second", "only_first", "both_right")
    counts = dict(zip(names, right.tolist(), strict=True))
    return Agreement(share=share, worst_image=worst_image, **counts)


def bootstrap(statistics: NDArray[Any], measure: Callable[[NDArray[np.float64]], float]) -> Share:
    """Measure a share over images, with its interval from resampling them.

    Deterministic: 1000 resamples drawn from the same seed every time (Efron, 1979, Ann. Statist.
    7, 1-26; percentiles 2.5 and 97.5).

    Args:
        statistics: (images, K) counts that add up over images.
        measure: turns (K,) sums into the share.
    """
    sums = statistics.astype(np.float64)

    def measured(weights: NDArray[Any]) -> NDArray[np.float64]:
        return np.array([measure(row @ sums) for row in weights])

    return _resampled_share(measured, len(sums))


def _resampled_share(measure: Callable[[NDArray[Any]], NDArray[np.float64]], images: int) -> Share:
    """Measure a share with the interval of :func:`bootstrap`.

    Args:
        measure: turns (R, images) numbers of times that each image counts into (R,) shares.
        images: how many there are.
    """
    value = float(measure(np.ones((1, images)))[0])
    if images < 2:
        return Share(value=value, low=0.0, high=1.0)  # one image says nothing about others
    random = np.random.default_rng(0)
    values = [
        measure(random.multinomial(images, np.full(images, 1 / images), size=_RESAMPLES // 10))
        for _ in range(10)
    ]
    low, high = np.nanpercentile(np.concatenate(values), (2.5, 97.5))
    return Share(value=value, low=float(low), high=float(high))


def _f1(sums: NDArray[np.float64]) -> float:
    true, predicted, hits = sums
    return float(2 * hits / (true + predicted)) if true + predicted else 0.0


def _macro_f1(sums: NDArray[np.float64]) -> float:
    true, predicted, hits = sums.reshape(3, -1)
    return float((2 * hits / (true + predicted).clip(min=1)).mean())


def _mean_iou(sums: NDArray[np.float64]) -> float:
    hits, true, predicted = sums.reshape(3, -1)
    union = true + predicted - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if union.any() else 1.0


def _ratio(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else 1.0


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
