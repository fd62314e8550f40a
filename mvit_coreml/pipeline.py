"""The stages of a conversion, in order: what ``mvit-coreml convert`` does.

load (the caller) -> prepare and trace -> convert -> palettize -> write.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
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
    Precision,
    build_program,
    merge_functions,
    save_program,
    trace,
)
from mvit_coreml.errors import GateError, InputError, PackageError
from mvit_coreml.imaging.geometry import Fit
from mvit_coreml.imaging.processor import ImageProcessor
from mvit_coreml.models.base import Model
from mvit_coreml.models.build import build_model
from mvit_coreml.palettes.apply import Bits, palettize_program
from mvit_coreml.parity.layers import layer_errors
from mvit_coreml.parity.pictures import synthetic_pictures
from mvit_coreml.parity.preparation import Preparation, image_input, read_preparation
from mvit_coreml.parity.structure import Difference, compare_structure, stored_precision
from mvit_coreml.parity.targets import PackageTarget, ReferenceTarget
from mvit_coreml.parity.validation import LayerError, ParityReport, validate_target
from mvit_coreml.runtime.compiler import Arithmetic
from mvit_coreml.runtime.package import load_package
from mvit_coreml.runtime.predictor import Engine, Predictor
from mvit_coreml.runtime.program import Package

Stage = Literal["trace", "convert", "palettize", "write", "validate"]
Progress = Callable[[Stage], None]

# Synthetic pictures that a fresh package is checked with, and images of a layer profile.
_PICTURES_AFTER_CONVERSION = 6
_LAYER_IMAGES = 4

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
            ``None`` is the input's, but for the ``logits`` output their own. Other models and the
            ``features`` have no map.
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
        parity: how it compared with the checkpoint, ``None`` if that was not asked for.
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
    parity: ParityReport | None = field(default=None, repr=False)


def convert(
    checkpoint: Checkpoint,
    options: ConvertOptions | None = None,
    output: str | Path | None = None,
    *,
    force: bool = False,
    check: bool = True,
    keep_failed: bool = False,
    images: Sequence[Any] | None = None,
    progress: Progress = lambda stage: None,
    verbose: bool = False,
) -> ConvertedPackage:
    """Convert a checkpoint to an ML Program package, and validate it before it appears.

    Args:
        checkpoint: from :func:`~mvit_coreml.load_checkpoint`.
        options: what kind of package to make.
        output: the package to write, ending in ``.mlpackage``; by default the checkpoint's name in
            the current folder.
        force: replace an existing package.
        check: run the finished package and the checkpoint on the same images before putting it in
            place, see :func:`validate`.
        keep_failed: put a package that fails a gate in place all the same.
        images: for the check; synthetic pictures by default.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.

    Raises:
        InputError: options that do not fit the checkpoint, or a destination that cannot be used.
        GateError: the package does not answer like the checkpoint.
        MvitCoremlError: the package could not be written.
    """
    options = _fill_in(options or ConvertOptions(), checkpoint)
    destination = Path(output) if output is not None else default_destination(checkpoint)
    check_destination(destination, force)
    report = None
    with staging_folder(destination) as staging:
        built = _build(checkpoint, options, staging, progress, verbose)
        if check:
            progress("validate")
            report = validate(
                built.package,
                checkpoint,
                images,
                color_order=options.color_order,
                structure=options.bits is not None,
                pictures=_PICTURES_AFTER_CONVERSION,
            )
            if not report.passed and not keep_failed:
                raise GateError(
                    f"{destination}: not written, as it does not answer like the checkpoint: "
                    f"{gate_message(report)}; --keep-failed writes it all the same"
                )
        size = package_size(built.package)
        publish(built.package, destination)
    return ConvertedPackage(
        path=destination,
        size=size,
        source=checkpoint.provenance.name,
        task=checkpoint.task,
        functions=built.functions,
        outputs=built.outputs,
        options=options,
        preprocessing=built.preprocessing,
        notes=(*checkpoint.notes, *_notes(checkpoint, options, built.renamed)),
        parity=report,
    )


@dataclass(frozen=True, kw_only=True)
class _Built:
    package: Path
    functions: dict[str, tuple[int, int]]
    outputs: tuple[Output, ...]
    preprocessing: dict[str, dict[str, Any]]
    renamed: tuple[str, ...]


def _build(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    folder: Path,
    progress: Progress,
    verbose: bool,
) -> _Built:
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
        name: meta.describe_preprocessing(processor, image, _fit(options))
        for name, (processor, image) in inputs.items()
    }
    meta.write_metadata(spec, _metadata(checkpoint, options, labels, outputs, preprocessing))
    finish_package(package, spec)
    return _Built(
        package=package,
        functions={name: (image.height, image.width) for name, (_, image) in inputs.items()},
        outputs=outputs,
        preprocessing=preprocessing,
        renamed=tuple(renamed),
    )


def validate(
    package: str | Path,
    checkpoint: Checkpoint,
    images: Sequence[Any] | None = None,
    *,
    function: str | None = None,
    engine: Engine = "portable",
    arithmetic: Arithmetic = "program",
    color_order: ColorOrder | None = None,
    structure: bool = True,
    layers: bool = False,
    bounds: Mapping[str, float] | None = None,
    pictures: int = 12,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ParityReport:
    """Judge a saved package against the checkpoint it came from.

    Both sides get the same images: the package as its own metadata prepares them, the PyTorch
    reference through its own image processor. A package of this project is also compared, part by
    part, with what the checkpoint converts to.

    Args:
        package: the package, of this project or of another tool.
        checkpoint: what it ought to answer like.
        images: paths, Pillow images or arrays; by default synthetic pictures.
        function: of a multifunction package; by default its default function.
        engine: ``portable``, ``coreml`` (on a Mac) or ``auto``.
        arithmetic: of the portable engine: ``fp32`` leaves out the rounding of half precision.
        color_order: order that the reference gets, if it was overridden on purpose.
        structure: compare part by part, where the package says how it was made.
        layers: add the error of every operation, which needs the same.
        bounds: gates instead of the defaults, see :data:`mvit_coreml.parity.gates.GATES`.
        pictures: number of synthetic pictures.
        progress: called with the number of images done and their total.

    Raises:
        PackageError: the package is damaged, or uses something unknown.
        InputError: package and checkpoint do not fit together.
    """
    predictor = Predictor(package, function=function, engine=engine, arithmetic=arithmetic)
    loaded = predictor.package
    made = read_options(loaded, checkpoint, color_order)
    order = color_order or (made.color_order if made else None)
    processor = checkpoint.image_processor
    image = image_input(loaded, predictor.function)
    size = (image.height, image.width)
    preparation = read_preparation(loaded, predictor.function)
    if preparation is None:
        sized = processor.for_input_size(size, input_size(checkpoint))
        preparation = Preparation(processor=sized, fit="crop", color_order="")
    target = PackageTarget(predictor, preparation, num_labels=checkpoint.config.num_labels)
    reference = ReferenceTarget(
        checkpoint, target.roles, fit=preparation.fit, size=size, color_order=order
    )
    differences: list[Difference] | None = None
    profile: list[LayerError] = []
    synthetic = images is None
    chosen = list(synthetic_pictures(pictures, size) if images is None else images)
    notes = []
    if made is not None and (structure or layers):
        with tempfile.TemporaryDirectory() as folder:
            built = _build(
                checkpoint, replace(made, bits=None), Path(folder), lambda stage: None, False
            )
            expected = load_package(built.package)
            if structure:
                differences = compare_structure(loaded, expected)
            if layers:
                profile = layer_errors(target, expected, chosen[:_LAYER_IMAGES])
    elif made is None:
        notes.append("another tool made the package: its parts are not compared one by one")
        if layers:
            raise InputError(f"{package}: --layers needs a package that mvit-coreml converted")
    precision, bits = stored_precision(loaded, predictor.function)
    return validate_target(
        target,
        reference,
        chosen,
        synthetic=synthetic,
        precision=precision,
        bits=bits,
        differences=differences,
        layers=profile,
        bounds=bounds,
        notes=notes,
        progress=progress,
    )


def read_options(
    package: Package, checkpoint: Checkpoint, color_order: ColorOrder | None
) -> ConvertOptions | None:
    """Return the options with which this project made a package; ``None`` for other packages.

    Only what is the user's choice is taken from the package. What the checkpoint determines, such
    as the colour order, is the checkpoint's.
    """
    own = package.metadata.user_defined
    output = own.get(meta.KEY_PREFIX + "output")
    if output is None or meta.PREPROCESSING_KEY not in own:
        return None
    default = package.function()
    # A multifunction package's default comes first, then the others in their order of size.
    order = [default, *(f for n, f in package.functions.items() if n != default.name)]
    preparations = [read_preparation(package, function) for function in order]
    assert preparations[0] is not None
    result = {found.name: found.shape for found in default.outputs}.get(output, ())
    has_map = checkpoint.task == "semantic-segmentation" and len(result) in (2, 4)
    bits = own.get(meta.KEY_PREFIX + "bits", "")
    try:
        options = ConvertOptions(
            ios=default.opset,
            precision=own.get(meta.KEY_PREFIX + "precision", "fp16"),  # type: ignore[arg-type]
            bits=int(bits) if bits else None,  # type: ignore[arg-type]
            output=output,  # type: ignore[arg-type]
            map_size=result[-2:] if has_map else None,  # type: ignore[arg-type]
            layers=tuple(
                int(found.name.rsplit("_", 1)[1])
                for found in default.outputs
                if found.name.startswith("hidden_state_")
            ),
            image_sizes=tuple(
                (image.height, image.width)
                for image in (image_input(package, function) for function in order)
            ),
            fit=preparations[0].fit,
            color_order=color_order,
        )
    except ValueError as error:
        raise PackageError(f"{package.path}: its metadata is damaged: {error}") from None
    return _fill_in(options, checkpoint)


def gate_message(report: ParityReport) -> str:
    """Say which gates of a report failed, by how much, and what to try."""
    failed = [gate for gate in report.gates if not gate.passed]
    parts = [f"{gate} ({gate.advice})" for gate in failed]
    if report.differences:
        first = report.differences[0]
        parts.append(f"first difference: {first.aspect} {first.place} {first.detail}")
    return "; ".join(parts)


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
    has_map = segments and output != "features"
    if options.map_size is not None and not has_map:
        raise InputError(
            f"a map size does not apply to the {output} of a model for {checkpoint.task}; "
            "only the classes, probabilities and logits of a segmenter are maps"
        )
    flips = checkpoint.image_processor.do_flip_channel_order
    return replace(
        options,
        output=output,
        map_size=(options.map_size or ("logits" if output == "logits" else "input"))
        if has_map
        else None,
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
    map_size = options.map_size or "input"
    return export_model(model, image, options.output, map_size=map_size, layers=options.layers)


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
