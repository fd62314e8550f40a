"""Palettes fitted to a calibration set, by reconstruction and fine-tuning; judged on others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    Quality,
    compare_scores,
    scores,
)
from mvit_coreml.compression.calibration.fine_tuning import FineTuner, random_views
from mvit_coreml.compression.calibration.linear_layers import find_layers
from mvit_coreml.compression.calibration.reconstruction import (
    DRAFT_SAMPLES,
    SAMPLES,
    TunedWeights,
    fisher_information,
    kmeans_palettes,
    reconstruct,
)
from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.evaluation.metrics import MAX_DB

Report = Callable[[str], None]

# Images and views of them that a tuning run reconstructs on.
_VIEWS = 400
# One in so many images is drafted on, and the fewest.
_DRAFT = 4
_FEWEST_DRAFTED = 8
# Fine-tuning is judged after so many steps, and ends when it has not helped for so many judgements.
_STEPS = 10
_PATIENCE = 4


@dataclass(frozen=True, eq=False)
class Tuned:
    """What tuning led to.

    Attributes:
        weights: to compute with.
        plain: what k-means alone does to the held-out images.
        quality: what ``weights`` do to them.
        answers: their scores with ``weights``, that ``quality`` was measured on.
        is_plain: whether ``weights`` are those of k-means, as nothing else was closer.
    """

    weights: TunedWeights
    plain: Quality
    quality: Quality
    answers: Tensor
    is_plain: bool = False


def split_images(count: int, held_out: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Choose which of a number of images to calibrate on, and which to hold out.

    Args:
        count: number of images.
        held_out: how many of them to hold out.
        seed: of the draw.

    Returns:
        Indices of the former in random order, and of the latter in ascending order.

    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order[held_out:], sorted(order[:held_out])


def deadline_in(minutes: float) -> float:
    """Return the time some minutes from now, on the clock of :func:`time.monotonic`."""
    return time.monotonic() + 60 * minutes


class Tuner:
    """Finds palettes for one function; what does not depend on the choices is done once.

    Args:
        function: as saved, not palettized.
        pixels: (N, 3, height, width) fp32 from 0 to 255, in the program's colour order, of the
            images to calibrate on.
        held_out: likewise, of other images, to judge by.
        seed: of everything that is drawn.
    """

    def __init__(
        self, function: DifferentiableFunction, pixels: Tensor, held_out: Tensor, seed: int = 0
    ) -> None:
        self.function, self.pixels, self.held_out, self.seed = function, pixels, held_out, seed
        self.reference = scores(function, held_out)
        self.fisher = fisher_information(function, pixels, find_layers(function))

    def judge(self, answers: Tensor) -> Quality:
        """Return how close answers on the held-out images are to the original ones."""
        return compare_scores(answers, self.reference, self.function.activation)

    def answers(self, weights: TunedWeights) -> Tensor:
        """Return the scores of the held-out images with some weights."""
        return scores(self.function, self.held_out, weights.tensors())

    def reconstruct(
        self,
        choices: Mapping[str, Choice],
        *,
        views: bool = False,
        draft: bool = False,
        report: Report = lambda _: None,
    ) -> Tuned:
        """Palettize by :func:`~.reconstruction.reconstruct`, or by k-means where that is closer.

        Args:
            choices: weight name to bits and groups.
            views: take part in crops of the images too.
            draft: use a part of the images only, to see quickly where it leads; k-means is not
                compared with it.
            report: called with what is being done.
        """
        pixels = self.pixels
        if draft:
            pixels = pixels[: max(_FEWEST_DRAFTED, len(pixels) // _DRAFT)]
        if views:
            further = random_views(pixels, max(0, _VIEWS - len(pixels)), self.seed)
            pixels = torch.cat([pixels, further])
            order, _ = split_images(len(pixels), 0, self.seed)
            pixels = pixels[order]
        reconstructed = reconstruct(
            self.function,
            pixels,
            choices,
            fisher=self.fisher,
            samples=DRAFT_SAMPLES if draft else SAMPLES,
            progress=lambda done, total: report(f"layer {done} of {total}"),
        )
        answers = self.answers(reconstructed)
        quality = self.judge(answers)
        if draft:
            return Tuned(reconstructed, quality, quality, answers)
        plain = TunedWeights(kmeans_palettes(self.function, choices))
        plain_answers = self.answers(plain)
        plain_quality = self.judge(plain_answers)
        if not quality.divergence < plain_quality.divergence:
            return Tuned(plain, plain_quality, plain_quality, plain_answers, is_plain=True)
        return Tuned(reconstructed, plain_quality, quality, answers)

    def fine_tune(self, tuned: Tuned, deadline: float, report: Report = lambda _: None) -> Tuned:
        """Take small steps down the gradient until a time, or until they no longer help.

        An interruption (Ctrl-C) ends it early.

        Args:
            tuned: where to begin.
            deadline: on the clock of :func:`time.monotonic`.
            report: called with what is being done.

        Returns:
            The best of all states that were judged, the first included.
        """
        best, without = tuned, 0
        # Without a difference nothing is left to fine-tune.
        if not tuned.weights.palettes or tuned.quality.snr >= MAX_DB:
            return tuned
        try:
            further = random_views(self.pixels, len(self.pixels), self.seed + 1)
            pixels = torch.cat([self.pixels, further])
            tuner = FineTuner(self.function, tuned.weights, pixels, self.seed)
            while without < _PATIENCE:
                for _ in range(_STEPS):
                    if time.monotonic() >= deadline:
                        return best
                    tuner.step()
                weights = tuner.weights()
                answers = self.answers(weights)
                quality = self.judge(answers)
                without += 1
                if quality.divergence < best.quality.divergence:
                    best, without = Tuned(weights, tuned.plain, quality, answers), 0
                report(f"step {tuner.steps}, held out: {quality} (best {best.quality})")
        except KeyboardInterrupt:
            report(f"stopped; the best is kept: {best.quality}")
        return best

    def tune(
        self,
        choices: Mapping[str, Choice],
        minutes: float | None = None,
        report: Report = lambda _: None,
    ) -> Tuned:
        """Palettize for the images, and fine-tune what that leads to if there is time.

        Args:
            choices: weight name to bits and groups.
            minutes: that tuning may take; ``None`` ends with the reconstruction.
            report: called with what is being done.
        """
        deadline = deadline_in(minutes or 0)
        tuned = self.reconstruct(choices, views=minutes is not None, report=report)
        report(f"held out: {tuned.quality}; k-means alone: {tuned.plain}")
        return tuned if minutes is None else self.fine_tune(tuned, deadline, report)
