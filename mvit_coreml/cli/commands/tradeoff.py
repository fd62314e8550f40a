"""``mvit-coreml tradeoff``: what packages of different sizes keep of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import ProgressLines, echo_json, table
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.measure_tradeoff import Tradeoff, TradeoffPoint

_EXAMPLES = """\b
Examples:
  mvit-coreml tradeoff ./my-mobilevit --images photos/
  mvit-coreml tradeoff ./my-mobilevit --images photos/ --dataset labelled/ -o curve
  mvit-coreml tradeoff apple/mobilevit-small --images photos/ --bits 6,4 --tune 2 --steps 4
  mvit-coreml tradeoff ./my-mobilevit --steps 0 --no-coremltools --sensitivity
"""
_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.CheckpointArguments, opt.ResultArguments):
    source: str = opt.argument()
    images: Path | None = opt.images_option(
        "Folder of photos to fit palettes to; without --dataset some of them are held out and "
        "judged on. Synthetic pictures by default."
    )
    dataset: Path | None = opt.option(
        "--dataset",
        type=opt.PATH,
        help="Labelled images to judge on, as evaluate takes them; best others than --images.",
    )
    ios: int = opt.ios_option()
    bits: tuple[int, ...] | None = opt.option(
        "--bits",
        type=opt.NumbersParameter("B,B,…", "bits", "8,6,4"),
        help="Bits of the uniform plans. [default: 8,6,4,2; from iOS 18 also 3]",
    )
    steps: int | None = opt.option(
        "--steps",
        type=click.IntRange(min=0),
        help="Number of mixed plans between the sizes of the uniform ones; by default one at each "
        "of those sizes.",
    )
    tune_minutes: float | None = opt.option(
        "--tune",
        type=click.FloatRange(min=0, min_open=True),
        is_flag=False,
        flag_value=3.0,
        metavar="[MINUTES]",
        help="Also tune every plan, each for 3 minutes at most or as many as given.",
    )
    coremltools: bool = opt.option(
        "--coremltools/--no-coremltools",
        default=True,
        show_default=True,
        help="Measure coremltools' own k-means palettes too (needs scikit-learn).",
    )
    sensitivity: bool = opt.option(
        "--sensitivity",
        is_flag=True,
        help="List what each weight's palettes alone do to the answers.",
    )
    destination: Path | None = opt.option(
        "-o",
        "--output",
        type=opt.PATH,
        metavar="FOLDER",
        help="Write the figures (tradeoff.json), the plot, and the plan of every package.",
    )
    plot_formats: tuple[str, ...] = opt.option(
        "--plot-format",
        type=click.Choice(["svg", "png"]),
        multiple=True,
        default=("svg",),
        show_default=True,
        help="Of the plot; give it twice for both.",
    )
    force: bool = opt.option(
        "--force", is_flag=True, help="Replace an existing FOLDER of this command."
    )


@click.command("tradeoff", epilog=_EXAMPLES)
@opt.takes(_Arguments)
def command(arguments: _Arguments) -> None:
    """Measure what packages of different sizes keep of a checkpoint's answers.

    Packages are made with the same bits for every weight and with mixed bits, by k-means alone and
    fitted to photos, and beside them those of coremltools' own palettize_weights. Each is saved,
    and run on photos that no palette was fitted to. Ctrl-C prints what was measured by then;
    while a plan is tuned it ends that tuning.
    """
    from mvit_coreml.workflows.measure_tradeoff import measure_tradeoff
    from mvit_coreml.workflows.package_options import ConvertOptions
    from mvit_coreml.workflows.write_tradeoff import (
        check_folder,
        tradeoff_document,
        write_tradeoff,
    )

    if arguments.destination is not None:
        check_folder(arguments.destination, arguments.force)
    elif arguments.force:
        raise InputError("--force replaces the folder of -o; name it")
    photos = opt.read_images(arguments.images)
    with ProgressLines(silent=arguments.quiet) as progress:
        progress("load")
        tradeoff = measure_tradeoff(
            arguments.load(arguments.source),
            ConvertOptions(ios=arguments.ios),
            photos,
            bits=arguments.bits,
            steps=arguments.steps,
            tune_minutes=arguments.tune_minutes,
            dataset=arguments.dataset,
            coremltools=arguments.coremltools,
            progress=progress,
        )
    if arguments.as_json:
        echo_json(tradeoff_document(tradeoff))
    else:
        click.echo(_summary(tradeoff))
        if arguments.sensitivity:
            click.echo(f"\n{_sensitivity_table(tradeoff)}")
    if arguments.destination is not None and tradeoff.complete:
        suffixes = [f".{name}" for name in dict.fromkeys(arguments.plot_formats)]
        write_tradeoff(
            tradeoff, arguments.destination, force=arguments.force, plot_suffixes=suffixes
        )
    if not tradeoff.complete:
        unwritten = (
            "" if arguments.destination is None else f"; {arguments.destination} not written"
        )
        click.echo(f"interrupted: the rest was not measured{unwritten}", err=True)
        click.get_current_context().exit(_INTERRUPTED)


def _summary(tradeoff: Tradeoff) -> str:
    from mvit_coreml.reports.wording import METRICS, count, interval

    kind = "synthetic picture" if tradeoff.synthetic else "image"
    of = "" if tradeoff.dataset is None else f" of {tradeoff.dataset}"
    lines = [
        f"{tradeoff.source}, iOS {tradeoff.ios}: {len(tradeoff.points)} saved packages on "
        f"{count(tradeoff.images, kind)}{of}; palettes fitted to {tradeoff.fitted_to} others"
    ]
    if tradeoff.metric is not None and tradeoff.reference_accuracy is not None:
        accuracy = interval(tradeoff.reference_accuracy)
        lines.append(f"PyTorch in fp32: {METRICS[tradeoff.metric]} {accuracy}")
    columns = ["size", "bits", "palettes", "SNR"]
    has = {
        name: any(getattr(point, name) is not None for point in tradeoff.points)
        for name in ("agreement", "kl", "accuracy")
    }
    columns += ["agreement"] if has["agreement"] else []
    columns += ["KL"] if has["kl"] else []
    columns += [METRICS[tradeoff.metric]] if tradeoff.metric and has["accuracy"] else []
    columns.append("seconds")
    rows = [columns, *(_row(point, has) for point in tradeoff.points)]
    lines.append(table(rows, right=(0, 3, 4, 5, len(columns) - 1)))
    lines += [f"note: {note}" for note in tradeoff.notes]
    return "\n".join(lines)


def _row(point: TradeoffPoint, has: dict[str, bool]) -> list[str]:
    from mvit_coreml.compression.promise import format_size
    from mvit_coreml.reports.wording import decibels, interval, percent

    bits = "none" if point.bits is None else str(point.bits)
    if point.plan == "mixed":
        bits = f"mixed, {point.average_bits:.1f}"
    palettes = {"kmeans": "k-means", "none": ""}.get(point.palettes, point.palettes)
    row = [format_size(point.size), bits, palettes, decibels(point.snr)]
    row += ["" if point.agreement is None else percent(point.agreement)] * has["agreement"]
    row += ["" if point.kl is None else f"{point.kl:.4f}"] * has["kl"]
    row += ["" if point.accuracy is None else interval(point.accuracy)] * has["accuracy"]
    return [*row, f"{point.seconds:.1f}"]


def _sensitivity_table(tradeoff: Tradeoff) -> str:
    if not tradeoff.sensitivities:
        return "sensitivity: not measured"
    choices = list(
        dict.fromkeys(choice for weight in tradeoff.sensitivities for choice in weight.noise)
    )
    choices.sort(key=lambda choice: (-(choice.bits or 16), choice.group_size))
    rows = [["weight", "elements", *map(str, choices)]]
    for weight in tradeoff.sensitivities:
        noise = (weight.noise.get(choice) for choice in choices)
        cells = ("" if value is None else f"{value:.2g}" for value in noise)
        rows.append([weight.name, f"{weight.elements:,}", *cells])
    return table(rows, right=range(1, len(rows[0])))
