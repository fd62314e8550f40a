"""What ``mvit-coreml evaluate`` prints: figures, agreement, colour orders, classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvit_coreml.cli.printing import shorten, table
from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation, trained_color_order
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.metrics import wilson_interval
from mvit_coreml.evaluation.open_targets import OpenTarget
from mvit_coreml.reports.text_tables import agreement_of_targets, evaluation_table, label_cells
from mvit_coreml.reports.wording import count, percent

_LONGEST_CLASS_NAME = 40


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The figures of an evaluation, and what they are about, as text and as JSON.

    Attributes:
        evaluation: the figures, of targets with names that tell them apart.
        opened: the targets, in the same order.
        classes: what they tell apart.
        data_notes: how the data set was understood.
        both_orders: whether the two targets are the same weights in both colour orders.
    """

    evaluation: Evaluation
    opened: Sequence[OpenTarget]
    classes: ModelClasses
    data_notes: tuple[str, ...] = ()
    both_orders: bool = False

    @property
    def segments(self) -> bool:
        """Whether maps were compared."""
        return self.evaluation.coverage is not None

    @property
    def trained_order(self) -> str | None:
        """Colour order the weights were trained with, if both were run and the data tells."""
        if not self.both_orders:
            return None
        return trained_color_order([one.color_order for one in self.opened], self.evaluation)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the targets, and how the data set was understood."""
        assumed = [note for one in self.opened for note in one.notes]
        return tuple(dict.fromkeys([*assumed, *self.data_notes]))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know beside the figures, in sentences."""
        orders = (f"colour order: {self._verdict()}",) if self.both_orders else ()
        return (*orders, *self.notes)

    @property
    def several_labels(self) -> bool:
        """Whether a photo may have several labels."""
        return bool(self.evaluation.accuracies[0].labels)

    def as_json(self) -> dict[str, Any]:
        """Return a document of the whole result; shares and their intervals are from 0 to 1."""
        result = self.evaluation
        orders = None
        if self.both_orders:
            orders = {"declared": self.opened[0].declared_order, "trained": self.trained_order}
        return {
            "dataset": result.dataset,
            "images": result.images,
            "task": self.opened[0].task,
            "coverage": result.coverage,
            "targets": [
                {
                    "name": one.target.name,
                    "engine": one.engine,
                    "color_order": one.color_order,
                    **accuracy.figures,
                    "per_class": self._classes_of(accuracy),
                    "most_confused": accuracy.confusions_as_json(),
                }
                for one, accuracy in zip(self.opened, result.accuracies, strict=True)
            ],
            "agreement": result.agreement,
            "color_order": orders,
            "notes": self.notes,
        }

    def lines(self, *, per_class: bool = False) -> Iterator[str]:
        """Yield the figures as tables.

        Args:
            per_class: whether to add a table of the classes and what was confused most.
        """
        result = self.evaluation
        yield f"{result.dataset}: {count(result.images, 'image')}"
        figures = evaluation_table(result)
        engines = ("run by", *(one.engine for one in self.opened))
        rows = zip((figures.header, *figures.rows), engines, strict=True)
        yield table([(*row, engine) for row, engine in rows], indent=2)
        resampled = self.segments or self.several_labels
        kind = "from resampling whole images" if resampled else "Wilson"
        yield f"  95 % intervals in brackets ({kind})"
        if self.segments:
            yield f"  {self._area()}"
        if self.both_orders:
            yield f"  colour order: {self._verdict()}"
        elif result.agreement is not None:
            yield table(agreement_of_targets(result), indent=2)
        yield from (f"  note: {note}" for note in self.notes)
        if per_class:
            yield ""
            yield table(self._class_table(), indent=2)
            for accuracy in result.accuracies:
                if not self.several_labels:
                    yield ""
                    yield from self._confusions(accuracy)

    def _area(self) -> str:
        coverage = self.evaluation.coverage
        if coverage == 1:
            return "maps compared over the whole original images"
        which = "both inputs" if len(self.opened) > 1 else "the input"
        return (
            f"maps compared over the part of the original images that {which} showed: "
            f"{percent(coverage or 0.0)} of their pixels"
        )

    def _verdict(self) -> str:
        declared, trained = self.opened[0].declared_order, self.trained_order
        name = self.opened[0].target.name
        if trained is None:
            return (
                f"these images cannot tell which the weights were trained with, as the intervals "
                f"overlap; {name} declares {declared}"
            )
        if trained == declared:
            return f"the weights were trained with {trained}, as {name} declares"
        return (
            f"the weights were trained with {trained}, but {name} declares {declared}; convert "
            f"with --color-order {trained.lower()}"
        )

    def _classes_of(self, accuracy: Accuracy) -> list[dict[str, Any]]:
        """Figures of the classes that occur: IoU, or the share found with Wilson's interval.

        Of several labels those of every one.
        """
        if accuracy.labels:
            return [
                {"class": one.label, "name": self.classes.name(one.label), **vars(one)}
                for one in accuracy.labels
            ]
        counts = accuracy.confusion.counts
        ious = accuracy.confusion.ious()
        rows = []
        for index in np.flatnonzero(counts.sum(1) + counts.sum(0) * self.segments).tolist():
            total, hits = int(counts[index].sum()), int(counts[index, index])
            row: dict[str, Any] = {"class": index, "name": self.classes.name(index)}
            if self.segments:
                row |= {"pixels": total, "iou": float(ious[index])}
            else:
                low, high = wilson_interval(hits, total)
                row |= {"images": total, "accuracy": hits / total, "low": low, "high": high}
            rows.append(row)
        return rows

    def _class_table(self) -> list[tuple[str, ...]]:
        if self.several_labels:
            return self._label_table()
        unit, figure = ("pixels", "iou") if self.segments else ("images", "accuracy")
        accuracies = self.evaluation.accuracies
        targets = [{row["class"]: row for row in self._classes_of(one)} for one in accuracies]
        rows = [("class", "name", unit, *(one.target for one in accuracies))]
        for index in sorted(set().union(*targets)):
            of_class = [target.get(index) for target in targets]
            total = next(row[unit] for row in of_class if row is not None)
            cells = ("-" if row is None else percent(row[figure]) for row in of_class)
            name = shorten(self.classes.name(index), _LONGEST_CLASS_NAME)
            rows.append((str(index), name, str(total), *cells))
        return rows

    def _label_table(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("class", "name", "images", "target", "AP", "F1", "precision", "recall")
        ]
        for of_label in zip(*(one.labels for one in self.evaluation.accuracies), strict=True):
            for accuracy, one in zip(self.evaluation.accuracies, of_label, strict=True):
                name = shorten(self.classes.name(one.label), _LONGEST_CLASS_NAME)
                rows.append((str(one.label), name, *label_cells(one, accuracy.target)))
        return rows

    def _confusions(self, accuracy: Accuracy) -> Iterator[str]:
        unit = "pixel" if self.segments else "image"
        rows = [
            (count(times, unit), f"{self._class(true)} taken for {self._class(predicted)}")
            for true, predicted, times in accuracy.confused_pairs()
        ]
        yield f"{accuracy.target} confuses {'most' if rows else 'nothing'}"
        if rows:
            yield table(rows, indent=2)

    def _class(self, index: int) -> str:
        return f"{shorten(self.classes.name(index), _LONGEST_CLASS_NAME)} ({index})"
