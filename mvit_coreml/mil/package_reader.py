"""Reads an .mlpackage from disk: manifest, program (protobuf) and weights."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mvit_coreml.errors import PackageError
from mvit_coreml.files import parse_json
from mvit_coreml.mil.program import (
    Argument,
    ArrayFeature,
    Block,
    ColorLayout,
    Constant,
    FeatureKind,
    Function,
    ImageFeature,
    Metadata,
    NamedValue,
    Operation,
    OutputFeature,
    Package,
    Reference,
    Sizes,
)
from mvit_coreml.mil.value_types import BY_CODE, DictionaryType, ListType, TensorType, ValueType
from mvit_coreml.mil.weight_file import WeightFile

# Opset name in the program to the iOS version that introduced it.
OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}
# FeatureTypes.proto's ColorSpace and ArrayDataType.
_COLOR_ORDERS: dict[int, ColorLayout] = {10: "grayscale", 20: "rgb", 30: "bgr", 40: "grayscale"}
_ARRAY_TYPES = {65552: "fp16", 65568: "fp32", 65600: "fp64", 131104: "int32", 131080: "int8"}
_OUTPUT_KINDS: dict[str, FeatureKind] = {
    "dictionaryType": "dictionary",
    "stringType": "string",
    "int64Type": "int64",
}
_MODEL_PATH = "@model_path/"
_CONVERT_AGAIN = "only its source, converted with minimum_deployment_target iOS15 or newer, can run"
_PRIVATE_PACKAGE = "mvit_coreml.mil._coremltools_proto"


def load_package(path: str | Path) -> Package:
    """Read a saved ML Program.

    Weights are decoded when they are first needed, and checked by
    :func:`mvit_coreml.mil.package_check.check_package`.

    Args:
        path: an .mlpackage folder.

    Raises:
        PackageError: the folder is no package, a file is missing or damaged, or the model is not
            an ML Program.
    """
    root = Path(path)
    specification = _specification_path(root)
    try:
        model = parse_model(specification.read_bytes())
    except ValueError:
        raise PackageError(f"{specification} is damaged: it is no Core ML model") from None
    except OSError as error:
        raise PackageError(f"cannot read {specification}: {error.strerror}") from None
    kind = model.WhichOneof("Type")
    if kind != "mlProgram":
        way_out = "save its models one by one" if "ipeline" in (kind or "") else _CONVERT_AGAIN
        raise PackageError(
            f"{root} holds a {kind or 'model without content'}, not an ML Program; {way_out}"
        )
    reader = _ProgramReader(specification.parent)
    described = _described_functions(model)
    functions = {
        name: reader.function(name, program, described.get(name))
        for name, program in sorted(model.mlProgram.functions.items())
    }
    default = model.description.defaultFunctionName or "main"
    if default not in functions:
        raise PackageError(f"{root} has no function {default!r}, which it names as its default")
    metadata = model.description.metadata
    return Package(
        path=root,
        specification_version=model.specificationVersion,
        functions=functions,
        default_function=default,
        metadata=Metadata(
            author=metadata.author,
            license=metadata.license,
            short_description=metadata.shortDescription,
            version=metadata.versionString,
            # A protobuf's map has another order in every process.
            user_defined=dict(sorted(metadata.userDefined.items())),
        ),
    )


def _specification_path(root: Path) -> Path:
    """Return the file that the package's manifest names as its model."""
    manifest = root / "Manifest.json"
    if not root.is_dir() or not manifest.is_file():
        raise PackageError(f"{root} is no .mlpackage folder: it has no Manifest.json")
    try:
        content = parse_json(manifest.read_text(encoding="utf-8"))
        relative = content["itemInfoEntries"][content["rootModelIdentifier"]]["path"]
        data = (root / "Data").resolve()
        path = (data / relative).resolve()
    except (ValueError, KeyError, TypeError, OSError):
        raise PackageError(f"{manifest} is damaged: it names no model") from None
    if not path.is_relative_to(data):
        raise PackageError(f"{manifest} names a file outside the package: {relative}")
    if not path.is_file():
        raise PackageError(f"{root} lacks {relative}, which its Manifest.json names")
    return path


def _described_functions(model: Any) -> dict[str, Any]:
    """Map function names to what apps see of them; a single function is described directly."""
    if model.description.functions:
        return {function.name: function for function in model.description.functions}
    return dict.fromkeys(model.mlProgram.functions, model.description)


