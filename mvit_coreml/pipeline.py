"""The stages of a conversion, in order: what ``mvit-coreml convert`` does.

load (the caller) -> prepare and trace -> convert -> palettize -> write.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from mvit_coreml.checkpoints.catalogue import CATALOGUE
from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.coreml import metadata as meta
from mvit_coreml.coreml.image_input import ColorOrder, ImageInput, bake_preprocessing
from mvit_coreml.coreml.outputs import (
    OUTPUTS_OF_TASK,
    ExportedModel,
    MapSize,
    Output,
    OutputKind,
    export_model,
    read_outputs,
)
from mvit_coreml.coreml.package import (
    SUFFIX,
    check_destination,
    finish_package,
    package_size,
    publish,
    staging_folder,
)
from mvit_coreml.coreml.program import (
    IOS_TARGETS,
    Bits,
    Precision,
    build_program,
    merge_functions,
    palettize_program,
    save_program,
    trace,
)
from mvit_coreml.errors import InputError
from mvit_coreml.imaging.geometry import Fit
from mvit_coreml.imaging.processor import ImageProcessor
from mvit_coreml.models.base import Model
from mvit_coreml.models.build import build_model

Stage = Literal["trace", "convert", "palettize", "write"]
Progress = Callable[[Stage], None]

# First target whose packages may hold several functions.
MULTIFUNCTION_IOS = 18


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What kind of package to make.

    Attributes:
        ios: deployment target: 16, 17, 18 or 26.
        precision: compute precision, ``fp16`` or ``fp32``.
        bits: palettize the weights to 8, 6 or 4 bits; ``None`` leaves them in ``precision``.
        output: what the package answers; ``None`` is the task's first kind: ``probabilities`` of a
            classifier, ``classes`` of a segmenter, ``features`` of a backbone.
        map_size: size of a segmenter's maps: the input's, the logits' own, or (height, width);
            ``None`` is the input's, but for the ``logits`` output their own.
        layers: hidden states to add to ``features``, counted from 0.
        image_sizes: (height, width) of the input in pixels; several make a multifunction package
            whose first is the default; none is the size of the checkpoint's processor.
        fit: how a photo is brought to the input: ``crop``, ``stretch`` or ``pad``; ``None`` crops
            for classifiers and backbones, as their processors do, and pads for segmenters, which
            then see the whole photo undistorted.
        color_order: ``RGB`` or ``BGR`` instead of the checkpoint's.
        author: metadata; ``None`` is the owner of a hub id.
        license: metadata; ``None`` is what the catalogue knows.
        description: metadata; ``None`` is a sentence about the model.
        version: metadata.
    """

    ios: int = 17
    precision: Precision = "fp16"
    bits: Bits | None = 6
    output: OutputKind | None = None
    map_size: MapSize | None = None
    layers: tuple[int, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] = ()
    fit: Fit | None = None
    color_order: ColorOrder | None = None
    author: str | None = None
    license: str | None = None
    description: str | None = None
    version: str = "1.0"

    def __post_init__(self) -> None:
        _check_choice("ios", self.ios, IOS_TARGETS)
        _check_choice("precision", self.precision, ("fp16", "fp32"))
        _check_choice("bits", self.bits, (None, 8, 6, 4))
        _check_choice("fit", self.fit, (None, "crop", "stretch", "pad"))
        _check_choice("color_order", self.color_order, (None, "RGB", "BGR"))
        _check_sizes("image size", self.image_sizes)
        if isinstance(self.map_size, tuple):
            _check_sizes("map size", (self.map_size,))
        if len(set(self.image_sizes)) != len(self.image_sizes):
            raise InputError("an image size is given twice; give each once")
        if len(self.image_sizes) > 1 and self.ios < MULTIFUNCTION_IOS:
            raise InputError(
                f"several image sizes need iOS {MULTIFUNCTION_IOS} or newer (--ios 18); "
                f"for iOS {self.ios} convert one package for each size"
            )


@dataclass(frozen=True, kw_only=True)
class ConvertedPackage:
    """A package that was written.

    Attributes:
        path: where it is.
        size: sum of the sizes of its files, in bytes.
        source: name of the checkpoint.
        task: what the model is for.
        functions: function name to its input's (height, width) in pixels; one function is ``main``.
        outputs: what it answers, at the first size.
        options: as they were carried out, with every default filled in.
        preprocessing: function name to how a photo becomes its input, as stored in the metadata.
        notes: sentences about what was assumed or changed.
    """

    path: Path
    size: int
    source: str
    task: str
    functions: dict[str, tuple[int, int]]
    outputs: tuple[Output, ...]
    options: ConvertOptions
    preprocessing: dict[str, dict[str, Any]] = field(repr=False)
    notes: tuple[str, ...] = ()


