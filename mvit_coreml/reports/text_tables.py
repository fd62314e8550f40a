"""The figures of a report as tables and lists of text, which HTML and Markdown both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mvit_coreml.compression.promise import Verdict
from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation, LabelAccuracy
from mvit_coreml.evaluation.metrics import MAX_DB
from mvit_coreml.inspection.package_contents import FunctionFacts
from mvit_coreml.mil.program import ArrayFeature, ImageFeature, OutputFeature
from mvit_coreml.reports.report import PackageFacts, Report, Reproduction
from mvit_coreml.reports.wording import (
    AGREEMENTS,
    FITS,
    METRICS,
    byte_size,
    count,
    decibels,
    gate_words,
    interval,
    nats,
    percent,
    probability,
)
from mvit_coreml.validation.operation_precision import LayerError
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.validation.report_samples import Ranking, Sample

Facts = list[tuple[str, str]]
"""Names with their values."""

# Rows of the longer tables; the rest is counted.
_DIFFERENCES = 20
_MARKED_LAYERS = 6
_CONFUSED = 8
_NAMED_OPERATIONS = 3
# More classes than this make a table of confusions that nobody reads.
_CONFUSION_CLASSES = 25


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    Attributes:
        columns: their names; ``>`` stands before those of numbers, which go to the right.
        rows: a text for each column.
        marks: what is to be thought of each row; none for the whole table if empty.
        rest: a sentence about what the table leaves out.
    """

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    marks: Sequence[Literal["good", "unsure", "bad", ""]] = ()
    rest: str = ""

    @property
    def header(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(name.removeprefix(">") for name in self.columns)

    @property
    def right(self) -> tuple[int, ...]:
        """Columns of numbers, counted from 0."""
        return tuple(place for place, name in enumerate(self.columns) if name.startswith(">"))


def key_figures(report: Report) -> Facts:
    """Return the few numbers that come first: (value, what it is)."""
    parity, package = report.parity, report.package
    figures: Facts = []
    if parity is not None:
        if not parity.synthetic:
            for key in ("top1", "label_sets", "pixels"):
                if key in parity.agreement:
                    figures.append((percent(parity.agreement[key]), AGREEMENTS[key]))
        figures.append((decibels(parity.scores.snr), "signal to noise"))
    elif report.evaluation is not None:
        for accuracy in report.evaluation.accuracies:
            metric = METRICS[next(iter(accuracy.figures))]
            figures.append((percent(accuracy.main.value), f"{metric}, {accuracy.target}"))
    if package is not None:
        figures.append((byte_size(package.inspection.size), "on disk"))
        if package.palettes:
            figures.append((f"{package.palettes}-bit", f"palettes, {package.precision}"))
        else:
            figures.append((package.precision, "weights"))
    return figures


def gates_table(parity: ParityReport) -> TextTable:
    """Return every gate with what was measured and what is demanded."""
    return TextTable(
        ("", "gate", ">measured", ">bound"),
        [(_MARKS[gate.verdict], *gate_words(gate)) for gate in parity.gates],
        [_CLASSES[gate.verdict] for gate in parity.gates],
    )


_MARKS = {"kept": "✓", "undecided": "?", "broken": "✗"}
_CLASSES: dict[Verdict, Literal["good", "unsure", "bad"]] = {
    "kept": "good",
    "undecided": "unsure",
    "broken": "bad",
}


def differences_table(parity: ParityReport) -> TextTable:
    """Return what the package stores otherwise than its checkpoint converts to."""
    differences = parity.differences or ()
    more = len(differences) - _DIFFERENCES
    return TextTable(
        ("kind", "place", "difference"),
        [(d.aspect, d.place, d.detail) for d in differences[:_DIFFERENCES]],
        rest=f"and {count(more, 'more difference')}" if more > 0 else "",
    )


def samples_table(report: Report, samples: Sequence[Sample]) -> TextTable:
    """Return the answers of both sides to each image."""

    def ranking(classes: Ranking) -> str:
        return ", ".join(f"{report.label(index)} {probability(share)}" for index, share in classes)

    if not any(sample.reference for sample in samples):
        rows = [(s.image, percent(s.agrees), decibels(s.snr)) for s in samples]
        return TextTable(("image", ">agreement", ">SNR"), rows)
    return TextTable(
        ("image", "PyTorch", "package", ">SNR"),
        [(s.image, ranking(s.reference), ranking(s.package), decibels(s.snr)) for s in samples],
        ["bad" if sample.agrees < 1 else "" for sample in samples],
    )


def classes_seen(sample: Sample) -> list[int]:
    """Return the classes in either map of a sample, the largest first."""
    both = [class_map.ravel() for class_map in sample.maps or ()]
    classes, counts = np.unique(np.concatenate(both), return_counts=True)
    return classes[np.argsort(-counts, kind="stable")].tolist()


def evaluation_table(evaluation: Evaluation) -> TextTable:
    """Return the accuracy of every target, with 95 % intervals."""
    metrics = list(evaluation.accuracies[0].figures)
    return TextTable(
        ("", *(f">{METRICS[metric]}" for metric in metrics)),
        [
            (accuracy.target, *(interval(accuracy.figures[metric]) for metric in metrics))
            for accuracy in evaluation.accuracies
        ],
    )


def evaluation_facts(evaluation: Evaluation) -> Facts:
    """Return how far the targets of an evaluation agree, and on what they were measured."""
    facts: Facts = [("data", f"{evaluation.dataset}, {count(evaluation.images, 'image')}")]
    if evaluation.coverage is not None and evaluation.coverage < 1:
        facts.append(("scored pixels", f"{percent(evaluation.coverage)} of the photos'"))
    return [*facts, *agreement_of_targets(evaluation)]


def agreement_of_targets(evaluation: Evaluation) -> Facts:
    """Return how far the two targets of an evaluation agree; nothing where there is one."""
    agreement = evaluation.agreement
    if agreement is None:
        return []
    unit = "pixels" if evaluation.coverage is not None else "images"
    answer = "labels" if evaluation.accuracies[0].labels else "class"
    worst = "" if agreement.worst_image is None else f"; least in {agreement.worst_image}"
    return [
        (f"{unit} of the same {answer}", f"{interval(agreement.share)}{worst}"),
        (f"{unit} right in both", f"{agreement.both_right:,}"),
        ("only in the first", f"{agreement.only_first:,}"),
        ("only in the second", f"{agreement.only_second:,}"),
        ("in neither", f"{agreement.both_wrong:,}"),
    ]


def label_cells(one: LabelAccuracy, target: str) -> tuple[str, ...]:
    """Return the figures of one label of several: AP, F1, precision and recall come last."""
    ap = "-" if one.average_precision is None else percent(one.average_precision)
    figures = (percent(value) for value in (one.f1, one.precision, one.recall))
    return (f"{one.images:,}", target, ap, *figures)


def labels_table(report: Report, accuracy: Accuracy) -> TextTable | None:
    """Return the figures of every label, where a photo may have several."""
    if not accuracy.labels:
        return None
    return TextTable(
        ("label", ">images", "target", ">AP", ">F1", ">precision", ">recall"),
        [(report.label(one.label), *label_cells(one, accuracy.target)) for one in accuracy.labels],
    )


def confusion_classes(accuracy: Accuracy) -> list[int]:
    """Return the classes of a table of confusions; empty where there are too many."""
    counts = accuracy.confusion.counts
    present = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    return present if len(present) <= _CONFUSION_CLASSES else []


def unfolded_accuracy(evaluation: Evaluation) -> Accuracy:
    """Return the accuracy whose confusions are shown at once: the first one with any."""
    accuracies = evaluation.accuracies
    return next((one for one in accuracies if one.confused_pairs(1)), accuracies[0])


def confused_table(report: Report, accuracy: Accuracy) -> TextTable | None:
    """Return the classes that are taken for each other most."""
    pairs = accuracy.confused_pairs(_CONFUSED)
    if not pairs:
        return None
    rows = [(report.label(a), report.label(b), f"{number:,}") for a, b, number in pairs]
    return TextTable(("is", "taken for", ">count"), rows)


def closeness_table(parity: ParityReport) -> TextTable:
    """Return how close the scores, every output, and on request the engines are."""
    # Differences of class numbers mean nothing.
    compared = [(name, value) for name, value in parity.outputs.items() if name != "classes"]
    if parity.scores not in parity.outputs.values():
        compared.insert(0, ("scores before softmax, sigmoid or argmax", parity.scores))
    engines = parity.engines or {}
    compared += [(f"{name}, Core ML to portable", value) for name, value in engines.items()]
    return TextTable(
        ("output", ">SNR", ">PSNR", ">largest error", ">largest value", ">cosine"),
        [
            (
                name,
                decibels(value.snr),
                decibels(value.psnr),
                f"{value.max_error:.3g}",
                f"{value.max_reference:.3g}",
                f"{value.cosine:.6f}",
            )
            for name, value in compared
        ],
    )


def agreement_facts(parity: ParityReport) -> Facts:
    """Return how far the answers agree."""
    return [
        (AGREEMENTS.get(key, key), nats(value) if key == "kl" else percent(value))
        for key, value in parity.agreement.items()
    ]


def worst_table(parity: ParityReport) -> TextTable:
    """Return the images that fared worst."""
    if not parity.agreement:
        rows = [(w.image, decibels(w.snr)) for w in parity.worst]
        return TextTable(("image", ">SNR"), rows)
    words: dict[float, str] = {}
    for key, answer in (("top1", "class"), ("label_sets", "labels")):
        if key in parity.agreement:
            words = {1.0: f"same {answer}", 0.0: f"other {answer}"}
    shares = [
        (w.image, words.get(w.agrees) or percent(w.agrees), decibels(w.snr)) for w in parity.worst
    ]
    return TextTable(("image", ">agreement", ">SNR"), shares)


def marked_layers(parity: ParityReport) -> list[LayerError]:
    """Return the operations at which the ratio drops most, the largest drop first."""
    falling = [layer for layer in parity.layers if layer.drop > 0]
    return sorted(falling, key=lambda layer: -layer.drop)[:_MARKED_LAYERS]


def layers_table(parity: ParityReport) -> TextTable:
    """Return the operations at which the ratio drops most, numbered."""
    rows = []
    for number, layer in enumerate(marked_layers(parity), 1):
        exact = layer.snr + layer.drop >= MAX_DB
        drop = "input exact" if exact else f"{layer.drop:.1f} dB"
        rows.append((str(number), layer.operation, layer.op_type, decibels(layer.snr), drop))
    return TextTable(("", "operation", "type", ">SNR", ">below its inputs"), rows)


def package_facts(package: PackageFacts) -> Facts:
    """Return what a package is."""
    inspection, function = package.inspection, package.function
    metadata = inspection.metadata
    ios = f"iOS {inspection.ios}" if inspection.ios else "unknown"
    functions = ", ".join(other.name for other in inspection.functions)
    several = len(inspection.functions) > 1
    orders = [i.color_order.upper() for i in function.inputs if isinstance(i, ImageFeature)]
    facts = [
        ("size", byte_size(inspection.size)),
        ("target", f"{ios} (specification {inspection.specification_version})"),
        ("precision", package.precision),
        ("palettes", f"{package.palettes} bits" if package.palettes else "none"),
        ("function", f"{function.name} of {functions}" if several else ""),
        *(("input", f"{feature.name}: {feature_words(feature)}") for feature in function.inputs),
        ("photos are", FITS.get(package.fit, package.fit) if package.fit is not None else ""),
        ("colour order", orders[0] if orders else ""),
        *(("output", f"{output.name}: {feature_words(output)}") for output in function.outputs),
        ("classes", f"{len(function.labels):,}" if function.labels is not None else ""),
        ("author", metadata.author),
        ("licence", metadata.license),
        ("version", metadata.version),
    ]
    return [(name, value) for name, value in facts if value]


def feature_words(feature: ImageFeature | ArrayFeature | OutputFeature) -> str:
    """Say what an input or an output of a package is."""
    if isinstance(feature, ImageFeature):
        return f"image, {feature.height}x{feature.width} pixels"
    if isinstance(feature, OutputFeature) and feature.kind != "array":
        return feature.kind
    return f"{feature.data_type} {'x'.join(map(str, feature.shape))}".rstrip()


def sizes_table(package: PackageFacts) -> TextTable:
    """Return the sizes of the package and of plain weights, and how they compare."""
    own = package.sizes[0]
    rows = [
        (bar.label, byte_size(bar.size), percent(own.size / bar.size) if bar is not own else "")
        for bar in package.sizes
    ]
    return TextTable(("weights", ">on disk", ">this package takes"), rows)


def weights_table(package: PackageFacts) -> TextTable:
    """Return how the weights are stored."""
    rows = [
        (group.scheme, f"{group.tensors:,}", f"{group.elements:,}", byte_size(group.stored_bytes))
        for group in package.inspection.weights
    ]
    return TextTable(("stored as", ">tensors", ">elements", ">on disk"), rows)


def operations_table(function: FunctionFacts) -> TextTable:
    """Return the census of a function's operations, those that only move values marked."""
    rows = [
        (name, str(number), "layout" if name in function.layout_operations else "")
        for name, number in function.operations.items()
    ]
    return TextTable(("operation", ">count", ""), rows)


def cautions_table(package: PackageFacts) -> TextTable:
    """Return what to beware of."""
    cautions = package.inspection.cautions
    rows = [(caution.kind, caution.message, some(caution.operations)) for caution in cautions]
    return TextTable(("concerns", "what", "operations"), rows)


def some(names: Sequence[str]) -> str:
    """Name a few operations and count the rest."""
    more = len(names) - _NAMED_OPERATIONS
    return ", ".join(names[:_NAMED_OPERATIONS]) + (f" and {more} more" if more > 0 else "")


def reproduction_facts(reproduction: Reproduction) -> Facts:
    """Return what the figures depend on."""
    facts = [
        ("computed with", _versions(reproduction.versions)),
        ("converted with", _versions(reproduction.made_with)),
        ("checkpoint", reproduction.checkpoint),
        ("revision", reproduction.revision),
        ("its weights, SHA-256", reproduction.weights_sha256),
    ]
    return [(name, value) for name, value in facts if value]


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def files_table(package: PackageFacts) -> TextTable:
    """Return the files of a package with their digests."""
    files = package.inspection.files.items()
    rows = [(name, f"{size:,}", package.sha256.get(name, "")) for name, size in files]
    return TextTable(("file", ">size", "SHA-256"), rows)
