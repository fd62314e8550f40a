"""What ``mvit-coreml palettize`` and ``quantize`` do: compress a package, validate, put in place.

Of a package that ``convert`` made, the result is the one that ``convert`` makes of the same
checkpoint and plan, byte for byte. A package of another tool is its own reference: it keeps its
interface, labels and metadata, and gets nothing but tables and indices in the place of weights, or
8-bit weights and the rounding of activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy import AccuracyDrop, MeasuredDrop, PackageAccuracyDrop
from mvit_coreml.evaluation.open_targets import target_classes
from mvit_coreml.evaluation.read_metadata import (
    PreparationOptions,
    choose_preparation,
    class_labels,
    is_own,
)
from mvit_coreml.evaluation.targets import PackageReference, PackageTarget
from mvit_coreml.export.atomic_package import package_size, staging_folder
from mvit_coreml.export.metadata import KEY_PREFIX
from mvit_coreml.export.torch_to_mil import IOS_TARGETS
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.mil.program import Operation, Package, head_activation
from mvit_coreml.validation.pytorch_comparison import ParityReport, validate_target
from mvit_coreml.validation.structure_comparison import compare_structure
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import Progress, compress_saved, no_progress
from mvit_coreml.workflows.choose_palettes import (
    Photos,
    with_promise_of_plan,
)
from mvit_coreml.workflows.fit_quantization import quantized_candidates, quantizes
from mvit_coreml.workflows.package_options import PaletteOptions
from mvit_coreml.workflows.publish_package import (
    Candidate,
    check_destination,
    palettized_candidates,
    publish_package,
)
from mvit_coreml.workflows.validate import PICTURES_AFTER_CONVERSION, ValidateOptions, validate

_WEIGHTS_KEY = KEY_PREFIX + "weights_sha256"


@dataclass(frozen=True, kw_only=True)
class CompressedPackage:
    """A package that was given palettes, or 8-bit weights and activations.

    Attributes:
        path: where it is.
        size: sum of the sizes of its files, in bytes.
        original: the package it was made from.
        original_size: likewise, in bytes.
        options: as they were carried out.
        notes: sentences about what was done.
        parity: how it compared with the checkpoint, or else with the original package; ``None`` if
            that was not asked for.
        plan: file with how it was compressed.
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
    preparation: PreparationOptions | None = None,
    labels: Sequence[str] | None = None,
    force: bool = False,
    check: bool = True,
    keep_failed: bool = False,
    progress: Progress = no_progress,
    verbose: bool = False,
) -> CompressedPackage:
    """Palettize the weights of an existing package, and validate the result before it appears.

    Args:
        package: of any tool, that takes one image, with one function and without palettes.
        options: which palettes; a promised drop of accuracy needs ``against`` if this project
            made the package; that of another is measured against the package itself.
        output: the package to write, ending in ``.mlpackage``; its plan lies beside it.
        images: to fit palettes to and to check on; what is checked are some that no palette was
            fitted to. Synthetic pictures by default.
        against: the checkpoint that the package came from, to compare with; by default that is the
            package itself.
        preparation: how photos are brought to the input, for a package that does not say it; they
            are stretched by default, as Core ML does by itself.
        labels: class names in class order, for a package that has none.
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
    if options.bits is None and options.plan is None:
        raise InputError("there is nothing to palettize without bits; give bits or a plan")
    return _compress(
        Path(package),
        options,
        Path(output),
        images=images,
        against=against,
        preparation=preparation,
        labels=labels,
        force=force,
        check=check,
        keep_failed=keep_failed,
        progress=progress,
        verbose=verbose,
    )


def quantize_package(
    package: str | Path,
    output: str | Path,
    options: PaletteOptions | None = None,
    **arguments: Any,
) -> CompressedPackage:
    """Let an existing package compute with 8-bit weights and activations, and validate the result.

    Args:
        package: of any tool, in floating point, for iOS 17 or later, that takes one image and has
            one function.
        output: the package to write, ending in ``.mlpackage``; its plan lies beside it.
        options: with ``quantize``, or with the ``plan`` of an earlier quantization.
        arguments: as for :func:`palettize_package`.

    Raises:
        InputError: a package that cannot be quantized, options that do not fit it, or a
            destination that cannot be used.
        GateError: the result answers otherwise, or does not keep a promise.
        MvitCoremlError: the package is damaged, or the result could not be written.
    """
    options = options or PaletteOptions(bits=None, quantize="w8a8")
    if not quantizes(options):
        raise InputError("there is nothing to quantize; give w8a8, or a plan of a quantization")
    return _compress(Path(package), options, Path(output), **arguments)


def _compress(
    original: Path,
    options: PaletteOptions,
    destination: Path,
    *,
    images: Sequence[Any] | None = None,
    against: Checkpoint | None = None,
    preparation: PreparationOptions | None = None,
    labels: Sequence[str] | None = None,
    force: bool = False,
    check: bool = True,
    keep_failed: bool = False,
    progress: Progress = no_progress,
    verbose: bool = False,
) -> CompressedPackage:
    """Compress a package as options say; see :func:`palettize_package` for the arguments."""
    loaded = _open(original)
    prepared, assumption = choose_preparation(loaded, loaded.function(), preparation)
    _check_target(original, options, loaded.function().opset)
    own = loaded.metadata.user_defined
    # Without a checkpoint, the package itself is what a plan is for.
    source_sha256 = own[_WEIGHTS_KEY] if _WEIGHTS_KEY in own else program_digest(loaded)
    if against is not None and _WEIGHTS_KEY not in own:
        raise InputError(
            f"{original}: does not say which checkpoint it came from, as another tool made it;"
            " leave out --against, and validate the result with mvit-coreml validate"
        )
    if against is not None and against.provenance.sha256 != source_sha256:
        raise InputError(
            f"{original}: was converted from other weights than {against.provenance.name}; name"
            " the checkpoint that it came from"
        )
    if options.dataset is not None and against is None and is_own(loaded):
        raise InputError(
            "a drop of accuracy is measured against the checkpoint; name it (--against)"
        )
    options.check_images(images)
    check_destination(destination, force, options.plan)
    options = with_promise_of_plan(options, images)
    labels = class_labels(loaded, loaded.function()) or labels
    num_labels = None if labels is None else len(labels)
    photos = Photos(preparation=prepared, num_labels=num_labels)
    accuracy: MeasuredDrop | None = None
    if options.dataset is not None and against is not None:
        activation = head_activation(loaded, loaded.function())
        accuracy = AccuracyDrop(against, options.dataset, prepared.color_order, activation)
    elif options.dataset is not None:
        target = PackageTarget(Predictor(original, engine="portable"), prepared, num_labels)
        accuracy = PackageAccuracyDrop(target, target_classes(target, labels), options.dataset)
    with staging_folder(destination) as staging:
        build = partial(compress_saved, original, verbose=verbose)
        if quantizes(options):
            candidates = quantized_candidates(
                original,
                options,
                images,
                build=build,
                source_sha256=source_sha256,
                folder=staging,
                progress=progress,
                photos=photos,
            )
        else:
            candidates = palettized_candidates(
                original,
                options,
                images,
                build=build,
                source_sha256=source_sha256,
                accuracy=accuracy,
                folder=staging,
                progress=progress,
                photos=photos,
            )

        def compare(finished: Path, candidate: Candidate) -> ParityReport:
            if against is None:
                progress("compare")
                return _compare_with_original(
                    finished, loaded, candidate.images, options.promise, photos
                )
            progress("validate")
            validation = ValidateOptions(
                # It is the original's, whose own validation settled it.
                color_order="BGR" if prepared.color_order == "BGR" else "RGB",
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
            original=_name_of(loaded) if against is None else "the checkpoint",
            force=force,
            keep_failed=keep_failed,
        )
    return CompressedPackage(
        path=destination,
        original=original,
        original_size=original_size,
        options=options,
        **vars(published) | {"notes": (*((assumption,) if assumption else ()), *published.notes)},
    )


def _name_of(package: Package) -> str:
    return "the original" if is_own(package) else package.path.name


def _compare_with_original(
    package: Path,
    original: Package,
    images: Sequence[Any] | None,
    promise: Promise | None,
    photos: Photos,
) -> ParityReport:
    """Judge a compressed package by the answers and the parts of the one it was made from."""
    target, reference = (
        PackageTarget(Predictor(path, engine="portable"), photos.preparation, photos.num_labels)
        for path in (package, original.path)
    )
    size = target.image.size
    chosen = synthetic_pictures(PICTURES_AFTER_CONVERSION, size) if images is None else images
    return validate_target(
        target,
        PackageReference(reference),
        chosen,
        synthetic=images is None,
        promise=promise,
        differences=compare_structure(target.package, original),
    )


def _open(path: Path) -> Package:
    """Load a package; refuse one that cannot be compressed."""
    package = load_package(path)
    own = package.metadata.user_defined
    source = "of mvit-coreml convert --bits none" if is_own(package) else "as it was before"
    if any(_is_compressed(operation) for _, operation in package.walk()):
        raise InputError(f"{path}: it is compressed already; give the package {source}")
    if len(package.functions) > 1:
        instead = "give packages of one function each"
        if is_own(package):
            instead = "convert its checkpoint with --bits instead"
        raise InputError(
            f"{path}: has {len(package.functions)} functions, which would no longer share their"
            f" weights; {instead}"
        )
    if is_own(package) and own.get(DIGEST_KEY) != program_digest(package):
        # A digest of the result would hide it.
        raise InputError(
            f"{path}: was changed after it was converted; convert its checkpoint again"
        )
    return package


def _is_compressed(operation: Operation) -> bool:
    return operation.op_type.startswith("constexpr_") or operation.op_type == "quantize"


def _check_target(package: Path, options: PaletteOptions, ios: int) -> None:
    """Refuse what excludes each other, or what packages for an iOS version cannot hold."""
    options.check(max(IOS_TARGETS))
    try:
        options.check(ios)
    except InputError as error:
        raise InputError(f"{package}: {error} (--ios is an option of convert)") from None
