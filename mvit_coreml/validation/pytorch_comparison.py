"""A package's answers compared with PyTorch's, image by image, and judged."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.compression.promise import Measured, Promise, Verdict, default_promise
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.evaluation.metrics import (
    Closeness,
    ClosenessMeter,
    ConfusionMatrix,
    kl_divergence,
    sigmoid,
    snr,
    softmax,
    top_k,
)
from mvit_coreml.evaluation.targets import Answer, PackageTarget, ReferenceTarget, Target
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.preprocessing.geometry import Placement
from mvit_coreml.validation.gates import PROMISED, SOUND, Gate, judge
from mvit_coreml.validation.structure_comparison import Difference, stored_precision

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import (
        ClassScorer,
        Data,
        LabelScorer,
        MapScorer,
        Metric,
        Share,
    )
    from mvit_coreml.evaluation.agreement import AgreementEstimate, AgreementMeter
    from mvit_coreml.validation.operation_precision import LayerError
    from mvit_coreml.validation.report_samples import Recording

Progress = Callable[[int, int], None]
Array = NDArray[Any]

_WORST = 5
# Half precision leaves a probability about 5e-4 of error.
_PROBABILITY_ERROR = 4e-3
# Bytes of the reference's answers that a judge keeps; it is asked again for what is beyond.
_KEPT_BYTES = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """How one image fared.

    Attributes:
        image: its file name, or its number: ``synthetic 3``, ``image 3`` of those in memory.
        snr: signal-to-noise ratio of its scores in dB.
        agrees: share of agreement: 0 or 1 for a classifier, whose answer is one class or all of
            several labels, of pixels for a segmenter.
    """

    image: str
    snr: float
    agrees: float


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """Whether a package is sound, and how many of its checkpoint's answers it keeps.

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
        agreement: on photos, ``top1``, ``top5`` and ``kl`` of a classifier; ``label_sets`` (photos
            with all the same labels), ``labels`` (of each photo and label, there or not) and ``kl``
            where a photo may have several labels; ``pixels`` and ``miou`` of a segmenter, with the
            reference's class map as the truth, padding left out. Empty on synthetic pictures, which
            do not tell how many answers change.
        estimate: how sure the share of equal answers is; ``None`` on synthetic pictures.
        promise: what is promised of the answers.
        binding: whether a package that breaks the promise fails; it does not where only a size was
            asked for.
        features: closeness of outputs that are features.
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
    estimate: AgreementEstimate | None = None
    promise: Promise
    binding: bool = True
    features: tuple[Closeness, ...] = ()
    worst: tuple[ImageResult, ...]
    differences: tuple[Difference, ...] | None
    engines: Mapping[str, Closeness] | None = None
    layers: tuple[LayerError, ...] = field(default=(), repr=False)
    gates: tuple[Gate, ...]
    notes: tuple[str, ...] = ()
    recording: Recording | None = field(default=None, repr=False)

    @property
    def equal_classes(self) -> float | None:
        """Share of the images, or of a segmenter's pixels, with the reference's class or labels."""
        return equal_classes(self.agreement)

    @property
    def sound(self) -> bool:
        """Whether the file computes what is stored in it, as far as that was looked into."""
        return all(gate.passed for gate in self.gates if gate.name in SOUND)

    @property
    def faithful(self) -> Verdict:
        """Whether the package keeps what is promised of its answers."""
        verdicts = {gate.verdict for gate in self.gates if gate.name not in SOUND}
        order: tuple[Verdict, ...] = ("broken", "undecided", "kept")
        return next((verdict for verdict in order if verdict in verdicts), "kept")

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against shipping it."""
        return self.sound and (not self.binding or self.faithful != "broken")

    def kept(self) -> str:
        """Say how much of the checkpoint's answers is kept, how sure that is, and on what."""
        if self.estimate is None:
            kind = "synthetic pictures" if self.synthetic else "photos"
            return f"{self.promised_snr:.1f} dB on {self.images} {kind}"
        share, map_words = self.estimate, ""
        if "miou" in self.agreement:
            map_words = f" and an mIoU of {self.agreement['miou']:.3f}"
        of = "pixels" if "pixels" in self.agreement else "answers"
        decibels = "" if self.promise.min_snr is None else f" and {self.promised_snr:.1f} dB"
        return (
            f"{share.agreement:.1%} of the {of} ({share.low:.1%} to {share.high:.1%}){map_words}"
            f"{decibels} on {self.images} photos"
        )

    def assured(self) -> str:
        """Say what the margins of the answers foresee on other photos, if more than the count."""
        if self.estimate is None or self.estimate.lower_bound <= self.estimate.low:
            return ""
        return f", of others by their margins at least {self.estimate.lower_bound:.1%}"

    @property
    def promised_snr(self) -> float:
        """SNR in dB that a promise is held against: its signal is what differs between images."""
        return min(value.variation_snr for value in (self.scores, *self.features))

    def measured(self) -> Measured:
        """Return what a promise is held against."""
        miou = self.agreement.get("miou")
        return Measured(snr=self.promised_snr, agreement=self.estimate, miou=miou)

    @property
    def answers_alike(self) -> bool:
        """Whether it may be said to answer like its checkpoint: sound, and its promise kept."""
        return self.sound and self.faithful == "kept"


