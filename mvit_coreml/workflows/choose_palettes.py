"""Which palettes a package gets: those of a plan, those of equal bits, or fitted to images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mvit_coreml.compression.apply_plan import uniform_choices, uniform_reasons
from mvit_coreml.compression.palettizable_weights import WeightInfo, function_weights
from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, Scalar, make_plan
from mvit_coreml.compression.plan_file import read_plan, read_values
from mvit_coreml.compression.promise import Promise
from mvit_coreml.compression.quantization.quantization_plan_file import (
    is_quantization_plan,
    read_quantization_plan,
)
from mvit_coreml.evaluation.read_metadata import Preparation
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.workflows.build_package import Progress
from mvit_coreml.workflows.package_options import PaletteOptions

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import MeasuredDrop
    from mvit_coreml.validation.pytorch_comparison import ParityReport


# Fewer leave too little to calibrate on once some are held out.
FEWEST_IMAGES = 16
# Of a promise, what only photos can tell.
_OF_PHOTOS = ("min_agreement", "min_miou")

_Options = TypeVar("_Options", bound=PaletteOptions)


@dataclass(frozen=True)
class Palettes:
    """How the weights of a package are palettized.

    Attributes:
        plan: what each weight becomes.
        values: the tables and constants that the plan needs besides; those of a plan of k-means
            alone are empty.
    """

    plan: PalettizationPlan
    values: PlanValues


@dataclass(frozen=True, kw_only=True)
class Photos:
    """What a package of another tool does not say about its photos.

    Attributes:
        preparation: brings them to its input.
        num_labels: number of classes that it tells apart, ``None`` if that is not known.
    """

    preparation: Preparation
    num_labels: int | None = None


@dataclass(frozen=True, kw_only=True)
class ChosenPalettes:
    """Palettes, and what follows from the way they were chosen.

    Attributes:
        palettes: the palettes.
        images: that the package may be judged on, as no palette was fitted to them or chosen by
            them; ``None`` for synthetic pictures.
        notes: sentences about how they were chosen.
        remedy: says what would keep a promise that a package with them is found to break.
    """

    palettes: Palettes
    images: Sequence[Any] | None
    notes: tuple[str, ...] = ()
    remedy: Callable[[ParityReport], str] = lambda report: ""


def choose_palettes(
    package: Path,
    options: PaletteOptions,
    images: Sequence[Any] | None,
    *,
    source_sha256: str,
    build: Callable[[Palettes, Path], Path],
    accuracy: MeasuredDrop | None,
    folder: Path,
    progress: Progress,
    photos: Photos | None = None,
) -> Iterator[ChosenPalettes]:
    """Yield the palettes that options ask for, and then, where bits are shared out, ever more bits.

    Args:
        package: complete, without palettes.
        options: with ``bits`` or a ``plan``.
        images: to fit palettes to and to judge on.
        source_sha256: of the checkpoint's weights.
        build: makes the package with some palettes in a folder of its own.
        accuracy: measures the drop that is promised, if one is.
        folder: for the packages that are tried.
        progress: told how it gets on.
        photos: how they are prepared, and what they lead to, where the package does not say it.

    Raises:
        InputError: a plan or images that cannot be used.
        GateError: nothing keeps the promise within its size.
    """
    if options.plan is not None:
        palettes = load_palettes(options.plan)
        yield ChosenPalettes(
            palettes=_asked_anew(palettes, options.promise),
            images=images,
            remedy=lambda report: _remedy_of_plan(palettes.plan, images),
        )
        return
    fitted_to, notes = images, list[str]()
    if images is not None and len(images) < FEWEST_IMAGES and not options.kmeans_only:
        fitted_to = None
        notes.append(
            f"{len(images)} images are too few to fit palettes to, so synthetic pictures were used;"
            f" give {FEWEST_IMAGES} or more"
        )
    if not options.kmeans_only:
        from mvit_coreml.workflows.fit_palettes import fit_palettes

        for fitted in fit_palettes(
            package,
            options,
            fitted_to,
            source_sha256=source_sha256,
            build=build,
            accuracy=accuracy,
            folder=folder,
            progress=progress,
            photos=photos,
        ):
            yield ChosenPalettes(
                palettes=fitted.palettes,
                images=images if fitted_to is None else fitted.held_out,
                notes=(*notes, str(fitted)),
                remedy=fitted.remedy,
            )
        return
    assert isinstance(options.bits, int)
    function = load_package(package).function()
    palettes = uniform_palettes(
        [(info, stored.decode()) for info, stored in function_weights(function)],
        options.bits,
        options.group_size,
        ios=function.opset,
        source_sha256=source_sha256,
    )
    yield ChosenPalettes(
        palettes=_asked_anew(palettes, options.promise),
        images=images,
        remedy=lambda report: "; leave out --no-fit to keep more",
    )


def fits_palettes(options: PaletteOptions, images: Sequence[Any] | None) -> bool:
    """Whether palettes are fitted to these images, so that some of them are held out."""
    if options.plan is not None or options.bits is None or images is None:
        return False
    return not options.kmeans_only and len(images) >= FEWEST_IMAGES


def with_promise_of_plan(options: _Options, images: Sequence[Any] | None) -> _Options:
    """Return options that promise what the plan's package was accepted under, unless they do.

    Shares of the answers are promised of photos alone.

    Args:
        options: with or without a plan.
        images: that the package will be judged on.

    Raises:
        InputError: the plan cannot be read.
    """
    if options.plan is None or options.promise is not None:
        return options
    fields = ("target_size", "min_snr", *(() if images is None else _OF_PHOTOS))
    plan = options.plan
    read = read_quantization_plan if is_quantization_plan(plan) else read_plan
    asked = read(plan).asked
    promised: dict[str, Any] = {name: asked[name] for name in fields if name in asked}
    return replace(options, promise=Promise(**promised)) if promised else options


def _asked_anew(palettes: Palettes, promise: Promise | None) -> Palettes:
    """Let a plan say what its package is accepted under now."""
    if promise is None:
        return palettes
    now = {name: value for name, value in vars(promise).items() if value is not None}
    kept = {k: v for k, v in palettes.plan.asked.items() if k not in vars(promise)}
    return replace(palettes, plan=replace(palettes.plan, asked=kept | now))


def _remedy_of_plan(plan: PalettizationPlan, images: Sequence[Any] | None) -> str:
    if images is None and any(name in plan.asked for name in _OF_PHOTOS):
        return "; give photos (--images) to judge it by what its plan promises"
    return ""


def load_palettes(path: str | Path) -> Palettes:
    """Read a plan with the values that it needs.

    Raises:
        InputError: a file is missing, damaged, or does not go with the other.
    """
    plan = read_plan(path)
    return Palettes(plan, read_values(plan))


def uniform_palettes(
    weights: Sequence[tuple[WeightInfo, Any]],
    bits: int,
    group_size: int = 0,
    *,
    ios: int,
    source_sha256: str,
) -> Palettes:
    """Plan the tables of k-means with the same bits for every weight that is worth it.

    Args:
        weights: of an unpalettized program, with their elements.
        bits: of an index.
        group_size: output channels that share a table where it divides them; 0 for one table.
        ios: deployment target of the program.
        source_sha256: of the checkpoint's weights.
    """
    infos = [info for info, _ in weights]
    plan = make_plan(
        weights,
        grouped_choices(infos, bits, group_size),
        ios=ios,
        source_sha256=source_sha256,
        asked=asked_for(bits, group_size),
        reasons=uniform_reasons(infos),
    )
    return Palettes(plan, PlanValues())


def grouped_choices(
    weights: Sequence[WeightInfo], bits: int, group_size: int = 0
) -> dict[str, Choice]:
    """Choose the same bits for every weight worth it, in groups where they divide its channels."""
    choices: Mapping[str, Choice] = uniform_choices(weights, bits)
    channels = {info.name: info.channels for info in weights if group_size}
    return {
        name: Choice(choice.bits, group_size)
        if group_size and channels[name] % group_size == 0 and channels[name] > group_size
        else choice
        for name, choice in choices.items()
    }


def asked_for(bits: int, group_size: int = 0) -> dict[str, Scalar]:
    """Return what a plan of equal bits was asked for."""
    asked: dict[str, Scalar] = {"bits": bits}
    if group_size:
        asked["group_size"] = group_size
    return asked
