"""Images with both answers, and pairs of scores, kept of a validation for its report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import top_k
from mvit_coreml.evaluation.targets import Answer, PackageTarget
from mvit_coreml.validation.pytorch_comparison import ComparedImage, shown_part

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


@dataclass(frozen=True, kw_only=True, order=True)
class _Candidate:
    """An image that may be shown, without its pixels and scores, which may be large.

    Attributes:
        order: disagreement first, then what is off most.
        image: a path, a Pillow image or an array.
        sample: makes the sample of its pixels.
    """

    order: tuple[float, float, int]
    image: Any = field(compare=False)
    sample: Callable[..., Sample] = field(compare=False)


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

    def add(self, name: str, image: Any, compared: ComparedImage) -> None:
        """Take note of one image.

        Args:
            name: of the image.
            image: a path, a Pillow image or an array.
            compared: the package's and the reference's answers to it.
        """
        disagrees = compared.agrees < 1
        order = (compared.agrees, compared.snr, self.count) if disagrees else (1.0, 0.0, self.count)
        among_worst = disagrees and (len(self.worst) < self.samples or order < self.worst[-1].order)
        if among_worst or self.count in self.places:
            candidate = _Candidate(order=order, image=image, sample=_sample_of(name, compared))
            if self.count in self.places:
                self.spread.append(candidate)
            if among_worst:
                self.worst = sorted([*self.worst, candidate])[: self.samples]
        self._add_pairs(*compared.scores)
        self.count += 1

    def result(self) -> Recording:
        """Return what was chosen of everything taken note of so far."""
        chosen = {c.order: c for c in self.worst[: round(self.samples * _WORST_SHARE)]}
        for candidate in [*self.spread, *self.worst]:
            if len(chosen) < self.samples:
                chosen.setdefault(candidate.order, candidate)
        samples = []
        for candidate in sorted(chosen.values()):
            # Preparing it once more costs less than keeping every candidate's pixels.
            fitted = self.target.preparation(candidate.image)
            pixels = shown_part(fitted.pixels, fitted.placement).copy()
            samples.append(candidate.sample(pixels=pixels))
        return Recording(samples=tuple(samples), score_pairs=tuple(self.pairs))

    def _add_pairs(self, scores: NDArray[Any], reference: NDArray[Any]) -> None:
        if scores.dtype.kind != "f":  # class indices are no scores
            return
        # As many of each image, or one of each so many images.
        share = _PAIRS / self.images
        count = int((self.count + 1) * share) - int(self.count * share)
        random = np.random.default_rng(self.count)
        places = random.choice(scores.size, min(count, scores.size), replace=False)
        pairs = np.stack([reference.ravel()[places], scores.ravel()[places]], axis=1).astype(float)
        self.pairs += [(a, b) for a, b in pairs[np.isfinite(pairs).all(axis=1)].tolist()]


def _sample_of(name: str, compared: ComparedImage) -> Callable[..., Sample]:
    """Return what makes a sample of an image's pixels."""
    maps = None
    reference, package = compared.expected.class_map(), compared.answer.class_map()
    if reference is not None and package is not None:
        shown = partial(shown_part, placement=compared.answer.placement)
        maps = shown(reference).astype(np.int32), shown(package).astype(np.int32)
    return partial(
        Sample,
        image=name,
        agrees=compared.agrees,
        snr=compared.snr,
        reference=_ranking(compared.expected),
        package=_ranking(compared.answer),
        maps=maps,
    )


def _ranking(answer: Answer) -> Ranking:
    scores, probabilities = answer.scores(), answer.probabilities()
    if scores is None or probabilities is None:
        return ()
    return tuple((index, float(probabilities[index])) for index in top_k(scores, _CLASSES))
