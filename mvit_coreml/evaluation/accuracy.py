"""How often a target is right on labelled images, and how often two targets agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.labeled_datasets import VOID, LabeledImages, MaskedImages, read_mask
from mvit_coreml.evaluation.metrics import ConfusionMatrix, top_k, wilson_interval
from mvit_coreml.evaluation.targets import Answer, Target
from mvit_coreml.preprocessing.segmentation_maps import unfit_map

Progress = Callable[[int], None]
Metric = Literal["top1", "top5", "mean_iou", "pixel_accuracy"]

_UNSEEN = -1
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
class Accuracy:
    """How well one target did.

    Attributes:
        target: its name.
        figures: the first is the main one: ``top1`` and, from six classes on, ``top5`` of a
            classifier; ``mean_iou`` (over the classes that occur) and ``pixel_accuracy`` of a
            segmenter.
        confusion: true and predicted classes, of images or of pixels.
        predictions: (images,) best class of each image; of a segmenter empty.
    """

    target: str
    figures: dict[Metric, Share]
    confusion: ConfusionMatrix = field(repr=False)
    predictions: NDArray[np.int64] = field(repr=False)

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
            (true, found, int(counts[true, found])) for true, found in pairs if counts[true, found]
        ]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two targets answer alike, right or wrong.

    Attributes:
        share: of the images with the same best class, or of the pixels with the same class.
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
    """What :func:`evaluate` found.

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
    dataset: LabeledImages | MaskedImages,
    num_classes: int,
    progress: Progress = lambda done: None,
) -> Evaluation:
    """Measure how often one or two targets are right, image by image.

    A classifier's intervals are Wilson's. Those of a segmenter come from resampling whole images
    (bootstrap, 1000 times, always the same way), as the pixels of an image are not independent.
    A class map is laid back on the photo and compared at the photo's resolution, wherever all
    targets' inputs showed it. A map of scores smaller than the input is first enlarged bilinearly.

    Args:
        targets: one or two.
        dataset: the images and what they show.
        num_classes: number of classes of all targets.
        progress: called with the number of images done.

    Raises:
        InputError: an image or mask that cannot be used, or a target of another kind.
    """
    if not dataset.images:
        raise InputError(f"{dataset.name}: there are no images to evaluate")
    scorer: _ClassScorer | _MapScorer
    if isinstance(dataset, LabeledImages):
        scorer = _ClassScorer(targets, dataset, num_classes)
    else:
        scorer = _MapScorer(targets, dataset, num_classes)
    with ExitStack() as stack:
        # Closing ends the workers of one target when the other one fails.
        streams = [
            stack.enter_context(closing(target.answer(dataset.images))) for target in targets
        ]
        for index, answers in enumerate(zip(*streams, strict=True)):
            scorer.add(index, answers)
            progress(index + 1)
    return scorer.result()


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


class _ClassScorer:
    def __init__(self, targets: Sequence[Target], dataset: LabeledImages, num_classes: int) -> None:
        self.targets, self.dataset, self.num_classes = targets, dataset, num_classes
        self.labels = np.array(dataset.labels, np.int64)
        self.predictions = np.zeros((len(targets), len(self.labels)), np.int64)
        self.among_five = np.zeros(len(targets), np.int64)

    def add(self, index: int, answers: tuple[Answer, ...]) -> None:
        for number, answer in enumerate(answers):
            scores = answer.scores()
            name = self.targets[number].name
            if scores is None:
                raise InputError(f"{name}: does not classify images")
            if scores.size != self.num_classes:
                raise InputError(
                    f"{name}: answers {scores.size} scores where {self.num_classes} classes were "
                    "expected"
                )
            best = top_k(scores, 5)
            self.predictions[number, index] = best[0]
            self.among_five[number] += self.labels[index] in best

    def result(self) -> Evaluation:
        total = len(self.labels)
        right = self.predictions == self.labels
        accuracies = []
        for number, target in enumerate(self.targets):
            # Every label counts: none is void.
            confusion = ConfusionMatrix(self.num_classes, ignore=-1)
            confusion.add(self.predictions[number], self.labels)
            figures: dict[Metric, Share] = {"top1": Share.of(int(right[number].sum()), total)}
            if self.num_classes > 5:
                figures["top5"] = Share.of(int(self.among_five[number]), total)
            accuracies.append(
                Accuracy(
                    target=target.name,
                    figures=figures,
                    confusion=confusion,
                    predictions=self.predictions[number],
                )
            )
        return Evaluation(
            dataset=self.dataset.name,
            images=total,
            accuracies=tuple(accuracies),
            agreement=self._agreement(right) if len(self.targets) > 1 else None,
        )

    def _agreement(self, right: NDArray[np.bool_]) -> Agreement:
        same = int((self.predictions[0] == self.predictions[1]).sum())
        return Agreement(
            share=Share.of(same, right.shape[1]),
            worst_image=None,
            both_right=int((right[0] & right[1]).sum()),
            only_first=int((right[0] & ~right[1]).sum()),
            only_second=int((~right[0] & right[1]).sum()),
            both_wrong=int((~right[0] & ~right[1]).sum()),
        )


