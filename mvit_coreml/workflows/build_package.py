"""From a checkpoint to a finished package without palettes, and from that to one with palettes.

load (the caller) -> bake the preprocessing -> trace -> convert -> write -> palettize.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.plan import PalettizationPlan
from mvit_coreml.compression.quantization.quantization_plan import Quantization, QuantizationPlan
from mvit_coreml.export import metadata as meta
from mvit_coreml.export.atomic_package import SUFFIX, finish_package
from mvit_coreml.export.image_input import ImageInput, bake_preprocessing
from mvit_coreml.export.output_heads import Output, export_model, read_outputs
from mvit_coreml.export.torch_to_mil import (
    build_program,
    merge_functions,
    read_program,
    save_again,
    save_program,
    trace,
)
from mvit_coreml.mil.digest import (
    DIGEST_KEY,
    VALUES_DIGEST_KEY,
    program_digest,
    values_digest,
)
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import ACTIVATION_KEY
from mvit_coreml.models.base import Model, build_model
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ImageProcessor
from mvit_coreml.workflows.package_options import ConvertOptions, fit_of

if TYPE_CHECKING:
    from mvit_coreml.validation.operation_precision import UnsafeOperation
    from mvit_coreml.workflows.choose_palettes import Palettes


def describe_package(
    spec: Any,
    checkpoint: Checkpoint,
    options: ConvertOptions,
    labels: Sequence[str],
    outputs: Sequence[Output],
    preprocessing: dict[str, dict[str, Any]],
) -> None:
    """Write the metadata of a package without palettes into its specification.

    Args:
        spec: a ``Model`` protobuf message, of one function or several.
        checkpoint: what is converted.
        options: with every default filled in.
        labels: unique class names.
        outputs: of the package.
        preprocessing: function name to how a photo becomes its input.
    """
    source = checkpoint.provenance
    owner, known = "unknown", None
    if "/" in source.name:  # an id of the hub
        from mvit_coreml.checkpoints.catalogue import CATALOGUE

        owner = source.name.split("/")[0]
        known = {entry.id: entry.license for entry in CATALOGUE}.get(source.name)
    metadata = spec.description.metadata
    metadata.author = options.author or owner
    metadata.license = options.license or known or "not stated; see the source checkpoint"
    metadata.shortDescription = options.description or (
        f"{_FAMILY_NAMES[checkpoint.family]} for {checkpoint.task.replace('-', ' ')}, "
        f"converted from {source.name}."
    )
    metadata.versionString = options.version
    # coremltools stamps the date, which would make every package differ.
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    for key, value in _user_defined(checkpoint, options, labels, preprocessing).items():
        metadata.userDefined[key] = value
    sizes = " or ".join(
        f"{image['width']}x{image['height']} pixels" for image in preprocessing.values()
    )
    described = {output.name: output.description for output in outputs}
    for function in spec.description.functions or [spec.description]:
        for feature in function.input:
            feature.shortDescription = (
                f"Photo of {sizes}, brought to that size by {_FITS[fit_of(options)]}; "
                "colour order and scaling are built in."
            )
        for feature in function.output:
            feature.shortDescription = described[feature.name]


def _user_defined(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    labels: Sequence[str],
    preprocessing: dict[str, dict[str, Any]],
) -> dict[str, str]:
    """Return the preview's keys and those of this project."""
    source = checkpoint.provenance
    own = {
        "task": checkpoint.task,
        "output": options.output or "",
        "source": source.name,
        "source_format": source.format,
        "source_revision": source.revision or "",
        "weights_sha256": source.sha256,
        "precision": options.precision,
        "bits": "",
        "versions": json.dumps(meta.versions()),
        "options": options.to_json(),
        "preprocessing": json.dumps(preprocessing),
    }
    if options.activation is not None:
        own[ACTIVATION_KEY.removeprefix(meta.KEY_PREFIX)] = options.activation
    if options.map_type is not None:
        own["map_type"] = options.map_type
    if options.precision == "mixed":
        own["fp32_operations"] = json.dumps(options.fp32_operations)
    preview = {}
    if (checkpoint.task, options.output) in _PREVIEWED:
        preview = meta.preview(checkpoint.task, labels)
        if options.map_type not in (None, "int32"):
            del preview[meta.PREVIEW_TYPE]  # Xcode draws maps of 32 bits alone
    elif options.output not in ("features", "embedding"):
        own["labels"] = json.dumps(list(labels), ensure_ascii=False)
    return preview | {meta.KEY_PREFIX + key: value for key, value in own.items()}