def convert(
    checkpoint: Checkpoint,
    options: ConvertOptions | None = None,
    output: str | Path | None = None,
    *,
    force: bool = False,
    progress: Progress = lambda stage: None,
    verbose: bool = False,
) -> ConvertedPackage:
    """Convert a checkpoint to an ML Program package.

    Args:
        checkpoint: from :func:`~mvit_coreml.load_checkpoint`.
        options: what kind of package to make.
        output: the package to write, ending in ``.mlpackage``; by default the checkpoint's name in
            the current folder.
        force: replace an existing package.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.

    Raises:
        InputError: options that do not fit the checkpoint, or a destination that cannot be used.
        MvitCoremlError: the package could not be written.
    """
    options = _fill_in(options or ConvertOptions(), checkpoint)
    destination = Path(output) if output is not None else default_destination(checkpoint)
    check_destination(destination, force)
    labels, renamed = meta.unique_labels(list(checkpoint.id2label.values()))
    classifies = checkpoint.task == "image-classification" and options.output == "probabilities"
    model = build_model(checkpoint)
    inputs = _inputs(checkpoint, options)
    with staging_folder(destination) as staging:
        raw_packages: dict[str, Path] = {}
        for name, (_, image) in inputs.items():
            progress("trace")
            module = _export(model, image, options)
            traced = trace(module, image)
            progress("convert")
            program = build_program(
                traced,
                image,
                module.output_names,
                ios=options.ios,
                precision=options.precision,
                classifier=classifies,
                verbose=verbose,
            )
            if options.bits is not None:
                progress("palettize")
                palettize_program(program, options.bits, verbose=verbose)
            progress("write")
            raw_packages[name] = staging / f"{name}{SUFFIX}"
            spec = save_program(
                program,
                raw_packages[name],
                ios=options.ios,
                class_labels=labels if classifies else None,
                verbose=verbose,
            )
        package = raw_packages[name]
        if len(inputs) > 1:
            package = staging / f"functions{SUFFIX}"
            spec = merge_functions(raw_packages, package, spec, verbose=verbose)
        outputs = read_outputs(spec, labels)
        preprocessing = {
            name: meta.describe_preprocessing(processor, image, _fit(options))
            for name, (processor, image) in inputs.items()
        }
        meta.write_metadata(spec, _metadata(checkpoint, options, labels, outputs, preprocessing))
        finish_package(package, spec)
        size = package_size(package)
        publish(package, destination)
    return ConvertedPackage(
        path=destination,
        size=size,
        source=checkpoint.provenance.name,
        task=checkpoint.task,
        functions={name: (image.height, image.width) for name, (_, image) in inputs.items()},
        outputs=outputs,
        options=options,
        preprocessing=preprocessing,
        notes=(*checkpoint.notes, *_notes(checkpoint, options, renamed)),
    )


def default_destination(checkpoint: Checkpoint) -> Path:
    """Return the package's path when none is given: the checkpoint's name, in this folder."""
    name = checkpoint.provenance.name.rsplit("/", 1)[-1]
    for suffix in (".pt", ".pth", ".bin", ".safetensors"):
        name = name.removesuffix(suffix)
    return Path(name + SUFFIX)


def input_size(checkpoint: Checkpoint) -> tuple[int, int]:
    """Return the (height, width) in pixels that the checkpoint's processor leads to."""
    return checkpoint.image_processor.input_size or checkpoint.config.image_hw


def _fill_in(options: ConvertOptions, checkpoint: Checkpoint) -> ConvertOptions:
    """Replace every ``None`` by what it stands for with this checkpoint."""
    segments = checkpoint.task == "semantic-segmentation"
    output = options.output or OUTPUTS_OF_TASK[checkpoint.task][0]
    if options.map_size is not None and (not segments or output == "features"):
        raise InputError(
            f"a map size does not apply to the {output} of a model for {checkpoint.task}; "
            "only the classes, probabilities and logits of a segmenter are maps"
        )
    flips = checkpoint.image_processor.do_flip_channel_order
    return replace(
        options,
        output=output,
        map_size=options.map_size or ("logits" if output == "logits" else "input"),
        image_sizes=options.image_sizes or (input_size(checkpoint),),
        fit=options.fit or ("pad" if segments else "crop"),
        color_order=options.color_order or ("BGR" if flips else "RGB"),
    )


