"""``mvit-coreml palettize``: an existing package with smaller weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import (
    ProgressLines,
    outcome_rows,
    package_as_json,
    palettes_in_words,
    table,
)
from mvit_coreml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class _Arguments(
    opt.WritingArguments,
    opt.PaletteArguments,
    opt.PreparationArguments,
    opt.CheckpointArguments,
    opt.SummaryArguments,
):
    """What the command is asked.

    Attributes:
        destination: Package to write.
        images: Photos, a folder or one, to fit palettes to and to compare on, each to one of these;
            by default synthetic pictures.
        against: Compare with this checkpoint (hub id, folder or file) instead of with PACKAGE, if
            convert made that.
    """

    package: Path = opt.argument()
    destination: Path = opt.option("-o", "--output", required=True)
    images: Path | None = opt.option()
    against: str | None = opt.option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Palettize the weights of any ML Program that takes an image.

    It may come from any tool: palettes are fitted to the package itself, and the result is held
    against it; interface, labels and metadata stay as they are. Of a package that convert made with
    --bits none it is the package that convert makes with the same palettes, byte for byte; the
    checkpoint is only needed to compare with, and for --max-drop.

    Examples:
        mvit-coreml palettize EfficientNet.mlpackage -o Small.mlpackage --images photos/ --fit crop
        mvit-coreml palettize Any.mlpackage -o Four.mlpackage --images photos/ --bits 4
        mvit-coreml convert apple/mobilevit-small --bits none -o Plain.mlpackage
        mvit-coreml palettize Plain.mlpackage -o Six.mlpackage
        mvit-coreml palettize Plain.mlpackage -o Four.mlpackage --bits 4 --images photos/ --tune
        mvit-coreml palettize Plain.mlpackage -o Small.mlpackage --images photos/ --target-size 3MB
        mvit-coreml palettize Plain.mlpackage -o Again.mlpackage --plan Small.plan.toml
        mvit-coreml palettize Plain.mlpackage -o Sure.mlpackage --against apple/mobilevit-small
    """
    from mvit_coreml.checkpoints.class_names import read_names
    from mvit_coreml.evaluation.read_metadata import is_own
    from mvit_coreml.export.atomic_package import check_destination
    from mvit_coreml.mil.package_reader import load_package
    from mvit_coreml.workflows.palettize import palettize_package

    # What the options alone can tell is said before a download.
    options = arguments.palette_options()
    check_destination(arguments.destination, arguments.force)
    photos = opt.read_images(arguments.images)
    loading = dict(arguments.loading)
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
        palettized = palettize_package(
            arguments.package,
            options,
            arguments.destination,
            images=photos,
            against=checkpoint,
            preparation=preparation,
            labels=names,
            progress=progress,
            **opt.values_for(opt.WritingArguments, arguments),
        )
    before = f"instead of {palettized.original_size / 1e6:.2f} MB"
    size = f"{palettized.size / 1e6:.2f} MB {before}, {palettes_in_words(palettized.options)}"
    original = "the checkpoint"
    if checkpoint is None:
        original = "the original" if own else arguments.package.name
    rows = [("size", size), ("plan", str(palettized.plan)), *outcome_rows(palettized, original)]
    arguments.show(package_as_json(palettized), [str(palettized.path), table(rows, indent=2)])