def palette_metadata(plan: PalettizationPlan) -> dict[str, str]:
    """Return what a package's metadata says about its palettes, by key without prefix."""
    own = {"bits": ", ".join(map(str, plan.bit_widths))}
    if plan.needs_values:
        own["palette_values"] = "trained"
        own["layer_snr"] = json.dumps(plan.layer_snrs, separators=(",", ":"))
    return own


def quantization_metadata(plan: QuantizationPlan) -> dict[str, str]:
    """Return what a package's metadata says about its 8-bit activations, by key without prefix."""
    grids = {
        one.name: [one.grid.dtype, one.grid.scale, one.grid.zero_point] for one in plan.activations
    }
    return {
        "quantization": "w8a8",
        "activations": json.dumps(grids),
        "layer_snr": json.dumps(plan.layer_snrs, separators=(",", ":")),
    }


def notes(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    renamed: Sequence[str],
    unsafe: Sequence[object],
) -> tuple[str, ...]:
    """Say what was assumed or changed, a sentence each.

    Args:
        checkpoint: what was converted.
        options: with every default filled in.
        renamed: class names that stood twice.
        unsafe: what a mixed program keeps in fp32.
    """
    notes = []
    if renamed and options.output not in ("features", "embedding"):
        notes.append(f"class names that stood twice were made unique: {', '.join(renamed)}")
    if options.activation in _HEADS:
        notes.append(f"{_HEADS[options.activation]} (--activation {options.activation})")
    if options.activation not in (None, checkpoint.config.head_activation):
        notes.append(
            f"the activation is {options.activation}, where the checkpoint says "
            f"{checkpoint.config.head_activation}"
        )
    if checkpoint.task == "semantic-segmentation":
        notes.append(
            f"the segmenter's photos are brought to its input by {_FITS[fit_of(options)]} "
            f"(--fit {options.fit})"
        )
    if options.color_order != checkpoint.image_processor.color_order:
        notes.append(f"the colour order is {options.color_order}, not the checkpoint's")
    if options.precision == "mixed":
        kept = ", ".join(map(str, unsafe)) or ", ".join(options.fp32_operations or ())
        notes.append(f"kept in fp32: {kept or 'nothing, every operation is safe in fp16'}")
    return tuple(notes)


_FAMILY_NAMES = {
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViTV2",
    "mobilenet_v2": "MobileNetV2",
}
_HEADS: dict[HeadActivation | None, str] = {
    "sigmoid": "a photo may have several labels, or none: each has a probability of its own",
    "none": "the model's values are given as they are",
}
# Outputs that Xcode previews; their packages name the classes in the form it reads.
_PREVIEWED = {("image-classification", "probabilities"), ("semantic-segmentation", "classes")}
_FITS: dict[Fit, str] = {
    "crop": "resizing and cutting out the centre",
    "stretch": "stretching the whole photo",
    "pad": "fitting in the whole photo and padding it with black",
}


Stage = Literal[
    "trace",
    "convert",
    "measure",
    "palettize",
    "tune",
    "calibrate",
    "quantize",
    "write",
    "validate",
    "compare",
]


class Progress(Protocol):
    """Told of every stage as it begins, and of how it gets on."""

    def __call__(self, stage: Stage, detail: str = "", /) -> None:
        """Take note of a stage, or with a detail of how the one under way gets on."""


def no_progress(stage: str, detail: str = "", /) -> None:
    """Take note of nothing."""


# What the ranges of a mixed program are measured on.
_PICTURES = 12
_PHOTOS = 64


@dataclass(frozen=True, kw_only=True)
class PlainPackage:
    """A finished package without palettes that is not in its place yet, and how it was made.

    Attributes:
        path: where it lies.
        spec: its specification, a protobuf message.
        functions: function name to the package of that function alone; of a package with one
            function it is the package itself.
        input_sizes: function name to its input's (height, width) in pixels.
        outputs: what it answers, at the first size.
        preprocessing: function name to what its metadata says about its input.
        options: as they were carried out.
        renamed: class names that stood twice, as they were made unique.
        unsafe: what a mixed program keeps in fp32, and why; empty where that was not measured.
    """

    path: Path
    spec: Any
    functions: Mapping[str, Path]
    input_sizes: dict[str, tuple[int, int]]
    outputs: tuple[Output, ...]
    preprocessing: dict[str, dict[str, Any]]
    options: ConvertOptions
    renamed: tuple[str, ...]
    unsafe: tuple[UnsafeOperation, ...]


