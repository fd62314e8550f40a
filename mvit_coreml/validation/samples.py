"""A few images with both answers, and pairs of scores, kept while a package is validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import softmax, top_k
from mvit_coreml.evaluation.targets import Answer, PackageTarget
from mvit_coreml.preprocessing.geometry import Placement

# Images that a report shows.
REPORT_SAMPLES = 12
# Classes that are kept of each answer, and pairs of scores of a whole run.
_CLASSES = 3
_PAIRS = 1000
# Share of the samples that is kept for the images that fared worst.
_WORST_SHARE = 2 / 3

Maps = tuple[NDArray[np.int32], NDArray[np.int32]]
Ranking = tuple[tuple[int, float], ...]
"""(class index, probability from 0 to 1) of the likeliest classes, the likeliest first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image and what both sides answered.

    Attributes:
        image: its file name, or ``synthetic 3``.
        agrees: share of agreement: 0 or 1 for a classifier, of pixels for a segmenter.
        snr: signal-to-noise ratio of its scores in dB.
        pixels: (h, w, 3) uint8 RGB, what the package's input shows of it, without padding.
        reference: the reference's likeliest classes; empty for others than classifiers.
        package: the package's, likewise.
        maps: the reference's and the package's (h', w') class indices over the same view, at the
            resolution of the package's map; ``None`` for others than segmenters.
    """

    image: str
    agrees: float
    snr: float
    pixels: NDArray[np.uint8] = field(repr=False)
    reference: Ranking = ()
    package: Ranking = ()
    maps: Maps | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is shown of a validation rather than judged.

    Attributes:
        samples: images with both answers, those that agree least first.
        score_pairs: (reference's, package's) values of the same score, drawn evenly from all
            images, the same ones every time; empty where there are none.
    """

    samples: tuple[Sample, ...]
    score_pairs: tuple[tuple[float, float], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    """What is kept of an image that may be shown: no scores, which may be large maps."""

    index: int
    name: str
    image: Any
    agrees: float
    snr: float
    reference: Ranking
    package: Ranking
    maps: Maps | None

    @property
    def order(self) -> tuple[float, float, int]:
        """Disagreement first, then what is off most."""
        return (self.agrees, self.snr, self.index) if self.agrees < 1 else (1.0, 0.0, self.index)


class SampleRecorder:
    """Chooses what to show of a validation as its images come by.

    Two thirds of the samples are those images that agree least, as far as any disagree; the others
    are spread evenly over all images, so that a report does not show failures alone.

    Args:
        target: the package, which says how images are prepared.
        samples: number of images to keep.
        images: number of images that will come.
    """

    def __init__(self, target: PackageTarget, samples: int, images: int) -> None:
        self.target, self.samples, self.images = target, samples, images
        self.worst: list[_Candidate] = []
        self.spread: list[_Candidate] = []
        self.places = {number * images // samples for number in range(samples)}
        self.pairs: list[tuple[float, float]] = []
        self.count = 0

    def add(
        self,
        name: str,
        image: Any,
        answers: tuple[Answer, Answer],
        scores: tuple[NDArray[Any], NDArray[Any]],
        agrees: float,
        snr: float,
    ) -> None:
        """Take note of one image.

        Args:
            name: of the image.
            image: a path, a Pillow image or an array.
            answers: the package's and the reference's.
            scores: the package's and the reference's scores, of equal size.
            agrees: share of agreement.
            snr: of the scores, in dB.
        """
        among_worst = agrees < 1 and (
            len(self.worst) < self.samples or (agrees, snr) < self.worst[-1].order[:2]
        )
        if among_worst or self.count in self.places:
            candidate = self._candidate(name, image, answers, agrees, snr)
            if self.count in self.places:
                self.spread.append(candidate)
            if among_worst:
                self.worst = sorted([*self.worst, candidate], key=_order)[: self.samples]
        self._add_pairs(*scores)
        self.count += 1

    def result(self) -> Recording:
        """Return what was chosen of everything taken note of so far."""
        chosen = {c.index: c for c in self.worst[: round(self.samples * _WORST_SHARE)]}
        for candidate in [*self.spread, *self.worst]:
            if len(chosen) < self.samples:
                chosen.setdefault(candidate.index, candidate)
        ordered = sorted(chosen.values(), key=_order)
        return Recording(
            samples=tuple(self._sample(candidate) for candidate in ordered),
            score_pairs=tuple(self.pairs),
        )

    def _add_pairs(self, found: NDArray[Any], wanted: NDArray[Any]) -> None:
        if found.dtype.kind != "f":  # class indices are no scores
            return
        # As many of each image, or one of each so many images.
        share = _PAIRS / self.images
        wished = int((self.count + 1) * share) - int(self.count * share)
        random = np.random.default_rng(self.count)
        places = random.choice(found.size, min(wished, found.size), replace=False)
        pairs = np.stack([wanted.ravel()[places], found.ravel()[places]], axis=1).astype(float)
        self.pairs += [(a, b) for a, b in pairs[np.isfinite(pairs).all(axis=1)].tolist()]

    def _candidate(
        self, name: str, image: Any, answers: tuple[Answer, Answer], agrees: float, snr: float
    ) -> _Candidate:
        found, expected = answers
        first, second, maps = expected.class_map(), found.class_map(), None
        if first is not None and second is not None:
            first, second = (_view(value, found.placement) for value in (first, second))
            maps = first.astype(np.int32), second.astype(np.int32)
        return _Candidate(
            index=self.count,
            name=name,
            image=image,
            agrees=agrees,
            snr=snr,
            reference=_ranking(expected),
            package=_ranking(found),
            maps=maps,
        )

    def _sample(self, candidate: _Candidate) -> Sample:
        # Preparing it once more costs less than keeping every candidate's pixels.
        fitted = self.target.preparation(candidate.image)
        return Sample(
            image=candidate.name,
            agrees=candidate.agrees,
            snr=candidate.snr,
            pixels=_view(fitted.pixels, fitted.placement).copy(),
            reference=candidate.reference,
            package=candidate.package,
            maps=candidate.maps,
        )


def _order(candidate: _Candidate) -> tuple[float, float, int]:
    return candidate.order


def _view(array: NDArray[Any], placement: Placement) -> NDArray[Any]:
    """Cut the padding off an array that covers the whole input, at any resolution."""
    valid = placement.valid
    rows = array.shape[0] / placement.input_size[0]
    columns = array.shape[1] / placement.input_size[1]
    top, left = int(valid.top * rows), int(valid.left * columns)
    bottom, right = round(valid.bottom * rows), round(valid.right * columns)
    return array[top : max(bottom, top + 1), left : max(right, left + 1)]


def _ranking(answer: Answer) -> Ranking:
    scores = answer.scores()
    if scores is None:
        return ()
    probabilities = as_probabilities(scores)
    return tuple((index, float(probabilities[index])) for index in top_k(scores, _CLASSES))


def as_probabilities(scores: NDArray[Any]) -> NDArray[Any]:
    """Return (C,) probabilities of (C,) scores, which are logits or probabilities already."""
    if scores.min() >= 0 and abs(float(scores.sum()) - 1) < 0.05:
        return scores
    return softmax(scores)
