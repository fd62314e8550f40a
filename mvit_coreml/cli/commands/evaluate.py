"""``mvit-coreml evaluate``: accuracy on labelled images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.checkpoint_options import checkpoint_options, loading_arguments
from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.reports import check_report, report_option, save_report
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.cli.evaluation_report import EvaluationReport
    from mvit_coreml.evaluation.class_matching import ModelClasses
    from mvit_coreml.evaluation.labeled_datasets import LabeledImages, MaskedImages
    from mvit_coreml.evaluation.open_targets import OpenTarget

_EXAMPLES = """\b
Examples:
  mvit-coreml evaluate MobileNetV2.mlpackage ./imagenet-val --limit 1000
  mvit-coreml evaluate Classifier.mlpackage labels.csv --against ./my-mobilevit
  mvit-coreml evaluate apple/mobilevitv2-1.0-imagenet1k-256 labels.csv --color-order both
  mvit-coreml evaluate DeepLab.mlpackage ./VOCdevkit/VOC2012 --per-class
  mvit-coreml evaluate Classifier.mlpackage ./pets --report accuracy.html
"""


@click.command("evaluate", epilog=_EXAMPLES)
@click.argument("source", metavar="PACKAGE|SOURCE")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="PACKAGE|SOURCE", help="Evaluate this too, and how often both agree."
)
@click.option(
    "--color-order",
    type=click.Choice(["auto", "bgr", "rgb", "both"]),
    default="auto",
    show_default=True,
    help="Channel order the weights get; both tells which they were trained with.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Only this many images, spread evenly over all."
)
@click.option("--per-class", is_flag=True, help="List every class, and what is confused most.")
@click.option("--label-column", help="Column of a CSV that holds the labels.")
@click.option(
    "--label-offset",
    type=int,
    help="Add this to labels that are numbers: 1 if they leave out the model's background class.",
)
@click.option(
    "--reduce-labels", is_flag=True, help="Masks count classes from 1; 0 is left out of the score."
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "stretch", "pad"]),
    help="How photos are brought to a checkpoint's input; by default as the package beside it, "
    "else pad for segmenters and crop for classifiers.",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "coreml", "portable"]),
    default="auto",
    show_default=True,
    help="What runs a package; auto is Core ML on a Mac.",
)
@click.option("--function", help="Function of a package that has several.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Threads for a package; all cores by default."
)
@checkpoint_options
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(source: str, dataset: Path, **given: Any) -> None:
    """Measure the accuracy of a package or a checkpoint on labelled images.

    For classifiers, DATASET is a folder of class folders (named by label, class index or synset
    id) or a CSV of file,label. For segmenters it is a folder laid out as VOC's, a folder of
    X_image.*, X_target.* or X.*, X_mask.*, or a CSV of image,mask; masks hold class indices or
    VOC's colours, and 255 is left out of the score. A package's figures come from the saved file.
    """
    from mvit_coreml.cli.evaluation_report import EvaluationReport
    from mvit_coreml.evaluation.accuracy import evaluate
    from mvit_coreml.evaluation.labeled_datasets import find_dataset

    check_report(given["report"])
    dataset = find_dataset(dataset)  # said before a download
    opened = _open(source, given)
    known = [found.classes for found in opened if found.classes is not None]
    if not known:
        raise InputError(
            f"{source}: does not say how many classes it has; name its checkpoint with --against"
        )
    classes = next((found for found in known if found.labels is not None), known[0])
    data = _read(dataset, opened, classes, given).limited(given["limit"])
    with _progress(len(data.images), given["quiet"]) as progress:
        result = evaluate([found.target for found in opened], data, classes.count, progress)
    report = EvaluationReport(
        result=result,
        opened=opened,
        classes=classes,
        notes=data.notes,
        compares_orders=given["color_order"] == "both",
    )
    _save_report(given["report"], [source, given["against"]], report)
    if given["as_json"]:
        echo_json(report.as_json())
    else:
        click.echo(report.as_text(per_class=given["per_class"]))


def _save_report(
    path: Path | None, sources: Sequence[str | None], report: EvaluationReport
) -> None:
    from mvit_coreml.evaluation.open_targets import is_package

    packages = [source for source in sources if source is not None and is_package(source)]
    save_report(
        path,
        # Of two packages the report would be about one; the accuracies name both.
        package=Path(packages[0]).expanduser() if len(packages) == 1 else None,
        evaluation=report.named_result,
        labels=report.classes.labels,
        notes=report.said,
    )


def _open(source: str, given: dict[str, Any]) -> tuple[OpenTarget, ...]:
    """Open what is compared: two sources, or one in both colour orders."""
    from mvit_coreml.evaluation.open_targets import OpenOptions, open_targets
    from mvit_coreml.preprocessing.image_processor import ColorOrder

    loading = loading_arguments(given)

    def options(order: ColorOrder | None) -> OpenOptions:
        return OpenOptions(
            engine=given["engine"],
            function=given["function"],
            workers=given["workers"],
            fit=given["fit"],
            color_order=order,
            loading=loading,
        )

    if given["color_order"] == "both":
        if given["against"] is not None:
            raise InputError("--color-order both already compares two; leave out --against")
        return (
            *open_targets([source], options("BGR")),
            *open_targets([source], options("RGB")),
        )
    sources = [source] if given["against"] is None else [source, given["against"]]
    orders: dict[str, ColorOrder] = {"bgr": "BGR", "rgb": "RGB"}
    return open_targets(sources, options(orders.get(given["color_order"])))


def _read(
    dataset: Path, opened: Sequence[OpenTarget], classes: ModelClasses, given: dict[str, Any]
) -> LabeledImages | MaskedImages:
    from mvit_coreml.evaluation.labeled_datasets import read_labeled_images, read_masked_images

    if opened[0].task == "semantic-segmentation":
        if given["label_column"] is not None or given["label_offset"] is not None:
            raise InputError("label columns and offsets are for classifiers; this is a segmenter")
        reduced = given["reduce_labels"] or any(found.reduce_labels for found in opened)
        return read_masked_images(dataset, reduce_labels=reduced)
    if given["reduce_labels"]:
        raise InputError("--reduce-labels is for the masks of segmenters; this is a classifier")
    return read_labeled_images(
        dataset, classes, label_column=given["label_column"], label_offset=given["label_offset"]
    )


@contextmanager
def _progress(images: int, quiet: bool) -> Iterator[Callable[[int], None]]:
    """Show a bar on stderr; where that is no terminal, click prints its label alone."""
    if quiet:
        yield lambda done: None
        return
    label = f"evaluating {images} image{'' if images == 1 else 's'}"
    with click.progressbar(length=images, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(1)
