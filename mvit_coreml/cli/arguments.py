"""Options that several commands take: groups of them as typed objects, and kinds of values."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.checkpoints.checkpoint import Checkpoint
    from mvit_coreml.workflows.package_options import PaletteOptions

PATH = click.Path(path_type=Path)
# Where the context of a command keeps what was typed.
TYPED = "mvit_coreml.cli.typed"
# What a package may answer, as in export/output_heads.py, which would load PyTorch.
OUTPUT_KINDS = ("probabilities", "logits", "classes", "features")
# Options whose values are nobody else's business.
_SECRETS = ("--token",)
_HIDDEN = "..."


def option(*names: str, **attributes: Any) -> Any:
    """Declare a field of a command's arguments that is an option.

    Args:
        names: on the command line.
        attributes: what ``click.option`` takes besides.
    """
    return field(metadata={"declare": functools.partial(click.option, *names, **attributes)})


def argument(**attributes: Any) -> Any:
    """Declare a field of a command's arguments that has a place instead of a name."""
    return field(metadata={"declare": functools.partial(click.argument, **attributes)})


def takes(group: type[Any]) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Give a command its arguments as one object.

    Args:
        group: a dataclass whose fields are made by :func:`option` and :func:`argument`. Help lists
            its own before those of its bases, in their order.
    """

    def place(entry: Field[Any]) -> int:
        owners = (entry.name in vars(one).get("__annotations__", ()) for one in group.__mro__)
        return list(owners).index(True)

    ordered = sorted(fields(group), key=place)

    def decorate(command: Callable[[Any], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(group(**values))

        decorated: Any = run
        for entry in reversed(ordered):
            decorated = entry.metadata["declare"](entry.name)(decorated)
        return decorated

    return decorate


@dataclass(frozen=True, kw_only=True)
class JsonArguments:
    """How the result is printed."""

    as_json: bool = option("--json", is_flag=True, help="Print the result as one JSON document.")


@dataclass(frozen=True, kw_only=True)
class SummaryArguments(JsonArguments):
    """How progress and the result are printed."""

    quiet: bool = option("-q", "--quiet", is_flag=True, help="No progress and no summary.")


@dataclass(frozen=True, kw_only=True)
class ResultArguments(JsonArguments):
    """How progress is printed, of a command whose result is always printed."""

    quiet: bool = option("-q", "--quiet", is_flag=True, help="No progress.")


@dataclass(frozen=True, kw_only=True)
class HubArguments:
    """How the hub is used."""

    token: str | None = option("--token", help="Hub token for private checkpoints.")
    cache_dir: Path | None = option("--cache-dir", type=PATH, help="Folder of the hub cache.")
    local_files_only: bool = option(
        "--offline", is_flag=True, help="Never ask the hub, use its cache alone."
    )

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of ``load_checkpoint``, without those left out."""
        return _without_defaults(self, HubArguments)


