"""From a checkpoint to a finished package in a folder of its own, stage by stage.

load (the caller) -> prepare and trace -> convert -> palettize -> write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.coreml import metadata as meta
from mvit_coreml.coreml.image_input import ImageInput, bake_preprocessing
from mvit_coreml.coreml.outputs import ExportedModel, Output, export_model, read_outputs
from mvit_coreml.coreml.package import SUFFIX, finish_package
from mvit_coreml.coreml.program import build_program, merge_functions, save_program, trace
from mvit_coreml.imaging.processor import ImageProcessor
from mvit_coreml.models.base import Model
from mvit_coreml.models.build import build_model
from mvit_coreml.palettes.apply import palettize_program
from mvit_coreml.pipeline.description import describe
from mvit_coreml.pipeline.options import ConvertOptions, fit_of, input_size

Stage = Literal["trace", "convert", "palettize", "write", "validate"]
Progress = Callable[[Stage], None]


@dataclass(frozen=True, kw_only=True)
class BuiltPackage:
    """A finished package that is not in its place yet.

    Attributes:
        package: where it lies.
        functions: function name to its input's (height, width) in pixels.
        outputs: what it answers, at the first size.
        preprocessing: function name to what its metadata says about its input.
        renamed: class names that stood twice, as they were made unique.
    """

    package: Path
    functions: dict[str, tuple[int, int]]
    outputs: tuple[Output, ...]
    preprocessing: dict[str, dict[str, Any]]
    renamed: tuple[str, ...]


def build_package(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    folder: Path,
    progress: Progress,
    verbose: bool,
) -> BuiltPackage:
    """Make a complete package in a folder of its own."""
    labels, renamed = meta.unique_labels(list(checkpoint.id2label.values()))
    classifies = checkpoint.task == "image-classification" and options.output == "probabilities"
    model = build_model(checkpoint)
    inputs = _inputs(checkpoint, options)
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
        raw_packages[name] = folder / f"{name}{SUFFIX}"
        spec = save_program(
            program,
            raw_packages[name],
            ios=options.ios,
            class_labels=labels if classifies else None,
            verbose=verbose,
        )
    package = raw_packages[name]
    if len(inputs) > 1:
        package = folder / f"functions{SUFFIX}"
        spec = merge_functions(raw_packages, package, spec, verbose=verbose)
    outputs = read_outputs(spec, labels)
    preprocessing = {
        name: meta.describe_preprocessing(processor, image, fit_of(options))
        for name, (processor, image) in inputs.items()
    }
    meta.write_metadata(spec, describe(checkpoint, options, labels, outputs, preprocessing))
    finish_package(package, spec)
    return BuiltPackage(
        package=package,
        functions={name: (image.height, image.width) for name, (_, image) in inputs.items()},
        outputs=outputs,
        preprocessing=preprocessing,
        renamed=tuple(renamed),
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
    map_size = options.map_size or "input"
    return export_model(model, image, options.output, map_size=map_size, layers=options.layers)
