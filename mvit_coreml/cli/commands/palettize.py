"""``mvit-coreml palettize``: an existing package with smaller weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.checkpoint_options import checkpoint_options, loading_arguments
from mvit_coreml.cli.palette_options import (
    check_in_words,
    palette_arguments,
    palette_options,
    palettes_in_words,
    quality_notes,
)
from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.stages import StageProgress
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.palettize import PalettizedPackage

_EXAMPLES = """\b
Examples:
  mvit-coreml convert apple/mobilevit-small --bits none -o Plain.mlpackage
  mvit-coreml palettize Plain.mlpackage -o Six.mlpackage
  mvit-coreml palettize Plain.mlpackage -o Four.mlpackage --bits 4 --images photos/ --tune
  mvit-coreml palettize Plain.mlpackage -o Small.mlpackage --images photos/ --target-size 3MB
  mvit-coreml palettize Plain.mlpackage -o Again.mlpackage --plan Small.plan.toml
  mvit-coreml palettize Plain.mlpackage -o Sure.mlpackage --against apple/mobilevit-small
"""


@click.command("palettize", epilog=_EXAMPLES)
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "destination",
    required=True,
    type=click.Path(path_type=Path),
    help="Package to write.",
)
@click.option("--force", is_flag=True, help="Replace an existing package.")
@palette_options
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Photos, a folder or one, to fit palettes to and to compare on; by default palettes come "
    "of the weights alone, and synthetic pictures are compared on.",
)
@click.option(
    "--against",
    "source",
    help="Compare with this checkpoint (hub id, folder or file) instead of with PACKAGE.",
)
@checkpoint_options
@click.option(
    "--validate/--no-validate",
    default=True,
    show_default=True,
    help="Compare the finished package with what it was made from before it appears.",
)
@click.option(
    "--keep-failed", is_flag=True, help="Write the package even if that comparison fails."
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.option("-v", "--verbose", is_flag=True, help="Show what coremltools prints.")
def command(package: Path, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Palettize the weights of a package that convert made with --bits none.

    The result is the package that convert makes with the same palettes, byte for byte; the
    checkpoint is only needed to compare with, and for --max-drop.
    """
    from mvit_coreml.checkpoints.load import load_checkpoint
    from mvit_coreml.export.atomic_package import check_destination
    from mvit_coreml.preprocessing.image_loading import find_images
    from mvit_coreml.workflows.options import PaletteOptions
    from mvit_coreml.workflows.palettize import palettize_package

    # What the options alone can tell is said before a download.
    options = PaletteOptions(**palette_arguments(given))
    check_destination(given["destination"], given["force"])
    images = None if given["images"] is None else find_images(given["images"])
    loading = loading_arguments(given)
    if given["source"] is None and loading:
        option = {"local_files_only": "offline"}.get(name := next(iter(loading)), name)
        raise InputError(
            f"--{option.replace('_', '-')} says how a checkpoint is loaded; name it with --against"
        )
    with StageProgress(silent=quiet) as progress:
        against = None
        if given["source"] is not None:
            progress("load")
            against = load_checkpoint(given["source"], **loading)
        palettized = palettize_package(
            package,
            options,
            given["destination"],
            images=images,
            against=against,
            force=given["force"],
            check=given["validate"],
            keep_failed=given["keep_failed"],
            progress=progress,
            verbose=verbose,
        )
    if as_json:
        echo_json(_as_json(palettized))
    elif not quiet:
        original = "the original" if against is None else "the checkpoint"
        click.echo(_summary(palettized, original))


def _summary(package: PalettizedPackage, original: str) -> str:
    lines = [
        str(package.path),
        f"  size     {package.size / 1e6:.2f} MB instead of {package.original_size / 1e6:.2f} MB, "
        f"{palettes_in_words(package.options)}",
        f"  plan     {package.plan}",
        f"  checked  {check_in_words(package.parity, original)}",
    ]
    told = (*package.notes, *quality_notes(package.parity))
    return "\n".join(lines + [f"  note     {note}" for note in told])


def _as_json(package: PalettizedPackage) -> dict[str, Any]:
    from mvit_coreml.cli.commands.validate import report_as_json

    data = dataclasses.asdict(dataclasses.replace(package, parity=None))
    return data | {"parity": None if package.parity is None else report_as_json(package.parity)}
