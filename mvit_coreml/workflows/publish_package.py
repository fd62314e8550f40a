"""From a finished package to its place: judge it, write its plan, put both there or neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.compression.plan import PlanValues, Scalar
from mvit_coreml.compression.plan_file import plan_beside, values_path, write_plan
from mvit_coreml.compression.promise import Promise, format_size
from mvit_coreml.compression.quantization.quantization_plan import Quantization
from mvit_coreml.compression.quantization.quantization_plan_file import write_quantization
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.export import atomic_package
from mvit_coreml.export.atomic_package import package_size, publish_with
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.workflows.build_package import Progress
from mvit_coreml.workflows.choose_palettes import Palettes, choose_palettes
from mvit_coreml.workflows.package_options import PaletteOptions
from mvit_coreml.workflows.validate import shortfall

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import MeasuredDrop

# Few photos may leave it undecided however many bits there are: no more packages are made for it.
_MOST_HOPEFUL = 2


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
    place = plan_beside(path)
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
        notes: sentences about how its palettes were chosen, and what it falls short of.
    """

    size: int
    parity: ParityReport | None
    plan: Path | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A finished package that may be put in its place.

    Attributes:
        package: where it lies, in a folder beside its place.
        compression: its palettes, or how it computes in 8 bits; ``None`` for neither.
        images: that it may be judged on; ``None`` for synthetic pictures.
        notes: sentences about how its palettes were chosen.
        remedy: says what would keep a promise that it is found to break.
    """

    package: Path
    compression: Palettes | Quantization | None = None
    images: Sequence[Any] | None = None
    notes: tuple[str, ...] = ()
    remedy: Callable[[ParityReport], str] = lambda report: ""

    @property
    def values(self) -> PlanValues | Quantization | None:
        """What its weights, constants and grids were fitted to be."""
        compression = self.compression
        return compression.values if isinstance(compression, Palettes) else compression


def palettized_candidates(
    package: Path,
    options: PaletteOptions,
    images: Sequence[Any] | None,
    *,
    build: Callable[[Palettes, Path], Path],
    folder: Path,
    progress: Progress,
    **choosing: Any,
) -> Iterator[Candidate]:
    """Yield the package of each palettes that are chosen, made when its turn comes.

    Args:
        package: complete, of this project, without palettes.
        options: with ``bits`` or a ``plan``.
        images: to fit palettes to and to judge on.
        build: makes the package with some palettes in a folder of its own.
        folder: beside the package's place.
        progress: told how it gets on.
        choosing: what else :func:`~mvit_coreml.workflows.choose_palettes.choose_palettes` takes.
    """
    chosen = choose_palettes(
        package, options, images, build=build, folder=folder, progress=progress, **choosing
    )
    for number, one in enumerate(chosen):
        progress("palettize")
        finished = build(one.palettes, folder / f"palettized{number}")
        chosen_for = {name: value for name, value in vars(one).items() if name != "palettes"}
        yield Candidate(package=finished, compression=one.palettes, **chosen_for)


def publish_package(
    candidates: Iterator[Candidate],
    destination: Path,
    options: PaletteOptions,
    *,
    compare: Callable[[Path, Candidate], ParityReport] | None,
    accuracy: MeasuredDrop | None = None,
    original: str = "the checkpoint",
    force: bool = False,
    keep_failed: bool = False,
    rejected: Callable[[Path, ParityReport], None] = lambda package, report: None,
) -> PublishedPackage:
    """Judge finished packages until one keeps its promise, and put it in its place with its plan.

    Args:
        candidates: each with more bits than the one before it; made when its turn comes.
        destination: its place; an older package and its plan are replaced.
        options: with what is promised.
        compare: compares one, by the name that it will have, with what it was made from; ``None``
            skips that.
        accuracy: measures the drop that is promised, if one is.
        original: what to call what it is compared with.
        force: an older package may be replaced.
        keep_failed: put the last in place even if all fall short.
        rejected: called with a package that falls short before it is thrown away.

    Raises:
        GateError: all fall short.
        InputError: a package has come to the place since, and may not be replaced.
        OSError: something could not be written; what was there before is there still.
    """
    # What keeps the promise as far as few photos tell, until one with more bits surely does.
    hopeful: list[tuple[Candidate, Path, ParityReport]] = []
    for candidate in candidates:
        # Reports call it by the name that it will have.
        folder = candidate.package.parent / "finished"
        folder.mkdir()
        package = candidate.package.rename(folder / destination.name)
        report = None if compare is None else compare(package, candidate)
        short = "" if report is None else _shortfall(package, report, options, accuracy, original)
        unlikely = (
            report is not None
            and report.faithful == "undecided"
            and report.promise.noise_factor(report.measured()) < 1
        )
        if report is None or not (short or unlikely):
            break
        if not short:
            hopeful.append((candidate, package, report))
        more_bits_help = report.sound and not _too_large(package, options.promise)
        if not more_bits_help or len(hopeful) == _MOST_HOPEFUL:
            break
    if short and hopeful:
        (candidate, package, report), short = hopeful[-1], ""
    if report is not None and short and not keep_failed:
        rejected(package, report)
        raise GateError(
            f"{destination}: not written, as it {short}{candidate.remedy(report)};"
            " --keep-failed writes it all the same"
        )
    size = package_size(package)
    plan = None
    compression, measured = candidate.compression, _measured(size, report)
    if compression is not None:
        plan = plan_beside(package)
        if isinstance(compression, Palettes):
            write_plan(compression.plan.with_measured(**measured), plan, compression.values)
        else:
            made = compression.plan.with_measured(**measured)
            write_quantization(replace(compression, plan=made), plan)
    place = publish_with_plan(package, destination, plan, options.plan, force=force)
    notes = (*candidate.notes, *((f"it {short}",) if short else ()))
    return PublishedPackage(size=size, parity=report, plan=place, notes=notes)


def publish_with_plan(
    package: Path,
    destination: Path,
    plan: Path | None,
    carried_out: Path | None,
    *,
    force: bool = True,
) -> Path | None:
    """Put a package and its plan in their places, both or neither.

    Args:
        package: finished, on the same file system as ``destination``.
        destination: absent, or an older package; a plan that lies beside it goes.
        plan: file of the package's plan, with its values beside it; ``None`` without palettes.
        carried_out: the plan that the package was made by, if any; if it lies beside the
            destination, it stays as it is.
        force: an older package may be replaced.

    Returns:
        Where the plan is, ``None`` without one.
    """
    place = plan_beside(destination)
    files: dict[Path, Path | None] = {}
    if not _is_same(carried_out, place):
        values = None if plan is None else values_path(plan)
        files = {
            values_path(place): values if values is not None and values.exists() else None,
            place: plan,
        }
    publish_with(files, package, destination, replace=force)
    return None if plan is None else place


def _is_same(plan: Path | None, place: Path) -> bool:
    return plan is not None and place.exists() and place.samefile(plan)


def _shortfall(
    package: Path,
    report: ParityReport,
    options: PaletteOptions,
    accuracy: MeasuredDrop | None,
    original: str,
) -> str:
    """Say why a finished package is not to be put in its place; nothing if it is."""
    if not report.passed:
        return shortfall(report, original)
    promise = options.promise
    if promise is None:
        return ""
    if _too_large(package, promise):
        return f"takes {format_size(package_size(package))}, where {promise} is promised"
    if promise.max_drop is not None and accuracy is not None:
        drop = accuracy.of(package)
        if not drop <= promise.max_drop:
            return f"loses {drop:.2f} points of accuracy, where {promise} is promised"
    return ""


def _too_large(package: Path, promise: Promise | None) -> bool:
    """Whether more bits would not help."""
    target = None if promise is None else promise.target_size
    return target is not None and package_size(package) > target


def _measured(size: int, report: ParityReport | None) -> dict[str, Scalar]:
    """Return what a plan says about its package."""
    measured: dict[str, Scalar] = {"size": size}
    if report is not None:
        measured |= {"snr": round(report.promised_snr, 2), "images": report.images}
        if not report.synthetic:
            measured |= {name: round(value, 4) for name, value in report.agreement.items()}
    return measured
