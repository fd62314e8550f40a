"""Tables of an evaluation on labelled images, as text."""

from __future__ import annotations

import numpy as np

from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation
from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.tables import Pairs, Table
from mvit_coreml.reports.wording import METRICS, count, interval, percent

_CONFUSED = 8
# More classes than this make a table of confusions that nobody reads.
_CONFUSION_CLASSES = 25


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return the accuracy of every target, with 95 % intervals."""
    metrics = list(evaluation.accuracies[0].figures)
    return Table(
        header=("", *(METRICS[metric] for metric in metrics)),
        rows=tuple(
            (found.target, *(interval(found.figures[metric]) for metric in metrics))
            for found in evaluation.accuracies
        ),
        right=tuple(range(1, len(metrics) + 1)),
    )


def evaluation_facts(evaluation: Evaluation) -> Pairs:
    """Return how far the targets of an evaluation agree, and on what they were measured."""
    found: Pairs = [("data", f"{evaluation.dataset}, {count(evaluation.images, 'image')}")]
    if evaluation.coverage is not None and evaluation.coverage < 1:
        found.append(("scored pixels", f"{percent(evaluation.coverage)} of the photos'"))
    agreement = evaluation.agreement
    if agreement is None:
        return found
    unit = "pixels" if evaluation.coverage is not None else "images"
    found += [
        (f"{unit} of the same class", interval(agreement.share)),
        (f"{unit} right in both", f"{agreement.both_right:,}"),
        ("only in the first", f"{agreement.only_first:,}"),
        ("only in the second", f"{agreement.only_second:,}"),
        ("in neither", f"{agreement.both_wrong:,}"),
    ]
    return found


def confusion_classes(accuracy: Accuracy) -> list[int]:
    """Return the classes of a table of confusions; empty where there are too many."""
    counts = accuracy.confusion.counts
    present = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    return present if len(present) <= _CONFUSION_CLASSES else []


def confused_table(report: Report, accuracy: Accuracy) -> Table | None:
    """Return the classes that are taken for each other most."""
    pairs = accuracy.confused_pairs(_CONFUSED)
    if not pairs:
        return None
    return Table(
        header=("is", "taken for", "count"),
        rows=tuple((report.label(a), report.label(b), f"{number:,}") for a, b, number in pairs),
        right=(2,),
    )
