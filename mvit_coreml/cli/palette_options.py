"""The options that say how weights are palettized, the same for every command that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.validation.pytorch_comparison import ParityReport
    from mvit_coreml.workflows.options import PaletteOptions

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--bits",
        type=click.Choice(["none", "auto", "8", "6", "4", "3", "2", "1"]),
        help="Palettize the weights to this many bits; auto shares bits out to keep a promise. "
        "[default: 6, or auto with a promise]",
    ),
    click.option(
        "--group-size",
        type=click.IntRange(min=0),
        default=0,
        help="Output channels that share a look-up table (iOS 18); 0 for one table a weight.",
    ),
    click.option("--target-size", metavar="SIZE", help="Promise: at most this, such as 1.2MB."),
    click.option("--min-snr", type=float, metavar="DB", help="Promise: at least this SNR."),
    click.option(
        "--min-agreement",
        type=click.FloatRange(0, 1),
        help="Promise: at least this share of the answers are PyTorch's.",
    ),
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0),
        metavar="POINTS",
        help="Promise: at most this loss of accuracy on --dataset.",
    ),
    click.option(
        "--dataset",
        type=click.Path(path_type=Path),
        help="Labelled images for --max-drop: class folders or a CSV.",
    ),
    click.option(
        "--tune",
        "tune_minutes",
        type=click.FloatRange(min=0, min_open=True),
        is_flag=False,
        flag_value=3.0,
        metavar="[MINUTES]",
        help="Tune the palettes on --images (or synthetic pictures), for 3 minutes at most or as "
        "many as given.",
    ),
    click.option(
        "--plan",
        type=click.Path(path_type=Path),
        help="Carry out this palettization plan (plan.toml).",
    ),
)
_PROMISES = ("target_size", "min_snr", "min_agreement", "max_drop")


def palette_options(command: _Command) -> _Command:
    """Add the options to a command's function."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def palette_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options as fields of ``PaletteOptions``.

    Args:
        given: a command's parameters by name.

    Raises:
        InputError: options that exclude each other.
    """
    from mvit_coreml.compression.promise import Promise, parse_size

    promised = {name: given[name] for name in _PROMISES if given[name] is not None}
    bits = given["bits"]
    if given["plan"] is not None:
        others = promised or given["dataset"] or given["tune_minutes"] or given["group_size"]
        if bits is not None or others:
            raise InputError("--plan says everything about the palettes; leave out the others")
        return {"plan": given["plan"]}
    if promised and bits not in (None, "auto"):
        raise InputError(f"--bits {bits} leaves nothing to choose for a promise; use --bits auto")
    if bits == "auto" and not promised:
        raise InputError(
            "--bits auto needs a promise: --target-size, --min-snr, --min-agreement or --max-drop"
        )
    if ("max_drop" in promised) != (given["dataset"] is not None):
        raise InputError("--max-drop and --dataset with labelled images go together")
    if "target_size" in promised:
        promised["target_size"] = parse_size(promised["target_size"])
    if bits is None:
        bits = "auto" if promised else "6"
    return {
        "bits": int(bits) if bits.isdecimal() else {"none": None, "auto": "auto"}[bits],
        "group_size": given["group_size"],
        "promise": Promise(**promised) if promised else None,
        "dataset": given["dataset"],
        "tune_minutes": given["tune_minutes"],
    }


def palettes_in_words(options: PaletteOptions) -> str:
    """Say in a summary which palettes were made."""
    if options.bits == "auto":
        return "palettes of mixed bits"
    if options.plan is not None:
        return "palettes of a plan"
    if options.bits is not None:
        return f"{options.bits}-bit palettes"
    return "weights not palettized"


def check_in_words(report: ParityReport | None, original: str = "the checkpoint") -> str:
    """Say in a summary how a fresh package compared with what it was made from."""
    if report is None:
        return f"no: it was not compared with {original}"
    verdict = f"answers like {original}" if report.passed else "FAILED"
    kind = "synthetic pictures" if report.synthetic else "photos"
    agreement = "".join(f", {name} {value:.3f}" for name, value in report.agreement.items())
    return f"{verdict}: SNR {report.scores.snr:.1f} dB on {report.images} {kind}{agreement}"


def quality_notes(report: ParityReport | None) -> list[str]:
    """Return what a comparison found to say about the quality of a package's answers."""
    return [note for note in (report.notes if report else ()) if note.startswith("quality: ")]
