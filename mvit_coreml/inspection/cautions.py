"""What to beware of in a package, seen in its program without running it.

Nothing here was measured on a device. What is said about the Neural Engine was reported by Apple's
articles on transformers for it, by coremltools' documentation, or by users.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mvit_coreml.errors import PackageError
from mvit_coreml.evaluation.read_metadata import class_labels
from mvit_coreml.export.metadata import PREPROCESSING_KEY
from mvit_coreml.files import parse_json
from mvit_coreml.inspection.input_arithmetic import channel_numbers, read_baked_preprocessing
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


def package_cautions(package: Package, ios: int) -> Iterator[Caution]:
    """Yield what concerns a package as a whole.

    Args:
        package: the package.
        ios: its deployment target.
    """
    if len(package.functions) > 1 and ios < MULTIFUNCTION_IOS:
        message = f"several functions need iOS {MULTIFUNCTION_IOS}, the package is for iOS {ios}"
        yield Caution(kind="target", function="", message=message)
    newest = max(function.opset for function in package.functions.values())
    if newest > ios:
        message = f"operations of iOS {newest} in a package whose specification is of iOS {ios}"
        yield Caution(kind="target", function="", message=message)
    try:
        check_package(package)
    except PackageError as error:
        message = f"the portable runtime cannot run it: {error}"
        yield Caution(kind="runtime", function="", message=message)


def function_cautions(
    package: Package, function: Function, constants: Constants
) -> Iterator[Caution]:
    """Yield what concerns one function."""
    graph = _Graph(function, constants)
    yield from _newer_than_target(graph)
    yield from _wide_precision(graph)
    yield from _operation_remarks(graph)
    yield from _repeated_labels(package, graph)
    yield from _stated_preprocessing(package, graph)


class _Graph:
    """A function with what the checks ask of it."""

    def __init__(self, function: Function, constants: Constants) -> None:
        self.function, self.constants = function, constants
        self.steps = function.steps
        self.producers = {output.name: step for step in self.steps for output in step.outputs}
        self.preprocessing = read_baked_preprocessing(function, constants)

    def source(self, argument: Argument) -> Operation | None:
        """The operation that computes an argument."""
        return self.producers.get(argument.name) if isinstance(argument, Reference) else None

    def caution(self, kind: Kind, message: str, operations: Iterable[str] = ()) -> Caution:
        """A caution about the function."""
        return Caution(
            kind=kind, function=self.function.name, message=message, operations=tuple(operations)
        )

    def where(self, condition: Callable[[Operation], bool]) -> list[str]:
        """Names of the operations that a condition holds for."""
        return [step.name for step in self.steps if condition(step)]


def _newer_than_target(graph: _Graph) -> Iterator[Caution]:
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
        message = f"{what} needs iOS {since}, the function is for iOS {ios}"
        yield graph.caution("target", message, names)


def _takes(kernel: Kernel | None, operation: Operation) -> bool:
    """Whether a version of an operation has these parameters."""
    if kernel is None:
        return False
    known = set(kernel.tensors) | kernel.attributes
    return kernel.required <= set(operation.inputs) <= known


def _sub_byte(operation: Operation) -> Iterator[str]:
    for value_type in operation.tensor_types:
        if 0 < value_type.data_type.bits < 8:
            yield f"the element type {value_type.data_type.name}"
    if operation.op_type == "constexpr_lut_to_dense":
        table = operation.inputs["lut"][0]
        size = getattr(getattr(table, "type", None), "count", None)
        if size is not None and size not in _TABLE_SIZES:
            yield f"a palette of {size} values"


def _wide_precision(graph: _Graph) -> Iterator[Caution]:
    half, single = [], []
    baked = graph.preprocessing.operations if graph.preprocessing is not None else ()
    for step in graph.steps:
        if step.op_type in ("cast", "classify") or step.name in baked:
            continue
        names = {value_type.data_type.name for value_type in step.tensor_types}
        if "fp16" in names:
            half.append(step.name)
        elif "fp32" in names:
            single.append(step.name)
    if single and half:
        message = (
            f"{_count(single, 'operation')} in fp32 in an fp16 program: reported to leave the "
            "Neural Engine, which computes in fp16"
        )
        yield graph.caution("neural engine", message, single)
    elif single:
        message = "the program computes in fp32: reported to stay off the Neural Engine"
        yield graph.caution("neural engine", message)


def _operation_remarks(graph: _Graph) -> Iterator[Caution]:
    """Remark on operations that are best avoided: how many there are, and why."""

    def remark(
        names: Sequence[str], noun: str, text: str, kind: Kind = "neural engine"
    ) -> Iterator[Caution]:
        if names:
            yield graph.caution(kind, _count(names, noun) + text, names)

    leaves = "reported to leave the Neural Engine"
    text = " of rank 6 or more, which Core ML refuses"
    yield from remark(graph.where(lambda step: _rank(step) > 5), "value", text, "target")
    text = " of rank 5: ranks above 4 are reported to leave the Neural Engine"
    yield from remark(graph.where(lambda step: _rank(step) == 5), "value", text)
    for op_type in _GATHERS:
        gathers = [step.name for step in graph.steps if step.op_type == op_type]
        yield from remark(gathers, op_type, f": {leaves}")
    selecting = graph.where(lambda step: _selects_pixels(step, graph.constants))
    text = (
        " that only select pixels, by a dense weight of zeros and ones (unfold): pixel_unshuffle "
        "does the same without weights"
    )
    yield from remark(selecting, "convolution", text)
    padded = [step.name for step in graph.steps for t in step.tensor_types if _pads_much(t)]
    text = (
        f" with a last axis of 1, which the Neural Engine is reported to pad to {_PADDED_BYTES} "
        "bytes"
    )
    yield from remark(padded, "large value", text)
    text = f" whose shape only a run decides: {leaves}"
    yield from remark(_dynamic_shapes(graph), "value", text)
    yield from remark(
        graph.where(lambda step: bool(step.blocks)), "loop or condition", f": {leaves}"
    )
    norms = graph.where(lambda step: _is_root_of_mean(step, graph))
    text = (
        " spelled out in single operations; layer_norm, instance_norm or batch_norm are reported "
        "to run better"
    )
    yield from remark(norms, "normalisation", text)
    squares = graph.where(lambda step: _is_fp16_square(step, graph.constants))
    text = (
        f" in fp16, which overflow where a value exceeds {_LARGEST_SQUARE_ROOT}; predict "
        "--headroom measures how near they come"
    )
    yield from remark(squares, "square", text, "precision")


def _rank(operation: Operation) -> int:
    return max((len(value_type.shape) for value_type in operation.tensor_types), default=0)


def _selects_pixels(step: Operation, constants: Constants) -> bool:
    """Whether a convolution only picks pixels, as unfolding into patches is converted to."""
    weight = step.inputs.get("weight", (None,))[0]
    if step.op_type != "conv" or weight is None or not constants.is_constant(weight):
        return False
    shape = constants.type_of(weight).shape
    if math.prod(shape[1:]) < 2:
        return False  # depthwise 1x1: a scale
    try:
        values = constants.decode(weight)
    except PackageError:
        return False  # said by the check of the whole package
    largest = values.reshape(shape[0], -1).max(1)
    return bool(np.count_nonzero(values) == shape[0] and (largest == 1).all())


def _pads_much(value_type: TensorType) -> bool:
    shape, count = value_type.shape, value_type.count or 0
    narrow = len(shape) >= 3 and shape[-1] == 1 and shape[-2] != 1
    return narrow and count * _PADDED_BYTES >= _MUCH_PADDING


def _dynamic_shapes(graph: _Graph) -> list[str]:
    names = graph.where(lambda step: any(None in value.shape for value in step.tensor_types))
    return names + [
        argument.name
        for argument in graph.function.arguments
        if isinstance(argument.type, TensorType) and None in argument.type.shape
    ]


def _is_root_of_mean(step: Operation, graph: _Graph) -> bool:
    """Whether a step belongs to a normalisation spelled out in single operations."""
    if step.op_type not in ("sqrt", "rsqrt"):
        return False
    source = graph.source(step.inputs["x"][0])
    if source is not None and source.op_type in ("add", "maximum", "cast"):
        inputs = [source.inputs[name][0] for name in ("x", "y") if name in source.inputs]
        source = next(filter(None, map(graph.source, inputs)), None)
    return source is not None and source.op_type == "reduce_mean"


def _is_fp16_square(step: Operation, constants: Constants) -> bool:
    if all(value_type.data_type.name != "fp16" for value_type in step.tensor_types):
        return False
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


def _repeated_labels(package: Package, graph: _Graph) -> Iterator[Caution]:
    labels = Counter(class_labels(package, graph.function))
    repeated = [label for label, count in labels.items() if count > 1]
    if repeated:
        message = (
            f"repeated labels: {', '.join(repeated[:5])}{', …' if len(repeated) > 5 else ''}; "
            "Core ML keys probabilities by label and loses all but one of each"
        )
        yield graph.caution("labels", message)


def _stated_preprocessing(package: Package, graph: _Graph) -> Iterator[Caution]:
    """Compare the preprocessing that the metadata describes with what the program does."""
    text = package.metadata.user_defined.get(PREPROCESSING_KEY)
    actual = graph.preprocessing
    if text is None or actual is None:
        return
    try:
        described: Any = parse_json(text)[graph.function.name]
        baked = described["baked"]
        scale, bias = float(baked["scale"]), [float(value) for value in baked["bias"]]
        order = str(described["color_order"]).upper()
    except (ValueError, KeyError, TypeError):
        yield graph.caution("metadata", f"the metadata {PREPROCESSING_KEY} is damaged")
        return
    for what, stated, does in (
        ("scale", [scale] * len(actual.scale), actual.scale),
        ("bias", bias, actual.bias),
    ):
        if len(stated) != len(does) or not np.allclose(stated, does, rtol=1e-5, atol=1e-6):
            has = f"the program has {channel_numbers(does)}"
            says = f"the metadata says {what} {channel_numbers(stated)}"
            yield graph.caution("metadata", f"{says}, {has}")
    if order != actual.color_order.upper():
        message = f"the metadata says {order}, the image input is {actual.color_order.upper()}"
        yield graph.caution("metadata", message)


def _count(names: Sequence[str], noun: str) -> str:
    plural = "loops or conditions" if noun == "loop or condition" else f"{noun}s"
    return f"{len(names)} {noun if len(names) == 1 else plural}"
