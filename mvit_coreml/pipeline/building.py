"""From a checkpoint to a finished package in a folder of its own, stage by stage.

load (the caller) -> prepare and trace -> convert -> palettize -> write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.coreml import metadata as meta
from mvit_coreml.coreml.image_input import ImageInput, bake_preprocessing
from mvit_coreml.coreml.outputs import ExportedModel, Output, export_model, read_outputs
from mvit_coreml.coreml.package import SUFFIX, finish_package
from mvit_coreml.coreml.program import (
    Precision,
    build_program,
    merge_functions,
    save_program,
    trace,
)
from mvit_coreml.coreml.seal import SEAL_KEY, program_digest
from mvit_coreml.imaging.processor import ImageProcessor
from mvit_coreml.models.base import Model
from mvit_coreml.models.build import build_model
from mvit_coreml.palettes.plan import PalettizationPlan, PlanValues
from mvit_coreml.parity.fp16_range import UnsafeOperation, unsafe_operations
from mvit_coreml.parity.pictures import synthetic_pictures
from mvit_coreml.parity.preparation import Preparation
from mvit_coreml.parity.targets import PackageTarget
from mvit_coreml.pipeline.description import describe
from mvit_coreml.pipeline.options import ConvertOptions, fit_of, input_size
from mvit_coreml.pipeline.palettization import load_plan, palettize, uniform_plan
from mvit_coreml.runtime.package import load_package
from mvit_coreml.runtime.predictor import Predictor

Stage = Literal["trace", "convert", "measure", "palettize", "write", "validate"]
Progress = Callable[[Stage], None]

# What the ranges of a mixed program are measured on.
_PICTURES = 12
_PHOTOS = 64


@dataclass(frozen=True, kw_only=True)
class BuiltPackage:
    """A finished package that is not in its place yet.

    Attributes:
        package: where it lies.
        functions: function name to its input's (height, width) in pixels.
        outputs: what it answers, at the first size.
        preprocessing: function name to what its metadata says about its input.
        renamed: class names that stood twice, as they were made unique.
        options: as they were carried out.
        unsafe: what a mixed program keeps in fp32, and why; empty where that was not measured.
        plan: of the palettes, ``None`` without.
        values: that the plan needs.
    """

    package: Path
    functions: dict[str, tuple[int, int]]
    outputs: tuple[Output, ...]
    preprocessing: dict[str, dict[str, Any]]
    renamed: tuple[str, ...]
    options: ConvertOptions
    unsafe: tuple[UnsafeOperation, ...] = ()
    plan: PalettizationPlan | None = None
    values: PlanValues = field(default_factory=PlanValues)


def build_package(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    folder: Path,
    *,
    images: Sequence[Any] | None = None,
    progress: Progress = lambda stage: None,
    verbose: bool = False,
) -> BuiltPackage:
    """Make a complete package in a folder of its own.

    Args:
        checkpoint: what to convert.
        options: with every default filled in.
        folder: for the package and what it is made from.
        images: to measure on; synthetic pictures by default.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.
    """
    build = _Build(checkpoint, options, folder, progress, verbose)
    unsafe: list[UnsafeOperation] = []
    if options.precision == "mixed" and options.fp32_operations is None:
        unsafe = build.measure_unsafe(images)
        build.options = replace(options, fp32_operations=tuple(found.name for found in unsafe))
    raw_packages = {name: build.write(name, build.program(name)) for name in build.inputs}
    package, spec = build.merged(raw_packages)
    return build.finish(package, spec, unsafe)


class _Build:
    """One conversion under way."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ConvertOptions,
        folder: Path,
        progress: Progress,
        verbose: bool,
    ) -> None:
        self.checkpoint, self.options = checkpoint, options
        self.folder, self.progress, self.verbose = folder, progress, verbose
        self.labels, self.renamed = meta.unique_labels(list(checkpoint.id2label.values()))
        self.classifies = (
            checkpoint.task == "image-classification" and options.output == "probabilities"
        )
        self.inputs = _inputs(checkpoint, options)
        self.traced: dict[str, tuple[Any, list[str]]] = {}
        self.model = build_model(checkpoint)
        self.plan: PalettizationPlan | None = None
        self.values = PlanValues()

    def program(self, name: str, precision: Precision | None = None) -> Any:
        """Return the MIL program of one input."""
        image = self.inputs[name][1]
        if name not in self.traced:
            self.progress("trace")
            module = _export(self.model, image, self.options)
            self.traced[name] = trace(module, image), list(module.output_names)
        self.progress("convert")
        traced, output_names = self.traced[name]
        return build_program(
            traced,
            image,
            output_names,
            ios=self.options.ios,
            precision=precision or self.options.precision,
            classifier=self.classifies,
            keep_fp32=frozenset(self.options.fp32_operations or ()),
            verbose=self.verbose,
        )

    def measure_unsafe(self, images: Sequence[Any] | None) -> list[UnsafeOperation]:
        """Run the program in fp32 and see what fp16 would not be safe for."""
        name = next(iter(self.inputs))
        processor, image = self.inputs[name]
        package, _ = self._save(self.program(name, "fp32"), f"fp32{SUFFIX}")
        self.progress("measure")
        size = (image.height, image.width)
        preparation = Preparation(
            processor=processor, fit=fit_of(self.options), color_order=image.color_order
        )
        target = PackageTarget(Predictor(package, engine="portable"), preparation)
        pictures = synthetic_pictures(_PICTURES, size) if images is None else images[:_PHOTOS]
        return unsafe_operations(target, pictures)

    def write(self, name: str, program: Any) -> tuple[Path, Any]:
        """Palettize a program if that is wanted, and save it."""
        if self.options.bits is not None or self.options.plan is not None:
            self.progress("palettize")
            if self.plan is None:
                self.plan, self.values = self._make_plan(program)
            palettize(program, self.plan, self.values, verbose=self.verbose)
        self.progress("write")
        return self._save(program, f"{name}{SUFFIX}")

    def _make_plan(self, program: Any) -> tuple[PalettizationPlan, PlanValues]:
        """Decide on the palettes of the first program; the others have the same weights."""
        options = self.options
        if options.plan is not None:
            return load_plan(options.plan)
        assert options.bits is not None
        sha256 = self.checkpoint.provenance.sha256
        return uniform_plan(program, options.bits, options.group_size, sha256), PlanValues()

    def _save(self, program: Any, name: str) -> tuple[Path, Any]:
        package = self.folder / name
        spec = save_program(
            program,
            package,
            ios=self.options.ios,
            class_labels=self.labels if self.classifies else None,
            verbose=self.verbose,
        )
        return package, spec

    def merged(self, raw_packages: dict[str, tuple[Path, Any]]) -> tuple[Path, Any]:
        """Return the one package of all inputs, and its specification."""
        package, spec = next(reversed(raw_packages.values()))
        if len(raw_packages) == 1:
            return package, spec
        paths = {name: path for name, (path, _) in raw_packages.items()}
        package = self.folder / f"functions{SUFFIX}"
        return package, merge_functions(paths, package, spec, verbose=self.verbose)

    def finish(self, package: Path, spec: Any, unsafe: Sequence[UnsafeOperation]) -> BuiltPackage:
        """Add the metadata."""
        outputs = read_outputs(spec, self.labels)
        preprocessing = {
            name: meta.describe_preprocessing(processor, image, fit_of(self.options))
            for name, (processor, image) in self.inputs.items()
        }
        described = describe(
            self.checkpoint, self.options, self.labels, outputs, preprocessing, self.plan
        )
        meta.write_metadata(spec, described)
        finish_package(package, spec)
        # The seal is of what is on disk, and tells whether that is changed later.
        spec.description.metadata.userDefined[SEAL_KEY] = program_digest(load_package(package))
        finish_package(package, spec)
        return BuiltPackage(
            package=package,
            functions={n: (image.height, image.width) for n, (_, image) in self.inputs.items()},
            outputs=outputs,
            preprocessing=preprocessing,
            renamed=tuple(self.renamed),
            options=self.options,
            unsafe=tuple(unsafe),
            plan=self.plan,
            values=self.values,
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
