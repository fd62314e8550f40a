"""A saved package as a MIL program, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvit_coreml.errors import PackageError
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.export.torch_to_mil import writing


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
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise PackageError(f"{package}: coremltools cannot read it: {line}") from None


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

    several = len(program.functions) > 1
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
            **({"export_multi_functions": True} if several else {}),
        )
    saved = model.get_spec()
    # Which version of coremltools converted it stands here.
    for key, value in spec.mlProgram.attributes.items():
        saved.mlProgram.attributes[key].CopyFrom(value)
    return saved
