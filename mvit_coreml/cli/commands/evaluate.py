"""``mvit-coreml evaluate``: accuracy on labelled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import ProgressLines, shorten, table
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation
    from mvit_coreml.evaluation.class_matching import ModelClasses
    from mvit_coreml.evaluation.labeled_datasets import LabeledImages, MaskedImages
    from mvit_coreml.evaluation.open_targets import OpenTarget
    from mvit_coreml.mil.predictor import Engine
    from mvit_coreml.preprocessing.geometry import Fit
    from mvit_coreml.preprocessing.image_processor import ColorOrder

_EXAMPLES = """\b
Examples:
  mvit-coreml evaluate MobileNetV2.mlpackage ./imagenet-val --limit 1000
  mvit-coreml evaluate Classifier.mlpackage labels.csv --against ./my-mobilevit
  mvit-coreml evaluate apple/mobilevitv2-1.0-imagenet1k-256 labels.csv --color-order both
  mvit-coreml evaluate DeepLab.mlpackage ./VOCdevkit/VOC2012 --per-class
  mvit-coreml evaluate Classifier.mlpackage ./pets --report accuracy.html
"""


_LONGEST_CLASS_NAME = 40


@dataclass(frozen=True, kw_only=True)
class _LabelArguments:
    """How the labels of a data set are read."""

    limit: int | None = opt.limit_option("Only this many images, spread evenly over all.")
    label_column: str | None = opt.option("Column of a CSV that holds the labels.")
    label_offset: int | None = opt.option(
        "Add this to labels that are numbers: 1 if they leave out the model's background class.",
        type=int,
    )
    reduce_labels: bool = opt.option("Masks count classes from 1; 0 is left out of the score.")

    def read_labels(
        self, dataset: Path, opened: Sequence[OpenTarget], classes: ModelClasses
    ) -> LabeledImages | MaskedImages:
        """Read the data set that fits what is evaluated."""
        from mvit_coreml.evaluation.labeled_datasets import read_labeled_images, read_masked_images

        if opened[0].task == "semantic-segmentation":
            if self.label_column is not None or self.label_offset is not None:
                raise InputError(
                    "label columns and offsets are for classifiers; this is a segmenter"
                )
            reduced = self.reduce_labels or any(one.reduce_labels for one in opened)
            return read_masked_images(dataset, reduce_labels=reduced).limited(self.limit)
        if self.reduce_labels:
            raise InputError("--reduce-labels is for the masks of segmenters; this is a classifier")
        images = read_labeled_images(
            dataset, classes, label_column=self.label_column, label_offset=self.label_offset
        )
        return images.limited(self.limit)


@dataclass(frozen=True, kw_only=True)
class _Arguments(
    _LabelArguments, opt.CheckpointArguments, opt.ReportArguments, opt.ResultArguments
):
    source: str = opt.argument(metavar="PACKAGE|SOURCE")
    dataset: Path = opt.argument()
    against: str | None = opt.option(
        "Evaluate this too, and how often both agree.", metavar="PACKAGE|SOURCE"
    )
    color_order: ColorOrder | Literal["both"] | None = opt.color_order_option(
        "Channel order the weights get; both tells which they were trained with.", "both"
    )
    per_class: bool = opt.option("List every class, and what is confused most.")
    fit: Fit | None = opt.fit_option(
        "How photos are brought to a checkpoint's input; by default as the package beside it, else "
        "pad for segmenters and crop for classifiers."
    )
    engine: Engine = opt.engine_option("What runs a package; auto is Core ML on a Mac.")
    function: str | None = opt.option("Function of a package that has several.")
    workers: int | None = opt.option(
        "Threads for a package; all cores by default.", type=click.IntRange(min=1)
    )


@click.command("evaluate", epilog=_EXAMPLES)
@opt.takes(_Arguments)
def command(arguments: _Arguments) -> None:
    """Measure the accuracy of a package or a checkpoint on labelled images.

    For classifiers, DATASET is a folder of class folders (named by label, class index or synset
    id) or a CSV of file,label. For segmenters it is a folder laid out as VOC's, a folder of
    X_image.*, X_target.* or X.*, X_mask.*, or a CSV of image,mask; masks hold class indices or
    VOC's colours, and 255 is left out of the score. A package's figures come from the saved file.
    """
    from mvit_coreml.evaluation.accuracy import evaluate
    from mvit_coreml.evaluation.labeled_datasets import find_dataset
    from mvit_coreml.evaluation.open_targets import OpenOptions, is_package, open_targets
    from mvit_coreml.reports.wording import count

    arguments.check_report()
    dataset = find_dataset(arguments.dataset)  # said before a download
    sources = (
        [arguments.source] if arguments.against is None else [arguments.source, arguments.against]
    )
    options = opt.values_for(OpenOptions, arguments)
    orders: tuple[Any, ...] = (arguments.color_order,)
    if arguments.color_order == "both":
        if arguments.against is not None:
            raise InputError("--color-order both already compares two; leave out --against")
        orders = ("BGR", "RGB")
    opened = [
        target
        for order in orders
        for target in open_targets(sources, OpenOptions(**options | {"color_order": order}))
    ]
    known = [one.classes for one in opened if one.classes is not None]
    if not known:
        raise InputError(
            f"{arguments.source}: does not say how many classes it has; name its checkpoint with "
            "--against"
        )
    classes = next((one for one in known if one.labels is not None), known[0])
    data = arguments.read_labels(dataset, opened, classes)
    total = len(data.images)
    with ProgressLines(silent=arguments.quiet) as progress:
        stage = f"evaluating {count(total, 'image')}"
        progress(stage)
        result = evaluate(
            [one.target for one in opened],
            data,
            classes.count,
            lambda done: progress.show(f"{stage} …", done, total),
        )
    figures = EvaluationFigures(
        result=result,
        opened=opened,
        classes=classes,
        notes=data.notes,
        compares_orders=arguments.color_order == "both",
    )
    packages = [one for one in sources if is_package(one)]
    arguments.save_report(
        # Of two packages the report would be about one; the accuracies name both.
        package=Path(packages[0]).expanduser() if len(packages) == 1 else None,
        evaluation=figures.named_result,
        labels=classes.labels,
        notes=figures.remarks,
    )
    arguments.show(figures.as_json(), figures.lines(per_class=arguments.per_class))


@dataclass(frozen=True, kw_only=True)
class EvaluationFigures:
    """The figures of an evaluation, and what they are about, as text and as JSON.

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
        from mvit_coreml.evaluation.accuracy import trained_color_order

        return trained_color_order([one.color_order for one in self.opened], self.result)

    @property
    def named_result(self) -> Evaluation:
        """The result with targets that can be told apart by their names."""
        accuracies = zip(self.result.accuracies, self._names(), strict=True)
        named = tuple(replace(accuracy, target=name) for accuracy, name in accuracies)
        return replace(self.result, accuracies=named)

    @property
    def remarks(self) -> tuple[str, ...]:
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
                    "engine": one.engine,
                    "color_order": one.color_order,
                    **{name: asdict(share) for name, share in accuracy.figures.items()},
                    "per_class": self._classes_of(accuracy),
                    "most_confused": [
                        {"true": true, "predicted": predicted, "count": times}
                        for true, predicted, times in accuracy.confused_pairs()
                    ],
                }
                for one, accuracy in zip(self.opened, result.accuracies, strict=True)
            ],
            "agreement": None if result.agreement is None else asdict(result.agreement),
            "color_order": orders,
            "notes": list(self._notes()),
        }

    def lines(self, *, per_class: bool = False) -> Iterator[str]:
        """Yield the figures as tables.

        Args:
            per_class: whether to add a table of the classes and what was confused most.
        """
        from mvit_coreml.reports.wording import count

        yield f"{self.result.dataset}: {count(self.result.images, 'image')}"
        yield table(self._figures(), indent=2)
        kind = "from resampling whole images" if self.segments else "Wilson"
        yield f"  95 % intervals in brackets ({kind})"
        if self.segments:
            yield f"  {self._area()}"
        if self.compares_orders:
            yield f"  colour order: {self._verdict()}"
        else:
            yield from self._agreement()
        yield from (f"  note: {note}" for note in self._notes())
        if per_class:
            yield ""
            yield table(self._class_table(), indent=2)
            for name, accuracy in zip(self._names(), self.result.accuracies, strict=True):
                yield ""
                yield from self._confusions(name, accuracy)

    def _names(self) -> list[str]:
        if not self.compares_orders:
            return [accuracy.target for accuracy in self.result.accuracies]
        return [f"{one.target.name}, {one.color_order}" for one in self.opened]

    def _notes(self) -> tuple[str, ...]:
        assumed = [note for one in self.opened for note in one.notes]
        return tuple(dict.fromkeys([*assumed, *self.notes]))

    def _figures(self) -> list[tuple[str, ...]]:
        from mvit_coreml.reports.wording import METRICS, interval

        metrics = list(self.result.accuracies[0].figures)
        rows = [("", *(METRICS[metric] for metric in metrics), "run by")]
        for name, one, accuracy in zip(
            self._names(), self.opened, self.result.accuracies, strict=True
        ):
            shares = (interval(accuracy.figures[metric]) for metric in metrics)
            rows.append((name, *shares, one.engine))
        return rows

    def _area(self) -> str:
        from mvit_coreml.reports.wording import percent

        coverage = self.result.coverage
        if coverage == 1:
            return "maps compared over the whole original images"
        which = "both inputs" if len(self.opened) > 1 else "the input"
        return (
            f"maps compared over the part of the original images that {which} showed: "
            f"{percent(coverage or 0.0)} of their pixels"
        )

    def _agreement(self) -> Iterator[str]:
        from mvit_coreml.reports.wording import interval

        agreement = self.result.agreement
        if agreement is None:
            return
        unit, same = "images", "get the same best class"
        if self.segments:
            unit, same = "pixels", f"get the same class; least in {agreement.worst_image}"
        yield f"  agreement: {interval(agreement.share)} of the {unit} {same}"
        yield (
            f"  {unit} right in both {agreement.both_right}, only in the first "
            f"{agreement.only_first}, only in the second {agreement.only_second}, in neither "
            f"{agreement.both_wrong}"
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
        """Figures of the classes that occur: IoU, or the share found with Wilson's interval."""
        import numpy as np

        from mvit_coreml.evaluation.metrics import wilson_interval

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
        from mvit_coreml.reports.wording import percent

        unit, figure = ("pixels", "iou") if self.segments else ("images", "accuracy")
        by_class: dict[int, list[str]] = {}
        for number, accuracy in enumerate(self.result.accuracies):
            for row in self._classes_of(accuracy):
                start = [
                    str(row["class"]),
                    shorten(row["name"], _LONGEST_CLASS_NAME),
                    str(row[unit]),
                ]
                cells = by_class.setdefault(row["class"], start)
                cells += ["-"] * (3 + number - len(cells))
                cells.append(percent(row[figure]))
        width = 3 + len(self.opened)
        header = ("class", "name", unit, *self._names())
        rows = (by_class[index] for index in sorted(by_class))
        return [header, *(tuple(cells + ["-"] * (width - len(cells))) for cells in rows)]

    def _confusions(self, name: str, accuracy: Accuracy) -> Iterator[str]:
        from mvit_coreml.reports.wording import count

        unit = "pixel" if self.segments else "image"
        rows = [
            (count(times, unit), f"{self._class(true)} taken for {self._class(predicted)}")
            for true, predicted, times in accuracy.confused_pairs()
        ]
        yield f"{name} confuses {'most' if rows else 'nothing'}"
        if rows:
            yield table(rows, indent=2)

    def _class(self, index: int) -> str:
        return f"{shorten(self.classes.name(index), _LONGEST_CLASS_NAME)} ({index})"
