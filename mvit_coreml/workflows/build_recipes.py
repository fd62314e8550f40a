"""What ``mvit-coreml build`` does: recipes to packages, and an index of them.

For every recipe: is its package up to date? -> load -> convert and validate -> judge -> put in
place -> write it into the index. What a failure or an interruption leaves undone, the next build
does.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.checkpoints.sources import HubOptions
from mvit_coreml.compression.promise import Verdict
from mvit_coreml.errors import GateError, InputError, MvitCoremlError
from mvit_coreml.export.atomic_package import SUFFIX, check_destination, staging_folder
from mvit_coreml.export.metadata import versions
from mvit_coreml.files import json_value
from mvit_coreml.reports.report import build_report
from mvit_coreml.reports.write_report import write_report
from mvit_coreml.validation.gates import Gate
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.validation.report_samples import REPORT_SAMPLES
from mvit_coreml.workflows.build_package import Stage
from mvit_coreml.workflows.choose_palettes import fits_palettes, with_promise_of_plan
from mvit_coreml.workflows.convert import ConvertedPackage, convert
from mvit_coreml.workflows.fit_palettes import held_out_images
from mvit_coreml.workflows.package_index import (
    Check,
    IndexEntry,
    PackageIndex,
    RecipeInputs,
    files_sha256,
    recipe_inputs,
    tree_sha256,
)
from mvit_coreml.workflows.publish_package import publish_with_plan
from mvit_coreml.workflows.recipe_file import Recipe, Tolerances
from mvit_coreml.workflows.validate import (
    PICTURES_AFTER_CONVERSION,
    ValidateOptions,
    shortfall,
    validate,
)

Outcome = Literal["built", "up to date", "failed", "error"]
Progress = Callable[[Recipe, Literal["load"] | Stage], None]


@dataclass(frozen=True, kw_only=True)
class RecipeReports:
    """Where the reports of a build go.

    Attributes:
        paths: recipe's name to its report.
        command: what was typed, for whoever wants the same packages.
    """

    paths: dict[str, Path]
    command: str = ""

    def place(self, recipe: Recipe, folder: Path) -> str:
        """Path of a recipe's report relative to the folder of the packages."""
        return Path(os.path.relpath(self.paths[recipe.name], folder)).as_posix()

    def write(
        self,
        recipe: Recipe,
        package: Path,
        parity: ParityReport,
        checkpoint: Checkpoint,
        entry: IndexEntry,
    ) -> None:
        """Write the report of a package, whose verdict is that of its recipe.

        Args:
            recipe: the package's.
            package: where it lies now.
            parity: how it compares with its checkpoint.
            checkpoint: what it was made from.
            entry: of the index: the gates, the recipe's tolerances, and notes.
        """
        judged = {gate.name for gate in parity.gates}
        asked = (_gate(check) for check in entry.checks if check.name not in judged)
        report = build_report(
            package=package,
            parity=replace(parity, gates=(*parity.gates, *asked)),
            checkpoint=checkpoint,
            command=self.command,
            notes=entry.notes,
        )
        write_report(report, self.paths[recipe.name])


@dataclass(frozen=True, kw_only=True)
class RecipeResult:
    """How a recipe fared in this build.

    Attributes:
        outcome: ``built``; ``up to date``, nothing was done; ``failed``, the package falls short
            of a gate or a tolerance; ``error``, there is none.
        entry: as it stands in the index.
        message: what is wrong, ``None`` where nothing is.
    """

    outcome: Outcome
    entry: IndexEntry
    message: str | None = None


def build_recipes(
    recipes: Iterable[Recipe],
    folder: str | Path,
    *,
    force: bool = False,
    keep_going: bool = True,
    keep_failed: bool = False,
    images: Sequence[Path] | None = None,
    reports: RecipeReports | None = None,
    progress: Progress = lambda recipe, stage: None,
    done: Callable[[RecipeResult], None] = lambda result: None,
    verbose: bool = False,
    **hub: Unpack[HubOptions],
) -> list[RecipeResult]:
    """Build the packages of recipes that are not up to date, and list them in ``index.json``.

    A package is up to date if it passed, its files are those that were written, and nothing that it
    depends on has changed: the recipe, the hub's commit or the local files, the photos, and the
    versions of mvit-coreml, coremltools and torch. The index is written after every package, so
    that an interrupted build goes on where it stopped.

    Args:
        recipes: see
            :func:`~mvit_coreml.workflows.recipe_file.find_recipes`; names must differ.
        folder: for the packages and their index; made if it is missing.
        force: build what is up to date as well.
        keep_going: go on with the other recipes after a failure.
        keep_failed: put a package in place even if it falls short.
        images: photos to measure on; synthetic pictures by default.
        reports: where to write a report of every package; one that is up to date but has none is
            measured again.
        progress: called with the recipe and the name of every stage as it begins.
        done: called with every result as soon as it is in the index.
        verbose: let coremltools print.
        hub: see :class:`~mvit_coreml.checkpoints.sources.HubOptions`.

    Returns:
        A result for each recipe, in their order, up to the first failure without ``keep_going``.

    Raises:
        InputError: two recipes have one name, or the folder or its index cannot be used.
        MvitCoremlError: the index cannot be written.
    """
    recipes = list(recipes)
    names = [recipe.name for recipe in recipes]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two recipes are named {twice[0]}; their packages would be one")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder: {error.strerror}") from None
    build = _Build(
        folder=Path(folder),
        force=force,
        keep_failed=keep_failed,
        images=images,
        reports=reports,
        hub=hub,
        progress=progress,
        verbose=verbose,
    )
    results = []
    for recipe in recipes:
        result = build.result(recipe)
        results.append(result)
        done(result)
        if result.message is not None and not keep_going:
            break
    return results


