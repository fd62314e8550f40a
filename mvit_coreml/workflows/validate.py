"""Judging a saved package against its checkpoint: what ``mvit-coreml validate`` does."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.plan import PlanValues
from mvit_coreml.compression.plan_file import plan_beside, read_plan, read_values
from mvit_coreml.compression.promise import Promise
from mvit_coreml.compression.quantization.quantization_plan import Quantization
from mvit_coreml.compression.quantization.quantization_plan_file import (
    is_quantization_plan,
    read_quantization,
)
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.evaluation.read_metadata import (
    PreparationOptions,
    choose_preparation,
    class_labels,
    image_input,
    is_own,
    preparation_for,
    read_preparation,
)
from mvit_coreml.evaluation.targets import PackageReference, PackageTarget, ReferenceTarget
from mvit_coreml.export.metadata import KEY_PREFIX
from mvit_coreml.mil.compiler import Arithmetic
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Engine, Predictor
from mvit_coreml.mil.program import Package
from mvit_coreml.preprocessing.image_loading import evenly_spaced
from mvit_coreml.preprocessing.image_processor import ColorOrder
from mvit_coreml.validation.decoded_weights import check_decoded_weights
from mvit_coreml.validation.fitted_layers import compare_fitted_layers
from mvit_coreml.validation.gates import SOUND
from mvit_coreml.validation.pytorch_comparison import ParityReport, compare_engines, validate_target
from mvit_coreml.validation.structure_comparison import (
    Difference,
    compare_structure,
    compare_with_plan,
)
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import build_plain_package
from mvit_coreml.workflows.package_options import ConvertOptions, fill_in

if TYPE_CHECKING:
    from mvit_coreml.validation.operation_precision import LayerError

# Synthetic pictures that a fresh package is validated with.
PICTURES_AFTER_CONVERSION = 12
# Images of a layer profile; more change it little.
_LAYER_IMAGES = 4
# Images that PyTorch computes on with the package's own weights.
_DECODED_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class ValidateOptions:
    """What of a package is validated, and how strictly.

    Attributes:
        function: of a multifunction package; by default its default function.
        engine: ``portable``, ``coreml`` (on a Mac), ``auto``, or ``both``: Core ML is judged, and
            the report says how close the portable runtime is to it.
        arithmetic: of the portable engine: ``fp32`` leaves out the rounding of half precision.
        color_order: order that the reference gets, if it was overridden on purpose.
        structure: compare part by part, where the package says how it was made.
        layers: add the error of every operation, which needs the same; ``None`` adds it if it can.
        bounds: gates instead of the defaults, see :data:`mvit_coreml.validation.gates.GATES`.
        promise: what is promised of the answers; by default what always is.
        pictures: number of synthetic pictures.
        samples: number of images to keep with both answers, for a report.
    """

    function: str | None = None
    engine: Engine | Literal["both"] = "portable"
    arithmetic: Arithmetic = "program"
    color_order: ColorOrder | None = None
    structure: bool = True
    layers: bool | None = False
    bounds: Mapping[str, float] | None = None
    promise: Promise | None = None
    pictures: int = 12
    samples: int = 0


def validate(
    package: str | Path,
    checkpoint: Checkpoint,
    images: Sequence[Any] | None = None,
    options: ValidateOptions | None = None,
    *,
    expected: Path | None = None,
    values: PlanValues | Quantization | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ParityReport:
    """Judge a saved package against the checkpoint it came from.

    Both sides get the same images: the package as its own metadata prepares them, the PyTorch
    reference through its own image processor. A package of this project is also compared, part by
    part, with what the checkpoint converts to.

    Args:
        package: the package, of this project or of another tool.
        checkpoint: what it should answer like.
        images: paths, Pillow images or arrays; by default synthetic pictures.
        options: what is validated, and how strictly.
        expected: the package without palettes that the checkpoint converts to, if the caller has
            it; it is converted anew otherwise.
        values: what its weights, constants and grids were fitted to be; by default as the plan that
            lies beside it says, if one does.
        progress: called with the number of images done and their total.

    Raises:
        PackageError: the package is damaged, or uses something unknown.
        InputError: package and checkpoint do not fit together.
    """
    options = options or ValidateOptions()
    target = _open_target(package, checkpoint, options)
    reference = ReferenceTarget.matching(target, checkpoint, options.color_order)
    size = target.image.size
    chosen = list(synthetic_pictures(options.pictures, size) if images is None else images)
    engines = None
    if options.engine == "both":
        portable = _open_target(package, checkpoint, replace(options, engine="portable"))
        engines = compare_engines(target, portable, chosen)
    with _expected_package(target.package, checkpoint, options, expected) as (conversion, notes):
        differences, layers = _compare_parts(target, chosen, options, conversion)
    if differences is not None:
        fitted = _fitted_values(target.package) if values is None else values
        differences = [*differences, *compare_with_plan(target.package, fitted)]
    return validate_target(
        target,
        reference,
        chosen,
        synthetic=images is None,
        differences=differences,
        promise=options.promise,
        decoded_snr=_decoded_snr(target, checkpoint, chosen, options),
        engines=engines,
        layers=layers,
        bounds=options.bounds,
        notes=notes,
        samples=options.samples,
        progress=progress,
    )


def validate_against_package(
    package: str | Path,
    original: str | Path,
    images: Sequence[Any] | None = None,
    options: ValidateOptions | None = None,
    *,
    preparation: PreparationOptions | None = None,
    labels: Sequence[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ParityReport:
    """Judge a package of any tool by another that it should answer like.

    Args:
        package: the package.
        original: the other, which the portable runtime runs.
        images: paths, Pillow images or arrays; by default synthetic pictures.
        options: of these the function, engine, arithmetic, bounds, promise, pictures and samples.
        preparation: how photos are brought to the inputs of packages that do not say it.
        labels: class names, for packages that have none.
        progress: called with the number of images done and their total.

    Raises:
        PackageError: a package is damaged, or uses something unknown.
        InputError: the packages do not compare, or options that are for checkpoints.
    """
    options = options or ValidateOptions()
    if options.layers or options.color_order is not None:
        name = "--layers" if options.layers else "--color-order"
        raise InputError(f"{name} is for a checkpoint; {original} is a package")
    engine: Engine = "coreml" if options.engine == "both" else options.engine
    predictors = (
        Predictor(package, options.function, engine, options.arithmetic),
        Predictor(original, options.function, "portable"),
    )
    notes: list[str] = []
    targets = []
    named = [class_labels(one.package, one.function) for one in predictors]
    known = next((len(names) for names in (*named, labels) if names is not None), None)
    for predictor in predictors:
        prepared, note = choose_preparation(
            predictor.package,
            predictor.function,
            # What says it itself needs no options.
            None if is_own(predictor.package) else preparation,
        )
        notes += [note] if note else []
        targets.append(PackageTarget(predictor, prepared, known))
    target, reference = targets
    size = target.image.size
    chosen = list(synthetic_pictures(options.pictures, size) if images is None else images)
    engines = None
    if options.engine == "both":
        portable = Predictor(package, options.function, "portable", options.arithmetic)
        engines = compare_engines(
            target, PackageTarget(portable, target.preparation, known), chosen
        )
    return validate_target(
        target,
        PackageReference.matching(target, reference),
        chosen,
        synthetic=images is None,
        differences=None,
        promise=options.promise,
        engines=engines,
        bounds=options.bounds,
        notes=list(dict.fromkeys(notes)),
        samples=options.samples,
        progress=progress,
    )


def _open_target(
    package: str | Path, checkpoint: Checkpoint, options: ValidateOptions
) -> PackageTarget:
    """Open a package with the engine that is judged; another tool's is fed as its checkpoint is."""
    predictor = Predictor(
        package,
        function=options.function,
        engine="coreml" if options.engine == "both" else options.engine,
        arithmetic=options.arithmetic,
    )
    preparation = read_preparation(predictor.package, predictor.function)
    if preparation is None:
        image = image_input(predictor.package, predictor.function)
        processor, trained = checkpoint.image_processor, checkpoint.input_size
        preparation = preparation_for(image, processor, "crop", trained)
    return PackageTarget(predictor, preparation, num_labels=checkpoint.config.num_labels)


