"""``mvit-coreml convert``: a checkpoint to an ML Program package."""

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
from mvit_coreml.cli.parameters import MapSize, Numbers, Size, ios_option
from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.reports import check_report, report_option, samples, save_report
from mvit_coreml.cli.stages import StageProgress

if TYPE_CHECKING:
    from mvit_coreml.workflows.convert import ConvertedPackage

_EXAMPLES = """\b
Examples:
  mvit-coreml convert apple/mobilevit-small
  mvit-coreml convert ./my-finetuned-mobilevit -o Classifier.mlpackage --bits 8
  mvit-coreml convert ./my-finetuned-mobilevit --images photos/ --report mobilevit.html
  mvit-coreml convert apple/mobilevit-small --bits 4 --images photos/ --tune
  mvit-coreml convert apple/mobilevit-small --images photos/ --min-agreement 0.98
  mvit-coreml convert apple/mobilevit-small --images photos/ --target-size 3MB
  mvit-coreml convert google/deeplabv3_mobilenet_v2_1.0_513 --fit stretch --bits none
  mvit-coreml convert apple/mobilevit-small --ios 18 --image-size 256 --image-size 320
  mvit-coreml convert apple/mobilevit-small --output features --layers 2,4
"""


@click.command("convert", epilog=_EXAMPLES)
@click.argument("source")
@click.option(
    "-o",
    "--output-path",
    "destination",
    type=click.Path(path_type=Path),
    help="Package to write; by default the checkpoint's name in this folder.",
)
@click.option("--force", is_flag=True, help="Replace an existing package.")
@ios_option
@palette_options
@click.option(
    "--precision",
    type=click.Choice(["fp16", "mixed", "fp32"]),
    default="fp16",
    show_default=True,
    help="Compute precision; mixed is fp16 but for what leaves its safe range on --images.",
)
@click.option(
    "--output",
    "kind",
    type=click.Choice(["probabilities", "logits", "classes", "features"]),
    help="What the package answers; by default probabilities of a classifier, classes "
    "of a segmenter, features of a backbone.",
)
@click.option(
    "--map-size",
    type=MapSize(),
    help="Size of a segmenter's maps; by default the input's, for logits their own.",
)
@click.option(
    "--layers",
    type=Numbers("I,J,…", "whole numbers", "2,4"),
    default=(),
    help="Hidden states to add to the features, counted from 0.",
)
@click.option(
    "--image-size",
    "image_sizes",
    type=Size(),
    multiple=True,
    help="Input size instead of the checkpoint's; give it several times for one package "
    "with a function for each (iOS 18).",
)
@click.option(
    "--fit",
    type=click.Choice(["crop", "stretch", "pad"]),
    help="How photos are brought to the input; by default pad for segmenters, else crop.",
)
@click.option(
    "--color-order",
    type=click.Choice(["auto", "bgr", "rgb"]),
    default="auto",
    show_default=True,
    help="Channel order the weights expect.",
)
@checkpoint_options
@click.option("--author", help="Author in the package's metadata.")
@click.option("--license", "license_", help="Licence in the package's metadata.")
@click.option("--description", help="Description in the package's metadata.")
@click.option(
    "--package-version", default="1.0", show_default=True, help="Version in the package's metadata."
)
@click.option(
    "--validate/--no-validate",
    default=True,
    show_default=True,
    help="Compare the finished package with the checkpoint before it appears.",
)
@click.option(
    "--keep-failed", is_flag=True, help="Write the package even if that comparison fails."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Photos, a folder or one, to fit palettes to and to measure on; by default palettes come "
    "of the weights alone, and synthetic pictures are measured on.",
)
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print the summary as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
@click.option("-v", "--verbose", is_flag=True, help="Show what coremltools prints.")
def command(source: str, as_json: bool, quiet: bool, verbose: bool, **given: Any) -> None:
    """Convert a checkpoint to a Core ML package.

    SOURCE is a hub id, a folder or a weight file of Hugging Face transformers, timm or cvnets. The
    package takes an image and has the channel order and the scaling built in.
    """
    from mvit_coreml.checkpoints.load import load_checkpoint
    from mvit_coreml.export.atomic_package import check_destination
    from mvit_coreml.preprocessing.image_loading import find_images
    from mvit_coreml.workflows.convert import convert
    from mvit_coreml.workflows.options import ConvertOptions

    order = None if given["color_order"] == "auto" else given["color_order"].upper()
    # What the options alone can tell is said before a download.
    options = ConvertOptions(
        ios=int(given["ios"]),
        precision=given["precision"],
        **palette_arguments(given),
        output=given["kind"],
        map_size=given["map_size"],
        layers=given["layers"],
        image_sizes=given["image_sizes"],
        fit=given["fit"],
        color_order=order,
        author=given["author"],
        license=given["license_"],
        description=given["description"],
        version=given["package_version"],
    )
    if given["destination"] is not None:
        check_destination(given["destination"], given["force"])
    report: Path | None = given["report"]
    check_report(report)
    images = None
    if given["images"] is not None:
        images = find_images(given["images"])
    with StageProgress(silent=quiet) as progress:
        progress("load")
        checkpoint = load_checkpoint(source, **loading_arguments(given))
        package = convert(
            checkpoint,
            options,
            given["destination"],
            force=given["force"],
            check=given["validate"],
            keep_failed=given["keep_failed"],
            images=images,
            samples=samples(report),
            rejected=lambda path, parity: save_report(
                report, package=path, parity=parity, checkpoint=checkpoint
            ),
            progress=progress,
            verbose=verbose,
        )
    save_report(
        report,
        package=package.path,
        parity=package.parity,
        checkpoint=checkpoint,
        notes=package.notes,
    )
    if as_json:
        echo_json(_as_json(package))
    elif not quiet:
        click.echo(_summary(package))


def _summary(package: ConvertedPackage) -> str:
    options = package.options
    palettes = palettes_in_words(options)
    lines = [
        f"{package.path}",
        f"  size     {package.size / 1e6:.2f} MB, {options.precision}, {palettes}",
        f"  target   iOS {options.ios}",
    ]
    for name, (height, width) in package.functions.items():
        function = "" if name == "main" else f" (function {name})"
        lines.append(
            f"  input    image, {height}x{width} pixels, {options.color_order}, "
            f"--fit {options.fit}{function}"
        )
    for output in package.outputs:
        shape = "x".join(map(str, output.shape))
        lines.append(f"  output   {output.name}: {output.dtype} {shape}".rstrip())
    lines.append(f"  checked  {check_in_words(package.parity)}")
    told = (*package.notes, *quality_notes(package.parity))
    lines += [f"  note     {note}" for note in told]
    return "\n".join(lines)


def _as_json(package: ConvertedPackage) -> dict[str, Any]:
    from mvit_coreml.cli.commands.validate import report_as_json

    data = dataclasses.asdict(dataclasses.replace(package, parity=None))
    return data | {"parity": None if package.parity is None else report_as_json(package.parity)}
