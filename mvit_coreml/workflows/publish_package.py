"""From a finished package to its place: judge it, write its plan, put both there or neither."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvit_coreml.compression.plan import Scalar
from mvit_coreml.compression.plan_file import values_path, write_plan
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.export import atomic_package
from mvit_coreml.export.atomic_package import package_size, publish_with
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.workflows.choose_palettes import Palettes
from mvit_coreml.workflows.package_options import PaletteOptions
from mvit_coreml.workflows.validate import gate_message

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import AccuracyDrop

PLAN_SUFFIX = ".plan.toml"


def check_destination(path: Path, force: bool, plan: Path | None = None) -> None:
    """Refuse a destination whose package or plan cannot be written, before any work is done.

    Args:
        path: of the package.
        force: what is there may be replaced.
        plan: that is carried out; if it lies beside the package, it stays as it is.

    Raises:
        InputError: naming what is in the way.
    """
    atomic_package.check_destination(path, force)
    place = path.with_suffix(PLAN_SUFFIX)
    if force or _is_same(plan, place):
        return
    for file in (place, values_path(place)):
        if file.exists():
            raise InputError(
                f"{file}: exists already, and is where the package's plan belongs; use --force to "
                "replace it"
            )


@dataclass(frozen=True, kw_only=True)
class PublishedPackage:
    """What came of a package that is in its place.

    Attributes:
        size: sum of the sizes of its files, in bytes.
        parity: how it compared, ``None`` if that was not asked for.
        plan: file with how its weights were palettized, ``None`` if they were not.
        notes: sentences about what it falls short of.
    """

    size: int
    parity: ParityReport | None
    plan: Path | None
    notes: tuple[str, ...]


def publish_package(
    package: Path,
    destination: Path,
    options: PaletteOptions,
    palettes: Palettes | None,
    *,
    compare: Callable[[Path], ParityReport] | None,
    accuracy: AccuracyDrop | None = None,
    original: str = "the checkpoint",
    keep_failed: bool = False,
    rejected: Callable[[Path, ParityReport], None] = lambda package, report: None,
) -> PublishedPackage:
    """Judge a finished package, and put it in its place with its plan beside it.

    Args:
        package: in a folder beside its place.
        destination: its place; an older package and its plan are replaced.
        options: with what is promised.
        palettes: that it has, if any.
        compare: compares it with what it was made from; ``None`` skips that.
        accuracy: measures the drop that is promised, if one is.
        original: what to call what it is compared with.
        keep_failed: put it in place even if it falls short.
        rejected: called with a package that falls short before it is thrown away.

    Raises:
        GateError: it falls short.
        OSError: something could not be written; what was there before is there still.
    """
    # Reports call it by the name that it will have.
    folder = package.parent / "finished"
    folder.mkdir()
    package = package.rename(folder / destination.name)
    report: ParityReport | None = None
    notes: tuple[str, ...] = ()
    if compare is not None:
        report = compare(package)
        shortfall = _shortfall(package, report, options, accuracy, original)
        if shortfall and not keep_failed:
            rejected(package, report)
            raise GateError(
                f"{destination}: not written, as it {shortfall}; --keep-failed writes it all the"
                " same"
            )
        if shortfall and report.passed:
            notes = (f"it {shortfall}",)
    size = package_size(package)
    plan = None
    if palettes is not None:
        plan = package.with_suffix(PLAN_SUFFIX)
        measured = _measured(size, report)
        write_plan(palettes.plan.with_measured(**measured), plan, palettes.values)
    place = publish_with_plan(package, destination, plan, options.plan)
    return PublishedPackage(size=size, parity=report, plan=place, notes=notes)


def publish_with_plan(
    package: Path, destination: Path, plan: Path | None, carried_out: Path | None
) -> Path | None:
    """Put a package and its plan in their places, both or neither.

    Args:
        package: finished, on the same file system as ``destination``.
        destination: absent, or an older package; a plan that lies beside it goes.
        plan: file of the package's plan, with its values beside it; ``None`` without palettes.
        carried_out: the plan that the package was made by, if any; if it lies beside the
            destination, it stays as it is.

    Returns:
        Where the plan is, ``None`` without one.
    """
    place = destination.with_suffix(PLAN_SUFFIX)
    files: dict[Path, Path | None] = {}
    if not _is_same(carried_out, place):
        values = None if plan is None else values_path(plan)
        files = {
            values_path(place): values if values is not None and values.exists() else None,
            place: plan,
        }
    publish_with(files, package, destination)
    return None if plan is None else place


def _is_same(plan: Path | None, place: Path) -> bool:
    return plan is not None and place.exists() and place.samefile(plan)


def _shortfall(
    package: Path,
    report: ParityReport,
    options: PaletteOptions,
    accuracy: AccuracyDrop | None,
    original: str,
) -> str:
    """Say why a finished package is not to be put in its place; nothing if it is."""
    if not report.passed:
        return f"does not answer like {original}: {gate_message(report)}"
    promise = options.promise
    if promise is None:
        return ""
    from mvit_coreml.compression.promise import Measured, format_size

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


def _measured(size: int, report: ParityReport | None) -> dict[str, Scalar]:
    """Return what a plan says about its package."""
    measured: dict[str, Scalar] = {"size": size}
    if report is not None:
        measured |= {"snr": round(report.scores.snr, 2), "images": report.images}
        if not report.synthetic:
            measured |= {name: round(value, 4) for name, value in report.agreement.items()}
    return measured
