"""``mvit-coreml predict``: what a package says about images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import shape_in_words, table
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.mil.compiler import Arithmetic
    from mvit_coreml.mil.predictor import Engine, Predictor
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


def _split_inputs(ctx: Any, param: Any, values: tuple[str, ...]) -> dict[str, Path]:
    """Return the files of ``NAME=FILE.npy`` by name."""
    files = {}
    for value in values:
        name, _, file = value.partition("=")
        if not name or not file:
            raise click.BadParameter(f"{value!r} is no input; give NAME=FILE.npy")
        files[name] = Path(file)
    return files


def _read_inputs(files: Mapping[str, Path]) -> dict[str, Any]:
    """Read arrays by the name of their input."""
    import numpy as np

    arrays = {}
    for name, file in files.items():
        try:
            arrays[name] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            reason = getattr(error, "strerror", None) or "no .npy file of numbers"
            raise InputError(f"--input {name}: {file} cannot be read: {reason}") from None
    return arrays


@dataclass(frozen=True, kw_only=True)
class _Arguments(SavingArguments, opt.PreparationArguments, opt.JsonArguments):
    """What the command is asked.

    Attributes:
        top: Classes to list for each image. [default: 5; of several labels all that are there]
        threshold: Probability above which one of several labels is listed. [default: 0.5]
        engine: What runs the package; auto is Core ML on a Mac and portable elsewhere.
        function: Function of a package that has several.
        arithmetic: Of the portable engine: fp32 leaves out the rounding of fp16.
        headroom: Also list the operations that come nearest to fp16's limits on these images.
        color_managed: Convert images with another colour profile to sRGB first, as iOS does.
        image_processor: How images are resized and cropped, for packages that do not say: hub id,
            folder, or preprocessor_config.json; --fit goes with it, crop by default. Values are
            scaled by the package itself.
        labels: Class names, for packages that have none: a text or JSON file.
        inputs: Value of an input that is an array. A package that takes no image needs nothing
            else.
    """

    package: Path = opt.argument()
    images: tuple[Path, ...] = opt.argument(nargs=-1, metavar="[IMAGE...]")
    top: int | None = opt.option(type=click.IntRange(min=1), metavar="K")
    threshold: float | None = opt.option(type=click.FloatRange(0, 1), metavar="P")
    engine: Engine = opt.engine_option()
    function: str | None = opt.option(metavar="NAME")
    arithmetic: Arithmetic = opt.arithmetic_option()
    headroom: bool = opt.option()
    color_managed: bool = opt.option()
    image_processor: str | None = opt.option(metavar="SOURCE|FILE")
    labels: Path | None = opt.option()
    inputs: dict[str, Path] = opt.option(
        "--input", multiple=True, callback=_split_inputs, metavar="NAME=FILE.npy"
    )


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Ask a package about images.

    A classifier's likeliest classes, or all labels that an image is likely to have, a segmenter's
    share of pixels by class, the values of a regression, or features: whatever other arrays and
    pictures it returns. Images are prepared as the package's metadata says, those of another tool's
    package as --fit, --resize or --image-processor do. Names and colours of classes are the
    package's.

    Examples:
        mvit-coreml predict Classifier.mlpackage photo.jpg
        mvit-coreml predict Classifier.mlpackage photos/*.jpg --top 1 --json
        mvit-coreml predict PhotoTags.mlpackage photo.jpg --threshold 0.3
        mvit-coreml predict Segmenter.mlpackage street.jpg --overlay painted.png --mask classes.png
        mvit-coreml predict Segmenter.mlpackage a.jpg b.jpg --overlay "out/{name}-painted.png"
        mvit-coreml predict Features.mlpackage a.jpg b.jpg --features vectors/
        mvit-coreml predict Other.mlpackage photo.jpg --fit crop --labels names.txt
        mvit-coreml predict Other.mlpackage photo.jpg --image-processor ./preprocessor_config.json
        mvit-coreml predict Arrays.mlpackage --input x=pixels.npy --features vectors/
    """
    from mvit_coreml.checkpoints.class_names import assumed_names, read_names
    from mvit_coreml.cli.prediction_results import PredictionResults
    from mvit_coreml.evaluation.read_metadata import choose_preparation, class_labels, is_own
    from mvit_coreml.evaluation.targets import PackageTarget
    from mvit_coreml.mil.predictor import Predictor
    from mvit_coreml.validation.operation_precision import HeadroomRecorder

    missing = next((image for image in arguments.images if not image.exists()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such image file")
    inputs = _read_inputs(arguments.inputs)
    predictor = Predictor(
        arguments.package, arguments.function, arguments.engine, arguments.arithmetic
    )
    if not arguments.images:
        _answer_arrays(predictor, inputs, arguments)
        return
    preparation, note = choose_preparation(
        predictor.package,
        predictor.function,
        arguments.preparation(arguments.image_processor),
        inputs,
    )
    recorder = HeadroomRecorder() if arguments.headroom else None
    labels = class_labels(predictor.package, predictor.function)
    if labels is None and arguments.labels is not None:
        labels = read_names(arguments.labels)
    count = None if labels is None else len(labels)
    target = PackageTarget(predictor, preparation, count, others=inputs)
    scores = next((role for role in target.roles if role.kind == "logits"), None)
    if labels is None and scores is not None and not is_own(predictor.package):
        assumed = assumed_names("image-classification", scores.shape[-1] if scores.shape else 0)
        labels, assumption = assumed or (None, "")
        note = "; ".join(filter(None, (note, assumption)))
    if note:
        click.echo(f"note: {note}", err=True)
    results = PredictionResults(
        target, arguments.images, arguments, labels, arguments.top, arguments.threshold
    )
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


def _answer_arrays(predictor: Predictor, inputs: Mapping[str, Any], arguments: _Arguments) -> None:
    """Run a package on arrays alone, and print or save what it returns."""
    from mvit_coreml.cli.prediction_results import describe_array, save_array
    from mvit_coreml.mil.program import ImageFeature

    images = [one.name for one in predictor.function.inputs if isinstance(one, ImageFeature)]
    if images:
        raise InputError(f"{arguments.package}: takes an image ({images[0]}); name image files")
    if arguments.overlay or arguments.mask or arguments.headroom:
        raise InputError("--overlay, --mask and --headroom are for images; leave them out")
    result = predictor.run(inputs)
    files = dict.fromkeys(result)
    if arguments.features is not None:
        files = {name: arguments.features / f"{name}.npy" for name in result}
        there = [path for path in files.values() if path is not None and path.exists()]
        if there and not arguments.force:
            raise InputError(f"--features {there[0]}: exists already; use --force to replace it")
        arguments.features.mkdir(parents=True, exist_ok=True)
    outputs: dict[str, Any] = {}
    lines = []
    for name, value in result.items():
        if isinstance(value, dict):
            best = sorted(value, key=lambda label: -value[label])[: arguments.top]
            outputs[name] = {"top": [{"label": str(k), "score": float(value[k])} for k in best]}
            rows = [(f"{float(value[label]):.4g}", str(label)) for label in best]
            lines += [name, table(rows, indent=2, right=(0,))]
        elif hasattr(value, "shape"):
            outputs[name] = describe_array(value)
            lines.append(_array_line(name, outputs[name]))
            path = files[name]
            if path is not None:
                save_array(path, value)
                outputs[name]["file"] = str(path)
                lines.append(f"  saved as {path}")
        else:
            outputs[name] = value
            lines.append(f"{name}: {value}")
    document = {
        "package": str(arguments.package),
        "function": predictor.function.name,
        "engine": predictor.engine,
        "outputs": outputs,
    }
    arguments.show(document, lines)


def _array_line(name: str, described: dict[str, Any]) -> str:
    return (
        f"{name}: {described['dtype']} {shape_in_words(described['shape'])}, "
        f"{described['min']:.4g} to {described['max']:.4g}, mean {described['mean']:.4g}"
    )


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
        (one.op_type, one.name, f"{one.largest:.4g}", f"{one.headroom:.4g}x", *map(str, counts))
        for one in operations
        for counts in [(one.overflows, one.subnormal, one.zeroed, one.count)]
    ]
    return table([header, *rows], indent=2, right=(2, 3, 4, 5, 6, 7))