def _fitted_values(package: Package) -> PlanValues | Quantization:
    """Read what a package's weights were fitted to be from the plan beside it, if one lies there.

    Raises:
        InputError: the plan, or its values, cannot be read.
    """
    place = plan_beside(package.path)
    if not place.exists():
        return PlanValues()
    if is_quantization_plan(place):
        return read_quantization(place)
    return read_values(read_plan(place))


def _decoded_snr(
    target: PackageTarget, checkpoint: Checkpoint, images: Sequence[Any], options: ValidateOptions
) -> float | None:
    """Compare a package with PyTorch computing with its own weights, in dB."""
    chosen = [images[index] for index in evenly_spaced(len(images), _DECODED_IMAGES)]
    decoded = check_decoded_weights(target, checkpoint, chosen, color_order=options.color_order)
    # What is not matched keeps the checkpoint's values, and shows as an error that is none.
    return None if decoded is None or decoded.unmatched else decoded.snr


def _compare_parts(
    target: PackageTarget,
    images: Sequence[Any],
    options: ValidateOptions,
    expected: Package | None,
) -> tuple[list[Difference] | None, list[LayerError]]:
    """Compare what a package stores, and what its operations give, with a fresh conversion."""
    if expected is None:
        return None, []
    layers: list[LayerError] = []
    if options.layers or (options.layers is None and target.predictor.engine == "portable"):
        from mvit_coreml.validation.operation_precision import layer_errors

        layers = layer_errors(target, expected, images[:_LAYER_IMAGES])
    if not options.structure:
        return None, layers
    differences = compare_structure(target.package, expected)
    if not any(difference.aspect in ("interface", "graph") for difference in differences):
        differences += compare_fitted_layers(target.package, expected)
    return differences, layers


