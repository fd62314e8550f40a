"""From a checkpoint to a finished package in a folder of its own, stage by stage.

load (the caller) -> prepare and trace -> convert -> palettize -> write.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues
from mvit_coreml.evaluation.read_metadata import Preparation
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.export import metadata as meta
from mvit_coreml.export.atomic_package import SUFFIX, finish_package
from mvit_coreml.export.image_input import ImageInput, bake_preprocessing
from mvit_coreml.export.output_heads import ExportedModel, Output, export_model, read_outputs
from mvit_coreml.export.torch_to_mil import (
    Precision,
    build_program,
    merge_functions,
    save_program,
    trace,
)
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.models.base import Model
from mvit_coreml.models.build_model import build_model
from mvit_coreml.preprocessing.image_processor import ImageProcessor
from mvit_coreml.validation.operation_precision import UnsafeOperation, unsafe_operations
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.describe import describe
from mvit_coreml.workflows.options import ConvertOptions, fit_of, input_size
from mvit_coreml.workflows.palettization import Palettes, palettize, uniform_plan

Stage = Literal["trace", "convert", "measure", "palettize", "tune", "write", "validate", "compare"]


class Progress(Protocol):
    """Told of every stage as it begins, and of how it gets on."""

    def __call__(self, stage: Stage, detail: str = "", /) -> None:
        """Take note of a stage, or with a detail of how the one under way gets on."""


def no_progress(stage: Stage, detail: str = "", /) -> None:
    """Take note of nothing."""


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
    checkpoint: Checkpoint, options: ConvertOptions, folder: Path, *, verbose: bool = False
) -> BuiltPackage:
    """Make a complete package in a folder of its own.

    Args:
        checkpoint: what to convert.
        options: with every default filled in; its palettes must need no images.
        folder: for the package and what it is made from.
        verbose: let coremltools print.
    """
    return PackageBuilder(checkpoint, options, verbose=verbose).build(folder)


class PackageBuilder:
    """Makes packages of one checkpoint that differ in their palettes alone.

    Args:
        checkpoint: what to convert.
        options: with every default filled in.
        images: to measure on; synthetic pictures by default.
        folder: for what is measured on the way.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        options: ConvertOptions,
        *,
        images: Sequence[Any] | None = None,
        folder: Path | None = None,
        progress: Progress = no_progress,
        verbose: bool = False,
    ) -> None:
        self.checkpoint, self.options = checkpoint, options
        self.progress, self.verbose = progress, verbose
        self.labels, self.renamed = meta.unique_labels(list(checkpoint.id2label.values()))
        self.classifies = (
            checkpoint.task == "image-classification" and options.output == "probabilities"
        )
        self.inputs = _inputs(checkpoint, options)
        self.traced: dict[str, tuple[Any, list[str]]] = {}
        self.model = build_model(checkpoint)
        self.unsafe: list[UnsafeOperation] = []
        if options.precision == "mixed" and options.fp32_operations is None:
            with tempfile.TemporaryDirectory(dir=folder) as measured:
                self.unsafe = self._measure_unsafe(Path(measured), images)
            kept = tuple(found.name for found in self.unsafe)
            self.options = replace(options, fp32_operations=kept)

    def build(self, folder: Path, palettes: Palettes | None = None) -> BuiltPackage:
        """Make a complete package.

        Args:
            folder: for the package and what it is made from.
            palettes: of its weights; by default the same bits for all, as the options say.
        """
        folder.mkdir(exist_ok=True)
        raw_packages: dict[str, tuple[Path, Any]] = {}
        for name in self.inputs:
            program = self._program(name)
            if palettes is None and self.options.bits is not None:
                palettes = self._uniform(program)
            if palettes is not None:
                self.progress("palettize")
                palettize(program, *palettes, verbose=self.verbose)
            self.progress("write")
            raw_packages[name] = self._save(program, folder / f"{name}{SUFFIX}")
        package, spec = self._merged(raw_packages, folder)
        return self._finish(package, spec, palettes)

    def _uniform(self, program: Any) -> Palettes:
        """Plan the palettes of the first program; the others have the same weights."""
        bits = self.options.bits
        assert isinstance(bits, int)
        sha256 = self.checkpoint.provenance.sha256
        return uniform_plan(program, bits, self.options.group_size, sha256), PlanValues()

    def plain(self, folder: Path) -> BuiltPackage:
        """Make the package without palettes."""
        options = self.options
        self.options = replace(
            options,
            bits=None,
            group_size=0,
            promise=None,
            dataset=None,
            tune_minutes=None,
            plan=None,
        )
        try:
            return self.build(folder)
        finally:
            self.options = options

    def _program(self, name: str, precision: Precision | None = None) -> Any:
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

    def _measure_unsafe(self, folder: Path, images: Sequence[Any] | None) -> list[UnsafeOperation]:
        """Run the program in fp32 and see what fp16 would not be safe for."""
        name = next(iter(self.inputs))
        processor, image = self.inputs[name]
        package, _ = self._save(self._program(name, "fp32"), folder / f"fp32{SUFFIX}")
        self.progress("measure")
        size = (image.height, image.width)
        preparation = Preparation(
            processor=processor, fit=fit_of(self.options), color_order=image.color_order
        )
        target = PackageTarget(Predictor(package, engine="portable"), preparation)
        pictures = synthetic_pictures(_PICTURES, size) if images is None else images[:_PHOTOS]
        return unsafe_operations(target, pictures)

    def _save(self, program: Any, package: Path) -> tuple[Path, Any]:
        spec = save_program(
            program,
            package,
            ios=self.options.ios,
            class_labels=self.labels if self.classifies else None,
            verbose=self.verbose,
        )
        return package, spec

    def _merged(self, raw_packages: dict[str, tuple[Path, Any]], folder: Path) -> tuple[Path, Any]:
        """Return the one package of all inputs, and its specification."""
        package, spec = next(reversed(raw_packages.values()))
        if len(raw_packages) == 1:
            return package, spec
        paths = {name: path for name, (path, _) in raw_packages.items()}
        package = folder / f"functions{SUFFIX}"
        return package, merge_functions(paths, package, spec, verbose=self.verbose)

    def _finish(self, package: Path, spec: Any, palettes: Palettes | None) -> BuiltPackage:
        """Add the metadata."""
        plan, values = palettes or (None, PlanValues())
        outputs = read_outputs(spec, self.labels)
        preprocessing = {
            name: meta.describe_preprocessing(processor, image, fit_of(self.options))
            for name, (processor, image) in self.inputs.items()
        }
        described = describe(
            self.checkpoint, self.options, self.labels, outputs, preprocessing, plan
        )
        meta.write_metadata(spec, described)
        finish_package(package, spec)
        # The digest is of what is on disk, and tells whether that is changed later.
        spec.description.metadata.userDefined[DIGEST_KEY] = program_digest(load_package(package))
        finish_package(package, spec)
        return BuiltPackage(
            package=package,
            functions={n: (image.height, image.width) for n, (_, image) in self.inputs.items()},
            outputs=outputs,
            preprocessing=preprocessing,
            renamed=tuple(self.renamed),
            options=self.options,
            unsafe=tuple(self.unsafe),
            plan=plan,
            values=values,
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