class _ProgramReader:
    """Turns protobuf messages into the dataclasses of ``program``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.weights: dict[Path, WeightFile] = {}

    def function(self, name: str, message: Any, described: Any) -> Function:
        if message.opset not in OPSETS:
            known = ", ".join(OPSETS)
            raise PackageError(
                f"function {name!r} uses the opset {message.opset!r}; this version knows {known}"
            )
        if message.opset not in message.block_specializations:
            raise PackageError(f"function {name!r} has no block for its opset {message.opset}")
        if described is None:
            raise PackageError(f"function {name!r} has no description of its inputs and outputs")
        block = message.block_specializations[message.opset]
        place = partial("{1} of function {0!r}".format, name)
        return Function(
            name=name,
            opset=OPSETS[message.opset],
            inputs=tuple(_input(feature, place("an input")) for feature in described.input),
            outputs=tuple(_output(feature, place("an output")) for feature in described.output),
            arguments=_arguments(value for value in message.inputs if not _is_state(value)),
            results=tuple(block.outputs),
            operations=tuple(self._operation(operation, name) for operation in block.operations),
            predicted=(described.predictedFeatureName, described.predictedProbabilitiesName),
            states=_arguments(filter(_is_state, message.inputs)),
        )

    def _block(self, message: Any, function: str) -> Block:
        return Block(
            arguments=_arguments(message.inputs),
            results=tuple(message.outputs),
            operations=tuple(
                self._operation(operation, function) for operation in message.operations
            ),
        )

    def _operation(self, message: Any, function: str) -> Operation:
        name = message.outputs[0].name if message.outputs else message.type
        if "name" in message.attributes:
            texts = message.attributes["name"].immediateValue.tensor.strings.values
            name = texts[0] if texts else name
        place = f"operation {message.type!r} {name!r} of function {function!r}"
        inputs: dict[str, tuple[Argument, ...]] = {
            parameter: tuple(self._argument(binding, place) for binding in argument.arguments)
            for parameter, argument in message.inputs.items()
        }
        for parameter, value in message.attributes.items():
            if parameter != "name":
                inputs[parameter] = (self._constant(value, place),)
        return Operation(
            op_type=message.type,
            name=name,
            inputs=inputs,
            outputs=tuple(
                NamedValue(output.name, _value_type(output.type, place))
                for output in message.outputs
            ),
            blocks=tuple(self._block(block, function) for block in message.blocks),
        )

    def _argument(self, binding: Any, place: str) -> Argument:
        if binding.WhichOneof("binding") == "name":
            return Reference(binding.name)
        return self._constant(binding.value, place)

    def _constant(self, value: Any, place: str) -> Constant:
        value_type = _value_type(value.type, place)
        kind = value.WhichOneof("value")
        if kind == "blobFileValue":
            weights = self._weight_file(value.blobFileValue.fileName, place)
            return Constant(value_type, weights, value.blobFileValue.offset)
        if kind != "immediateValue":
            raise PackageError(f"{place} has a parameter without a value")
        immediate = value.immediateValue
        if immediate.WhichOneof("value") == "list":
            return Constant(
                value_type, immediate=[_list_item(item, place) for item in immediate.list.values]
            )
        if immediate.WhichOneof("value") != "tensor":
            raise PackageError(f"{place} has a parameter of an unsupported type {value_type}")
        field = immediate.tensor.WhichOneof("value")
        if field is None:
            return Constant(value_type, immediate=b"")
        stored = getattr(immediate.tensor, field).values
        return Constant(value_type, immediate=stored if field == "bytes" else list(stored))

    def _weight_file(self, name: str, place: str) -> WeightFile:
        path = (self.folder / name.removeprefix(_MODEL_PATH)).resolve()
        if not name.startswith(_MODEL_PATH) or not path.is_relative_to(self.folder):
            raise PackageError(f"{place} refers to weights outside the package: {name}")
        if path not in self.weights:
            if not path.is_file():
                raise PackageError(f"{place} needs {name}, which the package lacks")
            self.weights[path] = WeightFile(path)
        return self.weights[path]


def _list_item(item: Any, place: str) -> str | int:
    tensor = item.immediateValue.tensor
    field = tensor.WhichOneof("value")
    values = getattr(tensor, field).values if field else []
    if len(values) != 1 or field not in ("strings", "longInts", "ints"):
        raise PackageError(f"{place} has a list of something else than texts or integers")
    return values[0]


def _arguments(messages: Iterable[Any]) -> tuple[NamedValue, ...]:
    return tuple(NamedValue(m.name, _value_type(m.type, f"argument {m.name!r}")) for m in messages)


def _is_state(message: Any) -> bool:
    return message.type.WhichOneof("type") == "stateType"


def _value_type(message: Any, place: str) -> ValueType:
    kind = message.WhichOneof("type")
    if kind == "stateType":
        return _value_type(message.stateType.wrappedType, place)
    if kind == "tensorType":
        tensor = message.tensorType
        if tensor.dataType not in BY_CODE:
            known = tensor.DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
            name = known[tensor.dataType].name if tensor.dataType in known else tensor.dataType
            raise PackageError(f"{place} has a value of the unsupported element type {name}")
        return TensorType(BY_CODE[tensor.dataType], tuple(map(_size, tensor.dimensions)))
    if kind == "listType":
        element = _value_type(message.listType.type, place)
        if isinstance(element, TensorType):
            return ListType(element, _size(message.listType.length))
    if kind == "dictionaryType":
        key = _value_type(message.dictionaryType.keyType, place)
        value = _value_type(message.dictionaryType.valueType, place)
        if isinstance(key, TensorType) and isinstance(value, TensorType):
            return DictionaryType(key, value)
    raise PackageError(f"{place} has a value of an unsupported kind: {kind}")


def _size(dimension: Any) -> int | None:
    return dimension.constant.size if dimension.WhichOneof("dimension") == "constant" else None


def _input(feature: Any, place: str) -> ImageFeature | ArrayFeature:
    kind, name, text = feature.type.WhichOneof("Type"), feature.name, feature.shortDescription
    if kind == "imageType":
        image = feature.type.imageType
        if image.colorSpace not in _COLOR_ORDERS:
            raise PackageError(f"{place}, {name!r}, has no colour order")
        order = _COLOR_ORDERS[image.colorSpace]
        return ImageFeature(name, image.height, image.width, order, text, _sizes(image))
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        return ArrayFeature(name, *_array(array), text, _sizes(array))
    raise PackageError(f"{place}, {name!r}, is of the unsupported kind {kind}")


def _output(feature: Any, place: str) -> OutputFeature:
    kind, name, text = feature.type.WhichOneof("Type"), feature.name, feature.shortDescription
    if kind == "multiArrayType":
        return OutputFeature(name, "array", *_array(feature.type.multiArrayType), text)
    if kind == "imageType":
        order = _COLOR_ORDERS.get(feature.type.imageType.colorSpace)
        return OutputFeature(name, "image", description=text, color_order=order)
    if kind in _OUTPUT_KINDS:
        return OutputFeature(name, _OUTPUT_KINDS[kind], description=text)
    raise PackageError(f"{place}, {name!r}, is of the unsupported kind {kind}")


def _sizes(message: Any) -> Sizes:
    """Return the sizes that an input of several may have."""
    kind = message.WhichOneof(
        "SizeFlexibility" if hasattr(message, "height") else "ShapeFlexibility"
    )
    if kind == "enumeratedSizes":
        sizes = [(size.height, size.width) for size in message.enumeratedSizes.sizes]
    elif kind == "enumeratedShapes":
        sizes = [tuple(one.shape) for one in message.enumeratedShapes.shapes]
    elif kind == "imageSizeRange":
        limits = (message.imageSizeRange.heightRange, message.imageSizeRange.widthRange)
        return (tuple(map(_range, limits)),)
    else:
        return (tuple(map(_range, message.shapeRange.sizeRanges)),) if kind else ()
    return tuple(tuple(range(n, n + 1) for n in size) for size in sizes)


def _range(limits: Any) -> range:
    # No limit is written as -1.
    return range(limits.lowerBound, limits.upperBound + 1 if limits.upperBound > 0 else sys.maxsize)


def _array(message: Any) -> tuple[tuple[int, ...], str]:
    """Return the declared shape and element type of an array."""
    return tuple(message.shape), _ARRAY_TYPES.get(message.dataType, "")


@cache
def model_messages() -> Any:
    """Return Core ML's message classes: the module that defines ``Model`` (Model.proto).

    They are taken from coremltools without importing it, which takes seconds and prints warnings;
    its generated message classes alone load in a fraction of that. They use relative imports, so
    they are imported as a package of their own whose path is coremltools' folder. The classes come
    out identical to coremltools' own, because protobuf keeps one class for each message in the
    process.

    Raises:
        PackageError: coremltools is not installed.
    """
    if "coremltools.proto.Model_pb2" in sys.modules:
        return sys.modules["coremltools.proto.Model_pb2"]
    spec = importlib.util.find_spec("coremltools")
    if spec is None or spec.origin is None:
        raise PackageError(
            "reading a Core ML package needs coremltools; run: pip install coremltools"
        )
    package = ModuleType(_PRIVATE_PACKAGE)
    package.__path__ = [str(Path(spec.origin).parent / "proto")]
    sys.modules[_PRIVATE_PACKAGE] = package
    return importlib.import_module(f"{_PRIVATE_PACKAGE}.Model_pb2")


def parse_model(data: bytes) -> Any:
    """Return the ``Model`` message that ``data`` encodes.

    Raises:
        ValueError: ``data`` is no such message.
        PackageError: coremltools is not installed.
    """
    decode_error: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError
    model = model_messages().Model()
    try:
        model.ParseFromString(data)
    except decode_error as error:
        raise ValueError(str(error)) from None
    return model
