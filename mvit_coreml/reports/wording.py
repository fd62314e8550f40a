"""The words of a report: its verdict, its gates, and numbers with their units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mvit_coreml.evaluation.accuracy import Metric, Share
from mvit_coreml.evaluation.metrics import MAX_DB
from mvit_coreml.reports.report import Report
from mvit_coreml.validation.gates import Gate
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.validation.report_samples import Sample

Status = Literal["PASSED", "UNDECIDED", "BELOW PROMISE", "FAILED", "MEASURED", "NOT COMPARED"]

METRICS: dict[Metric, str] = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_ap": "mAP",
    "f1": "F1",
    "macro_f1": "macro F1",
    "exact_labels": "all labels right",
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
}
AGREEMENTS = {
    "top1": "same top class",
    "top5": "top five classes in common",
    "kl": "Kullback-Leibler divergence",
    "label_sets": "all the same labels",
    "labels": "labels there or not, one by one",
    "pixels": "same class of pixels",
    "miou": "mean IoU with PyTorch's maps",
}
FITS = {
    "crop": "resized and centre-cropped (crop)",
    "stretch": "stretched to the input (stretch)",
    "pad": "fitted into the input and padded (pad)",
}
_GATE_NAMES = {
    "decoded_weights": "answers of PyTorch with the package's own weights",
    "snr": "signal to noise of what differs between images",
    "consistency": "outputs follow from the scores",
    "top1_agreement": "same top class as PyTorch",
    "label_agreement": "all the same labels as PyTorch",
    "pixel_agreement": "pixels of PyTorch's class",
    "miou": "mean IoU with PyTorch's maps",
    "structure": "parts that differ from the checkpoint",
    # Tolerances of a recipe.
    "min_snr": "signal to noise, as the recipe asks",
    "min_agreement": "same answers, as the recipe asks",
    "max_size_mb": "size on disk, as the recipe allows",
}
_SHARES = (
    "consistency",
    "top1_agreement",
    "label_agreement",
    "pixel_agreement",
    "min_agreement",
)
_AT_MOST = ("structure", "max_size_mb")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a report comes to.

    Attributes:
        status: in one word.
        meaning: one sentence.
    """

    status: Status
    meaning: str


def verdict(report: Report) -> Verdict:
    """Return a report's verdict: that of the gates where there are any."""
    parity, evaluation = report.parity, report.evaluation
    if parity is not None:
        return Verdict(status=_status(parity), meaning=_meaning(parity))
    if evaluation is not None:
        figures = ", ".join(
            f"{METRICS[next(iter(one.figures))]} {percent(one.main.value)} of {one.target}"
            for one in evaluation.accuracies
        )
        meaning = f"{evaluation.images} images of {evaluation.dataset}: {figures}."
        return Verdict(status="MEASURED", meaning=meaning)
    return Verdict(
        status="NOT COMPARED",
        meaning="The package was not run: nothing here says that it answers like its checkpoint.",
    )


def subject(report: Report) -> str:
    """Say what was compared with what."""
    parity, evaluation = report.parity, report.evaluation
    if parity is not None:
        engine = "Core ML" if parity.engine == "coreml" else f"{parity.engine} runtime"
        return f"against {parity.source} in PyTorch · {_images(parity)} · {engine}"
    if evaluation is not None:
        return f"{count(evaluation.images, 'image')} of {evaluation.dataset}"
    return ""


def samples_caption(parity: ParityReport, samples: Sequence[Sample]) -> str:
    """Say which images are shown of all those that were compared, and in what order."""
    total = count(parity.images, "image")
    shown = f"{len(samples)} of {total}" if len(samples) < parity.images else f"All {total}"
    shown = shown if parity.images > 1 else "The only image"
    shown += ", as the model sees them"
    if samples[0].maps is not None:
        return f"{shown}. The maps that differ most come first; differing pixels are orange."
    differing = sum(sample.agrees < 1 for sample in samples)
    answer = "labels" if "label_sets" in parity.agreement else "top class"
    if not differing:
        return f"{shown}. Both give the same {answer} to every one of them."
    other = answer if answer.endswith("labels") else "top classes"
    return f"{shown}. Those with different {other} come first: {differing} of the ones shown."


