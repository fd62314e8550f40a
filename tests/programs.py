"""MIL programs of small models, fresh ones each time, and the packages saved from them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from packages import converted, image, read_tree

from mvit_coreml.export.atomic_package import finish_package
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.export.torch_to_mil import save_program
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import ArrayFeature

FAMILIES = ("mobilevit", "mobilevitv2", "mobilenet_v2")


@cache
def saved(family: str = "mobilevit", ios: int = 17, precision: str = "fp16") -> Path:
    """Convert a small classifier, without palettes, once for all tests."""
    package, _ = converted(family, output="logits", ios=ios, precision=precision)
    return package.path


def program_of(package: Path) -> Any:
    """Read a saved package back as a MIL program."""
    ct = load_coremltools()
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = ct.models.MLModel(str(package), skip_model_load=True).get_spec()
    weights = package / "Data/com.apple.CoreML/weights"
    return load(spec, spec.specificationVersion, str(weights))


def tiny(ios: int = 17, precision: str = "fp16") -> Any:
    """Build a program of five weights, with biases, in milliseconds."""
    ct = load_coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    dtype = np.dtype({"fp16": np.float16, "fp32": np.float32}[precision])
    rng = np.random.default_rng(0)
    mb.name_count.clear()

    def constant(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(dtype)

    def conv(x: Any, name: str, *shape: int, **more: Any) -> Any:
        weight, bias = constant(*shape), constant(shape[0])
        weight_var = mb.const(val=weight, name=f"{name}.weight")
        bias_var = mb.const(val=bias, name=f"{name}.bias")
        return mb.relu(x=mb.conv(x=x, weight=weight_var, bias=bias_var, name=name, **more))

    @mb.program(
        input_specs=[mb.TensorSpec((1, 3, 16, 16))],
        opset_version=getattr(ct.target, f"iOS{ios}"),
    )
    def built(x):  # type: ignore[no-untyped-def]
        x = mb.cast(x=x, dtype=precision)
        x = conv(x, "stem", 24, 3, 3, 3, strides=[2, 2], pad_type="same")
        x = conv(x, "depthwise", 24, 1, 3, 3, groups=24, pad_type="same")
        x = conv(x, "expand", 64, 24, 1, 1)
        x = conv(x, "mix", 64, 64, 1, 1)
        x = mb.reduce_mean(x=x, axes=[2, 3])
        weight = mb.const(val=constant(32, 64), name="head.weight")
        bias = mb.const(val=constant(32), name="head.bias")
        return mb.cast(x=mb.linear(x=x, weight=weight, bias=bias), dtype="fp32", name="scores")

    return built


TINY_WEIGHTS = {
    "stem_weight": (24, 3, 3, 3),
    "depthwise_weight": (24, 1, 3, 3),
    "expand_weight": (64, 24, 1, 1),
    "mix_weight": (64, 64, 1, 1),
    "head_weight": (32, 64),
}


def program(family: str = "mobilevit", ios: int = 17, precision: str = "fp16") -> Any:
    """Return a fresh unpalettized program."""
    return program_of(saved(family, ios, precision))


def save(built: Any, package: Path, ios: int = 17) -> dict[str, bytes]:
    """Write a program as a finished package; return its files."""
    finish_package(package, save_program(built, package, ios=ios, class_labels=None))
    return read_tree(package)


def logits(package: Path) -> np.ndarray:
    """Run a saved package on one picture, or one array."""
    loaded = load_package(package)
    (feature,) = loaded.function().inputs
    given = image()
    if isinstance(feature, ArrayFeature):
        given = np.random.default_rng(0).standard_normal(feature.shape).astype(np.float32)
    (result,) = Runtime(loaded).run({feature.name: given}).values()
    return np.asarray(result)


def constants(built: Any) -> dict[str, np.ndarray]:
    """Return every plain constant of a program that is an array of floats."""
    (function,) = built.functions.values()
    found = {op.outputs[0].name: op.outputs[0].val for op in function.operations}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }


def decompressed(package: Path) -> dict[str, np.ndarray]:
    """Return every array of floats in a package after coremltools has decompressed it."""
    ct = load_coremltools()
    import coremltools.optimize.coreml as cto

    model = ct.models.MLModel(str(package), skip_model_load=True)
    (function,) = cto.decompress_weights(model)._mil_program.functions.values()
    return {
        op.outputs[0].name: op.outputs[0].val
        for op in function.operations
        if op.op_type == "const" and isinstance(op.outputs[0].val, np.ndarray)
    }
