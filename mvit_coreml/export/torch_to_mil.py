"""From an exported module to a MIL program, to a saved package, and back, with coremltools."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mvit_coreml.errors import PackageError, first_line
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.export.graph_passes import simplify_program
from mvit_coreml.export.image_input import ImageInput
from mvit_coreml.export.output_heads import ExportedModel, MapType

Precision = Literal["fp16", "fp32", "mixed"]

INPUT_NAME = "image"
CLASS_LABEL = "classLabel"
IOS_TARGETS = (16, 17, 18, 26)

# What coremltools' writers of weights and of packages say if they cannot write.
_WRITING_ERRORS = re.compile(
    r"FileWriter|Failed to (create|remove) .* at path|[Cc]ould not open|[Ww]riting|filesystem error"
)


def trace(module: ExportedModel, image: ImageInput) -> torch.jit.ScriptModule:
    """Record the module's operations for one input of the package's size."""
    with torch.inference_mode(), quiet():
        # Checking a trace runs the model again; parity is checked on the saved package instead.
        traced: torch.jit.ScriptModule = torch.jit.trace(  # type: ignore[no-untyped-call]
            module, torch.zeros(image.shape), check_trace=False
        )
        return traced


def build_program(
    traced: torch.jit.ScriptModule,
    image: ImageInput,
    output_names: Sequence[str],
    *,
    ios: int,
    precision: Precision,
    classifier: bool,
    map_type: MapType = "int32",
    keep_fp32: Collection[str] = frozenset(),
    share_constants: bool = True,
    verbose: bool = False,
) -> Any:
    """Convert a traced module to a MIL program and simplify it.

    Args:
        traced: the traced module.
        image: the image input.
        output_names: names of the traced outputs, in order.
        ios: deployment target, one of :data:`IOS_TARGETS`.
        precision: compute precision: ``mixed`` is fp16 but for ``keep_fp32``.
        classifier: whether the one output will get class labels, which rename it.
        map_type: form of the output ``classes``.
        keep_fp32: operations of a mixed program that stay in fp32, by their names in the fp32 one.
        share_constants: let operations share equal small constants.
        verbose: let coremltools print.
    """
    ct = load_coremltools()
    from coremltools.converters.mil.mil import Builder

    # Names that passes make are numbered; the same conversion must lead to the same names.
    Builder.name_count.clear()
    layout = ct.colorlayout.BGR if image.color_order == "BGR" else ct.colorlayout.RGB
    image_type = ct.ImageType(
        name=INPUT_NAME,
        shape=image.shape,
        scale=image.scale,
        bias=list(image.bias),
        color_layout=layout,
    )
    with quiet(not verbose):
        program = ct.convert(
            traced,
            inputs=[image_type],
            outputs=None if classifier else [_output_type(name, map_type) for name in output_names],
            convert_to="milinternal",
            minimum_deployment_target=_target(ios),
            compute_precision=ct.precision.FLOAT32,  # a pass of its own goes to half precision
            pass_pipeline=ct.PassPipeline.EMPTY,
        )
        simplify_program(
            program,
            fp16=precision != "fp32",
            keep_fp32=keep_fp32,
            share_constants=share_constants,
        )
    return program


def _output_type(name: str, map_type: MapType) -> Any:
    ct = load_coremltools()
    if name != "classes" or map_type == "int32":
        return ct.TensorType(name=name)
    if map_type == "image":
        return ct.ImageType(name=name, color_layout=ct.colorlayout.GRAYSCALE)
    return ct.TensorType(name=name, dtype=np.int8)


def save_program(
    program: Any,
    package: Path,
    *,
    ios: int,
    class_labels: Sequence[str] | None,
    verbose: bool = False,
) -> Any:
    """Write a MIL program as a raw package, and return its specification.

    Args:
        program: the program.
        package: the package to write, ending in ``.mlpackage``.
        ios: deployment target, one of :data:`IOS_TARGETS`.
        class_labels: unique class names that make the package a classifier, or ``None``.
        verbose: let coremltools print.

    Raises:
        OSError: a file could not be written.
    """
    ct = load_coremltools()
    classifier = None
    if class_labels is not None:
        classifier = ct.ClassifierConfig(list(class_labels), predicted_feature_name=CLASS_LABEL)
    with quiet(not verbose), writing():
        model = ct.convert(
            program,
            convert_to="mlprogram",
            minimum_deployment_target=_target(ios),
            classifier_config=classifier,
            pass_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            package_dir=str(package),
        )
    return model.get_spec()


def merge_functions(
    packages: Mapping[str, Path], merged: Path, single: Any, *, verbose: bool = False
) -> Any:
    """Merge single-function packages into one whose functions share equal weights.

    Args:
        packages: function name to raw package; the first becomes the default function.
        merged: the package to write.
        single: the specification of one of them, whose metadata the merged package keeps.
        verbose: let coremltools print.

    Returns:
        The specification of the merged package.

    Raises:
        OSError: a file could not be written.
    """
    ct = load_coremltools()
    with quiet(not verbose), writing():
        description = ct.utils.MultiFunctionDescriptor()
        for name, package in packages.items():
            description.add_function(str(package), "main", name)
        description.default_function_name = next(iter(packages))
        ct.utils.save_multifunction(description, str(merged))
        spec = ct.utils.load_spec(str(merged))
    spec.description.metadata.CopyFrom(single.description.metadata)
    return spec


def read_program(package: Path) -> tuple[Any, Any]:
    """Return the MIL program of a saved package with its weights, and its specification.

    Args:
        package: a package that the portable runtime could load.

    Raises:
        PackageError: coremltools cannot read it.
    """
    ct = load_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        with quiet():
            spec = ct.utils.load_spec(str(package))
            weights = package / "Data/com.apple.CoreML/weights"
            program = load(spec, spec.specificationVersion, str(weights))
            program.default_function_name = spec.description.defaultFunctionName or "main"
            return program, spec
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        message = f"{package}: coremltools cannot read it: {first_line(error)}"
        raise PackageError(message) from None


def save_again(program: Any, spec: Any, package: Path) -> Any:
    """Write a changed program as a raw package with the interface and metadata that it had.

    Args:
        program: the program of :func:`read_program`, changed in place.
        spec: the specification that came with it.
        package: the package to write, ending in ``.mlpackage``.

    Returns:
        The specification of the new package.

    Raises:
        OSError: a file could not be written.
    """
    ct = load_coremltools()
    from coremltools.converters.mil.converter import mil_convert

    with quiet(), writing():
        model = mil_convert(
            program,
            convert_from="milinternal",
            convert_to="mlprogram",
            compute_units=ct.ComputeUnit.CPU_ONLY,
            specification_version=spec.specificationVersion,
            model_description=spec.description,
            main_pipeline=ct.PassPipeline.EMPTY,
            skip_model_load=True,
            package_dir=str(package),
        )
    saved = model.get_spec()
    # Which version of coremltools converted it stands here.
    for key, value in spec.mlProgram.attributes.items():
        saved.mlProgram.attributes[key].CopyFrom(value)
    return saved


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Raise ``OSError`` where coremltools' writers in C++ cannot write a file.

    They do not tell why not; most often it is a full disk.
    """
    try:
        yield
    except RuntimeError as error:
        if _WRITING_ERRORS.search(str(error)) is None:
            raise
        words = " ".join(str(error).split()).rstrip(".")
        raise OSError(errno.EIO, f"{words} (is there enough space?)") from error


def _target(ios: int) -> Any:
    return getattr(load_coremltools().target, f"iOS{ios}")