@dataclass(frozen=True, kw_only=True)
class CheckpointArguments(HubArguments):
    """How a checkpoint is loaded."""

    labels: Path | None = option(
        "--labels",
        type=PATH,
        help="Class names instead of the checkpoint's: a text or JSON file.",
    )
    image_processor: str | None = option(
        "--image-processor",
        help="Preprocessing instead of the checkpoint's: hub id, folder, or "
        "preprocessor_config.json.",
    )
    output_stride: int | None = option(
        "--output-stride", type=click.Choice([8, 16, 32]), help="For files that do not tell."
    )
    revision: str | None = option("--revision", help="Branch, tag or commit of a hub checkpoint.")

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of ``load_checkpoint``, without those left out."""
        return _without_defaults(self, CheckpointArguments)

    def load(self, source: str) -> Checkpoint:
        """Load a checkpoint by its hub id, folder or file."""
        from mvit_coreml.checkpoints.load import load_checkpoint

        return load_checkpoint(source, **self.loading)


def _without_defaults(arguments: Any, group: type[Any]) -> dict[str, Any]:
    values = {entry.name: getattr(arguments, entry.name) for entry in fields(group)}
    return {name: value for name, value in values.items() if value not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class PaletteArguments:
    """How weights are palettized."""

    bits: str | None = option(
        "--bits",
        type=click.Choice(["none", "auto", "8", "6", "4", "3", "2", "1"]),
        help="Palettize the weights to this many bits; auto shares bits out to keep a promise. "
        "[default: 6, or auto with a promise]",
    )
    group_size: int = option(
        "--group-size",
        type=click.IntRange(min=0),
        default=0,
        help="Output channels that share a look-up table (iOS 18); 0 for one table a weight.",
    )
    target_size: str | None = option(
        "--target-size", metavar="SIZE", help="Promise: at most this, such as 1.2MB."
    )
    min_snr: float | None = option(
        "--min-snr", type=float, metavar="DB", help="Promise: at least this SNR."
    )
    min_agreement: float | None = option(
        "--min-agreement",
        type=click.FloatRange(0, 1),
        help="Promise: at least this share of the answers are PyTorch's.",
    )
    max_drop: float | None = option(
        "--max-drop",
        type=click.FloatRange(min=0),
        metavar="POINTS",
        help="Promise: at most this loss of accuracy on --dataset.",
    )
    dataset: Path | None = option(
        "--dataset", type=PATH, help="Labelled images for --max-drop: class folders or a CSV."
    )
    tune_minutes: float | None = option(
        "--tune",
        type=click.FloatRange(min=0, min_open=True),
        is_flag=False,
        flag_value=3.0,
        metavar="[MINUTES]",
        help="Tune the palettes on --images (or synthetic pictures), for 3 minutes at most or as "
        "many as given.",
    )
    plan: Path | None = option(
        "--plan", type=PATH, help="Carry out this palettization plan (plan.toml)."
    )

    def palette_options(self) -> PaletteOptions:
        """Return what they come to.

        Raises:
            InputError: options that exclude each other.
        """
        from mvit_coreml.workflows.package_options import PaletteOptions

        promised = {
            name: value
            for name in ("target_size", "min_snr", "min_agreement", "max_drop")
            if (value := getattr(self, name)) is not None
        }
        if self.plan is not None:
            others = promised or self.dataset or self.tune_minutes or self.group_size
            if self.bits is not None or others:
                raise InputError("--plan says everything about the palettes; leave out the others")
            return PaletteOptions(plan=self.plan)
        bits = self.bits or ("auto" if promised else "6")
        if promised and bits != "auto":
            raise InputError(
                f"--bits {bits} leaves nothing to choose for a promise; use --bits auto"
            )
        if bits == "auto" and not promised:
            raise InputError(
                "--bits auto needs a promise: --target-size, --min-snr, --min-agreement or "
                "--max-drop"
            )
        if (self.max_drop is None) != (self.dataset is None):
            raise InputError("--max-drop and --dataset with labelled images go together")
        promise = None
        if promised:
            from mvit_coreml.compression.promise import Promise, parse_size

            if self.target_size is not None:
                promised["target_size"] = parse_size(self.target_size)
            promise = Promise(**promised)
        return PaletteOptions(
            bits="auto" if bits == "auto" else None if bits == "none" else int(bits),
            group_size=self.group_size,
            promise=promise,
            dataset=self.dataset,
            tune_minutes=self.tune_minutes,
        )


@dataclass(frozen=True, kw_only=True)
class WritingArguments:
    """How a package is judged and put in its place."""

    force: bool = option("--force", is_flag=True, help="Replace an existing package.")
    check: bool = option(
        "--validate/--no-validate",
        default=True,
        show_default=True,
        help="Compare the finished package with what it was made from before it appears.",
    )
    keep_failed: bool = option(
        "--keep-failed", is_flag=True, help="Write the package even if that comparison fails."
    )
    verbose: bool = option("-v", "--verbose", is_flag=True, help="Show what coremltools prints.")


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Where a report of what a command comes to is written."""

    report: Path | None = option(
        "--report",
        type=PATH,
        metavar="FILE",
        help="Write a report: FILE ends in .html, .md or .json. One that is there is replaced.",
    )

    def check_report(self) -> None:
        """Refuse a report that could not be written, before any work is done.

        Raises:
            InputError: another ending, or a folder that does not exist.
        """
        if self.report is not None:
            from mvit_coreml.reports.write_report import check_report_path

            check_report_path(self.report)

    @property
    def report_samples(self) -> int:
        """Number of images that the report shows: none without a report."""
        if self.report is None:
            return 0
        from mvit_coreml.validation.report_samples import REPORT_SAMPLES

        return REPORT_SAMPLES

    def save_report(self, **parts: Any) -> None:
        """Write the report, if one is asked for.

        Args:
            parts: what it is about, see :func:`~mvit_coreml.reports.report.build_report`.

        Raises:
            InputError: it cannot be written.
        """
        if self.report is not None:
            from mvit_coreml.reports.report import build_report
            from mvit_coreml.reports.write_report import write_report

            write_report(build_report(command=typed_command(), **parts), self.report)


