"""A Core ML package as typed, immutable objects: functions, operations, inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.mil.value_types import ListType, TensorType, ValueType
from mvit_coreml.mil.weight_file import WeightFile
from mvit_coreml.models.config import HeadActivation

ColorLayout = Literal["rgb", "bgr", "grayscale"]
FeatureKind = Literal["array", "image", "dictionary", "string", "int64"]
# The sizes that an input of several takes: alternatives, each with a range for every axis.
Sizes = tuple[tuple[range, ...], ...]

# Metadata key that holds what a classifier's logits go through.
ACTIVATION_KEY = "mvit_coreml.activation"

# Operations that a program's scores end in, to what they say of the scores.
_HEADS: dict[str, HeadActivation] = {
    "softmax": "softmax",
    "reduce_argmax": "softmax",
    "sigmoid": "sigmoid",
}
# What may stand between those and the outputs; the largest probability is a map's confidence.
_FINISHING = ("classify", "cast", "squeeze", "const", "identity", "reduce_max")
# What may stand between the scores of a map's own size and those of the output's.
_ENLARGING = ("upsample_bilinear", "resize_bilinear", "upsample_nearest_neighbor", "cast")
# Of ImageNet-1k, without and with a background.
_IMAGENET_CLASSES = (1000, 1001)


@dataclass(frozen=True)
class Reference:
    """A value that an earlier operation, or the function's caller, defines."""

    name: str


@dataclass(frozen=True, eq=False)
class Constant:
    """A value stored in the package, decoded only when asked for.

    Attributes:
        type: its declared type.
        weights: the weight file that holds it; None when it is stored in the program itself.
        offset: position of its descriptor in ``weights``.
        immediate: packed bytes, list of numbers or strings stored in the program itself.
    """

    type: ValueType
    weights: WeightFile | None = None
    offset: int = 0
    immediate: Any = field(default=None, repr=False)

    def decode(self) -> Any:
        """Return the value: an array of the declared shape, or a list for a list type.

        Integers narrower than a byte come unpacked as int8 or uint8.

        Raises:
            PackageError: the stored bytes do not fit the declared type.
        """
        if isinstance(self.type, ListType):
            return self.immediate
        if not isinstance(self.type, TensorType):
            raise PackageError(f"a constant of type {self.type} is not supported")
        if self.weights is not None:
            return self.weights.read(self.offset, self.type)
        stored, packed = self.immediate, isinstance(self.immediate, bytes)
        expected = self.type.stored_bytes if packed else self.type.count
        if expected is None:
            raise PackageError(f"a constant is declared with the open shape {self.type}")
        if len(stored) != expected:
            unit = "bytes" if packed else "values"
            raise PackageError(f"{len(stored)} {unit} are stored where {self.type} is declared")
        if packed:
            return self.type.decode(np.frombuffer(stored, np.uint8))
        return np.array(stored, self.type.data_type.numpy).reshape(self.type.sizes)

    def check(self) -> None:
        """Raise PackageError when the stored bytes do not fit the declared type."""
        if self.weights is not None and isinstance(self.type, TensorType):
            self.weights.locate(self.offset, self.type)
        else:
            self.decode()

    @property
    def stored_bytes(self) -> int:
        """Bytes that the elements take on disk."""
        size = self.type.stored_bytes if isinstance(self.type, TensorType) else None
        return size or 0


Argument = Reference | Constant


@dataclass(frozen=True)
class NamedValue:
    """A value that an operation or a function's caller defines."""

    name: str
    type: ValueType