@contextlib.contextmanager
def _expected_package(
    package: Package, checkpoint: Checkpoint, options: ValidateOptions, expected: Path | None
) -> Iterator[tuple[Package | None, tuple[str, ...]]]:
    """Convert the checkpoint as a package was made, but without palettes, if nobody has yet.

    Yields:
        The conversion, ``None`` if it is not needed or cannot be made; notes about that.
    """
    if expected is not None:
        yield load_package(expected), ()
        return
    made = read_options(package, checkpoint, options.color_order)
    if made is None:
        if options.layers:
            raise InputError(f"{package.path}: --layers needs a package that mvit-coreml converted")
        own = KEY_PREFIX + "output" in package.metadata.user_defined
        maker = "an older mvit-coreml" if own else "another tool"
        yield None, (f"{maker} made the package: its parts are not compared one by one",)
    elif not options.structure and options.layers is False:
        yield None, ()
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield load_package(build_plain_package(checkpoint, made, Path(folder)).path), ()


def read_options(
    package: Package, checkpoint: Checkpoint, color_order: ColorOrder | None
) -> ConvertOptions | None:
    """Return the options with which this project made a package, but for its palettes.

    ``None`` for packages of other tools, and of versions that did not store them. What the
    checkpoint determines, such as the colour order, is the checkpoint's.
    """
    stored = package.metadata.user_defined.get(KEY_PREFIX + "options")
    if stored is None:
        return None
    try:
        options = ConvertOptions.from_json(stored)
    except (ValueError, TypeError, InputError) as error:
        raise PackageError(f"{package.path}: its metadata is damaged: {error}") from None
    return fill_in(replace(options, color_order=color_order), checkpoint)


def shortfall(report: ParityReport, original: str = "the checkpoint") -> str:
    """Say what speaks against a package: it is not sound, or breaks its promise; else nothing."""
    failed = [gate for gate in report.gates if not gate.passed]
    unsound = [gate for gate in failed if gate.name in SOUND]
    if unsound:
        # A program out of half precision's range breaks the others as well.
        causes = sorted(unsound, key=lambda gate: gate.name != "decoded_weights")
        advice = next((f"; {gate.advice}" for gate in causes if gate.advice), "")
        first = ""
        if report.differences and any(gate.name == "structure" for gate in unsound):
            difference = report.differences[0]
            first = (
                f"; first difference: {difference.aspect} {difference.place} {difference.detail}"
            )
        return f"is not sound: {', '.join(map(str, unsound))}{advice}{first}"
    if failed:
        overridden = [str(gate) for gate in failed if gate.name not in SOUND]
        figures = f" ({', '.join(overridden)})" if len(overridden) > 1 else ""
        return f"keeps {report.kept()}{figures} of {original}, where {report.promise} is promised"
    return ""
