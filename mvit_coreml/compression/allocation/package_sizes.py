"""The size of a package under other choices, without making it.

A package that is not palettized says everything that counts: its weight file is laid out anew, and
its program is rewritten in the messages that it would be saved in. What palettizing changes besides
(a line of metadata) is not foreseen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mvit_coreml.compression.apply_plan import PALETTIZED_SUFFIX
from mvit_coreml.compression.palettizable_weights import WeightInfo, palettizable_weights
from mvit_coreml.compression.palettized_weight import (
    BLOCKWISE_IOS,
    UNCOMPRESSED,
    Choice,
    bit_widths,
    packed_size,
)
from mvit_coreml.errors import InputError
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.mil.package_reader import OPSETS, load_package, parse_model
from mvit_coreml.mil.value_types import BY_CODE, DATA_TYPES, DataType

# A blob in the weight file is a descriptor of this many bytes and its data, filled up to a
# multiple of it; the file starts with a header of the same length.
BLOB_ALIGNMENT = 64

# Constants of fewer elements stand in the program itself.
_FEWEST_IN_FILE = 10

_WEIGHTS = "@model_path/weights/weight.bin"


def blob_bytes(data: int) -> int:
    """Return the bytes that a blob of ``data`` bytes takes, with its descriptor and padding."""
    return BLOB_ALIGNMENT + -(-data // BLOB_ALIGNMENT) * BLOB_ALIGNMENT


class PackageSizes:
    """Predicts the size of a package whose weights are palettized in some way.

    Args:
        package: a saved package without palettes.

    Attributes:
        size: of the package as it is, in bytes: the sum of its files.
        ios: its deployment target.
        weights: its palettizable weights, in program order.

    Raises:
        PackageError: it cannot be read.
        InputError: it holds palettes already.
    """

    def __init__(self, package: str | Path) -> None:
        loaded = load_package(package)
        self.path = loaded.path
        self.size = package_size(self.path)
        self.ios = max(function.opset for function in loaded.functions.values())
        self._infos = {
            info.name: info
            for function in loaded.functions.values()
            for info in palettizable_weights(function)
        }
        self.weights = tuple(self._infos.values())
        if any(operation.op_type.startswith("constexpr_") for _, operation in loaded.walk()):
            raise InputError(f"{self.path}: compressed already; give the package made without")
        specification = next(iter(self.path.rglob("*.mlmodel")))
        data = specification.read_bytes()
        self._model = parse_model(data)
        self._operations = self._constants()
        # What is rewritten without a change need not be what is on disk to the byte.
        self._unchanged = self._rewritten({})

    def package_bytes(self, choices: Mapping[str, Choice]) -> int:
        """Return the size of the package under these choices, in bytes.

        Args:
            choices: weight name to choice; the others stay uncompressed.

        Raises:
            InputError: a name is unknown, or a choice does not fit its weight or the target.
        """
        for name, choice in choices.items():
            if name not in self._infos:
                raise InputError(f"{self.path}: there is no palettizable weight {name!r}")
            choice.check_target(self.ios)
            choice.check_channels(self._infos[name].channels)
        chosen = {name: choice for name, choice in choices.items() if choice.bits is not None}
        return self.size + self._rewritten(chosen) - self._unchanged

    def weight_bytes(self, name: str, choice: Choice) -> int:
        """Return the bytes that one weight takes in the package under a choice.

        That is its blobs, and its operation in the program with the references to it. Summed over
        the weights, differences between choices are those of the package but for a few bytes.
        """
        info = self._infos[name]
        original, uses = self._operations[name]
        operation = type(original)()
        operation.CopyFrom(original)
        layout = _Layout()
        length = len(name)
        if choice.bits is None:
            layout.place(None, info.elements * info.element_bits // 8)
        else:
            _palettize(operation, info, choice, self.ios, layout)
            length += len(PALETTIZED_SUFFIX)
        return int(layout.end - BLOB_ALIGNMENT + operation.ByteSize() + uses * length)

    def choices_for(
        self, name: str, bits: Iterable[int] | None = None, group_sizes: Iterable[int] = ()
    ) -> list[Choice]:
        """Return the choices that make a weight smaller, with how it is now as the first.

        Args:
            name: of the weight.
            bits: widths to consider; None takes all that the target can hold.
            group_sizes: to consider beside one table for the whole weight; those that do not
                divide its output channels are left out.
        """
        widths = bit_widths(self.ios) if bits is None else sorted(set(bits))
        channels = self._infos[name].channels
        groups = [0, *(size for size in group_sizes if size < channels and channels % size == 0)]
        kept = self.weight_bytes(name, UNCOMPRESSED)
        considered = [Choice(width, size) for width in reversed(widths) for size in groups]
        return [UNCOMPRESSED, *(c for c in considered if self.weight_bytes(name, c) < kept)]

    def _constants(self) -> dict[str, tuple[Any, int]]:
        """Return the operation of every weight, and how often others refer to it."""
        constants: dict[str, tuple[Any, int]] = {}
        for name in sorted(self._model.mlProgram.functions):
            function = self._model.mlProgram.functions[name]
            for operation in function.block_specializations[function.opset].operations:
                output = operation.outputs[0].name if operation.outputs else ""
                if operation.type == "const" and output in self._infos:
                    constants[output] = operation, 0
                for binding in _bindings(operation):
                    if binding.name in constants:
                        constant, uses = constants[binding.name]
                        constants[binding.name] = constant, uses + 1
        return constants

    def _rewritten(self, choices: Mapping[str, Choice]) -> int:
        """Return the bytes of the weight file and the specification under some choices."""
        model = type(self._model)()
        model.CopyFrom(self._model)
        layout = _Layout()
        for name in sorted(model.mlProgram.functions):
            function = model.mlProgram.functions[name]
            block = function.block_specializations[function.opset]
            ios = OPSETS[function.opset]
            renamed = set()
            for operation in block.operations:
                output = operation.outputs[0].name if operation.outputs else ""
                if operation.type == "const" and output in choices:
                    info = self._infos[output]
                    _palettize(operation, info, choices[output], ios, layout)
                    renamed.add(output)
                    continue
                for value in _values(operation):
                    if value.WhichOneof("value") == "blobFileValue":
                        blob = value.blobFileValue
                        blob.offset = layout.place(blob.offset, _data_bytes(value))
                for binding in _bindings(operation):
                    if binding.name in renamed:
                        binding.name += PALETTIZED_SUFFIX
        return int(layout.end + model.ByteSize())


class _Layout:
    """Places blobs one after another, each original one once."""

    def __init__(self) -> None:
        self.end = BLOB_ALIGNMENT
        self._places: dict[object, int] = {}

    def place(self, key: object, data: int) -> int:
        """Return the offset of a blob; equal keys share one."""
        if key not in self._places:
            self._places[key] = self.end
            self.end += blob_bytes(data)
        return self._places[key]


def _palettize(operation: Any, info: WeightInfo, choice: Choice, ios: int, layout: _Layout) -> None:
    """Turn a ``const`` into the operation that palettizing puts in its place."""
    assert choice.bits is not None
    original = operation.attributes["val"].blobFileValue.offset
    groups = info.channels // (choice.group_size or info.channels)
    entries, rank = 2**choice.bits, len(info.shape)
    output = operation.outputs[0]
    output.name += PALETTIZED_SUFFIX
    names = operation.attributes["name"].immediateValue.tensor.strings.values
    names[0] += PALETTIZED_SUFFIX
    operation.type = "constexpr_lut_to_dense"
    table_type = DATA_TYPES[info.dtype]
    index_type = DATA_TYPES["uint8"]
    index_shape: tuple[int, ...] = (packed_size(info.elements, choice.bits),)
    table_shape: tuple[int, ...] = (entries,)
    if ios >= BLOCKWISE_IOS:
        index_type, index_shape = DATA_TYPES[f"uint{choice.bits}"], info.shape
        sizes = [1] * rank + [entries, 1]
        sizes[info.axis] = groups
        table_shape = tuple(sizes)
    del operation.attributes["val"]
    stored = _parameter(operation, "indices", ios, index_type, index_shape)
    offset = layout.place((original, "indices"), packed_size(info.elements, choice.bits))
    _refer(stored, offset)
    stored = _parameter(operation, "lut", ios, table_type, table_shape)
    table = groups * entries
    if table >= _FEWEST_IN_FILE:
        offset = layout.place((original, "lut"), table * table_type.bits // 8)
        _refer(stored, offset)
    elif info.dtype == "fp16":
        stored.immediateValue.tensor.bytes.values = bytes(table * 2)
    else:
        stored.immediateValue.tensor.floats.values.extend([0.0] * table)
    if ios < BLOCKWISE_IOS:
        stored = _parameter(operation, "shape", ios, DATA_TYPES["uint32"], (rank,))
        stored.immediateValue.tensor.bytes.values = np.array(info.shape, dtype="<u4").tobytes()


def _parameter(
    operation: Any, name: str, ios: int, data_type: DataType, shape: tuple[int, ...]
) -> Any:
    """Return the message of a new parameter, which iOS 18 moved from attributes to inputs."""
    blockwise = ios >= BLOCKWISE_IOS
    value = (
        operation.inputs[name].arguments.add().value if blockwise else operation.attributes[name]
    )
    tensor = value.type.tensorType
    tensor.dataType, tensor.rank = data_type.code, len(shape)
    for size in shape:
        tensor.dimensions.add().constant.size = size
    return value


def _refer(value: Any, offset: int) -> None:
    value.blobFileValue.fileName = _WEIGHTS
    value.blobFileValue.offset = offset


def _bindings(operation: Any) -> Iterator[Any]:
    for argument in operation.inputs.values():
        yield from argument.arguments


def _values(operation: Any) -> Iterator[Any]:
    """Go through all values that an operation stores."""
    yield from operation.attributes.values()
    for binding in _bindings(operation):
        if binding.WhichOneof("binding") == "value":
            yield binding.value


def _data_bytes(value: Any) -> int:
    tensor = value.type.tensorType
    count = math.prod(dimension.constant.size for dimension in tensor.dimensions)
    return (count * BY_CODE[tensor.dataType].bits + 7) // 8
