"""What comes between a built package and its place: the name, the judgement, the plan beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.compression.calibration.tuner import FEWEST_IMAGES
from mvit_coreml.compression.plan import Scalar
from mvit_coreml.compression.plan_file import write_plan
from mvit_coreml.compression.promise import Measured, Promise, format_size
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.workflows.options import PaletteOptions
from mvit_coreml.workflows.palettization import Palettes
from mvit_coreml.workflows.validate import gate_message

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import AccuracyDrop

PLAN_SUFFIX = ".plan.toml"
# Synthetic pictures that a fresh package is checked with.
PICTURES_AFTER_CONVERSION = 6
_TOO_FEW = (
    "{} images are too few to fit palettes to, so they are those of k-means alone; "
    f"give {FEWEST_IMAGES} or more"
)


def too_few(options: PaletteOptions, images: Sequence[Any] | None) -> tuple[str, ...]:
    """Say that images were given which palettes were not fitted to, if there are palettes."""
    return () if images is None or options.bits is None else (_TOO_FEW.format(len(images)),)


def named(package: Path, name: str) -> Path:
    """Give a package that is not in its place yet the name that it will have there."""
    folder = package.parent / "finished"
    folder.mkdir()
    return package.rename(folder / name)


def failing(
    package: Path,
    report: ParityReport,
    promise: Promise | None,
    accuracy: AccuracyDrop | None,
    original: str = "the checkpoint",
) -> str:
    """Say why a finished package is not to be put in its place; nothing if it is.

    Args:
        package: the package.
        report: how it compared with what it was made from.
        promise: what it must keep besides the gates.
        accuracy: measures the drop that is promised, if one is.
        original: what to call what it was compared with.
    """
    if not report.passed:
        return f"does not answer like {original}: {gate_message(report)}"
    if promise is None:
        return ""
    measured = Measured(
        size=package_size(package),
        snr=report.scores.snr,
        agreement=report.equal_classes,
        drop=None if accuracy is None else accuracy.of(package),
    )
    short = promise.shortfalls(measured)
    if not promise.fits(measured):
        short.append(format_size(measured.size))
    return f"has {', '.join(short)} where {promise} are promised" if short else ""


def write_plan_beside(
    destination: Path,
    palettes: Palettes,
    size: int,
    report: ParityReport | None,
    given: Path | None,
) -> Path:
    """Write down how a package's weights were palettized, so that it can be done again.

    Args:
        destination: the package.
        palettes: its plan, and the values that this needs.
        size: of the package, in bytes.
        report: how it compared, ``None`` where it was not compared.
        given: the plan that was carried out, ``None`` without; if it is the same file, it stays
            as it is.

    Returns:
        The plan's file.
    """
    path = destination.with_suffix(PLAN_SUFFIX)
    if given is not None and path.exists() and path.samefile(given):
        return path
    plan, values = palettes
    measured: dict[str, Scalar] = {"size": size}
    if report is not None:
        measured |= {"snr": round(report.scores.snr, 2), "images": report.images}
        if not report.synthetic:
            measured |= {name: round(value, 4) for name, value in report.agreement.items()}
    write_plan(plan.with_measured(**measured), path, values)
    return path
