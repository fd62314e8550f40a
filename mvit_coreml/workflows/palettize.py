"""What ``mvit-coreml palettize`` does: give an existing package palettes, validate, put in place.

A package made this way is the one that ``convert`` makes of the same checkpoint and palettes, byte
for byte.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.plan import PlanValues
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.evaluation.read_metadata import (
    Preparation,
    class_labels,
    image_input,
    read_preparation,
)
from mvit_coreml.evaluation.targets import Answer, PackageTarget
from mvit_coreml.export.atomic_package import (
    SUFFIX,
    check_destination,
    finish_package,
    package_size,
    publish,
    staging_folder,
)
from mvit_coreml.export.metadata import KEY_PREFIX, PREPROCESSING_KEY
from mvit_coreml.export.saved_program import read_program, save_again
from mvit_coreml.export.torch_to_mil import IOS_TARGETS
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.mil.program import Package
from mvit_coreml.validation.pytorch_comparison import ParityReport, validate_target
from mvit_coreml.validation.structure_comparison import compare_structure, stored_precision
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import Progress, no_progress
from mvit_coreml.workflows.describe import palette_metadata
from mvit_coreml.workflows.finishing import (
    PICTURES_AFTER_CONVERSION,
    failing,
    named,
    too_few,
    write_plan_beside,
)
from mvit_coreml.workflows.fit_palettes import fit_palettes, wants_fitting
from mvit_coreml.workflows.options import PaletteOptions
from mvit_coreml.workflows.palettization import Palettes, load_plan, palettize, uniform_plan
from mvit_coreml.workflows.validate import validate

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import AccuracyDrop

_WEIGHTS_KEY = KEY_PREFIX + "weights_sha256"


@dataclass(frozen=True, kw_only=True)
class PalettizedPackage:
    """A package that was given palettes.

    Attributes:
        path: where it is.
        size: sum of the sizes of its files, in bytes.
        original: the package it was made from.
        original_size: likewise, in bytes.
        options: as they were carried out.
        notes: sentences about what was done.
        parity: how it compared with the checkpoint, or else with the original package; ``None`` if
            that was not asked for.
        plan: file with how its weights were palettized.
    """

    path: Path
    size: int
    original: Path
    original_size: int
    options: PaletteOptions
    notes: tuple[str, ...] = ()
    parity: ParityReport | None = field(default=None, repr=False)
    plan: Path


def palettize_package(
    package: str | Path,
    options: PaletteOptions,
    output: str | Path,
    *,
    images: Sequence[Any] | None = None,
    against: Checkpoint | None = None,
    force: bool = False,
    check: bool = True,
    keep_failed: bool = False,
    progress: Progress = no_progress,
    verbose: bool = False,
) -> PalettizedPackage:
    """Palettize the weights of an existing package, and validate the result before it appears.

    Args:
        package: of this project, with one function and without palettes.
        options: which palettes; a promised drop of accuracy needs ``against``.
        output: the package to write, ending in ``.mlpackage``; its plan lies beside it.
        images: to fit palettes to and to check on; what is checked are some that no palette was
            fitted to. Synthetic pictures by default.
        against: the checkpoint that the package came from, to compare with; by default that is the
            package itself.
        force: replace an existing package.
        check: run the finished package and what it is compared with on the same images before
            putting it in place.
        keep_failed: put a package that fails a gate in place all the same.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.

    Raises:
        InputError: a package that cannot be palettized, options that do not fit it, or a
            destination that cannot be used.
        GateError: the result answers otherwise, or does not keep a promise.
        MvitCoremlError: the package is damaged, or the result could not be written.
    """
    palettizer = _Palettizer(
        Path(package), options, images, against, progress=progress, verbose=verbose
    )
    destination = Path(output)
    check_destination(destination, force)
    report = None
    with staging_folder(destination) as staging:
        palettes, judged, said = palettizer.palettes(staging)
        progress("palettize")
        built = palettizer.build(palettes, staging / "built")
        finished = named(built, destination.name)
        if check:
            report = palettizer.judge(finished, judged)
            failure = failing(
                finished,
                report,
                options.promise,
                palettizer.accuracy,
                "the original" if against is None else "the checkpoint",
            )
            if failure and not keep_failed:
                raise GateError(
                    f"{destination}: not written, as it {failure}; --keep-failed writes it all the"
                    " same"
                )
            said += (f"it {failure}",) if failure and report.passed else ()
        size, original_size = package_size(finished), package_size(palettizer.package)
        publish(finished, destination)
    return PalettizedPackage(
        path=destination,
        size=size,
        original=palettizer.package,
        original_size=original_size,
        options=options,
        notes=said,
        parity=report,
        plan=write_plan_beside(destination, palettes, size, report, options.plan),
    )


class _Palettizer:
    """Makes palettized packages of one package, and judges them.

    Raises:
        InputError: it cannot be palettized so.
    """

    def __init__(
        self,
        package: Path,
        options: PaletteOptions,
        images: Sequence[Any] | None,
        against: Checkpoint | None,
        *,
        progress: Progress,
        verbose: bool,
    ) -> None:
        self.package, self.options, self.images = package, options, images
        self.against, self.progress, self.verbose = against, progress, verbose
        if options.bits is None and options.plan is None:
            raise InputError("there is nothing to palettize without bits; give bits or a plan")
        self.loaded, self.preparation = _open(package)
        self.function = self.loaded.function()
        self.source_sha256 = self.loaded.metadata.user_defined.get(_WEIGHTS_KEY, "")
        _check_target(package, options, self.function.opset)
        if against is not None and against.provenance.sha256 != self.source_sha256:
            raise InputError(
                f"{package}: was converted from other weights than {against.provenance.name}; name"
                " the checkpoint that it came from"
            )
        self.accuracy: AccuracyDrop | None = None
        if options.dataset is not None:
            if against is None:
                raise InputError(
                    "a drop of accuracy is measured against the checkpoint; name it (--against)"
                )
            from mvit_coreml.evaluation.accuracy import AccuracyDrop

            self.accuracy = AccuracyDrop(against, options.dataset, self.preparation.color_order)

    def palettes(self, folder: Path) -> tuple[Palettes, Sequence[Any] | None, tuple[str, ...]]:
        """Find the palettes.

        Args:
            folder: for the packages that are tried.

        Returns:
            The palettes; the images that they may be judged on; what there is to say about them.
        """
        options, images = self.options, self.images
        if options.plan is not None:
            return load_plan(options.plan), images, ()
        if not wants_fitting(options, images):
            assert isinstance(options.bits, int)
            program, _ = read_program(self.package)
            plan = uniform_plan(program, options.bits, options.group_size, self.source_sha256)
            return (plan, PlanValues()), images, too_few(options, images)
        fitted = fit_palettes(
            self.package,
            options,
            images,
            source_sha256=self.source_sha256,
            build=self.build,
            accuracy=self.accuracy,
            folder=folder,
            progress=self.progress,
        )
        return fitted.palettes, fitted.held_out, (str(fitted),)

    def build(self, palettes: Palettes, folder: Path) -> Path:
        """Make a complete package with these palettes in a folder of its own."""
        folder.mkdir(exist_ok=True)
        program, spec = read_program(self.package)
        palettize(program, *palettes, verbose=self.verbose)
        package = folder / f"palettized{SUFFIX}"
        spec = save_again(program, spec, package)
        own = spec.description.metadata.userDefined
        for key, value in palette_metadata(palettes[0]).items():
            own[KEY_PREFIX + key] = value
        finish_package(package, spec)
        own[DIGEST_KEY] = program_digest(load_package(package))
        finish_package(package, spec)
        return package

    def judge(self, package: Path, images: Sequence[Any] | None) -> ParityReport:
        """Compare a finished package with the checkpoint, or else with the original package."""
        if self.against is not None:
            self.progress("validate")
            return validate(
                package,
                self.against,
                images,
                # It is the original's, whose own validation settled it.
                color_order="BGR" if self.preparation.color_order == "BGR" else "RGB",
                pictures=PICTURES_AFTER_CONVERSION,
            )
        self.progress("compare")
        image = image_input(self.loaded, self.function)
        size = (image.height, image.width)
        chosen = synthetic_pictures(PICTURES_AFTER_CONVERSION, size) if images is None else images
        target = PackageTarget(Predictor(package, engine="portable"))
        precision, bits = stored_precision(target.function)
        return validate_target(
            target,
            _Original(PackageTarget(Predictor(self.package, engine="portable"))),
            chosen,
            synthetic=images is None,
            precision=precision,
            bits=bits,
            differences=compare_structure(target.package, self.loaded),
        )


class _Original:
    """The original package in the place of the PyTorch reference."""

    def __init__(self, target: PackageTarget) -> None:
        self.target = target

    @property
    def name(self) -> str:
        return self.target.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        return class_labels(self.target.package, self.target.function)

    def answer(self, images: Iterable[Any]) -> Generator[Answer, None, None]:
        return self.target.answer(images, with_scores=True)


def _open(path: Path) -> tuple[Package, Preparation]:
    """Load a package and how it prepares photos; refuse one that cannot be palettized."""
    package = load_package(path)
    own = package.metadata.user_defined
    if KEY_PREFIX + "output" not in own or PREPROCESSING_KEY not in own:
        raise InputError(
            f"{path}: another tool made it; convert its checkpoint with mvit-coreml convert --bits"
        )
    if any(operation.op_type.startswith("constexpr_") for _, operation in package.walk()):
        raise InputError(
            f"{path}: its weights are compressed already; give the package of"
            " mvit-coreml convert --bits none"
        )
    if len(package.functions) > 1:
        raise InputError(
            f"{path}: has {len(package.functions)} functions, which would no longer share their"
            " weights; convert its checkpoint with --bits instead"
        )
    if own.get(DIGEST_KEY) != program_digest(package):
        # A digest of the result would hide it.
        raise InputError(
            f"{path}: was changed after it was converted; convert its checkpoint again"
        )
    preparation = read_preparation(package, package.function())
    assert preparation is not None
    return package, preparation


def _check_target(package: Path, options: PaletteOptions, ios: int) -> None:
    """Refuse what excludes each other, or what packages for an iOS version cannot hold."""
    options.check(max(IOS_TARGETS))
    try:
        options.check(ios)
    except InputError as error:
        raise InputError(f"{package}: {error} (--ios is an option of convert)") from None
