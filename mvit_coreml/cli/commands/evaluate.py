"""``mvit-coreml evaluate``: accuracy on labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import ProgressLines
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import Data
    from mvit_coreml.evaluation.class_matching import ModelClasses
    from mvit_coreml.evaluation.open_targets import OpenTarget
    from mvit_coreml.mil.predictor import Engine
    from mvit_coreml.preprocessing.geometry import Fit
    from mvit_coreml.preprocessing.image_processor import ColorOrder


@dataclass(frozen=True, kw_only=True)
class _LabelArguments:
    """How the labels of a data set are read.

    Attributes:
        limit: Only this many images, spread evenly over all.
        label_column: Column of a CSV that holds the label, or several.
        label_offset: Add this to labels that are numbers: 1 if they leave out the model's
            background class.
        reduce_labels: Masks count classes from 1; 0 is left out of the score.
    """

    limit: int | None = opt.limit_option()
    label_column: str | None = opt.option()
    label_offset: int | None = opt.option(type=int)
    reduce_labels: bool = opt.option()

    def read_labels(
        self, dataset: Path, opened: Sequence[OpenTarget], classes: ModelClasses
    ) -> Data:
        """Read the data set that fits what is evaluated."""
        from mvit_coreml.evaluation.labeled_datasets import (
            read_labeled_images,
            read_masked_images,
            read_multi_label_images,
        )

        if opened[0].task == "semantic-segmentation":
            if self.label_column is not None or self.label_offset is not None:
                raise InputError(
                    "label columns and offsets are for classifiers; this is a segmenter"
                )
            reduced = self.reduce_labels or any(one.reduce_labels for one in opened)
            return read_masked_images(dataset, reduce_labels=reduced).limited(self.limit)
        if self.reduce_labels:
            raise InputError("--reduce-labels is for the masks of segmenters; this is a classifier")
        several = opened[0].target.activation == "sigmoid"
        read = read_multi_label_images if several else read_labeled_images
        images = read(
            dataset, classes, label_column=self.label_column, label_offset=self.label_offset
        )
        return images.limited(self.limit)


@dataclass(frozen=True, kw_only=True)
class _Arguments(
    _LabelArguments, opt.CheckpointArguments, opt.ReportArguments, opt.ResultArguments
):
    """What the command is asked.

    Attributes:
        against: Evaluate this too, and how often both agree.
        color_order: Channel order the weights get; both tells which they were trained with.
        per_class: List every class, and what is confused most.
        fit: How photos are brought to a checkpoint's input; by default as the package beside it,
            else pad for segmenters and crop for classifiers. Also for packages of other tools,
            whose photos are stretched by default, as Core ML does.
        resize: Of packages of other tools: resize photos to this shortest edge, then crop the
            centre.
        engine: What runs a package; auto is Core ML on a Mac.
        function: Function of a package that has several.
        workers: Threads for a package; all cores by default.
    """

    source: str = opt.argument(metavar="PACKAGE|SOURCE")
    dataset: Path = opt.argument()
    against: str | None = opt.option(metavar="PACKAGE|SOURCE")
    color_order: ColorOrder | Literal["both"] | None = opt.color_order_option("both")
    per_class: bool = opt.option()
    fit: Fit | None = opt.fit_option()
    resize: int | None = opt.option(type=click.IntRange(min=1), metavar="EDGE")
    engine: Engine = opt.engine_option()
    function: str | None = opt.option()
    workers: int | None = opt.option(type=click.IntRange(min=1))


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Measure the accuracy of a package or a checkpoint on labelled images.

    For classifiers, DATASET is a folder of class folders (named by label, class index or synset
    id) or a CSV of file,label. Where a photo may have several labels, it is a CSV of file,labels
    with |, ; or blanks between them, or with a column of 0 and 1 for each label. For segmenters it
    is a folder laid out as VOC's, a folder of X_image.*, X_target.* or X.*, X_mask.*, or a CSV of
    image,mask; masks hold class indices or VOC's colours, and 255 is left out of the score. A
    package's figures come from the saved file.

    Examples:
        mvit-coreml evaluate MobileNetV2.mlpackage ./imagenet-val --limit 1000
        mvit-coreml evaluate Classifier.mlpackage labels.csv --against ./my-mobilevit
        mvit-coreml evaluate EfficientNet.mlpackage labels.csv --fit crop
        mvit-coreml evaluate apple/mobilevitv2-1.0-imagenet1k-256 labels.csv --color-order both
        mvit-coreml evaluate PhotoTags.mlpackage tags.csv --per-class
        mvit-coreml evaluate DeepLab.mlpackage ./VOCdevkit/VOC2012 --per-class
        mvit-coreml evaluate Classifier.mlpackage ./pets --report accuracy.html
    """
    from mvit_coreml.cli.evaluation_results import EvaluationResults
    from mvit_coreml.evaluation.accuracy import evaluate
    from mvit_coreml.evaluation.labeled_datasets import find_dataset
    from mvit_coreml.evaluation.open_targets import OpenOptions, is_package, open_targets
    from mvit_coreml.reports.wording import count

    arguments.check_report()
    dataset = find_dataset(arguments.dataset)  # said before a download
    sources = [one for one in (arguments.source, arguments.against) if one is not None]
    both = arguments.color_order == "both"
    if both and arguments.against is not None:
        raise InputError("--color-order both already compares two; leave out --against")
    options = opt.values_for(OpenOptions, arguments)
    opened = [
        target
        for order in (("BGR", "RGB") if both else (arguments.color_order,))
        for target in open_targets(sources, OpenOptions(**options | {"color_order": order}))
    ]
    known = [one.classes for one in opened if one.classes is not None]
    if not known:
        raise InputError(
            f"{arguments.source}: does not say how many classes it has; name its checkpoint with "
            "--against, or its classes with --labels"
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
            # Names that tell the two apart.
            [f"{one.target.name}, {one.color_order}" for one in opened] if both else None,
        )
    results = EvaluationResults(
        evaluation=result, opened=opened, classes=classes, data_notes=data.notes, both_orders=both
    )
    packages = [one for one in sources if is_package(one)]
    arguments.save_report(
        # Of two packages the report would be about one; the accuracies name both.
        package=Path(packages[0]).expanduser() if len(packages) == 1 else None,
        evaluation=result,
        labels=classes.labels,
        notes=results.remarks,
    )
    arguments.show(results.as_json(), results.lines(per_class=arguments.per_class))