@dataclass(kw_only=True)
class _Build:
    """One build under way."""

    folder: Path
    force: bool
    keep_failed: bool
    images: Sequence[Path] | None
    reports: RecipeReports | None
    hub: HubOptions
    progress: Progress
    verbose: bool
    images_sha256: str | None = field(init=False)
    index: PackageIndex = field(init=False)

    def __post_init__(self) -> None:
        self.images_sha256 = None if self.images is None else files_sha256(self.images)
        self.index = PackageIndex(self.folder)

    def result(self, recipe: Recipe) -> RecipeResult:
        """Bring one package up to date, and the index."""
        before = self.index.entries.get(recipe.name)
        outcome: Outcome
        try:
            inputs = recipe_inputs(recipe, self.images_sha256, **self.hub)
            if before is not None and not self.force and self.is_current(before, inputs):
                entry = self.reported(recipe, replace(before, message=None), inputs)
                if entry != before:
                    self.index.put(entry)
                return RecipeResult(outcome="up to date", entry=entry)
            entry = self.built(recipe, inputs)
            outcome = "built" if entry.passed else "failed"
        except Exception as error:  # whatever goes wrong with one must not stop the others
            outcome = "failed" if isinstance(error, GateError) else "error"
            entry = self.undone(recipe, before, error)
        self.index.put(entry)
        return RecipeResult(outcome=outcome, entry=entry, message=entry.message)

    def is_current(self, entry: IndexEntry, inputs: RecipeInputs) -> bool:
        """Whether a package is what would be built now."""
        package = self.folder / f"{entry.name}{SUFFIX}"
        return (
            entry.passed
            and entry.inputs_sha256 == inputs.sha256
            and entry.path == package.name
            and package.is_dir()
            and entry.package_sha256 == tree_sha256(package)
            and (entry.plan is None or (self.folder / entry.plan).is_file())
        )

    def built(self, recipe: Recipe, inputs: RecipeInputs) -> IndexEntry:
        """Build a package, judge it, and put it in place if it may be there."""
        destination = self.folder / f"{recipe.name}{SUFFIX}"
        check_destination(destination, force=True)
        started = time.perf_counter()
        checkpoint = self.load(recipe, inputs)
        with staging_folder(destination) as staging:
            package = convert(
                checkpoint,
                recipe.options,
                staging / destination.name,
                keep_failed=True,  # its figures belong into the index even then
                images=self.images,
                samples=0 if self.reports is None else REPORT_SAMPLES,
                progress=lambda stage, detail="": self.progress(recipe, stage),
                verbose=self.verbose,
            )
            assert package.parity is not None
            entry = _entry(recipe, package, package.parity, inputs)
            entry = replace(
                entry,
                weights_sha256=checkpoint.provenance.sha256,
                revision=checkpoint.provenance.revision,
                seconds=round(time.perf_counter() - started, 2),
            )
            if self.reports is not None:
                self.reports.write(recipe, package.path, package.parity, checkpoint, entry)
                entry = replace(entry, report=self.reports.place(recipe, self.folder))
            if not entry.passed and not self.keep_failed:
                return replace(entry, path=None, plan=None)
            publish_with_plan(package.path, destination, package.plan, package.options.plan)
        return entry

    def reported(self, recipe: Recipe, entry: IndexEntry, inputs: RecipeInputs) -> IndexEntry:
        """Return the entry of a package that is up to date, with a report if one is asked for."""
        if self.reports is None or entry.path is None:
            return entry
        place = self.reports.place(recipe, self.folder)
        if entry.report == place and (self.folder / place).is_file():
            return entry
        checkpoint = self.load(recipe, inputs)
        self.progress(recipe, "validate")
        package = self.folder / entry.path
        parity = validate_again(package, checkpoint, recipe, self.images)
        self.reports.write(recipe, package, parity, checkpoint, entry)
        return replace(entry, report=place)

    def load(self, recipe: Recipe, inputs: RecipeInputs) -> Checkpoint:
        """Load the checkpoint of a recipe."""
        from mvit_coreml.checkpoints.load import load_checkpoint

        self.progress(recipe, "load")
        return load_checkpoint(
            recipe.source,
            revision=inputs.revision,
            image_processor=recipe.image_processor,
            labels=recipe.labels,
            output_stride=recipe.output_stride,
            **self.hub,
        )

    def undone(self, recipe: Recipe, before: IndexEntry | None, error: Exception) -> IndexEntry:
        """Return an entry without a package, or that of the package which is still there."""
        message = " ".join(str(error).split())
        if not isinstance(error, MvitCoremlError):
            message = f"{type(error).__name__}: {message}"
        if before is not None and before.path is not None:
            return replace(before, message=f"not built anew: {message}")
        source = recipe.source.name if isinstance(recipe.source, Path) else recipe.source
        return IndexEntry(name=recipe.name, source=source, passed=False, message=message)


