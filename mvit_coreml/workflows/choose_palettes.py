"""Which palettes a package gets: those of a plan, those of equal bits, or fitted to images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.compression.apply_plan import uniform_choices, uniform_reasons
from mvit_coreml.compression.palettizable_weights import WeightInfo, function_weights
from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, Scalar, make_plan
from mvit_coreml.compression.plan_file import read_plan, read_values
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.workflows.build_package import Progress
from mvit_coreml.workflows.package_options import PaletteOptions

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import AccuracyDrop


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
class ChosenPalettes:
    """Palettes, and what follows from the way they were chosen.

    Attributes:
        palettes: the palettes.
        images: that the package may be judged on, as no palette was fitted to them; ``None`` for
            synthetic pictures.
        notes: sentences about how they were chosen.
    """

    palettes: Palettes
    images: Sequence[Any] | None
    notes: tuple[str, ...] = ()


def choose_palettes(
    package: Path,
    options: PaletteOptions,
    images: Sequence[Any] | None,
    *,
    source_sha256: str,
    build: Callable[[Palettes, Path], Path],
    accuracy: AccuracyDrop | None,
    folder: Path,
    progress: Progress,
) -> ChosenPalettes:
    """Choose the palettes that options ask for.

    Args:
        package: complete, of this project, without palettes.
        options: with ``bits`` or a ``plan``.
        images: to fit palettes to and to judge on.
        source_sha256: of the checkpoint's weights.
        build: makes the package with some palettes in a folder of its own.
        accuracy: measures the drop that is promised, if one is.
        folder: for the packages that are tried.
        progress: told how it gets on.

    Raises:
        InputError: a plan or images that cannot be used.
        GateError: nothing keeps the promise.
    """
    if options.plan is not None:
        return ChosenPalettes(palettes=load_palettes(options.plan), images=images)
    if fits_palettes(options, images):
        from mvit_coreml.workflows.fit_palettes import fit_palettes

        fitted = fit_palettes(
            package,
            options,
            images,
            source_sha256=source_sha256,
            build=build,
            accuracy=accuracy,
            folder=folder,
            progress=progress,
        )
        return ChosenPalettes(
            palettes=fitted.palettes, images=fitted.held_out, notes=(str(fitted),)
        )
    assert isinstance(options.bits, int)
    function = load_package(package).function()
    palettes = uniform_palettes(
        [(info, stored.decode()) for info, stored in function_weights(function)],
        options.bits,
        options.group_size,
        ios=function.opset,
        source_sha256=source_sha256,
    )
    return ChosenPalettes(
        palettes=palettes, images=images, notes=() if images is None else (_too_few(images),)
    )


def fits_palettes(options: PaletteOptions, images: Sequence[Any] | None) -> bool:
    """Whether palettes are to be fitted to images, rather than found by k-means alone."""
    if options.plan is not None or options.bits is None:
        return False
    if options.bits == "auto" or options.tune_minutes is not None:
        return True
    if images is None:
        return False
    from mvit_coreml.compression.calibration.tuner import FEWEST_IMAGES

    return len(images) >= FEWEST_IMAGES


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


def _too_few(images: Sequence[Any]) -> str:
    from mvit_coreml.compression.calibration.tuner import FEWEST_IMAGES

    return (
        f"{len(images)} images are too few to fit palettes to, so they are those of k-means alone; "
        f"give {FEWEST_IMAGES} or more"
    )
