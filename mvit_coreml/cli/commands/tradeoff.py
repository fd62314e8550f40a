"""``mvit-coreml tradeoff``: what packages of different sizes keep of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import ProgressLines, table
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.measure_tradeoff import Tradeoff, TradeoffPoint

_INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.CheckpointArguments, opt.ResultArguments):
    """What the command is asked.

    Attributes:
        images: Folder of photos to fit palettes to; without --dataset some of them are held out and
            judged on. Synthetic pictures by default.
        dataset: Labelled images to judge on, as evaluate takes them; best others than --images.
        bits: Bits of the uniform plans. [default: 8,6,4,2; from iOS 18 also 3]
        steps: Number of mixed plans between the sizes of the uniform ones; by default one at each
            of those sizes.
        tune_minutes: Also tune every plan, each for 3 minutes at most or as many as given.
        coremltools: Measure coremltools' own k-means palettes too (needs scikit-learn).
        sensitivity: List what each weight's palettes alone do to the answers.
        destination: Write the figures (tradeoff.json), the plot, and the plan of every package.
        plot_formats: Of the plot; give it twice for both.
        force: Replace an existing FOLDER of this command.
    """

    source: str = opt.argument()
    images: Path | None = opt.option()
    dataset: Path | None = opt.option()
    ios: int = opt.ios_option()
    bits: tuple[int, ...] | None = opt.numbers_option("bits", "8,6,4", metavar="B,B,…")
    steps: int | None = opt.option(type=click.IntRange(min=0))
    tune_minutes: float | None = opt.tune_option()
    coremltools: bool = opt.option("--coremltools/--no-coremltools", default=True)
    sensitivity: bool = opt.option()
    destination: Path | None = opt.option("-o", "--output", metavar="FOLDER")
    plot_formats: tuple[str, ...] = opt.option(
        "--plot-format", type=click.Choice(["svg", "png"]), multiple=True, default=("svg",)
    )
    force: bool = opt.option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Measure what packages of different sizes keep of a checkpoint's answers.

    Packages are made with the same bits for every weight and with mixed bits, by k-means alone and
    fitted to photos, and beside them those of coremltools' own palettize_weights. Each is saved,
    and run on photos that no palette was fitted to. Ctrl-C prints what was measured by then;
    while a plan is tuned it ends that tuning.

    Examples:
        mvit-coreml tradeoff ./my-mobilevit --images photos/
        mvit-coreml tradeoff ./my-mobilevit --images photos/ --dataset labelled/ -o curve
        mvit-coreml tradeoff apple/mobilevit-small --images photos/ --bits 6,4 --tune 2 --steps 4
        mvit-coreml tradeoff ./my-mobilevit --steps 0 --no-coremltools --sensitivity
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
    arguments.show(tradeoff_document(tradeoff), _lines(tradeoff, arguments.sensitivity))
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


def _lines(tradeoff: Tradeoff, sensitivity: bool) -> Iterator[str]:
    from mvit_coreml.reports.wording import METRICS, count, interval

    kind = "synthetic picture" if tradeoff.synthetic else "image"
    of = "" if tradeoff.dataset is None else f" of {tradeoff.dataset}"
    yield (
        f"{tradeoff.source}, iOS {tradeoff.ios}: {len(tradeoff.points)} saved packages on "
        f"{count(tradeoff.images, kind)}{of}; palettes fitted to {tradeoff.fitted_to} others"
    )
    if tradeoff.metric is not None and tradeoff.reference_accuracy is not None:
        accuracy = interval(tradeoff.reference_accuracy)
        yield f"PyTorch in fp32: {METRICS[tradeoff.metric]} {accuracy}"
    accuracy = METRICS[tradeoff.metric] if tradeoff.metric else "accuracy"
    header = ("size", "bits", "palettes", "SNR", "agreement", "KL", accuracy, "seconds")
    columns = zip(header, *map(_row, tradeoff.points), strict=True)
    # What was not measured of any package has no column.
    optional = header[4:-1]
    measured = [column for column in columns if column[0] not in optional or any(column[1:])]
    yield table(list(zip(*measured, strict=True)), right=(0, 3, 4, 5, len(measured) - 1))
    yield from (f"note: {note}" for note in tradeoff.notes)
    if sensitivity:
        yield ""
        yield _sensitivity_table(tradeoff)


def _row(point: TradeoffPoint) -> tuple[str, ...]:
    from mvit_coreml.compression.promise import format_size
    from mvit_coreml.reports.wording import decibels, interval, percent

    bits = "none" if point.bits is None else str(point.bits)
    if point.plan == "mixed":
        bits = f"mixed, {point.average_bits:.1f}"
    palettes = {"kmeans": "k-means", "none": ""}.get(point.palettes, point.palettes)
    return (
        format_size(point.size),
        bits,
        palettes,
        decibels(point.snr),
        "" if point.agreement is None else percent(point.agreement),
        "" if point.kl is None else f"{point.kl:.4f}",
        "" if point.accuracy is None else interval(point.accuracy),
        f"{point.seconds:.1f}",
    )


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