@dataclass(frozen=True, kw_only=True)
class _FunctionInput:
    """The input of one function: how a photo becomes it, and what of that the package does."""

    processor: ImageProcessor
    image: ImageInput


def build_plain_package(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    folder: Path,
    *,
    images: Sequence[Any] | None = None,
    progress: Progress = no_progress,
    verbose: bool = False,
) -> PlainPackage:
    """Convert a checkpoint to a complete package, whatever the options say about palettes.

    Args:
        checkpoint: what to convert.
        options: with every default filled in.
        folder: for the package and what it is made from; made if it is missing.
        images: to measure on what a mixed program keeps in fp32; synthetic pictures by default.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.
    """
    folder.mkdir(exist_ok=True)
    labels, renamed = meta.unique_labels(list(checkpoint.id2label.values()))
    classifies = checkpoint.task == "image-classification" and options.output == "probabilities"
    inputs = _inputs(checkpoint, options)
    converter = _Converter(
        model=build_model(checkpoint),
        class_labels=labels if classifies else None,
        progress=progress,
        verbose=verbose,
    )
    unsafe: list[UnsafeOperation] = []
    if options.precision == "mixed" and options.fp32_operations is None:
        first = next(iter(inputs.values()))
        unsafe = _measure_unsafe(converter, first, options, folder / f"fp32{SUFFIX}", images)
        options = replace(options, fp32_operations=tuple(one.name for one in unsafe))
    functions = {name: folder / f"{name}{SUFFIX}" for name in inputs}
    specs = {
        name: converter.convert(made.image, options, functions[name])
        for name, made in inputs.items()
    }
    path, spec = _merged(functions, specs, folder, verbose)
    outputs = read_outputs(spec, labels, options.activation)
    preprocessing = {
        name: meta.describe_preprocessing(made.processor, made.image, fit_of(options))
        for name, made in inputs.items()
    }
    describe_package(spec, checkpoint, options, labels, outputs, preprocessing)
    _finish(path, spec)
    return PlainPackage(
        path=path,
        spec=spec,
        functions=functions,
        input_sizes={n: (made.image.height, made.image.width) for n, made in inputs.items()},
        outputs=outputs,
        preprocessing=preprocessing,
        options=options,
        renamed=tuple(renamed),
        unsafe=tuple(unsafe),
    )


def compress_plain(
    plain: PlainPackage,
    compression: Palettes | Quantization,
    folder: Path,
    *,
    verbose: bool = False,
) -> Path:
    """Make the package with some palettes, or in 8 bits, of one without, in its own folder."""
    folder.mkdir(exist_ok=True)
    functions = {name: folder / f"{name}{SUFFIX}" for name in plain.functions}
    specs = {
        name: _compress_function(plain.functions[name], compression, package, verbose)
        for name, package in functions.items()
    }
    path, spec = _merged(functions, specs, folder, verbose)
    spec.description.CopyFrom(plain.spec.description)
    _finish(path, spec, compression)
    return path


def compress_saved(
    package: Path, compression: Palettes | Quantization, folder: Path, *, verbose: bool = False
) -> Path:
    """Make the package with some palettes, or in 8 bits, of a saved one with one function."""
    folder.mkdir(exist_ok=True)
    path = folder / f"compressed{SUFFIX}"
    spec = _compress_function(package, compression, path, verbose)
    _finish(path, spec, compression)
    return path


def _inputs(checkpoint: Checkpoint, options: ConvertOptions) -> dict[str, _FunctionInput]:
    """Return the input of every function, by its name."""
    processor = checkpoint.image_processor.replace(
        do_flip_channel_order=options.color_order == "BGR"
    )
    inputs = {}
    for size in options.image_sizes:
        name = "main" if len(options.image_sizes) == 1 else f"size_{size[0]}x{size[1]}"
        sized = processor.for_input_size(size, checkpoint.input_size)
        image = bake_preprocessing(sized, checkpoint.config.num_channels, size)
        inputs[name] = _FunctionInput(processor=sized, image=image)
    return inputs


