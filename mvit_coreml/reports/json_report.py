"""The JSON report: every figure, for programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation
from mvit_coreml.files import json_text, json_value
from mvit_coreml.reports.report import PackageFacts, Report
from mvit_coreml.reports.text_tables import confusion_classes
from mvit_coreml.reports.wording import verdict
from mvit_coreml.validation.report_samples import Ranking, Sample

# Raised when a key changes its meaning.
VERSION = 1


def as_json(report: Report) -> str:
    """Return a report as the text of a JSON file."""
    return json_text(as_document(report))


def as_document(report: Report) -> dict[str, Any]:
    """Return a report as JSON values.

    Shares are from 0 to 1, sizes in bytes, ratios in dB. What is not a finite number is ``null``,
    as is what the report does not have. Pictures are left out.
    """
    outcome, parity = verdict(report), report.parity
    recording = parity and parity.recording
    document: dict[str, Any] = {
        "report_version": VERSION,
        "title": report.title,
        "status": outcome.status,
        "passed": parity and parity.passed,
        "sound": parity and parity.sound,
        "faithful": parity and parity.faithful,
        "keeps": parity and parity.kept(),
        "meaning": outcome.meaning,
        "parity": parity and _without(parity, "recording", "notes"),
        "images": recording and [_sample(report, sample) for sample in recording.samples],
        "package": report.package and _package(report.package),
        "evaluation": report.evaluation and _evaluation(report.evaluation),
        "notes": report.all_notes,
        "reproduce": report.reproduction,
    }
    return {key: json_value(value) for key, value in document.items()}


def _without(entry: object, *names: str) -> dict[str, Any]:
    """Return the fields of a dataclass but for some, which stand elsewhere or not at all."""
    return {name: value for name, value in vars(entry).items() if name not in names}


def _sample(report: Report, sample: Sample) -> dict[str, Any]:
    def ranking(classes: Ranking) -> list[dict[str, Any]]:
        return [
            {"class": index, "label": report.label(index), "probability": share}
            for index, share in classes
        ]

    answers = {"reference": ranking(sample.reference), "package": ranking(sample.package)}
    return _without(sample, "pixels", "maps") | answers


def _package(package: PackageFacts) -> dict[str, Any]:
    inspection = package.inspection
    stored = ("size", "weights", "ios", "specification_version", "metadata", "cautions")
    own = ("name", "precision", "bits", "fit", "function")
    return {
        **{name: getattr(package, name) for name in own},
        **{name: getattr(inspection, name) for name in stored},
        "cost": None if package.cost is None else _without(package.cost, "operations"),
        "sizes": [
            {"label": bar.label, "size": bar.size, "parts": dict(bar.parts)}
            for bar in package.sizes
        ],
        "files": [
            {"path": name, "size": size, "sha256": package.sha256.get(name)}
            for name, size in inspection.files.items()
        ],
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    targets = [_accuracy(accuracy) for accuracy in evaluation.accuracies]
    return _without(evaluation, "accuracies") | {"targets": targets}


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    classes = confusion_classes(accuracy)
    counts = accuracy.confusion.counts[np.ix_(classes, classes)]
    return {
        "name": accuracy.target,
        "figures": accuracy.figures,
        "confusion": {"classes": classes, "counts": counts} if classes else None,
        "most_confused": accuracy.confusions_as_json(),
    }
