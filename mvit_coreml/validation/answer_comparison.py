"""Judging a saved package against the PyTorch reference, image by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.evaluation.metrics import (
    Closeness,
    ClosenessMeter,
    ConfusionMatrix,
    kl_divergence,
    top_k,
)
from mvit_coreml.evaluation.targets import Answer, PackageTarget, Target
from mvit_coreml.validation.consistency import consistent_share
from mvit_coreml.validation.gates import QUALITY_AGREEMENT, QUALITY_SNR, Gate, judge
from mvit_coreml.validation.samples import Recording, SampleRecorder, as_probabilities
from mvit_coreml.validation.structure import Difference

Progress = Callable[[int, int], None]
_WORST = 5


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """How one image fared.

    Attributes:
        image: its file name, or ``synthetic 3``.
        snr: signal-to-noise ratio of its scores in dB.
        agrees: share of agreement: 0 or 1 for a classifier, of pixels for a segmenter.
    """

    image: str
    snr: float
    agrees: float


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Error of one operation's result against the same operation without any rounding.

    Attributes:
        operation: its name.
        op_type: its type.
        snr: in dB.
        drop: how much lower than the worst of what it is computed from, in dB.
    """

    operation: str
    op_type: str
    snr: float
    drop: float


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Whether a package answers like its checkpoint.

    Attributes:
        package: the package's file name.
        source: the checkpoint's name.
        function: of the package.
        engine: ``portable`` or ``coreml``.
        images: how many were compared.
        synthetic: whether they were synthetic pictures.
        precision: ``fp16`` or ``fp32``.
        bits: of the palettes, ``None`` without.
        scores: closeness of the scores before softmax or argmax, or of the output itself.
        outputs: closeness by output.
        agreement: ``top1``, ``top5`` and ``kl`` of a classifier; ``pixels`` and ``miou`` of a
            segmenter, with the reference's class map as the truth.
        worst: the images that fared worst, worst first.
        differences: what the package stores otherwise than it ought to; ``None`` if not compared.
        engines: closeness of Core ML to the portable runtime by output, on request.
        layers: error of every operation, on request.
        gates: the bounds and whether they hold.
        notes: what whoever reads this should know.
        recording: images with both answers, for a report, on request.
    """

    package: str
    source: str
    function: str
    engine: str
    images: int
    synthetic: bool
    precision: str
    bits: int | None
    scores: Closeness
    outputs: Mapping[str, Closeness]
    agreement: Mapping[str, float]
    worst: tuple[ImageResult, ...]
    differences: tuple[Difference, ...] | None
    engines: Mapping[str, Closeness] | None = None
    layers: tuple[LayerError, ...] = field(default=(), repr=False)
    gates: tuple[Gate, ...]
    notes: tuple[str, ...] = ()
    recording: Recording | None = field(default=None, repr=False)

    @property
    def passed(self) -> bool:
        """Whether every gate holds."""
        return all(gate.passed for gate in self.gates)


def validate_target(
    target: PackageTarget,
    reference: Target,
    images: Sequence[Any],
    *,
    synthetic: bool,
    precision: str,
    bits: int | None,
    differences: Sequence[Difference] | None,
    engines: Mapping[str, Closeness] | None = None,
    layers: Sequence[LayerError] = (),
    bounds: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
    samples: int = 0,
    progress: Progress = lambda done, total: None,
) -> ParityReport:
    """Run images through a package and its reference, and judge the package.

    Args:
        target: the package.
        reference: the reference, answering the package's outputs, with ``raw_scores``.
        images: paths or arrays.
        synthetic: they are synthetic pictures: agreement of classes on them means little and is
            not gated.
        precision: of the package.
        bits: of its palettes.
        differences: result of the structural comparison, ``None`` if there was none.
        engines: closeness of the engines for the report.
        layers: error profile for the report.
        bounds: gates instead of the defaults.
        notes: for the report.
        samples: number of images to keep with both answers, see
            :class:`~mvit_coreml.validation.samples.SampleRecorder`.
        progress: called with the number of images done and their total.
    """
    if not images:
        raise InputError("there is no image to compare; name a folder with images")
    comparison = _Comparison(target, reference)
    if samples:
        comparison.recorder = SampleRecorder(target, samples, len(images))
    for index, (name, result) in enumerate(comparison.run(images)):
        comparison.note(
            name if isinstance(name, str) else f"synthetic {index}", result, images[index]
        )
        progress(index + 1, len(images))
    agreement = comparison.agreement()
    measured = {"snr": comparison.lowest_snr()}
    if comparison.consistency:
        measured["consistency"] = min(comparison.consistency)
    if not synthetic:
        for gate, key in (("top1_agreement", "top1"), ("pixel_agreement", "pixels")):
            if key in agreement:
                measured[gate] = agreement[key]
    if differences is not None:
        measured["structure"] = float(len(differences))
    shares = [agreement[key] for key in ("top1", "pixels") if key in agreement]
    if not synthetic and shares and shares[0] < QUALITY_AGREEMENT:
        notes = (
            *notes,
            f"quality: only {shares[0]:.1%} of the answers are the reference's; more bits, "
            "or fewer weights palettized, would keep more",
        )
    if synthetic and measured["snr"] < QUALITY_SNR:
        notes = (
            *notes,
            f"quality: {measured['snr']:.1f} dB is little; try more bits, and --images to see how "
            "many answers change",
        )
    if synthetic:
        notes = (
            *notes,
            "no photos were given: synthetic pictures show whether the package computes what the "
            "checkpoint does, not how often it is right; use --images",
        )
    return ParityReport(
        package=target.name,
        source=reference.name,
        function=target.function.name,
        engine=target.predictor.engine,
        images=len(images),
        synthetic=synthetic,
        precision=precision,
        bits=bits,
        scores=comparison.scores.result(),
        outputs={name: meter.result() for name, meter in comparison.outputs.items()},
        agreement=agreement,
        worst=comparison.worst(),
        differences=None if differences is None else tuple(differences),
        engines=engines,
        layers=tuple(layers),
        gates=judge(measured, precision, bits, bounds),
        notes=tuple(notes),
        recording=None if comparison.recorder is None else comparison.recorder.result(),
    )


class _Comparison:
    """Answers of both sides, compared as they come."""

    def __init__(self, target: PackageTarget, reference: Target) -> None:
        self.target, self.reference = target, reference
        self.scores = ClosenessMeter()
        self.outputs = {role.role: ClosenessMeter() for role in target.roles}
        self.results: list[ImageResult] = []
        self.top1: list[bool] = []
        self.top5: list[float] = []
        self.kl: list[float] = []
        self.consistency: list[float] = []
        self.confusion: ConfusionMatrix | None = None
        self.recorder: SampleRecorder | None = None

    def run(self, images: Sequence[Any]) -> Any:
        """Yield (image name, pair of answers)."""
        with (
            closing(self.target.answer(images, with_scores=True)) as found,
            closing(self.reference.answer(images)) as expected,
        ):
            for image, answer, truth in zip(images, found, expected, strict=True):
                name = Path(image).name if isinstance(image, str | Path) else None
                yield name, (answer, truth)

    def note(self, name: str, pair: tuple[Answer, Answer], image: Any) -> None:
        """Take in one image."""
        answer, expected = pair
        for role, meter in self.outputs.items():
            found, wanted = answer.outputs[role], expected.outputs[role]
            if found.size != wanted.size:
                raise PackageError(
                    f"{self.target.name}: the output {role!r} is {list(found.shape)}, but "
                    f"{self.reference.name} gives {list(wanted.shape)}; it is another model's"
                )
            meter.add(found, wanted)
        if answer.raw_scores is not None:
            share = consistent_share(answer.raw_scores, answer.outputs)
            self.consistency += [] if share is None else [share]
        value, truth = self._score_arrays(answer, expected)
        self.scores.add(value, truth)
        one = ClosenessMeter()
        one.add(value, truth)
        agrees, ratio = self._agreement(answer, expected), one.result().snr
        self.results.append(ImageResult(image=name, snr=ratio, agrees=agrees))
        if self.recorder is not None:
            self.recorder.add(name, image, pair, (value, truth), agrees, ratio)

    def lowest_snr(self) -> float:
        """Signal-to-noise ratio of the scores, or of the worst output where there are none."""
        meters = [self.outputs[r.role] for r in self.target.roles if r.kind == "features"]
        return min(meter.result().snr for meter in (self.scores, *meters))

    def agreement(self) -> dict[str, float]:
        """Shares of agreement over all images."""
        if self.top1:
            return {
                "top1": float(np.mean(self.top1)),
                "top5": float(np.mean(self.top5)),
                "kl": float(np.mean(self.kl)),
            }
        if self.confusion is not None:
            return {"pixels": self.confusion.accuracy(), "miou": self.confusion.mean_iou()}
        return {}

    def worst(self) -> tuple[ImageResult, ...]:
        """Images by agreement, then by signal-to-noise ratio."""
        return tuple(sorted(self.results, key=lambda r: (r.agrees, r.snr))[:_WORST])

    def _score_arrays(self, answer: Answer, expected: Answer) -> tuple[Any, Any]:
        value, truth = answer.raw_scores, expected.raw_scores
        if value is not None and truth is not None and value.size == truth.size:
            return value, truth
        first = next(iter(self.outputs))
        return answer.outputs[first], expected.outputs[first]

    def _agreement(self, answer: Answer, expected: Answer) -> float:
        scores, truth = answer.scores(), expected.scores()
        if scores is not None and truth is not None:
            best = top_k(truth, 1)[0]
            self.top1.append(top_k(scores, 1)[0] == best)
            five = set(top_k(truth, 5))
            self.top5.append(len(five & set(top_k(scores, 5))) / len(five))
            self.kl.append(kl_divergence(as_probabilities(scores), as_probabilities(truth)))
            return float(self.top1[-1])
        found, wanted = answer.class_map(), expected.class_map()
        if found is None or wanted is None:
            return 1.0
        if self.confusion is None:
            count = len(self.reference.labels or ())
            self.confusion = ConfusionMatrix(count, ignore=-1)
        self.confusion.add(found, wanted)
        return float((found == wanted).mean())