class _MapScorer:
    def __init__(self, targets: Sequence[Target], dataset: MaskedImages, num_classes: int) -> None:
        self.targets, self.dataset, self.num_classes = targets, dataset, num_classes
        self.confusions = [ConfusionMatrix(num_classes, VOID) for _ in targets]
        # Of each image and target: correct, true and predicted pixels of every class.
        shape = (len(targets), len(dataset.images), 3, num_classes)
        self.counts = np.zeros(shape, np.int64)
        self.same = np.zeros((len(dataset.images), 2), np.int64)
        self.right = np.zeros(4, np.int64)
        self.seen = self.pixels = 0

    def add(self, index: int, answers: tuple[Answer, ...]) -> None:
        image, mask = self.dataset.images[index], self.dataset.masks[index]
        truth = read_mask(mask, self.num_classes, reduce_labels=self.dataset.reduce_labels)
        maps = [self._photo_map(number, answer) for number, answer in enumerate(answers)]
        if truth.shape != maps[0].shape:
            raise InputError(
                f"{mask}: is {_size(truth)} pixels, but its image {image.name} is {_size(maps[0])}"
            )
        seen = np.logical_and.reduce([found != _UNSEEN for found in maps])
        self.seen += int(seen.sum())
        self.pixels += seen.size
        truth, maps = truth[seen], [found[seen] for found in maps]
        for number, found in enumerate(maps):
            confusion = ConfusionMatrix(self.num_classes, VOID)
            confusion.add(found, truth)
            counts = confusion.counts
            self.confusions[number].counts += counts
            self.counts[number, index] = np.diag(counts), counts.sum(1), counts.sum(0)
        if len(maps) > 1:
            self.same[index] = (maps[0] == maps[1]).sum(), truth.size
            right = [(found == truth)[truth != VOID] for found in maps]
            self.right += np.bincount(2 * right[0] + right[1], minlength=4)

    def _photo_map(self, number: int, answer: Answer) -> NDArray[Any]:
        found = _class_map(answer)
        if found is None:
            raise InputError(f"{self.targets[number].name}: does not segment images")
        return unfit_map(found.astype(np.int32), answer.placement, fill=_UNSEEN)

    def result(self) -> Evaluation:
        accuracies = tuple(
            Accuracy(
                target=target.name,
                figures={
                    "mean_iou": bootstrap(counts.reshape(len(counts), -1), _mean_iou),
                    "pixel_accuracy": bootstrap(counts.sum(axis=2)[:, :2], _ratio),
                },
                confusion=confusion,
                predictions=np.zeros(0, np.int64),
            )
            for target, counts, confusion in zip(
                self.targets, self.counts, self.confusions, strict=True
            )
        )
        return Evaluation(
            dataset=self.dataset.name,
            images=len(self.dataset.images),
            accuracies=accuracies,
            agreement=self._agreement() if len(self.targets) > 1 else None,
            coverage=self.seen / self.pixels,
        )

    def _agreement(self) -> Agreement:
        shares = self.same[:, 0] / self.same[:, 1].clip(min=1)
        both_wrong, only_second, only_first, both_right = (int(count) for count in self.right)
        return Agreement(
            share=bootstrap(self.same, _ratio),
            worst_image=self.dataset.images[int(shares.argmin())].name,
            both_right=both_right,
            only_first=only_first,
            only_second=only_second,
            both_wrong=both_wrong,
        )


def _class_map(answer: Answer) -> NDArray[Any] | None:
    """Class map of an answer; scores are enlarged to the input before the best is taken."""
    scores = answer.outputs.get("probabilities", answer.outputs.get("logits"))
    if "classes" in answer.outputs or scores is None or scores.ndim != 4:
        return answer.class_map()
    enlarged = F.interpolate(
        torch.from_numpy(scores.astype(np.float32)),
        size=answer.placement.input_size,
        mode="bilinear",
        align_corners=False,
    )
    return enlarged[0].argmax(0).numpy()


def bootstrap(statistics: NDArray[Any], measure: Callable[[NDArray[np.float64]], float]) -> Share:
    """Measure a share over images, with its interval from resampling them.

    Deterministic: 1000 resamples drawn from the same seed every time (Efron, 1979, Ann. Statist.
    7, 1-26; percentiles 2.5 and 97.5).

    Args:
        statistics: (images, K) counts that add up over images.
        measure: turns (K,) sums into the share.
    """
    statistics = statistics.astype(np.float64)
    value = measure(statistics.sum(0))
    count = len(statistics)
    if count < 2:
        return Share(value=value, low=0.0, high=1.0)  # one image says nothing about others
    random = np.random.default_rng(0)
    values = [
        measure(random.multinomial(count, np.full(count, 1 / count)) @ statistics)
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(values, (2.5, 97.5))
    return Share(value=value, low=float(low), high=float(high))


def _mean_iou(sums: NDArray[np.float64]) -> float:
    hits, true, found = sums.reshape(3, -1)
    union = true + found - hits
    return float((hits[union > 0] / union[union > 0]).mean()) if union.any() else 1.0


def _ratio(sums: NDArray[np.float64]) -> float:
    return float(sums[0] / sums[1]) if sums[1] else 1.0


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
