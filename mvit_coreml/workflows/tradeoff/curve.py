"""The size-quality curve of a checkpoint: what was measured, and of which packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.evaluation.accuracy import Metric, Share
from mvit_coreml.workflows.choose_palettes import Palettes

PlanKind = Literal["none", "uniform", "mixed"]
PaletteKind = Literal["none", "kmeans", "fitted", "tuned", "coremltools"]


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """One saved package, and what it was found to do.

    Attributes:
        name: different from all others, and good for a file: ``uniform-4-fitted``.
        plan: the same bits for all weights, bits shared out by sensitivity, or no palettes.
        palettes: found by k-means alone, fitted to images, tuned on top of that, or by
            coremltools' ``palettize_weights``.
        bits: of a uniform plan.
        average_bits: of an element of all palettizable weights, 16 or 32 where they stay as they
            are; ``None`` for coremltools.
        size: sum of the sizes of the package's files, in bytes.
        snr: signal-to-noise ratio of the scores in dB.
        agreement: share of the images, or of a segmenter's pixels, with the reference's class;
            ``None`` without classes.
        kl: mean Kullback-Leibler divergence of a classifier's probabilities in nats, else ``None``.
        accuracy: main figure on the labelled images, ``None`` without them.
        seconds: that making the package took, from the traced model on; coremltools begins with
            the saved package without palettes.
        applied: the plan and its values, ``None`` where there is none.
    """

    name: str
    plan: PlanKind
    palettes: PaletteKind
    bits: int | None
    average_bits: float | None
    size: int
    snr: float
    agreement: float | None
    kl: float | None
    accuracy: Share | None
    seconds: float
    applied: Palettes | None = field(repr=False, compare=False)

    @property
    def series(self) -> str:
        """The curve that it belongs to, in words."""
        if self.palettes == "none":
            return "no palettes"
        if self.palettes == "coremltools":
            return "coremltools"
        if self.palettes == "kmeans":
            return "k-means"
        return f"{'mixed bits, ' if self.plan == 'mixed' else ''}{self.palettes}"


@dataclass(frozen=True, kw_only=True)
class WeightSensitivity:
    """What a weight's palettes do to the answers while all others stay as they are.

    Attributes:
        name: of the weight.
        elements: number of its elements.
        noise: choice to the divergence of the answers: in nats for classes, for features the
            squared error relative to the signal.
    """

    name: str
    elements: int
    noise: Mapping[Choice, float]

    @property
    def worst(self) -> float:
        """The largest of the divergences."""
        return max(self.noise.values(), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """The size-quality curve of a checkpoint.

    Attributes:
        source: name of the checkpoint.
        ios: deployment target.
        images: number of images that the packages were judged on.
        synthetic: whether they were synthetic pictures.
        fitted_to: number of other images that palettes were fitted to.
        dataset: name of the labelled images, ``None`` without; it is what was judged on.
        metric: name of the main figure on them.
        reference_accuracy: the PyTorch reference's, in fp32.
        points: the packages, curve by curve.
        sensitivities: of all weights, the most sensitive first.
        notes: what whoever reads this should know.
        complete: whether everything was measured; an interruption leaves the rest out.
    """

    source: str
    ios: int
    images: int
    synthetic: bool
    fitted_to: int
    dataset: str | None
    metric: Metric | None
    reference_accuracy: Share | None
    points: tuple[TradeoffPoint, ...]
    sensitivities: tuple[WeightSensitivity, ...] = field(repr=False)
    notes: tuple[str, ...] = ()
    complete: bool = True
