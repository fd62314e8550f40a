"""``mvit-coreml validate``: a saved package against the checkpoint or package it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import (
    ProgressLines,
    faithful_words,
    parity_as_json,
    sound_words,
    table,
)
from mvit_coreml.errors import GateError, InputError

if TYPE_CHECKING:
    from mvit_coreml.mil.compiler import Arithmetic
    from mvit_coreml.mil.predictor import Engine
    from mvit_coreml.preprocessing.image_processor import ColorOrder
    from mvit_coreml.validation.pytorch_comparison import ParityReport

_LAYERS_SHOWN = 10
_DIFFERENCES_SHOWN = 10


def _read_bounds(ctx: Any, param: Any, values: tuple[str, ...]) -> dict[str, float]:
    bounds = {}
    for value in values:
        name, _, number = value.partition("=")
        try:
            bounds[name] = float(number)
        except ValueError:
            raise click.BadParameter(f"{value!r} is no gate; give NAME=NUMBER") from None
    return bounds


@dataclass(frozen=True, kw_only=True)
class _Arguments(
    opt.PreparationArguments, opt.CheckpointArguments, opt.ReportArguments, opt.JsonArguments
):
    """What the command is asked.

    Attributes:
        against: The checkpoint (hub id, folder or file), or another package.
        images: Folder of photos, or one photo.
        limit: Use this many photos, spread evenly.
        function: Function of a multifunction package.
        engine: What runs the package; auto is Core ML on a Mac, both compares the two.
        arithmetic: fp32 leaves out the rounding of half precision.
        layers: Show where the error enters.
        bounds: Bound instead of the default: decoded_weights, consistency, structure of a sound
            package; snr, top1_agreement, label_agreement, pixel_agreement, miou of a faithful one.
        color_order: Channel order, if it was overridden on purpose.
    """

    package: Path = opt.argument()
    against: str = opt.option(required=True, metavar="SOURCE|PACKAGE")
    images: Path | None = opt.option()
    limit: int | None = opt.limit_option()
    function: str | None = opt.option()
    engine: Engine | Literal["both"] = opt.engine_option("both")
    arithmetic: Arithmetic = opt.arithmetic_option()
    layers: bool = opt.option()
    bounds: dict[str, float] = opt.option("--gate", multiple=True, callback=_read_bounds)
    color_order: ColorOrder | None = opt.color_order_option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Tell whether a saved package is sound, and how many of its checkpoint's answers it keeps.

    Sound: PyTorch with the package's own weights answers the same, and its parts are what the
    checkpoint converts to. Faithful: it keeps 97 % of the answers to --images, or 22 dB (a
    segmenter 32) on synthetic pictures; --gate asks for another bound. Exits with 3
    when a gate fails, not where too few photos leave it undecided. Works on packages of other
    tools too, and on any two packages that should answer alike, as one and what it was compressed
    to; --fit and --resize say how photos are brought to their inputs.

    Examples:
        mvit-coreml validate mobilevit-small.mlpackage --against apple/mobilevit-small
        mvit-coreml validate My.mlpackage --against ./my-mobilevit --images photos/ --limit 200
        mvit-coreml validate My.mlpackage --against ./my-mobilevit --gate snr=25 --layers
        mvit-coreml validate My.mlpackage --against ./my-mobilevit --report parity.html
        mvit-coreml validate Int8.mlpackage --against Other.mlpackage --images photos/ --fit crop
    """
    from mvit_coreml.checkpoints.class_names import read_names
    from mvit_coreml.evaluation.open_targets import is_package
    from mvit_coreml.workflows.validate import (
        ValidateOptions,
        shortfall,
        validate,
        validate_against_package,
    )

    arguments.check_report()
    beside = Path(arguments.against) if is_package(arguments.against) else None
    if beside is None and (arguments.fit or arguments.resize):
        name = "--fit" if arguments.fit else "--resize"
        raise InputError(f"{name} is for two packages; a checkpoint says how photos are prepared")
    checkpoint = None if beside is not None else arguments.load(arguments.against)
    photos = opt.read_images(arguments.images, arguments.limit)
    if photos is None and arguments.limit is not None:
        raise InputError("--limit chooses among photos; name them with --images")
    # A report shows the layers wherever that is possible.
    layers = arguments.layers or (False if arguments.report is None else None)
    options = ValidateOptions(**opt.values_for(ValidateOptions, arguments) | {"layers": layers})
    with ProgressLines() as progress:

        def show(done: int, total: int) -> None:
            progress.show(f"{done} of {total} images", done, total)

        if checkpoint is not None:
            parity = validate(arguments.package, checkpoint, photos, options, progress=show)
        else:
            assert beside is not None
            parity = validate_against_package(
                arguments.package,
                beside,
                photos,
                replace(options, layers=arguments.layers),
                preparation=arguments.preparation(arguments.image_processor),
                labels=None if arguments.labels is None else read_names(arguments.labels),
                progress=show,
            )
    arguments.save_report(package=arguments.package, parity=parity, checkpoint=checkpoint)
    original = "the checkpoint" if beside is None else beside.name
    arguments.show(parity_as_json(parity), _lines(parity, arguments.layers, original))
    if not parity.passed:
        raise GateError(f"{arguments.package}: {shortfall(parity, original)}")