@dataclass(frozen=True, kw_only=True)
class _Converter:
    """Converts one model to packages with one function."""

    model: Model[Any]
    class_labels: list[str] | None
    progress: Progress
    verbose: bool

    def convert(self, image: ImageInput, options: ConvertOptions, package: Path) -> Any:
        """Write the package of one input, and return its specification."""
        assert options.output is not None
        self.progress("trace")
        module = export_model(
            self.model,
            image,
            options.output,
            activation=options.activation or "softmax",
            map_size=options.map_size or "input",
            map_type=options.map_type or "int32",
            confidence=options.confidence,
            layers=options.layers,
        )
        traced = trace(module, image)
        self.progress("convert")
        program = build_program(
            traced,
            image,
            module.output_names,
            ios=options.ios,
            precision=options.precision,
            classifier=self.class_labels is not None,
            map_type=options.map_type or "int32",
            keep_fp32=frozenset(options.fp32_operations or ()),
            share_constants=options.share_constants,
            verbose=self.verbose,
        )
        self.progress("write")
        return save_program(
            program,
            package,
            ios=options.ios,
            class_labels=self.class_labels,
            verbose=self.verbose,
        )


def _measure_unsafe(
    converter: _Converter,
    made: _FunctionInput,
    options: ConvertOptions,
    package: Path,
    images: Sequence[Any] | None,
) -> list[UnsafeOperation]:
    """Run one function in fp32 and see what fp16 would not be safe for."""
    from mvit_coreml.evaluation.read_metadata import Preparation
    from mvit_coreml.evaluation.targets import PackageTarget
    from mvit_coreml.mil.predictor import Predictor
    from mvit_coreml.validation.operation_precision import unsafe_operations
    from mvit_coreml.validation.synthetic_images import synthetic_pictures

    converter.convert(made.image, replace(options, precision="fp32"), package)
    converter.progress("measure")
    preparation = Preparation(
        processor=made.processor, fit=fit_of(options), color_order=made.image.color_order
    )
    target = PackageTarget(Predictor(package, engine="portable"), preparation)
    size = (made.image.height, made.image.width)
    pictures = synthetic_pictures(_PICTURES, size) if images is None else images[:_PHOTOS]
    return unsafe_operations(target, pictures)


def _compress_function(
    source: Path, compression: Palettes | Quantization, package: Path, verbose: bool
) -> Any:
    """Write a one-function package again, compressed, and return its specification."""
    from mvit_coreml.compression.apply_plan import apply_plan
    from mvit_coreml.compression.cache import default_cache
    from mvit_coreml.compression.quantization.apply_quantization import apply_quantization

    program, spec = read_program(source)
    if isinstance(compression, Quantization):
        apply_quantization(program, compression, verbose=verbose)
    else:
        plan, values = compression.plan, compression.values
        apply_plan(program, plan, values, cache=default_cache(), verbose=verbose)
    return save_again(program, spec, package)


def _merged(
    functions: Mapping[str, Path], specs: Mapping[str, Any], folder: Path, verbose: bool
) -> tuple[Path, Any]:
    """Return the one package of all functions, and its specification."""
    *_, last = functions
    if len(functions) == 1:
        return functions[last], specs[last]
    package = folder / f"functions{SUFFIX}"
    return package, merge_functions(functions, package, specs[last], verbose=verbose)


def _finish(package: Path, spec: Any, compression: Palettes | Quantization | None = None) -> None:
    """Store a package's specification, with how it is compressed and what its digest is."""
    own = spec.description.metadata.userDefined
    fitted = False
    if isinstance(compression, Quantization):
        described, fitted = quantization_metadata(compression.plan), True
    elif compression is not None:
        described, fitted = palette_metadata(compression.plan), compression.plan.needs_values
    else:
        described = {}
    for key, value in described.items():
        own[meta.KEY_PREFIX + key] = value
    finish_package(package, spec)
    # The digests are of what is on disk, and tell whether that is changed later.
    written = load_package(package)
    own[DIGEST_KEY] = program_digest(written)
    if fitted:
        own[VALUES_DIGEST_KEY] = values_digest(written)
    finish_package(package, spec)
