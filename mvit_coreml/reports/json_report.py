"""The JSON report: every figure, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation
from mvit_coreml.reports.report import PackageFacts, Report
from mvit_coreml.reports.text_tables import confusion_classes
from mvit_coreml.reports.wording import verdict
from mvit_coreml.validation.answer_comparison import ParityReport
from mvit_coreml.validation.samples import Ranking, Sample

# Raised when a key changes its meaning.
VERSION = 1


def as_json(report: Report) -> str:
    """Return a report as the text of a JSON file."""
    document = as_document(report)
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_document(report: Report) -> dict[str, Any]:
    """Return a report as JSON values.

    Shares are from 0 to 1, sizes in bytes, ratios in dB. What is not a finite number is ``null``,
    as is what the report does not have. Pictures are left out.
    """
    outcome = verdict(report)
    parity = report.parity
    recording = parity.recording if parity is not None else None
    return {
        "report_version": VERSION,
        "title": report.title,
        "status": outcome.status,
        "passed": None if parity is None else parity.passed,
        "meaning": outcome.meaning,
        "parity": None if parity is None else _parity(parity),
        "images": None
        if recording is None
        else [_sample(report, sample) for sample in recording.samples],
        "package": None if report.package is None else _package(report.package),
        "evaluation": None if report.evaluation is None else _evaluation(report.evaluation),
        "notes": list(report.all_notes),
        "reproduce": plain(report.reproduction),
    }


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and NumPy's numbers as JSON values.

    A path is its last part: where a file lies on this machine is nobody's business.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.name
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _parity(parity: ParityReport) -> dict[str, Any]:
    kept = (field.name for field in fields(parity) if field.name not in ("recording", "notes"))
    return {name: plain(getattr(parity, name)) for name in kept}


def _sample(report: Report, sample: Sample) -> dict[str, Any]:
    def ranking(classes: Ranking) -> list[dict[str, Any]]:
        return [
            {"class": index, "label": report.label(index), "probability": share}
            for index, share in classes
        ]

    return {
        "image": sample.image,
        "agrees": plain(sample.agrees),
        "snr": plain(sample.snr),
        "reference": ranking(sample.reference),
        "package": ranking(sample.package),
    }


def _package(facts: PackageFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "size": facts.inspection.size,
        "precision": facts.precision,
        "bits": facts.bits,
        "fit": facts.fit,
        "sizes": [
            {"label": bar.label, "size": bar.size, "parts": dict(bar.parts)} for bar in facts.sizes
        ],
        "function": plain(facts.function),
        "weights": plain(facts.inspection.weights),
        "ios": facts.inspection.ios,
        "specification_version": facts.inspection.specification_version,
        "metadata": plain(facts.inspection.metadata),
        "cautions": plain(facts.inspection.cautions),
        "files": [
            {"path": name, "size": size, "sha256": facts.sha256.get(name)}
            for name, size in facts.inspection.files.items()
        ],
    }


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "dataset": evaluation.dataset,
        "images": evaluation.images,
        "coverage": plain(evaluation.coverage),
        "targets": [_accuracy(accuracy) for accuracy in evaluation.accuracies],
        "agreement": plain(evaluation.agreement),
    }


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    classes = confusion_classes(accuracy)
    counts = accuracy.confusion.counts[np.ix_(classes, classes)]
    return {
        "name": accuracy.target,
        "figures": plain(accuracy.figures),
        "confusion": {"classes": classes, "counts": counts.tolist()} if classes else None,
        "most_confused": [
            {"true": true, "predicted": predicted, "count": number}
            for true, predicted, number in accuracy.confused_pairs()
        ],
    }