def _entry(
    recipe: Recipe, package: ConvertedPackage, report: ParityReport, inputs: RecipeInputs
) -> IndexEntry:
    checks = tuple(_checks(recipe.tolerances, report, package.size))
    notes = list(package.notes)
    judged = {check.name for check in checks}
    if recipe.tolerances.min_agreement is not None and "min_agreement" not in judged:
        notes.append("min_agreement was not judged: that takes photos of classes (--images)")
    return IndexEntry(
        name=recipe.name,
        source=package.source,
        passed=report.passed and all(c.passed for c in checks if c.name in _TOLERANCE_WORDS),
        path=package.path.name,
        plan=None if package.plan is None else package.plan.name,
        message=_shortfalls(report, checks),
        license_note=recipe.license_note,
        inputs_sha256=inputs.sha256,
        package_sha256=tree_sha256(package.path),
        versions=versions(),
        task=package.task,
        size=package.size,
        functions=package.functions,
        outputs=tuple(
            {"name": output.name, "dtype": output.dtype, "shape": list(output.shape)}
            for output in package.outputs
        ),
        options=json_value(package.options),
        snr=_finite(report.scores.snr),
        agreement={name: value for name, value in report.agreement.items() if math.isfinite(value)},
        images=report.images,
        synthetic=report.synthetic,
        checks=checks,
        notes=tuple(notes),
    )


def _checks(tolerances: Tolerances, report: ParityReport, size: int) -> Iterable[Check]:
    """Yield the gates of the validation, then the recipe's tolerances."""
    for gate in report.gates:
        yield Check(name=gate.name, value=_finite(gate.value), bound=gate.bound, passed=gate.passed)
    snr = next((gate.value for gate in report.gates if gate.name == "snr"), report.scores.snr)
    agreement = report.equal_classes
    measured = (
        ("min_snr", tolerances.min_snr, snr, 1),
        ("min_agreement", tolerances.min_agreement, None if report.synthetic else agreement, 1),
        ("max_size_mb", tolerances.max_size_mb, size / 1e6, -1),
    )
    for name, bound, value, sign in measured:
        if bound is not None and value is not None:
            holds = sign * value >= sign * bound
            yield Check(name=name, value=_finite(value), bound=bound, passed=holds)


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold."""
    return float(value) if math.isfinite(value) else None


_TOLERANCE_WORDS = {
    "min_snr": "SNR is {value} dB, the recipe asks for at least {bound:g} dB",
    "min_agreement": "agreement is {value}, the recipe asks for at least {bound:g}",
    "max_size_mb": "it takes {value} MB, the recipe allows {bound:g} MB",
}


def _shortfalls(report: ParityReport, checks: Sequence[Check]) -> str | None:
    """Say what a package falls short of; ``None`` if of nothing."""
    parts = [] if report.passed else [shortfall(report)]
    for check in checks:
        if check.name in _TOLERANCE_WORDS and not check.passed:
            value = "not finite" if check.value is None else f"{check.value:.4g}"
            parts.append(_TOLERANCE_WORDS[check.name].format(value=value, bound=check.bound))
    return "; ".join(parts) or None


def validate_again(
    package: Path, checkpoint: Checkpoint, recipe: Recipe, images: Sequence[Any] | None
) -> ParityReport:
    """Compare a package that was built before with its checkpoint, as the build did.

    That is, on images that its palettes were not fitted to.
    """
    if images is not None and fits_palettes(recipe.options, images):
        images = held_out_images(images)
    return validate(
        package,
        checkpoint,
        images,
        ValidateOptions(
            color_order=recipe.options.color_order,
            layers=None,
            pictures=PICTURES_AFTER_CONVERSION,
            promise=with_promise_of_plan(recipe.options, images).promise,
            samples=REPORT_SAMPLES,
        ),
    )


def _gate(check: Check) -> Gate:
    value = float("nan") if check.value is None else check.value
    verdict: Verdict = "kept" if check.passed else "broken"
    return Gate(name=check.name, value=value, bound=check.bound, verdict=verdict)