def typed_command() -> str:
    """Return the command under way as one could type it, without its secrets."""
    shown: list[str] = []
    for argument in click.get_current_context().meta.get(TYPED, ()):
        name, equals, _ = argument.partition("=")
        if shown and shown[-1] in _SECRETS:
            shown.append(_HIDDEN)
        elif equals and name in _SECRETS:
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(argument)
    return shlex.join(["mvit-coreml", *shown])


class SizeParameter(click.ParamType[tuple[int, int]]):
    """``N`` or ``HxW``."""

    name = "N|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no size; give N or HEIGHTxWIDTH in pixels", param, ctx)
        height = int(match[1])
        return height, int(match[2] or height)


class MapSizeParameter(SizeParameter):
    """``input``, ``logits``, ``N`` or ``HxW``."""

    name = "input|logits|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read the text."""
        return value if value in ("input", "logits") else super().convert(value, param, ctx)


class NumbersParameter(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between.

    Args:
        name: what help texts call it.
        what: the numbers are.
        example: what messages give as one.
    """

    def __init__(self, name: str, what: str, example: str) -> None:
        self.name, self.what, self.example = name, what, example

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of {self.what} such as {self.example}", param, ctx)


class OrderParameter(click.Choice[str]):
    """A channel order, in capitals as the functions take it; ``auto`` is ``None``."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read the text."""
        chosen = super().convert(value, param, ctx)
        return {"auto": None, "bgr": "BGR", "rgb": "RGB"}.get(chosen, chosen)


def color_order_option(text: str, *more: str) -> Any:
    """Declare ``--color-order`` with a help text, and further choices."""
    kinds = OrderParameter(["auto", "bgr", "rgb", *more])
    return option("--color-order", type=kinds, default="auto", show_default=True, help=text)


def engine_option(text: str, *more: str) -> Any:
    """Declare ``--engine`` with a help text, and further choices."""
    kinds = click.Choice(["auto", "coreml", "portable", *more])
    return option("--engine", type=kinds, default="auto", show_default=True, help=text)


def arithmetic_option(text: str) -> Any:
    """Declare ``--arithmetic`` with a help text."""
    kinds = click.Choice(["program", "fp32"])
    return option("--arithmetic", type=kinds, default="program", show_default=True, help=text)


def fit_option(text: str) -> Any:
    """Declare ``--fit`` with a help text."""
    return option("--fit", type=click.Choice(["crop", "stretch", "pad"]), help=text)


def images_option(text: str) -> Any:
    """Declare ``--images`` with a help text; :func:`read_images` takes its value."""
    return option("--images", type=PATH, help=text)


def ios_option() -> Any:
    """Declare ``--ios``."""
    kinds = click.Choice([16, 17, 18, 26])
    return option("--ios", type=kinds, default=17, show_default=True, help="Deployment target.")


def read_images(path: Path | None, limit: int | None = None) -> list[Path] | None:
    """List the photos that ``--images`` names, if it is there.

    Args:
        path: folder or file.
        limit: keep this many, spread evenly.

    Raises:
        InputError: there is none.
    """
    if path is None:
        return None
    from mvit_coreml.preprocessing.image_loading import find_images

    return find_images(path, limit)