def _lines(report: ParityReport, layers: bool, original: str) -> Iterator[str]:
    kind = "synthetic pictures" if report.synthetic else "photos"
    bits = f", {report.bits}-bit palettes" if report.bits else ""
    outcome = ("PASSED" if report.answers_alike else "UNDECIDED") if report.passed else "FAILED"
    yield f"{outcome}: {report.package} against {report.source}"
    yield f"  {report.images} {kind}, {report.precision}{bits}, engine {report.engine}"
    yield table(list(_rows(report, layers, original)), indent=2)


def _rows(report: ParityReport, layers: bool, original: str) -> Iterator[tuple[str, str]]:
    scores = report.scores
    yield "sound", sound_words(report, original)
    yield "keeps", faithful_words(report, original)
    yield (
        "scores",
        f"SNR {scores.snr:.1f} dB, PSNR {scores.psnr:.1f} dB, largest error "
        f"{scores.max_error:.3g} of {scores.max_reference:.3g}, cosine {scores.cosine:.6f}",
    )
    for name, value in report.outputs.items():
        if name != "classes":
            yield name, f"SNR {value.snr:.1f} dB, largest error {value.max_error:.3g}"
    for name, value in (report.engines or {}).items():
        yield (
            "engines",
            f"{name}: Core ML to portable SNR {value.snr:.1f} dB, largest difference "
            f"{value.max_error:.3g}",
        )
    if report.agreement:
        shares = (f"{name} {value:.4f}" for name, value in report.agreement.items())
        yield "agreement", ", ".join(shares)
    worst = report.worst[0]
    agrees = f", agrees {worst.agrees:.3f}" if report.agreement else ""
    yield "worst", f"{worst.image}: SNR {worst.snr:.1f} dB{agrees}"
    for gate in report.gates:
        outcome = {"kept": "holds", "undecided": "too few photos to tell", "broken": "FAILS"}
        yield "gate", f"{gate}: {outcome[gate.verdict]}"
    for difference in (report.differences or ())[:_DIFFERENCES_SHOWN]:
        yield "differs", f"{difference.aspect} {difference.place}: {difference.detail}"
    shown = sorted(report.layers, key=lambda entry: -entry.drop)[:_LAYERS_SHOWN] if layers else ()
    for layer in shown:
        yield (
            "layer",
            f"{layer.operation} ({layer.op_type}): SNR {layer.snr:.1f} dB, {layer.drop:.1f} dB "
            "below its inputs",
        )
    for note in report.notes:
        yield "note", note
