"""``mvit-coreml validate``: a saved package against the checkpoint it came from."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.checkpoint_options import checkpoint_options, loading_arguments
from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.reports import check_report, report_option, samples, save_report
from mvit_coreml.errors import GateError, InputError

if TYPE_CHECKING:
    from mvit_coreml.validation.pytorch_comparison import ParityReport

_EXAMPLES = """\b
Examples:
  mvit-coreml validate mobilevit-small.mlpackage --against apple/mobilevit-small
  mvit-coreml validate My.mlpackage --against ./my-mobilevit --images photos/ --limit 200
  mvit-coreml validate My.mlpackage --against ./my-mobilevit --gate snr=25 --layers
  mvit-coreml validate My.mlpackage --against ./my-mobilevit --report parity.html
"""
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


@click.command("validate", epilog=_EXAMPLES)
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--against", "source", required=True, help="The checkpoint: hub id, folder or file.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of photos, or one photo.")
@click.option("--limit", type=click.IntRange(min=1), help="Use this many photos, spread evenly.")
@click.option("--function", help="Function of a multifunction package.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "coreml", "portable", "both"]),
    default="auto",
    show_default=True,
    help="What runs the package; auto is Core ML on a Mac, both compares the two.",
)
@click.option(
    "--arithmetic",
    type=click.Choice(["program", "fp32"]),
    default="program",
    show_default=True,
    help="fp32 leaves out the rounding of half precision.",
)
@click.option("--layers", is_flag=True, help="Show where the error enters.")
@click.option(
    "--gate",
    "bounds",
    multiple=True,
    callback=_read_bounds,
    help="Bound instead of the default: snr, consistency, top1_agreement, pixel_agreement, "
    "structure.",
)
@click.option(
    "--color-order",
    type=click.Choice(["auto", "bgr", "rgb"]),
    default="auto",
    show_default=True,
    help="Channel order, if it was overridden on purpose.",
)
@checkpoint_options
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(package: Path, source: str, report: Path | None, as_json: bool, **given: Any) -> None:
    """Compare a saved package with the checkpoint it came from.

    The same images go through the package and through PyTorch. Exits with 3 when a gate fails.
    Works on packages of other tools too; without --images synthetic pictures are used.
    """
    from mvit_coreml.checkpoints.load import load_checkpoint
    from mvit_coreml.preprocessing.image_loading import find_images
    from mvit_coreml.workflows.validate import gate_message, validate

    check_report(report)
    checkpoint = load_checkpoint(source, **loading_arguments(given))
    images = None if given["images"] is None else find_images(given["images"], given["limit"])
    if images is None and given["limit"] is not None:
        raise InputError("--limit chooses among photos; name them with --images")
    order = given["color_order"]
    parity = validate(
        package,
        checkpoint,
        images,
        function=given["function"],
        engine=given["engine"],
        arithmetic=given["arithmetic"],
        color_order=None if order == "auto" else order.upper(),
        # A report shows the layers wherever that is possible.
        layers=given["layers"] or (False if report is None else None),
        bounds=given["bounds"],
        samples=samples(report),
        progress=_show_progress,
    )
    save_report(report, package=package, parity=parity, checkpoint=checkpoint)
    if as_json:
        echo_json(report_as_json(parity))
    else:
        click.echo(_summary(parity, layers=given["layers"]))
    if not parity.passed:
        raise GateError(f"{package}: {gate_message(parity)}")


def _show_progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} images", nl=done == total, err=True)


def _summary(report: ParityReport, *, layers: bool) -> str:
    kind = "synthetic pictures" if report.synthetic else "photos"
    bits = f", {report.bits}-bit palettes" if report.bits else ""
    lines = [
        f"{'PASSED' if report.passed else 'FAILED'}: {report.package} against {report.source}",
        f"  {report.images} {kind}, {report.precision}{bits}, engine {report.engine}",
        f"  scores     SNR {report.scores.snr:.1f} dB, PSNR {report.scores.psnr:.1f} dB, "
        f"largest error {report.scores.max_error:.3g} of {report.scores.max_reference:.3g}, "
        f"cosine {report.scores.cosine:.6f}",
    ]
    lines += [
        f"  {name:<10} SNR {value.snr:.1f} dB, largest error {value.max_error:.3g}"
        for name, value in report.outputs.items()
        if name != "classes"
    ]
    lines += [
        f"  engines    {name}: Core ML to portable SNR {value.snr:.1f} dB, largest difference "
        f"{value.max_error:.3g}"
        for name, value in (report.engines or {}).items()
    ]
    if report.agreement:
        shares = ", ".join(f"{name} {value:.4f}" for name, value in report.agreement.items())
        lines.append(f"  agreement  {shares}")
    worst = report.worst[0]
    lines.append(f"  worst      {worst.image}: SNR {worst.snr:.1f} dB, agrees {worst.agrees:.3f}")
    lines += [
        f"  gate       {gate}: {'holds' if gate.passed else 'FAILS'}" for gate in report.gates
    ]
    for difference in (report.differences or ())[:_DIFFERENCES_SHOWN]:
        lines.append(f"  differs    {difference.aspect} {difference.place}: {difference.detail}")
    shown = sorted(report.layers, key=lambda entry: -entry.drop)[: _LAYERS_SHOWN if layers else 0]
    for layer in shown:
        lines.append(
            f"  layer      {layer.operation} ({layer.op_type}): SNR {layer.snr:.1f} dB, "
            f"{layer.drop:.1f} dB below its inputs"
        )
    lines += [f"  note       {note}" for note in report.notes]
    return "\n".join(lines)


def report_as_json(report: ParityReport) -> dict[str, Any]:
    """Return a report for ``--json``, without its images."""
    document = dataclasses.asdict(dataclasses.replace(report, recording=None))
    del document["recording"]
    return {"passed": report.passed, **document}
