"""Options that several commands take: groups of them as typed objects, and kinds of values."""

from __future__ import annotations

import functools
import inspect
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.printing import echo_json
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.checkpoints.checkpoint import Checkpoint
    from mvit_coreml.evaluation.read_metadata import PreparationOptions
    from mvit_coreml.preprocessing.geometry import Fit
    from mvit_coreml.reports.sections import SectionReport
    from mvit_coreml.workflows.package_options import PaletteOptions, Quantize

PATH = click.Path(path_type=Path)
# Where the context of a command keeps what was typed.
TYPED = "mvit_coreml.cli.typed"
# What a package may answer, as in export/output_heads.py, which would load PyTorch.
OUTPUT_KINDS = ("probabilities", "logits", "values", "classes", "features", "embedding")
# Options whose values are nobody else's business.
_SECRETS = ("--token",)
_HIDDEN = "..."
# What a docstring says of an attribute.
_DESCRIBED = r"^    {}: (.*(?:\n        .*)*)"


def option(*names: str, **attributes: Any) -> Any:
    """Declare a field of a command's arguments that is an option.

    Its help is what the class's docstring says of the field. Without a long name it is called like
    the field. A ``bool`` is a flag, a ``Path`` a path, and a default that says something is shown.

    Args:
        names: on the command line.
        attributes: what ``click.option`` takes besides.
    """
    shown = attributes.get("default") not in (None, 0, ())
    return field(metadata={"names": names, "show_default": shown, **attributes})


def argument(**attributes: Any) -> Any:
    """Declare a field of a command's arguments that has a place instead of a name."""
    return field(metadata=attributes)


def _declare(entry: Field[Any], owner: type[Any]) -> Any:
    attributes = dict(entry.metadata)
    names = attributes.pop("names", None)
    kind = str(entry.type).removeprefix("tuple[").split()[0]
    if kind.startswith("Path"):
        attributes.setdefault("type", PATH)
    if names is None:
        return click.argument(entry.name, **attributes)
    if not any(name.startswith("--") for name in names):
        names = (*names, "--" + entry.name.replace("_", "-"))
    if kind == "bool":
        attributes["is_flag"] = True
    documented = inspect.cleandoc(owner.__doc__ or "")
    described = re.search(_DESCRIBED.format(entry.name), documented, re.MULTILINE)
    if described is not None:
        attributes["help"] = " ".join(described[1].split())
    return click.option(entry.name, *names, **attributes)


def takes(group: type[Any]) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Give a command its arguments as one object.

    Args:
        group: a dataclass whose fields are made by :func:`option` and :func:`argument`. Help lists
            its own before those of its bases, in their order.
    """
    ordered = [
        (entry, owner)
        for owner in group.__mro__
        for entry in fields(group)
        if entry.name in vars(owner).get("__annotations__", ())
    ]

    def decorate(command: Callable[[Any], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(group(**values))

        decorated: Any = run
        for entry, owner in reversed(ordered):
            decorated = _declare(entry, owner)(decorated)
        return decorated

    return decorate


def command(group: type[Any]) -> Callable[[Callable[[Any], None]], click.Command]:
    """Make a click command of a function that takes its arguments as one object.

    The command has its file's name, and what the function's docstring says is its help; the
    docstring's examples come last.

    Args:
        group: see :func:`takes`.
    """

    def decorate(function: Callable[[Any], None]) -> click.Command:
        name = function.__module__.rpartition(".")[2].replace("_", "-")
        text, _, examples = inspect.cleandoc(function.__doc__ or "").partition("\n\nExamples:\n")
        shown = textwrap.indent(textwrap.dedent(examples), "  ")
        made = click.command(name, help=text, epilog=f"\b\nExamples:\n{shown}")
        return made(takes(group)(function))

    return decorate


def values_for(group: type[Any], arguments: Any) -> dict[str, Any]:
    """Return those of a command's arguments that are fields of a dataclass, by their names."""
    names = [entry.name for entry in fields(group)]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


@dataclass(frozen=True, kw_only=True)
class JsonArguments:
    """How the result is printed.

    Attributes:
        as_json: Print the result as one JSON document.
    """

    as_json: bool = option("--json")

    def show(self, document: Any, lines: Iterable[str]) -> None:
        """Print a result.

        Args:
            document: for ``--json``; see :func:`~mvit_coreml.files.json_value`.
            lines: of text for everybody else.
        """
        if self.as_json:
            echo_json(document)
        else:
            for line in lines:
                click.echo(line)


@dataclass(frozen=True, kw_only=True)
class SummaryArguments(JsonArguments):
    """How progress and the result are printed.

    Attributes:
        quiet: No progress and no summary.
    """

    quiet: bool = option("-q")

    def show(self, document: Any, lines: Iterable[str]) -> None:
        """Print a result, unless nobody wants it."""
        if self.as_json or not self.quiet:
            super().show(document, lines)


@dataclass(frozen=True, kw_only=True)
class ResultArguments(JsonArguments):
    """How progress is printed, of a command whose result is always printed.

    Attributes:
        quiet: No progress.
    """

    quiet: bool = option("-q")


