"""What to beware of in a package, found in its program without running it.

Nothing here was measured on a device. What is said about the Neural Engine was reported by Apple's
articles on transformers for it, by coremltools' documentation, or by users.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mvit_coreml.errors import PackageError
from mvit_coreml.evaluation.class_labels import class_labels
from mvit_coreml.export.metadata import PREPROCESSING_KEY
from mvit_coreml.inspection.baked_preprocessing import read_baked_preprocessing
from mvit_coreml.mil.kernels import Kernel, find_kernel
from mvit_coreml.mil.package_check import check_package
from mvit_coreml.mil.program import Argument, Function, Operation, Package, Reference
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.mil.value_types import TensorType

Kind = Literal["labels", "neural engine", "target", "precision", "metadata", "runtime"]

MULTIFUNCTION_IOS = 18
_SUB_BYTE_IOS = 18
_TABLE_SIZES = (2, 4, 16, 64, 256)  # of palettes before iOS 18
_GATHERS = ("gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis")
_NEWEST = 10**6
# A last axis is padded to 64 bytes: one of a single element takes this many times its size.
_PADDED_BYTES = 64
_MUCH_PADDING = 256 * 1024
_LARGEST_SQUARE_ROOT = 255.9  # of fp16's largest number


@dataclass(frozen=True, kw_only=True)
class Caution:
    """Something to beware of.

    Attributes:
        kind: what it concerns.
        function: name of the function, empty for the package as a whole.
        message: one sentence.
        operations: names of the operations in question.
    """

    kind: Kind
    function: str
    message: str
    operations: tuple[str, ...] = ()


def package_cautions(package: Package, ios: int) -> list[Caution]:
    """Return what concerns a package as a whole.

    Args:
        package: the package.
        ios: its deployment target.
    """

    def caution(kind: Kind, message: str) -> Caution:
        return Caution(kind=kind, function="", message=message)

    found = []
    if len(package.functions) > 1 and ios < MULTIFUNCTION_IOS:
        found.append(
            caution(
                "target",
                f"several functions need iOS {MULTIFUNCTION_IOS}, the package is for iOS {ios}",
            )
        )
    newest = max(function.opset for function in package.functions.values())
    if newest > ios:
        found.append(
            caution(
                "target",
                f"operations of iOS {newest} in a package whose specification is of iOS {ios}",
            )
        )
    try:
        check_package(package)
    except PackageError as error:
        found.append(caution("runtime", f"the portable runtime cannot run it: {error}"))
    return found


def function_cautions(package: Package, function: Function, constants: Constants) -> list[Caution]:
    """Return what concerns one function."""
    graph = _Graph(function, constants)
    found: list[Caution] = []
    checks: tuple[Callable[[_Graph], Iterator[tuple[Kind, str, Sequence[str]]]], ...] = (
        _newer_than_target,
        _wide_precision,
        _high_ranks,
        _gathers,
        _selecting_convolutions,
        _narrow_values,
        _dynamic_shapes,
        _control_flow,
        _decomposed_norms,
        _squares,
    )
    for check in checks:
        for kind, message, operations in check(graph):
            found.append(
                Caution(
                    kind=kind, function=function.name, message=message, operations=tuple(operations)
                )
            )
    for kind, message in (*_labels(package, function), *_metadata(package, function, constants)):
        found.append(Caution(kind=kind, function=function.name, message=message))
    return found


Found = Iterator[tuple[Kind, str, Sequence[str]]]


class _Graph:
    """A function with what the checks ask of it."""

    def __init__(self, function: Function, constants: Constants) -> None:
        self.function, self.constants = function, constants
        self.steps = [step for step in function.operations if not step.is_constant]
        self.producers = {output.name: step for step in self.steps for output in step.outputs}
        baked = read_baked_preprocessing(function, constants)
        self.baked = frozenset(baked.operations if baked is not None else ())

    def source(self, argument: Argument) -> Operation | None:
        """The operation that computes an argument."""
        return self.producers.get(argument.name) if isinstance(argument, Reference) else None


def _types(operation: Operation) -> Iterator[TensorType]:
    return (output.type for output in operation.outputs if isinstance(output.type, TensorType))


def _newer_than_target(graph: _Graph) -> Found:
    """Operations, parameters, tables and element types that a newer iOS introduced."""
    ios = graph.function.opset
    needed: dict[tuple[str, int], list[str]] = {}
    for operation in graph.function.operations:
        newest = find_kernel(operation.op_type, _NEWEST)
        if _takes(newest, operation) and not _takes(find_kernel(operation.op_type, ios), operation):
            assert newest is not None
            key = (f"{operation.op_type} as it stands here", newest.first_opset)
            needed.setdefault(key, []).append(operation.name)
            continue
        if ios < _SUB_BYTE_IOS:
            for what in _sub_byte(operation):
                needed.setdefault((what, _SUB_BYTE_IOS), []).append(operation.name)
    for (what, since), names in needed.items():
        yield "target", f"{what} needs iOS {since}, the function is for iOS {ios}", names


def _takes(kernel: Kernel | None, operation: Operation) -> bool:
    """Whether a version of an operation has these parameters."""
    if kernel is None:
        return False
    known = set(kernel.tensors) | kernel.attributes
    return kernel.required <= set(operation.inputs) <= known


def _sub_byte(operation: Operation) -> Iterator[str]:
    for value_type in _types(operation):
        if 0 < value_type.data_type.bits < 8:
            yield f"the element type {value_type.data_type.name}"
    if operation.op_type == "constexpr_lut_to_dense":
        table = operation.inputs["lut"][0]
        size = getattr(getattr(table, "type", None), "count", None)
        if size is not None and size not in _TABLE_SIZES:
            yield f"a palette of {size} values"


def _wide_precision(graph: _Graph) -> Found:
    half, single = [], []
    for step in graph.steps:
        if step.op_type in ("cast", "classify") or step.name in graph.baked:
            continue
        names = {value_type.data_type.name for value_type in _types(step)}
        if "fp16" in names:
            half.append(step.name)
        elif "fp32" in names:
            single.append(step.name)
    if single and half:
        yield (
            "neural engine",
            f"{_count(single, 'operation')} in fp32 in an fp16 program: reported to leave the "
            "Neural Engine, which computes in fp16",
            single,
        )
    elif single:
        yield (
            "neural engine",
            "the program computes in fp32: reported to stay off the Neural Engine",
            (),
        )


def _high_ranks(graph: _Graph) -> Found:
    ranks = [(max((len(t.shape) for t in _types(step)), default=0), step) for step in graph.steps]
    refused = [step.name for rank, step in ranks if rank > 5]
    high = [step.name for rank, step in ranks if rank == 5]
    if refused:
        yield (
            "target",
            f"{_count(refused, 'value')} of rank 6 or more, which Core ML refuses",
            (refused),
        )
    if high:
        yield (
            "neural engine",
            f"{_count(high, 'value')} of rank 5: ranks above 4 are reported to leave the Neural "
            "Engine",
            high,
        )


def _gathers(graph: _Graph) -> Found:
    for op_type in _GATHERS:
        names = [step.name for step in graph.steps if step.op_type == op_type]
        if names:
            yield (
                "neural engine",
                f"{_count(names, op_type)}: reported to leave the Neural Engine",
                names,
            )


def _selecting_convolutions(graph: _Graph) -> Found:
    """Convolutions that only pick pixels, as unfolding into patches is converted to."""
    names = []
    for step in graph.steps:
        weight = step.inputs.get("weight", (None,))[0]
        if step.op_type != "conv" or weight is None or not graph.constants.is_constant(weight):
            continue
        shape = graph.constants.type_of(weight).shape
        if math.prod(shape[1:]) < 2:
            continue  # depthwise 1x1: a scale
        try:
            values = graph.constants.decode(weight)
        except PackageError:
            continue  # said by the check of the whole package
        if (
            np.count_nonzero(values) == shape[0]
            and (values.reshape(shape[0], -1).max(1) == 1).all()
        ):
            names.append(step.name)
    if names:
        yield (
            "neural engine",
            f"{_count(names, 'convolution')} that only select pixels, by a dense weight of zeros "
            "and ones (unfold): pixel_unshuffle does the same without weights",
            names,
        )


def _narrow_values(graph: _Graph) -> Found:
    names = []
    for step in graph.steps:
        for value_type in _types(step):
            shape, count = value_type.shape, value_type.count or 0
            narrow = len(shape) >= 3 and shape[-1] == 1 and shape[-2] != 1
            if narrow and count * _PADDED_BYTES >= _MUCH_PADDING:
                names.append(step.name)
    if names:
        yield (
            "neural engine",
            f"{_count(names, 'large value')} with a last axis of 1, which the Neural Engine is "
            f"reported to pad to {_PADDED_BYTES} bytes",
            names,
        )


def _dynamic_shapes(graph: _Graph) -> Found:
    names = [
        step.name for step in graph.steps if any(None in value.shape for value in _types(step))
    ]
    names += [
        argument.name
        for argument in graph.function.arguments
        if isinstance(argument.type, TensorType) and None in argument.type.shape
    ]
    if names:
        yield (
            "neural engine",
            f"{_count(names, 'value')} whose shape only a run decides: reported to leave the "
            "Neural Engine",
            names,
        )


def _control_flow(graph: _Graph) -> Found:
    names = [step.name for step in graph.steps if step.has_blocks]
    if names:
        yield (
            "neural engine",
            f"{_count(names, 'loop or condition', 'loops or conditions')}: reported to leave the "
            "Neural Engine",
            names,
        )


def _decomposed_norms(graph: _Graph) -> Found:
    """Roots of means: a normalisation spelled out in single operations."""
    names = []
    for step in graph.steps:
        if step.op_type not in ("sqrt", "rsqrt"):
            continue
        source = graph.source(step.inputs["x"][0])
        if source is not None and source.op_type in ("add", "maximum", "cast"):
            sources = (
                graph.source(source.inputs[name][0]) for name in ("x", "y") if name in source.inputs
            )
            source = next((found for found in sources if found is not None), None)
        if source is not None and source.op_type == "reduce_mean":
            names.append(step.name)
    if names:
        yield (
            "neural engine",
            f"{_count(names, 'normalisation')} spelled out in single operations; layer_norm, "
            "instance_norm or batch_norm are reported to run better",
            names,
        )


def _squares(graph: _Graph) -> Found:
    names = [
        step.name
        for step in graph.steps
        if any(value_type.data_type.name == "fp16" for value_type in _types(step))
        and _is_square(step, graph.constants)
    ]
    if names:
        yield (
            "precision",
            f"{_count(names, 'square')} in fp16, which overflow where a value exceeds "
            f"{_LARGEST_SQUARE_ROOT}; predict --headroom measures how near they come",
            names,
        )


def _is_square(step: Operation, constants: Constants) -> bool:
    if step.op_type in ("square", "reduce_sum_square", "reduce_l2_norm"):
        return True
    x, y = step.inputs.get("x", (None,))[0], step.inputs.get("y", (None,))[0]
    if x is None or y is None:
        return False
    if step.op_type == "mul":
        return isinstance(x, Reference) and x == y and not constants.is_constant(x)
    if step.op_type != "pow" or not constants.is_constant(y):
        return False
    return bool(np.all(np.asarray(constants.decode(y)) == 2))


def _labels(package: Package, function: Function) -> Iterator[tuple[Kind, str]]:
    labels = class_labels(package, function)
    repeated = [label for label, count in Counter(labels).items() if count > 1]
    if repeated:
        yield (
            "labels",
            f"repeated labels: {', '.join(repeated[:5])}{', …' if len(repeated) > 5 else ''}; "
            "Core ML keys probabilities by label and loses all but one of each",
        )


def _metadata(
    package: Package, function: Function, constants: Constants
) -> Iterator[tuple[Kind, str]]:
    """Compare the preprocessing that the metadata describes with what the program does."""
    text = package.metadata.user_defined.get(PREPROCESSING_KEY)
    found = read_baked_preprocessing(function, constants)
    if text is None or found is None:
        return
    try:
        described: Mapping[str, object] = json.loads(text)[function.name]
        baked = described["baked"]
        assert isinstance(baked, Mapping)
        scale, bias = float(baked["scale"]), [float(value) for value in baked["bias"]]
        order = str(described["color_order"]).lower()
    except (ValueError, KeyError, TypeError, AssertionError):
        yield "metadata", f"the metadata {PREPROCESSING_KEY} is damaged"
        return
    for what, ought, does in (
        ("scale", [scale] * len(found.scale), list(found.scale)),
        ("bias", bias, list(found.bias)),
    ):
        if len(ought) != len(does) or not np.allclose(ought, does, rtol=1e-5, atol=1e-6):
            yield (
                "metadata",
                f"the metadata says {what} {_numbers(ought)}, the program has {_numbers(does)}",
            )
    if order != found.color_order:
        yield (
            "metadata",
            f"the metadata says {order.upper()}, the image input is {found.color_order.upper()}",
        )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in dict.fromkeys(values))


def _count(names: Sequence[str], word: str, plural: str | None = None) -> str:
    return f"{len(names)} {word if len(names) == 1 else plural or word + 's'}"
