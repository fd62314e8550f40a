"""An evaluation as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mvit_coreml.cli.tables import table
from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation, Share, trained_color_order
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.metrics import wilson_interval
from mvit_coreml.evaluation.open_targets import OpenTarget

_METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_iou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
}
_LISTED_CLASS_NAME = 40


@dataclass(frozen=True, kw_only=True)
class EvaluationReport:
    """What was found, and what it was found about.

    Attributes:
        result: the figures.
        opened: the targets, in the same order.
        classes: what they tell apart.
        notes: how the data set was understood.
        compares_orders: whether the two targets are the same weights in both colour orders.
    """

    result: Evaluation
    opened: tuple[OpenTarget, ...]
    classes: ModelClasses
    notes: tuple[str, ...] = ()
    compares_orders: bool = False

    @property
    def segments(self) -> bool:
        """Whether maps were compared."""
        return self.result.coverage is not None

    @property
    def trained_order(self) -> str | None:
        """Colour order the weights were trained with, if both were run and the data tells."""
        if not self.compares_orders:
            return None
        return trained_color_order([found.color_order for found in self.opened], self.result)

    @property
    def named_result(self) -> Evaluation:
        """The result with targets that can be told apart by their names."""
        accuracies = zip(self.result.accuracies, self._names(), strict=True)
        named = tuple(replace(accuracy, target=name) for accuracy, name in accuracies)
        return replace(self.result, accuracies=named)

    @property
    def said(self) -> tuple[str, ...]:
        """What to know beside the figures, in sentences."""
        orders = (f"colour order: {self._verdict()}",) if self.compares_orders else ()
        return (*orders, *self._notes())

    def as_json(self) -> dict[str, Any]:
        """Return a document of the whole result; shares and their intervals are from 0 to 1."""
        result = self.result
        orders = None
        if self.compares_orders:
            orders = {"declared": self.opened[0].declared_order, "trained": self.trained_order}
        return {
            "dataset": result.dataset,
            "images": result.images,
            "task": self.opened[0].task,
            "coverage": result.coverage,
            "targets": [
                {
                    "name": accuracy.target,
                    "engine": found.engine,
                    "color_order": found.color_order,
                    **{name: asdict(share) for name, share in accuracy.figures.items()},
                    "per_class": self._classes_of(accuracy),
                    "most_confused": [
                        {"true": true, "predicted": predicted, "count": count}
                        for true, predicted, count in accuracy.confused_pairs()
                    ],
                }
                for found, accuracy in zip(self.opened, result.accuracies, strict=True)
            ],
            "agreement": None if result.agreement is None else asdict(result.agreement),
            "color_order": orders,
            "notes": list(self._notes()),
        }

    def as_text(self, *, per_class: bool = False) -> str:
        """Return the figures as a table.

        Args:
            per_class: whether to add a table of the classes and what was confused most.
        """
        result = self.result
        lines = [
            f"{result.dataset}: {_count(result.images, 'image')}",
            table(self._figures(), indent=2),
        ]
        kind = "from resampling whole images" if self.segments else "Wilson"
        lines.append(f"  95 % intervals in brackets ({kind})")
        if self.segments:
            lines.append(f"  {self._area()}")
        if result.agreement is not None and not self.compares_orders:
            lines += self._agreement()
        if self.compares_orders:
            lines.append(f"  colour order: {self._verdict()}")
        lines += [f"  note: {note}" for note in self._notes()]
        if per_class:
            lines += ["", table(self._class_table(), indent=2)]
            for name, accuracy in zip(self._names(), result.accuracies, strict=True):
                lines += ["", *self._confusions(name, accuracy)]
        return "\n".join(lines)

    def _names(self) -> list[str]:
        if not self.compares_orders:
            return [accuracy.target for accuracy in self.result.accuracies]
        return [f"{found.target.name}, {found.color_order}" for found in self.opened]

    def _notes(self) -> tuple[str, ...]:
        said = [note for found in self.opened for note in found.notes]
        return tuple(dict.fromkeys([*said, *self.notes]))

    def _figures(self) -> list[tuple[str, ...]]:
        metrics = list(self.result.accuracies[0].figures)
        rows = [("", *(_METRICS[metric] for metric in metrics), "run by")]
        for name, found, accuracy in zip(
            self._names(), self.opened, self.result.accuracies, strict=True
        ):
            shares = (_share(accuracy.figures[metric]) for metric in metrics)
            rows.append((name, *shares, found.engine))
        return rows

    def _area(self) -> str:
        coverage = self.result.coverage
        if coverage == 1:
            return "maps compared over the whole original images"
        which = "both inputs" if len(self.opened) > 1 else "the input"
        return (
            f"maps compared over the part of the original images that {which} showed: "
            f"{_percent(coverage or 0.0)} of their pixels"
        )

    def _agreement(self) -> list[str]:
        found = self.result.agreement
        assert found is not None
        if self.segments:
            first = f"of the pixels get the same class; least in {found.worst_image}"
        else:
            first = "of the images get the same best class"
        unit = "pixels" if self.segments else "images"
        return [
            f"  agreement: {_share(found.share)} {first}",
            f"  {unit} right in both {found.both_right}, only in the first {found.only_first}, "
            f"only in the second {found.only_second}, in neither {found.both_wrong}",
        ]

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
        """Figures of the classes that occur: IoU, or the share found with Wilson's interval."""
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
        unit, figure = ("pixels", "iou") if self.segments else ("images", "accuracy")
        by_class: dict[int, list[str]] = {}
        for number, accuracy in enumerate(self.result.accuracies):
            for row in self._classes_of(accuracy):
                start = [str(row["class"]), _short(row["name"]), str(row[unit])]
                cells = by_class.setdefault(row["class"], start)
                cells += ["-"] * (3 + number - len(cells))
                cells.append(_percent(row[figure]))
        width = 3 + len(self.opened)
        header = ("class", "name", unit, *self._names())
        rows = (by_class[index] for index in sorted(by_class))
        return [header, *(tuple(cells + ["-"] * (width - len(cells))) for cells in rows)]

    def _confusions(self, name: str, accuracy: Accuracy) -> list[str]:
        pairs = accuracy.confused_pairs()
        if not pairs:
            return [f"{name} confuses nothing"]
        unit = "pixel" if self.segments else "image"
        rows = [
            (_count(count, unit), f"{self._class(true)} taken for {self._class(predicted)}")
            for true, predicted, count in pairs
        ]
        return [f"{name} confuses most", table(rows, indent=2)]

    def _class(self, index: int) -> str:
        return f"{_short(self.classes.name(index))} ({index})"


def _share(share: Share) -> str:
    return f"{_percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _percent(value: float) -> str:
    text = f"{100 * value:.1f}"
    # Only what is whole reads as whole.
    return ">99.9 %" if text == "100.0" and value < 1 else f"{text} %"


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"


def _short(name: str) -> str:
    return name if len(name) <= _LISTED_CLASS_NAME else name[: _LISTED_CLASS_NAME - 1] + "…"
