"""What ``mvit-coreml demo`` does: the whole way from a checkpoint to a report, in one folder.

For each bundled checkpoint: convert, with the bundled pictures to validate on -> evaluate, in the
colour order that the weights were trained with and in the other one -> report.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.demo import KINDS, Kind, demo_checkpoint, demo_images, demo_masks
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy import Accuracy, Evaluation, evaluate
from mvit_coreml.evaluation.labeled_datasets import LabeledImages, MaskedImages
from mvit_coreml.evaluation.open_targets import OpenOptions, open_targets
from mvit_coreml.preprocessing.image_processor import ColorOrder
from mvit_coreml.reports.report import build_report
from mvit_coreml.reports.write_report import write_report
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.validation.report_samples import REPORT_SAMPLES
from mvit_coreml.workflows.convert import ConvertedPackage, convert
from mvit_coreml.workflows.package_options import ConvertOptions

BITS: Literal[6] = 6
# Checkpoint to its package; the report is named likewise.
NAMES: dict[Kind, str] = {"classifier": "Digits", "segmenter": "DigitMaps"}
CHECKPOINTS, PICTURES = "checkpoints", "pictures"
SWAPPED = "the same with red and blue swapped"
_SWAPPED_NOTE = (
    "the accuracies are of the package as it is, and of the same weights given their channels in "
    "the other order: what happens when an app or a script swaps red and blue"
)
_ORDERS: dict[ColorOrder, ColorOrder] = {"RGB": "BGR", "BGR": "RGB"}

Stage = Literal["convert", "validate", "evaluate", "report"]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """How one bundled checkpoint fared.

    Attributes:
        kind: which one.
        package: what it was converted to.
        parity: how that compares with the checkpoint on the bundled pictures.
        plain_size: what the package would take with its weights in fp16, in bytes.
        report: the file with everything.
        labels: class names.
        images: names of the pictures.
        truth: class of each picture; of a segmenter empty.
        right: accuracy of the package.
        swapped: accuracy of the same weights with red and blue swapped.
    """

    kind: Kind
    package: ConvertedPackage
    parity: ParityReport
    plain_size: int
    report: Path
    labels: tuple[str, ...] = field(repr=False)
    images: tuple[str, ...] = field(repr=False)
    truth: tuple[int, ...] = field(repr=False)
    right: Accuracy
    swapped: Accuracy


def run_demo(
    folder: str | Path,
    *,
    force: bool = False,
    command: str = "",
    progress: Callable[[Kind, Stage], None] = lambda kind, stage: None,
) -> list[DemoResult]:
    """Convert, check and report on the bundled checkpoints; the hub is not needed.

    Args:
        folder: for packages and reports, and for copies of the checkpoints and pictures to go on
            with; made if it is missing.
        force: replace what an earlier demo left there.
        command: what was typed, for the reports.
        progress: called with the checkpoint and the name of every stage as it begins.

    Returns:
        A result for each checkpoint, in the order of
        :data:`~mvit_coreml.demo.KINDS`.

    Raises:
        InputError: the folder has something in it, without ``force``, or cannot be written.
        GateError: a package does not answer like its checkpoint; it is not written.
    """
    folder = Path(folder)
    _fill(folder, force)
    return [_run(kind, folder, command, progress) for kind in KINDS]


def _fill(folder: Path, force: bool) -> None:
    """Make the folder, with copies of what is bundled."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise InputError(
                f"{folder}: is not empty; use --force to replace an earlier demo, or name another "
                "folder with -o"
            )
        for kind in KINDS:
            _copy(demo_checkpoint(kind), folder / CHECKPOINTS / kind)
        bundled = demo_images()[0][0].parents[1]
        for part in ("images", "masks"):
            _copy(bundled / part, folder / PICTURES / part)
        shutil.copyfile(bundled / "pictures.csv", folder / PICTURES / "pictures.csv")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from None


def _copy(source: Path, destination: Path) -> None:
    """Copy the files of a folder: contents alone, as an installed package may be read-only."""
    destination.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, destination / file.name)


def _run(
    kind: Kind, folder: Path, command: str, progress: Callable[[Kind, Stage], None]
) -> DemoResult:
    def converting(stage: str, detail: str = "", /) -> None:
        if stage == "validate":
            progress(kind, "validate")

    progress(kind, "convert")
    checkpoint = load_checkpoint(folder / CHECKPOINTS / kind)
    data = _data(kind, list(checkpoint.id2label.values()))
    package = convert(
        checkpoint,
        ConvertOptions(bits=BITS),
        folder / f"{NAMES[kind]}.mlpackage",
        force=True,
        images=data.images,
        samples=REPORT_SAMPLES,
        progress=converting,
    )
    parity = package.parity
    assert parity is not None
    progress(kind, "evaluate")
    evaluation = _evaluate_both_orders(package, data)
    progress(kind, "report")
    report = build_report(
        package=package.path,
        parity=parity,
        evaluation=evaluation,
        checkpoint=checkpoint,
        command=command,
        notes=(*package.notes, _SWAPPED_NOTE),
    )
    assert report.package is not None
    path = package.path.with_suffix(".html")
    write_report(report, path)
    return DemoResult(
        kind=kind,
        package=package,
        parity=parity,
        plain_size=next(bar.size for bar in report.package.sizes if bar.label == "plain fp16"),
        report=path,
        labels=report.labels,
        images=tuple(image.name for image in data.images),
        truth=tuple(data.labels) if isinstance(data, LabeledImages) else (),
        right=evaluation.accuracies[0],
        swapped=evaluation.accuracies[1],
    )


def _data(kind: Kind, labels: Sequence[str]) -> LabeledImages | MaskedImages:
    if kind == "segmenter":
        images, masks = zip(*demo_masks(), strict=True)
        return MaskedImages(name="bundled pictures", images=images, masks=masks)
    images, shown = zip(*demo_images(), strict=True)
    return LabeledImages(
        name="bundled pictures",
        images=images,
        labels=tuple(map(labels.index, shown)),
    )


def _evaluate_both_orders(
    package: ConvertedPackage, data: LabeledImages | MaskedImages
) -> Evaluation:
    declared = package.options.color_order
    assert declared is not None
    opened = [
        target
        for order in (declared, _ORDERS[declared])
        for target in open_targets(
            [package.path], OpenOptions(engine="portable", color_order=order)
        )
    ]
    classes = opened[0].classes
    assert classes is not None
    names, targets = (package.path.name, SWAPPED), [target.target for target in opened]
    evaluation = evaluate(targets, data, classes.count, names=names)
    # How often the two agree would be read as a figure of the package.
    return replace(evaluation, agreement=None)
