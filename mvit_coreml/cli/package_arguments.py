"""What ``palettize`` and ``quantize`` have in common: an existing package, compressed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import (
    ProgressLines,
    compression_in_words,
    outcome_rows,
    package_as_json,
    table,
)
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.compress_package import CompressedPackage


@dataclass(frozen=True, kw_only=True)
class PackageArguments(
    opt.WritingArguments,
    opt.PreparationArguments,
    opt.CheckpointArguments,
    opt.SummaryArguments,
):
    """Which package is compressed, and what it is compared with.

    Attributes:
        destination: Package to write.
        images: Photos, a folder or one, to fit to and to compare on, each to one of these; by
            default synthetic pictures.
        against: Compare with this checkpoint (hub id, folder or file) instead of with PACKAGE, if
            convert made that.
    """

    package: Path = opt.argument()
    destination: Path = opt.option("-o", "--output", required=True)
    images: Path | None = opt.option()
    against: str | None = opt.option()


def compress(arguments: PackageArguments, compressed: Callable[..., CompressedPackage]) -> None:
    """Compress a package as a command was asked to, and print what came of it.

    Args:
        arguments: of the command.
        compressed: the workflow, which takes what both commands have in common by keyword.

    Raises:
        MvitCoremlError: see the workflow; or options that do not fit the package.
    """
    from mvit_coreml.checkpoints.class_names import read_names
    from mvit_coreml.evaluation.read_metadata import is_own
    from mvit_coreml.export.atomic_package import check_destination
    from mvit_coreml.mil.package_reader import load_package

    check_destination(arguments.destination, arguments.force)
    photos = opt.read_images(arguments.images)
    loading: dict[str, Any] = dict(arguments.loading)
    preparation = names = None
    own = is_own(load_package(arguments.package))
    if own and (arguments.fit is not None or arguments.resize is not None):
        name = "--fit" if arguments.fit is not None else "--resize"
        raise InputError(f"{name}: {arguments.package} says itself how photos are prepared")
    if not own:
        preparation = arguments.preparation(loading.pop("image_processor", None))
        labels = loading.pop("labels", None)
        names = None if labels is None else read_names(labels)
    if arguments.against is None and loading:
        name = next(iter(loading))
        spelled = {"local_files_only": "offline"}.get(name, name).replace("_", "-")
        raise InputError(f"--{spelled} says how a checkpoint is loaded; name it with --against")
    checkpoint = None
    with ProgressLines(silent=arguments.quiet) as progress:
        if arguments.against is not None:
            progress("load")
            checkpoint = arguments.load(arguments.against)
        package = compressed(
            images=photos,
            against=checkpoint,
            preparation=preparation,
            labels=names,
            progress=progress,
            **opt.values_for(opt.WritingArguments, arguments),
        )
    before = f"instead of {package.original_size / 1e6:.2f} MB"
    size = f"{package.size / 1e6:.2f} MB {before}, {compression_in_words(package.options)}"
    original = "the checkpoint"
    if checkpoint is None:
        original = "the original" if own else arguments.package.name
    rows = [("size", size), ("plan", str(package.plan)), *outcome_rows(package, original)]
    arguments.show(package_as_json(package), [str(package.path), table(rows, indent=2)])