@dataclass(frozen=True, kw_only=True)
class HubArguments:
    """How the hub is used.

    Attributes:
        token: Hub token for private checkpoints.
        cache_dir: Folder of the hub cache.
        local_files_only: Never ask the hub, use its cache alone.
    """

    token: str | None = option()
    cache_dir: Path | None = option()
    local_files_only: bool = option("--offline")

    @property
    def loading(self) -> dict[str, Any]:
        """Arguments of ``load_checkpoint``, without those left out."""
        values = values_for(CheckpointArguments, self)
        return {name: value for name, value in values.items() if value not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class CheckpointArguments(HubArguments):
    """How a checkpoint is loaded.

    Attributes:
        labels: Class names instead of the checkpoint's: a text or JSON file.
        image_processor: Preprocessing instead of the checkpoint's: hub id, folder, or
            preprocessor_config.json.
        output_stride: For files that do not tell.
        revision: Branch, tag or commit of a hub checkpoint.
    """

    labels: Path | None = option()
    image_processor: str | None = option()
    output_stride: int | None = option(type=click.Choice([8, 16, 32]))
    revision: str | None = option()

    def load(self, source: str) -> Checkpoint:
        """Load a checkpoint by its hub id, folder or file."""
        from mvit_coreml.checkpoints.load import load_checkpoint

        return load_checkpoint(source, **self.loading)


@dataclass(frozen=True, kw_only=True)
class PreparationArguments:
    """How photos are brought to the input of a package that does not say it.

    Attributes:
        fit: Of packages of other tools: stretch photos to the input, as Core ML does (the default),
            crop the centre, as Vision does (centerCrop), or pad the whole photo with black.
        resize: Of packages of other tools: resize photos to this shortest edge, then crop the
            centre.
    """

    fit: Fit | None = option(type=click.Choice(["crop", "stretch", "pad"]))
    resize: int | None = option(type=click.IntRange(min=1), metavar="EDGE")

    def preparation(self, image_processor: str | None) -> PreparationOptions:
        """Return what they come to.

        Args:
            image_processor: hub id, folder or file of one, if there is one.
        """
        from mvit_coreml.checkpoints.load import load_image_processor
        from mvit_coreml.evaluation.read_metadata import PreparationOptions

        processor = None if image_processor is None else load_image_processor(image_processor)
        return PreparationOptions(fit=self.fit, resize=self.resize, processor=processor)


def tune_option() -> Any:
    """Declare ``--tune``: 3 minutes, or as many as are named."""
    minutes = click.FloatRange(min=0, min_open=True)
    return option("--tune", type=minutes, is_flag=False, flag_value=3.0, metavar="[MINUTES]")


@dataclass(frozen=True, kw_only=True)
class PromiseArguments:
    """What a package has to keep.

    Attributes:
        target_size: Promise: at most this, such as 1.2MB.
        min_snr: Promise: at least this SNR. [default without --images: 22, of maps 32]
        min_agreement: Promise: at least this share of the answers (of a segmenter's pixels) are
            PyTorch's. [default with --images: 0.97]
        max_drop: Promise: at most this loss of accuracy on --dataset.
        dataset: Labelled images for --max-drop: class folders or a CSV.
    """

    target_size: str | None = option(metavar="SIZE")
    min_snr: float | None = option(type=float, metavar="DB")
    min_agreement: float | None = option(type=click.FloatRange(0, 1))
    max_drop: float | None = option(type=click.FloatRange(min=0), metavar="POINTS")
    dataset: Path | None = option()

    @property
    def promised(self) -> dict[str, Any]:
        """What is asked for, by the names of a promise's fields.

        Raises:
            InputError: options that exclude each other, or no size.
        """
        from mvit_coreml.compression.promise import Promise, parse_size

        values = values_for(Promise, self)
        promised = {name: value for name, value in values.items() if value is not None}
        if (self.max_drop is None) != (self.dataset is None):
            raise InputError("--max-drop and --dataset with labelled images go together")
        if self.target_size is not None:
            promised["target_size"] = parse_size(self.target_size)
        return promised


@dataclass(frozen=True, kw_only=True)
class PaletteArguments(PromiseArguments):
    """How weights are palettized.

    Attributes:
        bits: Palettize the weights to this many bits; auto shares bits out to keep a promise.
            [default: auto]
        kmeans_only: Palettes of k-means alone, not fitted to --images or to synthetic pictures.
        group_size: Output channels that share a look-up table (iOS 18); 0 for one table a weight.
        tune_minutes: Tune the palettes on --images (or synthetic pictures), for 3 minutes at most
            or as many as given.
        plan: Carry out this plan (plan.toml), with the promise it was made for.
    """

    bits: str | None = option(type=click.Choice(["none", "auto", "8", "6", "4", "3", "2", "1"]))
    kmeans_only: bool = option("--no-fit")
    group_size: int = option(type=click.IntRange(min=0), default=0)
    tune_minutes: float | None = tune_option()
    plan: Path | None = option()

    def palette_options(self, quantize: Quantize | None = None) -> PaletteOptions:
        """Return what they come to.

        Args:
            quantize: computing in integers, which takes the place of palettes.

        Raises:
            InputError: options that exclude each other.
        """
        from mvit_coreml.compression.promise import Promise
        from mvit_coreml.workflows.package_options import PaletteOptions

        if self.plan is not None:
            asked = (self.target_size, self.min_snr, self.min_agreement, self.max_drop)
            others = any(one is not None for one in (*asked, self.bits, quantize))
            if others or self.dataset or self.tune_minutes or self.group_size:
                raise InputError("--plan says everything about the palettes; leave out the others")
            return PaletteOptions(plan=self.plan)
        bits = self.bits or ("auto" if quantize is None else "none")
        promise = Promise(**self.promised) if self.promised else None
        width = "auto" if bits == "auto" else None if bits == "none" else int(bits)
        return PaletteOptions(
            **values_for(PaletteOptions, self)
            | {"bits": width, "promise": promise, "quantize": quantize}
        )


@dataclass(frozen=True, kw_only=True)
class WritingArguments:
    """How a package is judged and put in its place.

    Attributes:
        force: Replace an existing package.
        check: Compare the finished package with what it was made from before it appears.
        keep_failed: Write the package even if that comparison fails.
        verbose: Show what coremltools prints.
    """

    force: bool = option()
    check: bool = option("--validate/--no-validate", default=True)
    keep_failed: bool = option()
    verbose: bool = option("-v")


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """Where a report of what a command comes to is written.

    Attributes:
        report: Write a report: FILE ends in .html, .md or .json. One that is there is replaced.
    """

    report: Path | None = option(metavar="FILE")

    def check_report(self) -> None:
        """Refuse a report that could not be written, before any work is done.

        Raises:
            InputError: another ending, or a folder that does not exist.
        """
        if self.report is not None:
            from mvit_coreml.reports.write_report import check_report_path

            check_report_path(self.report)

    @property
    def samples(self) -> int:
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


@dataclass(frozen=True, kw_only=True)
class SectionArguments(JsonArguments):
    """How a report of sections is printed and written.

    Attributes:
        report: Write it as well: FILE ends in .html, .md or .json. One that is there is replaced.
    """

    report: Path | None = option(metavar="FILE")

    def check_report(self) -> None:
        """Refuse a report that could not be written, before any work is done.

        Raises:
            InputError: another ending, or a folder that does not exist.
        """
        if self.report is not None:
            from mvit_coreml.reports.write_report import check_report_path

            check_report_path(self.report)

    def finish(self, report: SectionReport) -> None:
        """Print a report, and write it if that is asked for.

        Raises:
            InputError: it cannot be written.
        """
        if self.report is not None:
            from mvit_coreml.reports.sections import write_sections

            write_sections(report, self.report)
        self.show(report.document, report.text_lines())


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


def read_size(text: str) -> tuple[int, int]:
    """Read ``N`` or ``HxW``."""
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no size; give N or HEIGHTxWIDTH in pixels")
    height = int(match[1])
    return height, int(match[2] or height)


def read_map_size(text: str) -> Any:
    """Read ``input``, ``logits``, ``N`` or ``HxW``."""
    return text if text in ("input", "logits") else read_size(text)


def numbers_option(what: str, example: str, **attributes: Any) -> Any:
    """Declare an option that takes whole numbers with commas between.

    Args:
        what: the numbers are.
        example: what messages give as one.
        attributes: see :func:`option`.
    """

    def read(value: str) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in value.split(","))
        except ValueError:
            raise click.BadParameter(f"{value!r} is no list of {what} such as {example}") from None

    return option(type=read, **attributes)


