"""Many packages of one checkpoint, judged against the same reference on the same images."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvit_coreml.errors import PackageError
from mvit_coreml.evaluation.accuracy import Metric, Share, evaluate
from mvit_coreml.evaluation.labeled_datasets import LabeledImages, MaskedImages
from mvit_coreml.evaluation.metrics import ClosenessMeter, kl_divergence, top_k
from mvit_coreml.evaluation.targets import Answer, PackageTarget, ReferenceTarget
from mvit_coreml.validation.samples import as_probabilities

# Bytes of the reference's answers that are kept; it is asked again for what is beyond.
_KEPT_BYTES = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """How close a package's answers are to the reference's, and how often they are right.

    Attributes:
        snr: signal-to-noise ratio of the scores before softmax or argmax, or of the first output
            where there are none, in dB.
        agreement: share of the images, or of a segmenter's pixels, with the reference's class;
            ``None`` without classes.
        kl: mean Kullback-Leibler divergence of a classifier's probabilities in nats, else ``None``.
        accuracy: the main figure on labelled images, ``None`` without labels.
    """

    snr: float
    agreement: float | None
    kl: float | None
    accuracy: Share | None


class Judge:
    """Judges packages whose outputs are alike.

    Args:
        reference: that answers those outputs.
        images: to judge on; those of ``dataset`` if there is one.
        dataset: labelled images.
    """

    def __init__(
        self,
        reference: ReferenceTarget,
        images: Sequence[Any],
        dataset: LabeledImages | MaskedImages | None = None,
    ) -> None:
        self.reference, self.dataset = reference, dataset
        self.images = images if dataset is None else dataset.images
        self._kept: list[Answer] = []
        self._room = _KEPT_BYTES

    def reference_accuracy(self) -> tuple[Metric, Share] | None:
        """Return the name of the main figure and the reference's own; ``None`` without labels.

        Raises:
            InputError: an image or mask that cannot be used.
        """
        if self.dataset is None:
            return None
        stream = _Stream(self.reference.name, lambda _: self._expected())
        figures = evaluate([stream], self.dataset, self._classes).accuracies[0].figures
        return next(iter(figures.items()))

    def judge(self, target: PackageTarget) -> Judgement:
        """Run the images through a package.

        Raises:
            InputError: an image or mask that cannot be used.
            PackageError: the package's outputs are others than the reference's.
        """
        comparison = _Comparison(target)

        def compared(images: Iterable[Any]) -> Generator[Answer, None, None]:
            with (
                closing(target.answer(images, with_scores=True)) as found,
                closing(self._expected()) as expected,
            ):
                for answer, truth in zip(found, expected, strict=True):
                    comparison.note(answer, truth)
                    yield answer

        accuracy = None
        if self.dataset is None:
            for _ in compared(self.images):
                pass
        else:
            stream = _Stream(target.name, compared)
            accuracy = evaluate([stream], self.dataset, self._classes).accuracies[0].main
        return comparison.result(accuracy)

    @property
    def _classes(self) -> int:
        return self.reference.checkpoint.config.num_labels

    def _expected(self) -> Generator[Answer, None, None]:
        """Yield the reference's answers; as many as there is room for are computed only once."""
        yield from self._kept
        with closing(self.reference.answer(self.images[len(self._kept) :])) as rest:
            for answer in rest:
                arrays = [*answer.outputs.values(), answer.raw_scores]
                self._room -= sum(array.nbytes for array in arrays if array is not None)
                if self._room >= 0:
                    self._kept.append(answer)
                yield answer


class _Stream:
    """Answers as something that can be evaluated."""

    labels = None

    def __init__(
        self, name: str, answer: Callable[[Iterable[Any]], Generator[Answer, None, None]]
    ) -> None:
        self.name = name
        self.answer = answer


class _Comparison:
    """Answers of a package and of the reference, compared as they come."""

    def __init__(self, target: PackageTarget) -> None:
        self.target = target
        self.scores = ClosenessMeter()
        self.kl: list[float] = []
        self.same = self.total = 0

    def note(self, answer: Answer, truth: Answer) -> None:
        """Take in one image."""
        value, wanted = answer.raw_scores, truth.raw_scores
        if value is None or wanted is None or value.size != wanted.size:
            role = self.target.roles[0].role
            value, wanted = answer.outputs[role], truth.outputs[role]
        if value.size != wanted.size:
            raise PackageError(
                f"{self.target.name}: answers {list(value.shape)} where {list(wanted.shape)} are"
                " expected; it is another model's"
            )
        self.scores.add(value, wanted)
        scores, true_scores = answer.scores(), truth.scores()
        if scores is not None and true_scores is not None:
            self.same += top_k(scores, 1) == top_k(true_scores, 1)
            self.total += 1
            self.kl.append(kl_divergence(as_probabilities(scores), as_probabilities(true_scores)))
            return
        classes, true_classes = answer.class_map(), truth.class_map()
        if classes is not None and true_classes is not None:
            self.same += int((classes == true_classes).sum())
            self.total += classes.size

    def result(self, accuracy: Share | None) -> Judgement:
        """Return the figures over everything taken in."""
        return Judgement(
            snr=self.scores.result().snr,
            agreement=self.same / self.total if self.total else None,
            kl=float(np.mean(self.kl)) if self.kl else None,
            accuracy=accuracy,
        )
