"""``mvit-coreml predict``: what a package says about images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import table
from mvit_coreml.errors import InputError, PackageError

if TYPE_CHECKING:
    from mvit_coreml.evaluation.read_metadata import Preparation
    from mvit_coreml.mil.compiler import Arithmetic
    from mvit_coreml.mil.predictor import Engine, Predictor
    from mvit_coreml.preprocessing.geometry import Fit
    from mvit_coreml.validation.operation_precision import OpHeadroom

_SHOWN_OPERATIONS = 10


@dataclass(frozen=True, kw_only=True)
class SavingArguments:
    """Where maps and features are saved.

    Attributes:
        overlay: Save the image painted with a segmenter's classes and a legend. OUT is a PNG file;
            for several images a folder, or a file name with {name} in place of the image's.
        mask: Save a segmenter's class indices as a paletted PNG of the image's size, 255 where the
            package did not see it. OUT as for --overlay.
        features: Save features as DIR/IMAGE.OUTPUT.npy; the folder is created.
        force: Replace existing files.
    """

    overlay: str | None = opt.option(metavar="OUT")
    mask: str | None = opt.option(metavar="OUT")
    features: Path | None = opt.option(metavar="DIR")
    force: bool = opt.option()


@dataclass(frozen=True, kw_only=True)
class _Arguments(SavingArguments, opt.JsonArguments):
    """What the command is asked.

    Attributes:
        top: Classes to list for each image.
        engine: What runs the package; auto is Core ML on a Mac and portable elsewhere.
        function: Function of a package that has several.
        arithmetic: Of the portable engine: fp32 leaves out the rounding of fp16.
        headroom: Also list the operations that come nearest to fp16's limits on these images.
        color_managed: Convert images with another colour profile to sRGB first, as iOS does.
        image_processor: How images are resized and cropped, for packages that do not say: hub id,
            folder, or preprocessor_config.json. Values are scaled by the package itself.
        fit: With --image-processor: how images are brought to the input; crop by default.
    """

    package: Path = opt.argument()
    images: tuple[Path, ...] = opt.argument(nargs=-1, required=True, metavar="IMAGE...")
    top: int = opt.option(type=click.IntRange(min=1), default=5, metavar="K")
    engine: Engine = opt.engine_option()
    function: str | None = opt.option(metavar="NAME")
    arithmetic: Arithmetic = opt.arithmetic_option()
    headroom: bool = opt.option()
    color_managed: bool = opt.option()
    image_processor: str | None = opt.option(metavar="SOURCE|FILE")
    fit: Fit | None = opt.fit_option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Ask a package about images.

    A classifier's likeliest classes, a segmenter's share of pixels by class, or features. Images
    are prepared as the package's metadata says. Names and colours of classes are the package's.

    Examples:
        mvit-coreml predict Classifier.mlpackage photo.jpg
        mvit-coreml predict Classifier.mlpackage photos/*.jpg --top 1 --json
        mvit-coreml predict Segmenter.mlpackage street.jpg --overlay painted.png --mask classes.png
        mvit-coreml predict Segmenter.mlpackage a.jpg b.jpg --overlay "out/{name}-painted.png"
        mvit-coreml predict Features.mlpackage a.jpg b.jpg --features vectors/
        mvit-coreml predict Other.mlpackage photo.jpg --image-processor ./preprocessor_config.json
    """
    from mvit_coreml.cli.prediction_results import PredictionResults
    from mvit_coreml.evaluation.read_metadata import class_labels
    from mvit_coreml.evaluation.targets import PackageTarget
    from mvit_coreml.mil.predictor import Predictor
    from mvit_coreml.validation.operation_precision import HeadroomRecorder

    missing = next((image for image in arguments.images if not image.exists()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such image file")
    predictor = Predictor(
        arguments.package, arguments.function, arguments.engine, arguments.arithmetic
    )
    preparation = _preparation(predictor, arguments.image_processor, arguments.fit)
    recorder = HeadroomRecorder() if arguments.headroom else None
    labels = class_labels(predictor.package, predictor.function)
    target = PackageTarget(predictor, preparation, None if labels is None else len(labels))
    results = PredictionResults(target, arguments.images, arguments.top, arguments)
    for index, answer in enumerate(
        target.answer(results.read(arguments.color_managed), headroom=recorder)
    ):
        taken = results.take(index, answer)
        if not arguments.as_json:
            click.echo("\n".join(results.lines(taken)))
    document: dict[str, Any] = {
        "package": str(arguments.package),
        "function": target.function.name,
        "engine": predictor.engine,
        "images": results.documents,
    }
    ranked = [] if recorder is None else recorder.ranked()
    if recorder is not None:
        document["headroom"] = [{**vars(one), "headroom": one.headroom} for one in ranked]
    arguments.show(document, () if recorder is None else _headroom_lines(ranked))


def _preparation(predictor: Predictor, source: str | None, fit: Fit | None) -> Preparation:
    """Read how images are prepared, from the package or from what stands in for it."""
    from mvit_coreml.checkpoints.load import load_image_processor
    from mvit_coreml.evaluation.read_metadata import image_input, preparation_for, read_preparation

    package, function = predictor.package, predictor.function
    if source is None:
        if fit is not None:
            raise InputError("--fit goes with --image-processor; without, the package says it")
        preparation = read_preparation(package, function)
        if preparation is None:
            raise PackageError(
                f"{package.path}: does not say how images are prepared, as another tool made it; "
                "name the checkpoint it came from, or its preprocessor_config.json, with "
                "--image-processor"
            )
        return preparation
    processor = load_image_processor(source)
    return preparation_for(image_input(package, function), processor, fit or "crop")


def _headroom_lines(ranked: Sequence[OpHeadroom]) -> Iterator[str]:
    yield "operations nearest to fp16's largest number, 65504:"
    yield _operations_table(ranked[:_SHOWN_OPERATIONS])
    small = [operation for operation in ranked if operation.subnormal + operation.zeroed]
    small.sort(key=lambda operation: -(operation.subnormal + operation.zeroed) / operation.count)
    if small:
        yield f"operations that lose digits (subnormal) or values (zeroed) to fp16, {len(small)}:"
        yield _operations_table(small[:_SHOWN_OPERATIONS])
    else:
        yield "no operation loses small values to fp16"


def _operations_table(operations: Sequence[OpHeadroom]) -> str:
    header = ("operation", "name", "largest", "headroom", "overflows", "subnormal", "zeroed", "of")
    rows = [
        (
            operation.op_type,
            operation.name,
            f"{operation.largest:.4g}",
            f"{operation.headroom:.4g}x",
            str(operation.overflows),
            str(operation.subnormal),
            str(operation.zeroed),
            str(operation.count),
        )
        for operation in operations
    ]
    return table([header, *rows], indent=2, right=(2, 3, 4, 5, 6, 7))
