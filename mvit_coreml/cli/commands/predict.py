"""``mvit-coreml predict``: what a package says about images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.tables import table
from mvit_coreml.errors import InputError, PackageError

if TYPE_CHECKING:
    from mvit_coreml.evaluation.read_metadata import Preparation
    from mvit_coreml.mil.predictor import Predictor
    from mvit_coreml.validation.operation_precision import OpHeadroom

_EXAMPLES = """\b
Examples:
  mvit-coreml predict Classifier.mlpackage photo.jpg
  mvit-coreml predict Classifier.mlpackage photos/*.jpg --top 1 --json
  mvit-coreml predict Segmenter.mlpackage street.jpg --overlay painted.png --mask classes.png
  mvit-coreml predict Segmenter.mlpackage a.jpg b.jpg --overlay "out/{name}-painted.png"
  mvit-coreml predict Features.mlpackage a.jpg b.jpg --features vectors/
  mvit-coreml predict Other.mlpackage photo.jpg --image-processor ./preprocessor_config.json
"""
_SHOWN_OPERATIONS = 10


@click.command("predict", epilog=_EXAMPLES)
@click.argument("package", type=click.Path(path_type=Path))
@click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path)
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="K",
    help="Classes to list for each image.",
)
@click.option(
    "--overlay",
    metavar="OUT",
    help="Save the image painted with a segmenter's classes and a legend. OUT is a PNG file; for "
    "several images a folder, or a file name with {name} in place of the image's.",
)
@click.option(
    "--mask",
    metavar="OUT",
    help="Save a segmenter's class indices as a paletted PNG of the image's size, 255 where the "
    "package did not see it. OUT as for --overlay.",
)
@click.option(
    "--features",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Save features as DIR/IMAGE.OUTPUT.npy; the folder is created.",
)
@click.option("--force", is_flag=True, help="Replace existing files.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "coreml", "portable"]),
    default="auto",
    show_default=True,
    help="What runs the package; auto is Core ML on a Mac and portable elsewhere.",
)
@click.option("--function", metavar="NAME", help="Function of a package that has several.")
@click.option(
    "--arithmetic",
    type=click.Choice(["program", "fp32"]),
    default="program",
    show_default=True,
    help="Of the portable engine: fp32 leaves out the rounding of fp16.",
)
@click.option(
    "--headroom",
    is_flag=True,
    help="Also list the operations that come nearest to fp16's limits on these images.",
)
@click.option(
    "--color-managed",
    is_flag=True,
    help="Convert images with another colour profile to sRGB first, as iOS does.",
)
@click.option(
    "--image-processor",
    metavar="SOURCE|FILE",
    help="How images are resized and cropped, for packages that do not say: hub id, folder, or "
    "preprocessor_config.json. Values are scaled by the package itself.",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "stretch", "pad"]),
    help="With --image-processor: how images are brought to the input; crop by default.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(package: Path, images: tuple[Path, ...], as_json: bool, **given: Any) -> None:
    """Ask a package about images.

    A classifier's likeliest classes, a segmenter's share of pixels by class, or features. Images
    are prepared as the package's metadata says. Names and colours of classes are the package's.
    """
    from mvit_coreml.cli.prediction_report import PredictionReport
    from mvit_coreml.evaluation.targets import PackageTarget
    from mvit_coreml.mil.predictor import Predictor
    from mvit_coreml.validation.operation_precision import HeadroomRecorder

    missing = next((image for image in images if not image.exists()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such image file")
    predictor = Predictor(package, given["function"], given["engine"], given["arithmetic"])
    preparation = _preparation(predictor, given["image_processor"], given["fit"])
    recorder = HeadroomRecorder() if given["headroom"] else None
    target = PackageTarget(predictor, preparation, _num_labels(predictor))
    report = PredictionReport(target, images, given)
    answers = target.answer(report.read(given["color_managed"]), headroom=recorder)
    for index, answer in enumerate(answers):
        found = report.take(index, answer)
        if not as_json:
            click.echo(report.text(found))
    ranked = [] if recorder is None else recorder.ranked()
    if as_json:
        document = {
            "package": str(package),
            "function": target.function.name,
            "engine": predictor.engine,
            "images": report.found,
        }
        if recorder is not None:
            document["headroom"] = [_operation(operation) for operation in ranked]
        echo_json(document)
    elif recorder is not None:
        click.echo("\n".join(_headroom_lines(ranked)))


def _preparation(predictor: Predictor, source: str | None, fit: Any) -> Preparation:
    """Read how images are prepared, from the package or from what stands in for it."""
    from mvit_coreml.checkpoints.load import load_image_processor
    from mvit_coreml.evaluation.read_metadata import Preparation, image_input, read_preparation

    package, function = predictor.package, predictor.function
    if source is None:
        if fit is not None:
            raise InputError("--fit goes with --image-processor; without, the package says it")
        found = read_preparation(package, function)
        if found is None:
            raise PackageError(
                f"{package.path}: does not say how images are prepared, as another tool made it; "
                "name the checkpoint it came from, or its preprocessor_config.json, with "
                "--image-processor"
            )
        return found
    image = image_input(package, function)
    size = (image.height, image.width)
    processor = load_image_processor(source)
    return Preparation(
        processor=processor.for_input_size(size, processor.input_size or size),
        fit=fit or "crop",
        color_order=image.color_order.upper(),
    )


def _num_labels(predictor: Predictor) -> int | None:
    from mvit_coreml.evaluation.read_metadata import class_labels

    labels = class_labels(predictor.package, predictor.function)
    return None if labels is None else len(labels)


def _operation(operation: OpHeadroom) -> dict[str, Any]:
    found = dataclasses.asdict(operation)
    # JSON has no infinity: an operation that gives zeros alone has no limit to its headroom.
    found["headroom"] = operation.headroom if operation.largest else None
    return found


def _headroom_lines(ranked: Sequence[OpHeadroom]) -> Iterator[str]:
    yield "operations nearest to fp16's largest number, 65504:"
    yield _operations_table(ranked[:_SHOWN_OPERATIONS])
    small = [found for found in ranked if found.subnormal + found.zeroed]
    small.sort(key=lambda found: -(found.subnormal + found.zeroed) / found.count)
    if small:
        yield f"operations that lose digits (subnormal) or values (zeroed) to fp16, {len(small)}:"
        yield _operations_table(small[:_SHOWN_OPERATIONS])
    else:
        yield "no operation loses small values to fp16"


def _operations_table(operations: Sequence[OpHeadroom]) -> str:
    header = ("operation", "name", "largest", "headroom", "overflows", "subnormal", "zeroed", "of")
    rows = [
        (
            found.op_type,
            found.name,
            f"{found.largest:.4g}",
            f"{found.headroom:.4g}x",
            str(found.overflows),
            str(found.subnormal),
            str(found.zeroed),
            str(found.count),
        )
        for found in operations
    ]
    return table([header, *rows], indent=2, right=(2, 3, 4, 5, 6, 7))