def _images(parity: ParityReport) -> str:
    return count(parity.images, "synthetic picture" if parity.synthetic else "photo")


def _status(parity: ParityReport) -> Status:
    if not parity.passed:
        return "FAILED"
    if parity.answers_alike:
        return "PASSED"
    return "UNDECIDED" if parity.faithful == "undecided" else "BELOW PROMISE"


def _meaning(parity: ParityReport) -> str:
    """Say what was measured, on what, and what that comes to."""
    if not parity.passed:
        return _failure(parity)
    compared = "features" if parity.features else "scores"
    kept = parity.kept() + (parity.assured() if parity.answers_alike else "")
    keeps = f"It keeps {kept}; the {compared} are {off_by(parity.scores.snr)}."
    if parity.answers_alike:
        promise = f"promised: {parity.promise}"
        photos = " What that changes on photos was not measured." if parity.synthetic else ""
        return f"The package answers like its checkpoint ({promise}). {keeps}{photos}"
    if parity.faithful == "undecided":
        return f"{keeps} Those are too few photos to tell whether it keeps {parity.promise}."
    return f"{keeps} That is less than {parity.promise}; only a size was asked for."


def _failure(parity: ParityReport) -> str:
    reasons = []
    for gate in parity.gates:
        if not gate.passed:
            name, value, bound = gate_words(gate)
            advice = f" ({gate.advice})" if gate.advice else ""
            reasons.append(f"{name}: {value}, must be {bound}{advice}")
    sentence = "; ".join(reasons)
    return f"{sentence[:1].upper()}{sentence[1:]}."


def gate_words(gate: Gate) -> tuple[str, str, str]:
    """Return what a gate measures, the value and the bound, with their units."""

    def number(value: float) -> str:
        if gate.name in _SHARES:
            return percent(value)
        if gate.name in ("snr", "min_snr", "decoded_weights"):
            return decibels(value)
        return f"{value:.4g} MB" if gate.name == "max_size_mb" else f"{value:.4g}"

    name = _GATE_NAMES.get(gate.name, gate.name)
    side = "≤" if gate.name in _AT_MOST else "≥"
    return name, number(gate.value), f"{side} {number(gate.bound)}"


def off_by(snr: float) -> str:
    """Say in plain words what a signal-to-noise ratio in dB means."""
    if snr >= MAX_DB:
        return "PyTorch's exactly"
    if snr <= -MAX_DB:
        return "not comparable with PyTorch's"
    # Of root mean squares: 20 dB are a factor of ten.
    share = 100 * 10 ** (-snr / 20)
    words = f"{share:,.0f}%" if share >= 10 else f"{share:.2g}%"
    return f"off by {words} of their size ({decibels(snr)})"


def decibels(value: float) -> str:
    """Return a ratio in dB; the largest that is told apart is a perfect match."""
    return "exact" if value >= MAX_DB else f"{value:.1f}\N{NO-BREAK SPACE}dB"


def percent(value: float) -> str:
    """Return a share in per cent; what is not all, or not nothing, never reads as if it were."""
    for digits in (1, 2, 3, 4):
        text = f"{100 * value:.{digits}f}%"
        if value in (0.0, 1.0) or float(text[:-1]) not in (0.0, 100.0):
            return text
    return "almost all" if value > 0.5 else "almost none"


def probability(value: float) -> str:
    """Return a softmax's probability in per cent: never all or nothing, however it was rounded."""
    if value >= 0.9995:
        return ">99.9%"
    return "<0.1%" if value < 0.0005 else f"{100 * value:.1f}%"


def nats(value: float) -> str:
    """Return a divergence."""
    return "< 0.0001 nats" if 0 < value < 1e-4 else f"{value:.3g} nats"


def interval(share: Share) -> str:
    """Return a share with its confidence interval."""
    return f"{percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def byte_size(size: int) -> str:
    """Return a size on disk; 1 MB is a million bytes."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size:,} bytes"


def count(number: int, word: str, plural: str | None = None) -> str:
    """Return a number of things."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"