def _inputs(
    checkpoint: Checkpoint, options: ConvertOptions
) -> dict[str, tuple[ImageProcessor, ImageInput]]:
    """Return the processor and the image input of every function, by its name."""
    processor = checkpoint.image_processor.replace(
        do_flip_channel_order=options.color_order == "BGR"
    )
    trained = input_size(checkpoint)
    inputs = {}
    for size in options.image_sizes:
        name = "main" if len(options.image_sizes) == 1 else f"size_{size[0]}x{size[1]}"
        sized = processor.for_input_size(size, trained)
        inputs[name] = sized, bake_preprocessing(sized, checkpoint.config.num_channels, size)
    return inputs


def _export(model: Model[Any], image: ImageInput, options: ConvertOptions) -> ExportedModel:
    assert options.output is not None
    assert options.map_size is not None
    return export_model(
        model, image, options.output, map_size=options.map_size, layers=options.layers
    )


def _fit(options: ConvertOptions) -> Fit:
    assert options.fit is not None
    return options.fit


def _metadata(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    labels: Sequence[str],
    outputs: Sequence[Output],
    preprocessing: dict[str, dict[str, Any]],
) -> meta.PackageMetadata:
    source = checkpoint.provenance
    owner = source.name.split("/")[0] if "/" in source.name else "unknown"
    known = {entry.id: entry.license for entry in CATALOGUE}.get(source.name)
    sizes = " or ".join(
        f"{image['width']}x{image['height']} pixels" for image in preprocessing.values()
    )
    own = {
        "task": checkpoint.task,
        "output": options.output or "",
        "source": source.name,
        "source_format": source.format,
        "source_revision": source.revision or "",
        "weights_sha256": source.sha256,
        "precision": options.precision,
        "bits": "" if options.bits is None else str(options.bits),
        "versions": json.dumps(
            {name: version(name) for name in ("mvit-coreml", "coremltools", "torch")}
        ),
        "preprocessing": json.dumps(preprocessing),
    }
    preview = {}
    if (checkpoint.task, options.output) in _PREVIEWED:
        preview = meta.preview(checkpoint.task, labels)
    elif options.output != "features":
        own["labels"] = json.dumps(list(labels), ensure_ascii=False)
    return meta.PackageMetadata(
        author=options.author or owner,
        license=options.license or known or "not stated; see the source checkpoint",
        description=options.description
        or f"{_FAMILY_NAMES[checkpoint.family]} for {checkpoint.task.replace('-', ' ')}, "
        f"converted from {source.name}.",
        version=options.version,
        input_description=f"Photo of {sizes}, brought to that size by {_FITS[_fit(options)]}; "
        "colour order and scaling are built in.",
        outputs=outputs,
        user_defined=preview | {meta.KEY_PREFIX + key: value for key, value in own.items()},
    )


def _notes(
    checkpoint: Checkpoint, options: ConvertOptions, renamed: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    if renamed and options.output != "features":
        notes.append(f"class names that stood twice were made unique: {', '.join(renamed)}")
    if checkpoint.task == "semantic-segmentation":
        notes.append(
            f"the segmenter's photos are brought to its input by {_FITS[_fit(options)]} "
            f"(--fit {options.fit})"
        )
    flips = checkpoint.image_processor.do_flip_channel_order
    if options.color_order != ("BGR" if flips else "RGB"):
        notes.append(f"the colour order is {options.color_order}, not the checkpoint's")
    return tuple(notes)


_FAMILY_NAMES = {
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViTV2",
    "mobilenet_v2": "MobileNetV2",
}
# Outputs that Xcode previews; their packages name the classes in the form it reads.
_PREVIEWED = {("image-classification", "probabilities"), ("semantic-segmentation", "classes")}
_FITS: dict[Fit, str] = {
    "crop": "resizing and cutting out the centre",
    "stretch": "stretching the whole photo",
    "pad": "fitting in the whole photo and padding it with black",
}


def _check_sizes(name: str, sizes: Sequence[tuple[int, int]]) -> None:
    for height, width in sizes:
        if height < 1 or width < 1:
            raise InputError(f"{name} {height}x{width} is empty; give it in pixels")


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices if choice is not None)
        raise InputError(f"{name} is {value!r}; it must be one of {listed}")