def _read_order(ctx: Any, param: Any, value: str) -> str | None:
    """Return a channel order in capitals, as the functions take it; ``auto`` is ``None``."""
    return {"auto": None, "bgr": "BGR", "rgb": "RGB"}.get(value, value)


def color_order_option(*more: str) -> Any:
    """Declare ``--color-order`` with further choices."""
    kinds = click.Choice(["auto", "bgr", "rgb", *more])
    return option(type=kinds, default="auto", callback=_read_order)


def engine_option(*more: str) -> Any:
    """Declare ``--engine`` with further choices."""
    return option(type=click.Choice(["auto", "coreml", "portable", *more]), default="auto")


def arithmetic_option() -> Any:
    """Declare ``--arithmetic``."""
    return option(type=click.Choice(["program", "fp32"]), default="program")


def fit_option() -> Any:
    """Declare ``--fit``."""
    return option(type=click.Choice(["crop", "stretch", "pad"]))


def limit_option() -> Any:
    """Declare ``--limit``."""
    return option(type=click.IntRange(min=1))


def ios_option() -> Any:
    """Declare ``--ios``."""
    kinds = click.Choice([16, 17, 18, 26])
    return option(type=kinds, default=17, help="Deployment target.")


def folder_option(default: str) -> Any:
    """Declare ``--output`` as a folder that is made if it is missing."""
    kind = click.Path(path_type=Path, file_okay=False)
    return option("-o", "--output", type=kind, default=Path(default))


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
