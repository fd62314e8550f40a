"""Tables of a validation, as text: every format of a report shows the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mvit_coreml.evaluation.metrics import MAX_DB, Closeness
from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.wording import (
    METRICS,
    byte_size,
    count,
    decibels,
    gate_bound,
    gate_name,
    gate_value,
    nats,
    percent,
    probability,
)
from mvit_coreml.validation.answer_comparison import LayerError, ParityReport
from mvit_coreml.validation.samples import Ranking, Sample

Mark = Literal["good", "bad", ""]
Pairs = list[tuple[str, str]]

# Rows of the longer tables; the rest is counted.
_DIFFERENCES = 20
MARKED_LAYERS = 6
_AGREEMENTS = {
    "top1": "same top class",
    "top5": "top five classes in common",
    "kl": "Kullback-Leibler divergence",
    "pixels": "pixels of the same class",
    "miou": "mean IoU with PyTorch's maps",
}


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of texts.

    Attributes:
        header: names of the columns.
        rows: a text for each column.
        right: columns of numbers.
        marks: what is to be thought of each row; none for the whole table if empty.
        rest: a sentence about what the table leaves out.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[int, ...] = ()
    marks: tuple[Mark, ...] = ()
    rest: str = ""


def key_figures(report: Report) -> Pairs:
    """Return the few numbers that come first: (value, what it is)."""
    parity, facts = report.parity, report.package
    found: Pairs = []
    if parity is not None:
        if not parity.synthetic:
            for key, name in (("top1", "same top class"), ("pixels", "same class of pixels")):
                if key in parity.agreement:
                    found.append((percent(parity.agreement[key]), name))
        found.append((decibels(parity.scores.snr), "signal to noise"))
    elif report.evaluation is not None:
        for accuracy in report.evaluation.accuracies:
            metric = METRICS[next(iter(accuracy.figures))]
            found.append((percent(accuracy.main.value), f"{metric}, {accuracy.target}"))
    if facts is not None:
        found.append((byte_size(facts.inspection.size), "on disk"))
        if facts.palettes:
            found.append((f"{facts.palettes}-bit", f"palettes, {facts.precision}"))
        else:
            found.append((facts.precision, "weights"))
    return found


def gates_table(parity: ParityReport) -> Table:
    """Return every gate with what was measured and what is demanded."""
    return Table(
        header=("", "gate", "measured", "bound"),
        rows=tuple(
            ("✓" if gate.passed else "✗", gate_name(gate), gate_value(gate), gate_bound(gate))
            for gate in parity.gates
        ),
        right=(2, 3),
        marks=tuple("good" if gate.passed else "bad" for gate in parity.gates),
    )


def closeness_table(parity: ParityReport) -> Table:
    """Return how close the scores, every output, and on request the engines are."""
    # Differences of class numbers mean nothing.
    found = [(name, value) for name, value in parity.outputs.items() if name != "classes"]
    if parity.scores not in parity.outputs.values():
        found.insert(0, ("scores before softmax or argmax", parity.scores))
    engines = parity.engines or {}
    found += [(f"{name}, Core ML to portable", value) for name, value in engines.items()]
    return Table(
        header=("output", "SNR", "PSNR", "largest error", "largest value", "cosine"),
        rows=tuple((name, *_closeness(value)) for name, value in found),
        right=(1, 2, 3, 4, 5),
    )


def agreement_facts(parity: ParityReport) -> Pairs:
    """Return how far the answers agree."""
    return [
        (
            _AGREEMENTS.get(key, key),
            nats(value) if key == "kl" else percent(value),
        )
        for key, value in parity.agreement.items()
    ]


def worst_table(parity: ParityReport) -> Table:
    """Return the images that fared worst."""
    classifies = "top1" in parity.agreement

    def agreement(share: float) -> str:
        if classifies:
            return "same class" if share == 1 else "other class"
        return percent(share)

    return Table(
        header=("image", "agreement", "SNR"),
        rows=tuple((w.image, agreement(w.agrees), decibels(w.snr)) for w in parity.worst),
        right=(1, 2),
    )


def differences_table(parity: ParityReport) -> Table | None:
    """Return what the package stores otherwise than its checkpoint converts to."""
    differences = parity.differences or ()
    if not differences:
        return None
    more = len(differences) - _DIFFERENCES
    return Table(
        header=("kind", "place", "difference"),
        rows=tuple((d.aspect, d.place, d.detail) for d in differences[:_DIFFERENCES]),
        rest=f"and {count(more, 'more difference')}" if more > 0 else "",
    )


def marked_layers(parity: ParityReport) -> tuple[LayerError, ...]:
    """Return the operations at which the ratio drops most, the largest drop first."""
    falling = [layer for layer in parity.layers if layer.drop > 0]
    return tuple(sorted(falling, key=lambda layer: -layer.drop)[:MARKED_LAYERS])


def layers_table(parity: ParityReport) -> Table:
    """Return the operations at which the ratio drops most, numbered."""
    rows = []
    for number, layer in enumerate(marked_layers(parity), 1):
        exact = layer.snr + layer.drop >= MAX_DB
        drop = "input exact" if exact else f"{layer.drop:.1f} dB"
        rows.append((str(number), layer.operation, layer.op_type, decibels(layer.snr), drop))
    return Table(
        header=("", "operation", "type", "SNR", "below its inputs"),
        rows=tuple(rows),
        right=(3, 4),
    )


def samples_table(report: Report, samples: Sequence[Sample]) -> Table:
    """Return the answers of both sides to each image."""

    def ranking(found: Ranking) -> str:
        return ", ".join(f"{report.label(index)} {probability(share)}" for index, share in found)

    ranked = any(sample.reference for sample in samples)
    header = ("image", "PyTorch", "package", "SNR") if ranked else ("image", "agreement", "SNR")
    rows = []
    for sample in samples:
        middle = (
            (ranking(sample.reference), ranking(sample.package))
            if ranked
            else (percent(sample.agrees),)
        )
        rows.append((sample.image, *middle, decibels(sample.snr)))
    marks: tuple[Mark, ...] = tuple(
        "bad" if ranked and sample.agrees < 1 else "" for sample in samples
    )
    right = (len(header) - 1,) if ranked else (1, 2)
    return Table(header=header, rows=tuple(rows), right=right, marks=marks)


def classes_seen(sample: Sample) -> list[int]:
    """Return the classes in either map of a sample, the largest first."""
    if sample.maps is None:
        return []
    counts: Counter[int] = Counter()
    for found in sample.maps:
        classes, numbers = np.unique(found, return_counts=True)
        counts.update(dict(zip(classes.tolist(), numbers.tolist(), strict=True)))
    return sorted(counts, key=lambda index: (-counts[index], index))


def _closeness(value: Closeness) -> tuple[str, ...]:
    return (
        decibels(value.snr),
        decibels(value.psnr),
        f"{value.max_error:.3g}",
        f"{value.max_reference:.3g}",
        f"{value.cosine:.6f}",
    )
