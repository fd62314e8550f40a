"""What ``mvit-coreml palettize`` does: give an existing package palettes, validate, put in place.

A package made this way is the one that ``convert`` makes of the same checkpoint and palettes, byte
for byte.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy import AccuracyDrop
from mvit_coreml.evaluation.read_metadata import Preparation, class_labels, read_preparation
from mvit_coreml.evaluation.targets import Answer, PackageTarget
from mvit_coreml.export.atomic_package import package_size, staging_folder
from mvit_coreml.export.metadata import KEY_PREFIX, PREPROCESSING_KEY
from mvit_coreml.export.torch_to_mil import IOS_TARGETS
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.mil.program import Package
from mvit_coreml.validation.pytorch_comparison import ParityReport, validate_target
from mvit_coreml.validation.structure_comparison import compare_structure, stored_precision
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import Progress, no_progress, palettize_saved
from mvit_coreml.workflows.choose_palettes import choose_palettes, with_promise_of_plan
from mvit_coreml.workflows.package_options import PaletteOptions
from mvit_coreml.workflows.publish_package import (
    Candidate,
    check_destination,
    palettized_candidates,
    publish_package,
)
from mvit_coreml.workflows.validate import (
    PICTURES_AFTER_CONVERSION,
    ValidateOptions,
    validate,
)

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
    original = Path(package)
    if options.bits is None and options.plan is None:
        raise InputError("there is nothing to palettize without bits; give bits or a plan")
    loaded, preparation = _open(original)
    _check_target(original, options, loaded.function().opset)
    source_sha256 = loaded.metadata.user_defined.get(_WEIGHTS_KEY, "")
    if against is not None and against.provenance.sha256 != source_sha256:
        raise InputError(
            f"{original}: was converted from other weights than {against.provenance.name}; name"
            " the checkpoint that it came from"
        )
    accuracy = None
    if options.dataset is not None:
        if against is None:
            raise InputError(
                "a drop of accuracy is measured against the checkpoint; name it (--against)"
            )
        accuracy = AccuracyDrop(against, options.dataset, preparation.color_order)
    destination = Path(output)
    options.check_images(images)
    check_destination(destination, force, options.plan)
    options = with_promise_of_plan(options, images)
    with staging_folder(destination) as staging:
        chosen = choose_palettes(
            original,
            options,
            images,
            source_sha256=source_sha256,
            build=lambda palettes, folder: palettize_saved(original, palettes, folder),
            accuracy=accuracy,
            folder=staging,
            progress=progress,
        )
        candidates = palettized_candidates(
            chosen,
            lambda palettes, folder: palettize_saved(original, palettes, folder, verbose=verbose),
            staging,
            progress,
        )

        def compare(finished: Path, candidate: Candidate) -> ParityReport:
            if against is None:
                progress("compare")
                return _compare_with_original(finished, loaded, candidate.images, options.promise)
            progress("validate")
            validation = ValidateOptions(
                # It is the original's, whose own validation settled it.
                color_order="BGR" if preparation.color_order == "BGR" else "RGB",
                pictures=PICTURES_AFTER_CONVERSION,
                promise=options.promise,
            )
            return validate(
                finished, against, candidate.images, validation, values=candidate.values
            )

        original_size = package_size(original)
        published = publish_package(
            candidates,
            destination,
            options,
            compare=compare if check else None,
            accuracy=accuracy,
            original="the original" if against is None else "the checkpoint",
            keep_failed=keep_failed,
        )
    assert published.plan is not None
    return PalettizedPackage(
        path=destination,
        size=published.size,
        original=original,
        original_size=original_size,
        options=options,
        notes=published.notes,
        parity=published.parity,
        plan=published.plan,
    )


def _compare_with_original(
    package: Path,
    original: Package,
    images: Sequence[Any] | None,
    promise: Promise | None,
) -> ParityReport:
    """Judge a palettized package by the answers and the parts of the one it was made from."""
    target = PackageTarget(Predictor(package, engine="portable"))
    size = (target.image.height, target.image.width)
    chosen = synthetic_pictures(PICTURES_AFTER_CONVERSION, size) if images is None else images
    precision, bits = stored_precision(target.function)
    return validate_target(
        target,
        _Original(PackageTarget(Predictor(original.path, engine="portable"))),
        chosen,
        synthetic=images is None,
        precision=precision,
        bits=bits,
        promise=promise,
        differences=compare_structure(target.package, original),
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