def _file_name(image: Any) -> str:
    """Return the name of the file that an image came from, if it came from one."""
    path = image if isinstance(image, str | Path) else getattr(image, "filename", "")
    return Path(path or "").name


def validate_target(
    target: PackageTarget,
    reference: Target,
    images: Sequence[Any],
    *,
    synthetic: bool,
    differences: Sequence[Difference] | None,
    promise: Promise | None = None,
    decoded_snr: float | None = None,
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
        differences: result of the structural comparison, ``None`` if there was none.
        promise: what is promised; one of a size alone leaves the default promise not binding.
        decoded_snr: SNR in dB of the package against PyTorch with its own weights, ``None`` if
            they could not be put back.
        engines: closeness of the engines for the report.
        layers: error profile for the report.
        bounds: gates instead of the defaults.
        notes: for the report.
        samples: number of images to keep with both answers, see
            :class:`~mvit_coreml.validation.report_samples.SampleRecorder`.
        progress: called with the number of images done and their total.
    """
    if not images:
        raise InputError("there is no image to compare; name a folder with images")
    recorder = None
    if samples:
        from mvit_coreml.validation.report_samples import SampleRecorder

        recorder = SampleRecorder(target, samples, len(images))
    comparison = AnswerComparison(target, reference, photos=not synthetic)
    results: list[ImageResult] = []
    kind = "synthetic" if synthetic else "image"
    for image, compared in zip(images, comparison.run(images), strict=True):
        name = _file_name(image) or f"{kind} {len(results)}"
        results.append(ImageResult(image=name, snr=compared.snr, agrees=compared.agrees))
        if recorder is not None:
            recorder.add(name, image, compared)
        progress(len(results), len(images))
    agreement = {} if synthetic else comparison.agreement()
    estimate = comparison.estimate()
    promised = default_promise(photos=not synthetic, answers=comparison.answers)
    binding = promise is None or promise.asks_quality
    if promise is not None and promise.asks_quality:
        promised = promise.of_answers()
    named = (bounds or {}).items()
    asked: dict[str, Any] = {PROMISED[name]: bound for name, bound in named if name in PROMISED}
    promised = replace(promised, **asked)
    scores = comparison.scores.result()
    notes = (
        *notes,
        *((_SYNTHETIC_NOTE,) if synthetic else ()),
        *(() if scores.varies else (_CONSTANT_NOTE,)),
    )
    measured = comparison.measured(classes=not synthetic)
    precision, bits = stored_precision(target.function)
    if decoded_snr is not None:
        measured["decoded_weights"] = decoded_snr
    if differences is not None:
        measured["structure"] = float(len(differences))
    return ParityReport(
        package=target.name,
        source=reference.name,
        function=target.function.name,
        engine=target.predictor.engine,
        images=len(images),
        synthetic=synthetic,
        precision=precision,
        bits=bits,
        scores=scores,
        outputs=comparison.output_closeness(),
        agreement=agreement,
        estimate=estimate,
        promise=promised,
        binding=binding,
        features=comparison.features(),
        worst=tuple(sorted(results, key=lambda result: (result.agrees, result.snr))[:_WORST]),
        differences=None if differences is None else tuple(differences),
        engines=engines,
        layers=tuple(layers),
        gates=judge(measured, precision, promised, agreement=estimate, overrides=bounds),
        notes=notes,
        recording=None if recorder is None else recorder.result(),
    )


_SYNTHETIC_NOTE = (
    "no photos were given: synthetic pictures do not tell how many answers change, and photos have "
    "come out 2 to 6 dB lower; give --images"
)
_CONSTANT_NOTE = (
    "the checkpoint gives all these pictures the same scores, to five digits: was it trained?"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedImage:
    """Both answers to one image.

    Attributes:
        answer: the target's.
        expected: the reference's.
        scores: the target's and the reference's scores before softmax or argmax, or their first
            output where there are none; of equal size.
        snr: signal-to-noise ratio of the scores in dB.
        agrees: share of agreement: 0 or 1 for a classifier, of pixels for a segmenter.
    """

    answer: Answer
    expected: Answer
    scores: tuple[Array, Array]
    snr: float
    agrees: float


class AnswerComparison:
    """Compares a package's answers with a reference's as they come.

    Args:
        target: the package.
        reference: answers the package's outputs, with ``raw_scores`` where there are any.
        photos: what is compared are photos, which tell how many answers change.

    Attributes:
        scores: closeness of the scores before softmax or argmax, or of the first output.
        outputs: closeness of every output.
    """

    def __init__(self, target: PackageTarget, reference: Target, *, photos: bool = False) -> None:
        self.target, self.reference = target, reference
        self.scores = ClosenessMeter()
        self.outputs = {role.role: ClosenessMeter() for role in target.roles}
        self._several_labels = target.activation == "sigmoid"
        # Of every image that both classify: the same class, classes in common, divergence; of
        # several labels: all the same, share of the same, divergence.
        self.classified: list[tuple[float, float, float]] = []
        self.consistency: list[float] = []
        self.confusion: ConfusionMatrix | None = None
        self._estimate: AgreementMeter | None = None
        if photos:
            from mvit_coreml.evaluation.agreement import AgreementMeter

            self._estimate = AgreementMeter(several_labels=self._several_labels)

    def run(
        self, images: Iterable[Any], expected: Generator[Answer, None, None] | None = None
    ) -> Generator[ComparedImage, None, None]:
        """Compare the answers to images, in order.

        Args:
            images: paths, Pillow images or arrays.
            expected: the reference's answers to them, if it need not be asked.

        Raises:
            PackageError: the package's outputs are others than the reference's.
        """
        with (
            closing(self.target.answer(images)) as answers,
            closing(expected or self.reference.answer(images)) as references,
        ):
            for answer, reference in zip(answers, references, strict=True):
                yield self._add(answer, reference)

    def _add(self, answer: Answer, expected: Answer) -> ComparedImage:
        for role, meter in self.outputs.items():
            output, other = answer.outputs[role], expected.outputs[role]
            if output.size != other.size:
                raise PackageError(
                    f"{self.target.name}: the output {role!r} is {list(output.shape)}, but "
                    f"{self.reference.name} gives {list(other.shape)}; it is another model's"
                )
            meter.add(output, other)
        if answer.raw_scores is not None:
            share = consistent_share(answer.raw_scores, answer.outputs, self.target.activation)
            self.consistency += [] if share is None else [share]
        value, reference = answer.raw_scores, expected.raw_scores
        if value is None or reference is None or value.size != reference.size:
            first = next(iter(self.outputs))
            value, reference = answer.outputs[first], expected.outputs[first]
        self.scores.add(value, reference)
        return ComparedImage(
            answer=answer,
            expected=expected,
            scores=(value, reference),
            snr=snr(value, reference),
            agrees=self._compare_classes(answer, expected),
        )

    def _compare_classes(self, answer: Answer, expected: Answer) -> float:
        """Take in the classes, and return the share of agreement."""
        scores, true_scores = answer.scores(), expected.scores()
        probabilities, truth = answer.probabilities(), expected.probabilities()
        if scores is not None and true_scores is not None:
            assert probabilities is not None
            assert truth is not None
            if self._several_labels:
                scores, true_scores = answer.label_scores(), expected.label_scores()
                assert scores is not None
                assert true_scores is not None
                labels = (scores > 0) == (true_scores > 0)
                same, common = labels.all(), labels.mean()
                probabilities, truth = (np.append(p, 1 - p) for p in (probabilities, truth))
            else:
                best, true_best = top_k(scores, 5), top_k(true_scores, 5)
                same = best[0] == true_best[0]
                common = len({*best} & {*true_best}) / len(true_best)
            divergence = kl_divergence(probabilities, truth)
            self.classified.append((float(same), float(common), divergence))
            value, reference = answer.raw_scores, expected.raw_scores
            if value is None or reference is None:
                value, reference = scores, true_scores
            if self._estimate is not None:
                self._estimate.add(value.reshape(-1), reference.reshape(-1))
            return self.classified[-1][0]
        classes, true_classes = answer.class_map(), expected.class_map()
        if classes is None or true_classes is None:
            return 1.0
        if self.confusion is None:
            self.confusion = ConfusionMatrix(len(self.reference.labels or ()), ignore=-1)
        classes = shown_part(classes, expected.placement)
        true_classes = shown_part(true_classes, expected.placement)
        self.confusion.add(classes, true_classes)
        share = float((classes == true_classes).mean())
        if self._estimate is not None:
            self._estimate.add_share(share)
        return share

    def features(self) -> tuple[Closeness, ...]:
        """Return the closeness of the outputs that are features."""
        roles = [role.role for role in self.target.roles if role.kind in ("features", "values")]
        return tuple(self.outputs[role].result() for role in roles)

    @property
    def answers(self) -> Literal["class", "map", "features"]:
        """What kind of answers were compared."""
        if self.classified:
            return "class"
        return "features" if self.confusion is None else "map"

    def estimate(self) -> AgreementEstimate | None:
        """Return how sure the share of equal answers is, ``None`` without classes or photos."""
        if self._estimate is None or self.answers == "features":
            return None
        return self._estimate.result()

    def output_closeness(self) -> dict[str, Closeness]:
        """Return the closeness of every output over all images."""
        return {role: meter.result() for role, meter in self.outputs.items()}

    def agreement(self) -> dict[str, float]:
        """Return the shares of agreement over all images.

        ``top1``, ``top5`` and ``kl`` of a classifier, ``label_sets``, ``labels`` and ``kl`` of one
        of several labels; ``pixels`` and ``miou`` of a segmenter; empty for features and values.
        """
        if self.classified:
            names = ("label_sets", "labels") if self._several_labels else ("top1", "top5")
            means = np.mean(self.classified, axis=0).tolist()
            return dict(zip((*names, "kl"), means, strict=True))
        if self.confusion is not None:
            return {"pixels": self.confusion.accuracy(), "miou": self.confusion.mean_iou()}
        return {}

    def measured(self, *, classes: bool) -> dict[str, float]:
        """Return what gates are held against, by their names.

        Args:
            classes: whether the share of equal classes is among it.
        """
        results = (self.scores.result(), *self.features())
        measured = {"snr": min(result.variation_snr for result in results)}
        if self.consistency:
            measured["consistency"] = min(self.consistency)
        agreement = self.agreement() if classes else {}
        keys = {
            "top1_agreement": "top1",
            "label_agreement": "label_sets",
            "pixel_agreement": "pixels",
            "miou": "miou",
        }
        measured |= {gate: agreement[key] for gate, key in keys.items() if key in agreement}
        return measured


def shown_part(array: Array, placement: Placement) -> Array:
    """Cut the padding off an array that covers the whole input, at any resolution."""
    (rows, columns), (height, width) = array.shape[:2], placement.input_size
    shown = placement.valid
    return array[
        _scaled(shown.top, shown.bottom, rows / height, rows),
        _scaled(shown.left, shown.right, columns / width, columns),
    ]


def _scaled(start: float, end: float, scale: float, length: int) -> slice:
    """Return which rows or columns of a map lie in a part of the input, one at least."""
    first = min(round(start * scale), length - 1)
    return slice(first, max(first + 1, round(end * scale)))


def equal_classes(agreement: Mapping[str, float]) -> float | None:
    """Return the share of images, or of pixels, with the reference's answer; ``None`` without."""
    names = ("top1", "label_sets", "pixels")
    return next((agreement[name] for name in names if name in agreement), None)


def consistent_share(
    raw_scores: Array, outputs: Mapping[str, Array], activation: HeadActivation = "softmax"
) -> float | None:
    """Return which share of the outputs' values follows from a package's own scores.

    A softmax over the wrong axis or a class map off by one leaves the scores before it as they
    were, and agreement on a few pictures says little. This holds whatever the weights are, palettes
    included.

    Args:
        raw_scores: (1, num_labels) or (1, num_labels, h, w), before softmax, sigmoid or argmax.
        outputs: ``probabilities`` and ``classes`` by name, of as many positions; others are
            left out.
        activation: what makes probabilities of the scores.

    Returns:
        From 0 to 1; ``None`` where nothing follows from the scores.
    """
    shares = []
    scores = raw_scores.astype(np.float64)
    probabilities, classes = outputs.get("probabilities"), outputs.get("classes")
    if probabilities is not None and probabilities.size == scores.size and scores.ndim > 1:
        expected = sigmoid(scores) if activation == "sigmoid" else softmax(scores, axis=1)
        expected = expected.reshape(probabilities.shape)
        shares.append(np.mean(np.abs(probabilities - expected) <= _PROBABILITY_ERROR))
    if classes is not None and scores.ndim == 4 and classes.size == scores[0, 0].size:
        shares.append(np.mean(classes.reshape(-1) == scores[0].argmax(axis=0).reshape(-1)))
    return float(min(shares)) if shares else None


def compare_engines(
    target: PackageTarget, portable: PackageTarget, images: Sequence[Any]
) -> dict[str, Closeness]:
    """Return how close two engines' answers are, by output; the portable one is the reference.

    Args:
        target: the package, run by Core ML.
        portable: the same package, run by the portable runtime.
        images: paths, Pillow images or arrays.
    """
    comparison = AnswerComparison(target, portable)
    for _ in comparison.run(images):
        pass
    return comparison.output_closeness()


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
    """Judges packages of one checkpoint, whose outputs are alike, against one reference.

    Args:
        reference: that answers those outputs.
        images: to judge on; those of ``dataset`` if there is one.
        dataset: labelled images.
    """

    def __init__(
        self,
        reference: ReferenceTarget,
        images: Sequence[Any],
        dataset: Data | None = None,
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
        scorer = self._scorer(self.reference.name)
        if scorer is None:
            return None
        for index, answer in enumerate(self._expected()):
            scorer.add(index, [answer])
        return next(iter(scorer.result().accuracies[0].figures.items()))

    def judge(self, target: PackageTarget) -> Judgement:
        """Run the images through a package.

        Raises:
            InputError: an image or mask that cannot be used.
            PackageError: the package's outputs are others than the reference's.
        """
        comparison = AnswerComparison(target, self.reference)
        scorer = self._scorer(target.name)
        for index, compared in enumerate(comparison.run(self.images, self._expected())):
            if scorer is not None:
                scorer.add(index, [compared.answer])
        agreement = comparison.agreement()
        return Judgement(
            snr=comparison.scores.result().snr,
            agreement=equal_classes(agreement),
            kl=agreement.get("kl"),
            accuracy=None if scorer is None else scorer.result().accuracies[0].main,
        )

    def _scorer(self, name: str) -> ClassScorer | LabelScorer | MapScorer | None:
        if self.dataset is None:
            return None
        from mvit_coreml.evaluation.accuracy import accuracy_scorer

        classes = self.reference.checkpoint.config.num_labels
        return accuracy_scorer([name], self.dataset, classes)

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
