"""Judging a saved package against its checkpoint: what ``mvit-coreml validate`` does."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.evaluation.read_metadata import Preparation, image_input, read_preparation
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
from mvit_coreml.export import metadata as meta
from mvit_coreml.mil.compiler import Arithmetic
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Engine, Predictor
from mvit_coreml.mil.program import Package
from mvit_coreml.preprocessing.image_processor import ColorOrder
from mvit_coreml.validation.operation_precision import LayerError, layer_errors
from mvit_coreml.validation.pytorch_comparison import ParityReport, compare_engines, validate_target
from mvit_coreml.validation.structure_comparison import (
    Difference,
    compare_structure,
    stored_precision,
)
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import build_package
from mvit_coreml.workflows.options import ConvertOptions, fill_in, input_size

# Images of a layer profile; more change it little.
_LAYER_IMAGES = 4


def validate(
    package: str | Path,
    checkpoint: Checkpoint,
    images: Sequence[Any] | None = None,
    *,
    function: str | None = None,
    engine: Engine | Literal["both"] = "portable",
    arithmetic: Arithmetic = "program",
    color_order: ColorOrder | None = None,
    structure: bool = True,
    layers: bool | None = False,
    bounds: Mapping[str, float] | None = None,
    pictures: int = 12,
    samples: int = 0,
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
        engine: ``portable``, ``coreml`` (on a Mac), ``auto``, or ``both``: Core ML is judged, and
            the report says how close the portable runtime is to it.
        arithmetic: of the portable engine: ``fp32`` leaves out the rounding of half precision.
        color_order: order that the reference gets, if it was overridden on purpose.
        structure: compare part by part, where the package says how it was made.
        layers: add the error of every operation, which needs the same; ``None`` adds it if it can.
        bounds: gates instead of the defaults, see :data:`mvit_coreml.validation.gates.GATES`.
        pictures: number of synthetic pictures.
        samples: number of images to keep with both answers, for a report.
        progress: called with the number of images done and their total.

    Raises:
        PackageError: the package is damaged, or uses something unknown.
        InputError: package and checkpoint do not fit together.
    """
    judged: Engine = "coreml" if engine == "both" else engine
    predictor = Predictor(package, function=function, engine=judged, arithmetic=arithmetic)
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
    engines = None
    differences: list[Difference] | None = None
    profile: list[LayerError] = []
    synthetic = images is None
    chosen = list(synthetic_pictures(pictures, size) if images is None else images)
    notes = []
    if engine == "both":
        runtime = Predictor(package, function=function, engine="portable", arithmetic=arithmetic)
        portable = PackageTarget(runtime, preparation, num_labels=checkpoint.config.num_labels)
        engines = compare_engines(target, portable, chosen)
    profiled = predictor.engine == "portable" if layers is None else layers
    if made is not None and (structure or profiled):
        with tempfile.TemporaryDirectory() as folder:
            built = build_package(checkpoint, made, Path(folder))
            expected = load_package(built.package)
            if structure:
                differences = compare_structure(loaded, expected)
            if profiled:
                profile = layer_errors(target, expected, chosen[:_LAYER_IMAGES])
    elif made is None:
        notes.append("another tool made the package: its parts are not compared one by one")
        if layers:
            raise InputError(f"{package}: --layers needs a package that mvit-coreml converted")
    precision, bits = stored_precision(predictor.function)
    return validate_target(
        target,
        reference,
        chosen,
        synthetic=synthetic,
        precision=precision,
        bits=bits,
        differences=differences,
        engines=engines,
        layers=profile,
        bounds=bounds,
        notes=notes,
        samples=samples,
        progress=progress,
    )


def read_options(
    package: Package, checkpoint: Checkpoint, color_order: ColorOrder | None
) -> ConvertOptions | None:
    """Return the options with which this project made a package, but for its palettes.

    ``None`` for packages of other tools.

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
    kept = own.get(meta.KEY_PREFIX + "fp32_operations")
    try:
        options = ConvertOptions(
            ios=default.opset,
            precision=own.get(meta.KEY_PREFIX + "precision", "fp16"),  # type: ignore[arg-type]
            fp32_operations=None if kept is None else tuple(json.loads(kept)),
            bits=None,
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
    except (ValueError, TypeError) as error:
        raise PackageError(f"{package.path}: its metadata is damaged: {error}") from None
    return fill_in(options, checkpoint)


def gate_message(report: ParityReport) -> str:
    """Say which gates of a report failed, by how much, and what to try."""
    failed = [gate for gate in report.gates if not gate.passed]
    parts = [f"{gate} ({gate.advice})" for gate in failed]
    if report.differences:
        first = report.differences[0]
        parts.append(f"first difference: {first.aspect} {first.place} {first.detail}")
    return "; ".join(parts)
