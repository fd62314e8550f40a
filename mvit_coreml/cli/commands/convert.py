"""``mvit-coreml convert``: a checkpoint to an ML Program package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import (
    ProgressLines,
    compression_in_words,
    outcome_rows,
    package_as_json,
    shape_in_words,
    table,
)

if TYPE_CHECKING:
    from mvit_coreml.export.output_heads import MapSize, MapType, OutputKind
    from mvit_coreml.export.torch_to_mil import Precision
    from mvit_coreml.models.config import HeadActivation
    from mvit_coreml.preprocessing.geometry import Fit
    from mvit_coreml.preprocessing.image_processor import ColorOrder
    from mvit_coreml.workflows.convert import ConvertedPackage
    from mvit_coreml.workflows.package_options import Quantize


@dataclass(frozen=True, kw_only=True)
class _Arguments(
    opt.WritingArguments,
    opt.PaletteArguments,
    opt.CheckpointArguments,
    opt.ReportArguments,
    opt.SummaryArguments,
):
    """What the command is asked.

    Attributes:
        destination: Package to write; by default the checkpoint's name in this folder.
        precision: Compute precision; mixed is fp16 but for what leaves its safe range on --images.
        output: What the package answers; by default probabilities of a classifier (values of a
            regression), classes of a segmenter, features of a backbone. An embedding is one vector
            of length 1, to find similar photos by.
        activation: What a classifier's logits go through: softmax for one label, sigmoid for
            several, none for the values of a regression; by default what the checkpoint says.
        map_size: Size of a segmenter's maps; by default the input's, for logits their own.
        map_type: Form of a segmenter's class map: a 32-bit array, an 8-bit grayscale image, or
            uint8, the smallest that the target has (an 8-bit array from iOS 26 on, else the image).
            [default: int32]
        confidence: Add the probability of every pixel's class to a class map.
        share_constants: Let operations share equal small constants; try without if a device
            refuses a package, or answers otherwise.
        layers: Hidden states to add to the features, counted from 0.
        image_sizes: Input size instead of the checkpoint's; give it several times for one package
            with a function for each (iOS 18).
        quantize: Compute in 8-bit integers instead of palettes (iOS 17): w8a8 rounds weights and
            activations, calibrated on --images or synthetic pictures; auto leaves the layers in
            fp16 that cost most, where the promise is broken otherwise.
        fit: How photos are brought to the input; by default pad for segmenters, else crop.
        color_order: Channel order the weights expect.
        author: Author in the package's metadata.
        license: Licence in the package's metadata.
        description: Description in the package's metadata.
        version: Version in the package's metadata.
        images: Photos, a folder or one, to fit palettes to and to judge on, each to one of these;
            by default synthetic pictures.
    """

    source: str = opt.argument()
    destination: Path | None = opt.option("-o", "--output")
    ios: int = opt.ios_option()
    precision: Precision = opt.option(type=click.Choice(["fp16", "mixed", "fp32"]), default="fp16")
    output: OutputKind | None = opt.option("--output-kind", type=click.Choice(opt.OUTPUT_KINDS))
    activation: HeadActivation | None = opt.option(
        type=click.Choice(["softmax", "sigmoid", "none"])
    )
    map_size: MapSize | None = opt.option(type=opt.read_map_size, metavar="INPUT|LOGITS|HXW")
    map_type: MapType | None = opt.option(type=click.Choice(["int32", "uint8", "image"]))
    confidence: bool = opt.option()
    share_constants: bool = opt.option("--share-constants/--no-share-constants", default=True)
    layers: tuple[int, ...] | None = opt.numbers_option("whole numbers", "2,4", metavar="I,J,…")
    image_sizes: tuple[tuple[int, int], ...] = opt.option(
        "--image-size", type=opt.read_size, metavar="N|HXW", multiple=True
    )
    quantize: Quantize | None = opt.option(type=click.Choice(["w8a8", "auto"]))
    fit: Fit | None = opt.fit_option()
    color_order: ColorOrder | None = opt.color_order_option()
    author: str | None = opt.option()
    license: str | None = opt.option()
    description: str | None = opt.option()
    version: str = opt.option("--package-version", default="1.0")
    images: Path | None = opt.option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Convert a checkpoint to a Core ML package.

    SOURCE is a hub id, a folder or a weight file of Hugging Face transformers, timm or cvnets. The
    package takes an image and has the channel order and the scaling built in. It is not written
    unless it is sound and keeps what is promised of the checkpoint's answers.

    Examples:
        mvit-coreml convert apple/mobilevit-small
        mvit-coreml convert ./my-finetuned-mobilevit -o Classifier.mlpackage --bits 8
        mvit-coreml convert ./my-finetuned-mobilevit --images photos/ --report mobilevit.html
        mvit-coreml convert apple/mobilevit-small --bits 4 --images photos/ --tune
        mvit-coreml convert apple/mobilevit-small --images photos/ --min-agreement 0.98
        mvit-coreml convert apple/mobilevit-small --images photos/ --target-size 3MB
        mvit-coreml convert apple/mobilevit-small --images photos/ --quantize w8a8
        mvit-coreml convert google/deeplabv3_mobilenet_v2_1.0_513 --fit stretch --bits none
        mvit-coreml convert apple/mobilevit-small --ios 18 --image-size 256 --image-size 320
        mvit-coreml convert apple/mobilevit-small --output-kind features --layers 2,4
        mvit-coreml convert apple/mobilevit-small --output-kind embedding
        mvit-coreml convert apple/deeplabv3-mobilevit-small --map-type uint8 --confidence
        mvit-coreml convert ./my-photo-tags --images photos/ --activation sigmoid
    """
    from mvit_coreml.export.atomic_package import check_destination
    from mvit_coreml.workflows.convert import convert
    from mvit_coreml.workflows.package_options import ConvertOptions

    # What the options alone can tell is said before a download.
    palettes = vars(arguments.palette_options(arguments.quantize))
    values = opt.values_for(ConvertOptions, arguments) | palettes
    options = ConvertOptions(**values | {"layers": arguments.layers or ()})
    if arguments.destination is not None:
        check_destination(arguments.destination, arguments.force)
    arguments.check_report()
    photos = opt.read_images(arguments.images)
    with ProgressLines(silent=arguments.quiet) as progress:
        progress("load")
        checkpoint = arguments.load(arguments.source)
        package = convert(
            checkpoint,
            options,
            arguments.destination,
            images=photos,
            samples=arguments.samples,
            rejected=lambda path, parity: arguments.save_report(
                package=path, parity=parity, checkpoint=checkpoint
            ),
            progress=progress,
            **opt.values_for(opt.WritingArguments, arguments),
        )
    arguments.save_report(
        package=package.path, parity=package.parity, checkpoint=checkpoint, notes=package.notes
    )
    arguments.show(package_as_json(package), _summary(package))


def _summary(package: ConvertedPackage) -> Iterator[str]:
    options = package.options
    size = f"{package.size / 1e6:.2f} MB"
    rows = [
        ("size", f"{size}, {options.precision}, {compression_in_words(options)}"),
        ("target", f"iOS {options.ios}"),
    ]
    for name, (height, width) in package.functions.items():
        function = "" if name == "main" else f" (function {name})"
        pixels = f"image, {height}x{width} pixels, {options.color_order}"
        rows.append(("input", f"{pixels}, --fit {options.fit}{function}"))
    rows += [
        ("output", f"{output.name}: {output.dtype} {shape_in_words(output.shape)}")
        for output in package.outputs
    ]
    yield str(package.path)
    yield table([*rows, *outcome_rows(package)], indent=2)