@dataclass(frozen=True)
class Operation:
    """One operation of a function.

    Attributes:
        op_type: type of the operation in MIL: ``conv``, ``silu``, ``const``, ...
        name: its name, for messages and reports.
        inputs: arguments of each parameter; several where the parameter takes a tuple. What the
            package stores as attributes (``val`` of a const, parameters of old constexpr ops) is
            here too.
        outputs: the values it defines.
        blocks: what a loop or condition runs: condition and body, or either branch.
    """

    op_type: str
    name: str
    inputs: Mapping[str, tuple[Argument, ...]]
    outputs: tuple[NamedValue, ...]
    blocks: tuple[Block, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Whether the outputs are stored in the package, plain or compressed."""
        return self.op_type == "const" or self.op_type.startswith("constexpr_")

    @property
    def tensor_types(self) -> tuple[TensorType, ...]:
        """Types of its outputs that are tensors."""
        types = (output.type for output in self.outputs)
        return tuple(value_type for value_type in types if isinstance(value_type, TensorType))

    @property
    def value_names(self) -> tuple[str, ...]:
        """Names of the values that it or its blocks take, named constants included."""
        own = tuple(
            argument.name
            for arguments in self.inputs.values()
            for argument in arguments
            if isinstance(argument, Reference)
        )
        return own + tuple(name for block in self.blocks for name in block.captured)

    def walk(self) -> Iterator[Operation]:
        """Go through the operation and all that its blocks hold."""
        yield self
        for block in self.blocks:
            for operation in block.operations:
                yield from operation.walk()


@dataclass(frozen=True)
class Block:
    """Operations that a loop or condition runs; they see the values defined before it.

    Attributes:
        arguments: what each run of the block is handed.
        results: names of the values that it gives.
        operations: in order of execution.
    """

    arguments: tuple[NamedValue, ...]
    results: tuple[str, ...]
    operations: tuple[Operation, ...] = field(repr=False)

    @property
    def captured(self) -> tuple[str, ...]:
        """Names of the values that it takes from outside."""
        own = {value.name for value in self.arguments}
        own |= {output.name for operation in self.operations for output in operation.outputs}
        used = [name for operation in self.operations for name in operation.value_names]
        return tuple(name for name in dict.fromkeys([*used, *self.results]) if name not in own)


@dataclass(frozen=True)
class ImageFeature:
    """An image that the caller hands over as 8-bit pixels.

    The program receives (1, C, height, width) values from 0 to 255 in ``color_order``; the scale
    and bias of a conversion are ordinary operations at the start of the program.

    Attributes:
        height: its rows; where it may have several sizes, those of the default one.
        width: its columns, likewise.
        sizes: (height, width) where it may have several sizes, () otherwise.
    """

    name: str
    height: int
    width: int
    color_order: ColorLayout
    description: str = ""
    sizes: Sizes = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the values that the program receives."""
        return (1, 1 if self.color_order == "grayscale" else 3, self.height, self.width)


@dataclass(frozen=True)
class ArrayFeature:
    """An array that the caller hands over, of ``shape`` or, if there are any, one of ``sizes``."""

    name: str
    shape: tuple[int, ...]
    data_type: str
    description: str = ""
    sizes: Sizes = ()


def takes_size(
    feature: ImageFeature | ArrayFeature, size: tuple[int, ...], default: tuple[int, ...]
) -> bool:
    """Whether an input may have a size, if it has several; else whether it is the default one."""
    if not feature.sizes:
        return size == default
    return any(
        len(size) == len(ranges) and all(n in one for n, one in zip(size, ranges, strict=True))
        for ranges in feature.sizes
    )


@dataclass(frozen=True)
class OutputFeature:
    """One output as apps see it.

    Attributes:
        kind: ``array``, ``image``, ``dictionary`` (probability by label), ``string`` or ``int64``
            (the predicted label).
        shape: declared shape of an array, () where none is declared.
        data_type: element type of an array, empty otherwise.
        color_order: of an image.
    """

    name: str
    kind: FeatureKind
    shape: tuple[int, ...] = ()
    data_type: str = ""
    description: str = ""
    color_order: ColorLayout | None = None


@dataclass(frozen=True)
class Function:
    """One function of a program.

    Attributes:
        name: ``main`` unless the package has several.
        opset: iOS version whose operation definitions it uses: 15, 16, 17, 18 or 26.
        inputs: what the caller hands over, as apps see it.
        outputs: what the caller gets, as apps see it.
        arguments: the same inputs as values of the program.
        results: names of the values that the program returns.
        operations: in order of execution.
        predicted: names of the outputs that hold a classifier's label and its probabilities,
            empty where there is none.
        states: values that the function keeps from one call to the next.
    """

    name: str
    opset: int
    inputs: tuple[ImageFeature | ArrayFeature, ...]
    outputs: tuple[OutputFeature, ...]
    arguments: tuple[NamedValue, ...]
    results: tuple[str, ...]
    operations: tuple[Operation, ...] = field(repr=False)
    predicted: tuple[str, str] = ("", "")
    states: tuple[NamedValue, ...] = ()

    def walk(self) -> Iterator[Operation]:
        """Go through every operation, those in loops and conditions included."""
        for operation in self.operations:
            yield from operation.walk()

    def place(self, operation: Operation) -> str:
        """Name one of its operations for a message."""
        return f"{operation.op_type} {operation.name!r} in function {self.name!r}"

    def features_of(
        self, inputs: Iterable[str], outputs: Iterable[str] | None
    ) -> tuple[dict[str, ImageFeature | ArrayFeature], list[str]]:
        """Look up what a caller names: all inputs by name, and the outputs to compute.

        Args:
            inputs: names of the inputs that the caller hands over.
            outputs: names of the outputs that the caller asks for, None for all.

        Raises:
            InputError: an input is unknown or missing, or an output is unknown.
        """
        features = {feature.name: feature for feature in self.inputs}
        known = [output.name for output in self.outputs]
        names, asked = list(inputs), known if outputs is None else list(outputs)
        for what, chosen, there in (("input", names, features), ("output", asked, known)):
            for name in chosen:
                if name not in there:
                    has = ", ".join(there)
                    raise InputError(f"unknown {what} {name!r}; the package has: {has}")
        for name in features:
            if name not in names:
                raise InputError(f"the input {name!r} is missing")
        return features, asked

    @property
    def steps(self) -> tuple[Operation, ...]:
        """The operations that compute something: all but constants."""
        return tuple(operation for operation in self.operations if not operation.is_constant)

    @property
    def producers(self) -> dict[str, Operation]:
        """Name of every value that an operation defines to that operation."""
        return {output.name: op for op in self.operations for output in op.outputs}

    @property
    def labels(self) -> tuple[str | int, ...] | None:
        """Class labels in order of class index; None when this is no classifier."""
        for operation in self.operations:
            if operation.op_type == "classify":
                (classes,) = operation.inputs["classes"]
                if isinstance(classes, Constant):
                    return tuple(classes.decode())
        return None


@dataclass(frozen=True)
class Metadata:
    """What Xcode shows about a package."""

    author: str = ""
    license: str = ""
    short_description: str = ""
    version: str = ""
    user_defined: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Package:
    """A saved ML Program.

    Attributes:
        path: the .mlpackage folder.
        specification_version: 6 to 10 for iOS 15, 16, 17, 18 and 26.
        functions: by name.
        default_function: the one that runs when none is asked for.
        metadata: author, licence, and so on.
    """

    path: Path
    specification_version: int
    functions: Mapping[str, Function]
    default_function: str
    metadata: Metadata

    def function(self, name: str | None = None) -> Function:
        """Return the function called ``name``, or the default one.

        Raises:
            PackageError: there is no such function.
        """
        chosen = self.default_function if name is None else name
        if chosen not in self.functions:
            known = ", ".join(sorted(self.functions))
            raise PackageError(f"{self.path} has no function {chosen!r}; it has: {known}")
        return self.functions[chosen]

    def walk(self) -> Iterator[tuple[Function, Operation]]:
        """Go through every operation of every function, nested ones included."""
        for function in self.functions.values():
            for operation in function.walk():
                yield function, operation


@dataclass(frozen=True)
class Scores:
    """What to compare of a function with another that should answer alike.

    Attributes:
        name: of the value.
        activation: ``softmax`` or ``sigmoid`` where it holds a score for each class along axis 1,
            ``none`` for features and values.
        others: names of further values, of outputs that neither follow from it nor lead to it, as
            the boxes of a detector beside its scores; then none is of classes.
    """

    name: str
    activation: HeadActivation
    others: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of all these values."""
        return (self.name, *self.others)


def raw_scores_name(function: Function) -> str | None:
    """Name of what a function's last softmax, argmax or sigmoid is taken of, if it has one."""
    head = _head(function)
    return None if head is None else _source(head)


def head_activation(package: Package, function: Function) -> HeadActivation:
    """Return what a function's scores go through, in the package or afterwards.

    Logits go through what the package's metadata says, through a softmax if it says nothing.
    """
    head = _head(function)
    if head is not None:
        return _HEADS[head.op_type]
    stored: Any = package.metadata.user_defined.get(ACTIVATION_KEY)
    return stored if stored in get_args(HeadActivation) else "softmax"


def _head(function: Function) -> Operation | None:
    classifies = any(operation.op_type == "classify" for operation in function.operations)
    for operation in reversed(function.operations):
        # Elsewhere a sigmoid may end anything, such as the boxes of a detector.
        if operation.op_type in _HEADS and (classifies or operation.op_type != "sigmoid"):
            return operation
        if operation.op_type not in _FINISHING:
            return None
    return None


def find_scores(package: Package, function: Function, num_labels: int | None = None) -> Scores:
    """Return a function's scores, or its arrays and images where it gives no scores.

    Maps of scores are taken before they are enlarged to the size of the output.

    Args:
        package: of any tool; its metadata says what logits go through.
        function: of it.
        num_labels: number of classes, if known.

    Raises:
        PackageError: it has neither.
    """
    tensors = {
        result: output
        for kind in ("array", "image")
        for result, output in zip(function.results, function.outputs, strict=True)
        if output.kind == kind
    }
    names = _independent([*tensors], function)
    name, activation = raw_scores_name(function), head_activation(package, function)
    if name is not None and any(name not in _ancestors(each, function) for each in names):
        name = None  # one of several answers
    if name is None:
        name = _classified(function)
    if name is None and not names:
        raise PackageError(f"function {function.name!r} returns neither scores nor arrays")
    if name is None:
        name, *others = names
        if others:
            return Scores(name, "none", tuple(others))
        output = tensors[name]
        shape = output.shape or _declared_shape(name, function)
        if output.name != "logits" and not holds_classes(shape, num_labels):
            activation = "none"
    makers = function.producers
    while name in makers and makers[name].op_type in _ENLARGING:
        source = _source(makers[name])
        if source is None:
            break
        name = source
    return Scores(name, activation)


def holds_classes(shape: tuple[int, ...], num_labels: int | None) -> bool:
    """Whether an array of some shape holds a score for each class along axis 1.

    Where the number of classes is not known, a vector as long as ImageNet has classes is one.

    Args:
        shape: of the array, the first axis being the batch.
        num_labels: number of classes, if known.
    """
    if num_labels is None:
        return len(shape) == 2 and shape[1] in _IMAGENET_CLASSES
    return len(shape) in (2, 4) and shape[1] == num_labels


def classified_value(function: Function) -> str | None:
    """Name of the value that a classifier's probabilities are made of, ``None`` for others."""
    for operation in function.operations:
        if operation.op_type == "classify":
            argument = next(iter(operation.inputs.get("probabilities", ())), None)
            return argument.name if isinstance(argument, Reference) else None
    return None


def _classified(function: Function) -> str | None:
    """Name of a classifier's scores, before a sigmoid if that is what makes them."""
    name, makers = classified_value(function), function.producers
    while name in makers and makers[name].op_type in ("cast", "squeeze", "sigmoid"):
        name = _source(makers[name])
    return name


def _independent(names: list[str], function: Function) -> list[str]:
    """Return those of some values that neither follow from one before them nor lead to it."""
    kept: list[str] = []
    for name in names:
        before = _ancestors(name, function)
        if not any(other in before or name in _ancestors(other, function) for other in kept):
            kept.append(name)
    return kept


def _ancestors(name: str, function: Function) -> set[str]:
    """Return the names of all values that a value follows from, itself included."""
    makers, reached, waiting = function.producers, {name}, [name]
    while waiting:
        maker = makers.get(waiting.pop())
        for source in () if maker is None else maker.value_names:
            if source not in reached:
                reached.add(source)
                waiting.append(source)
    return reached


def _declared_shape(name: str, function: Function) -> tuple[int, ...]:
    maker = function.producers.get(name)
    types = [value.type for value in (() if maker is None else maker.outputs) if value.name == name]
    return tuple(size or 0 for each in types for size in getattr(each, "shape", ()))


def _source(operation: Operation) -> str | None:
    argument = operation.inputs["x"][0]
    return argument.name if isinstance(argument, Reference) else None
