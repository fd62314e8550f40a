"""Editing a saved package in place: its specification and the bytes of its weight file."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from foreign import WEIGHTS, new_path

from mvit_coreml.export.coremltools_import import load_coremltools

MODEL = "Data/com.apple.CoreML/model.mlmodel"
_NUMPY = {10: np.float16, 11: np.float32, 21: np.int8, 23: np.int32, 31: np.uint8}
_PREPROCESSING = "mvit_coreml.preprocessing"


class PackageEditor:
    """A package that is being changed, by default a copy; :meth:`save` writes it.

    Attributes:
        path: of the package.
        spec: its specification.
        weights: content of its weight file.
        function: name of the function whose operations are meant.
    """

    def __init__(self, package: Path, *, copy: bool = True) -> None:
        load_coremltools()
        from coremltools.proto import Model_pb2

        self.path = new_path() if copy else package
        if copy:
            shutil.copytree(package, self.path)
        self.spec = Model_pb2.Model.FromString((self.path / MODEL).read_bytes())
        self.weights = bytearray((self.path / WEIGHTS).read_bytes())
        self.function = next(iter(sorted(self.spec.mlProgram.functions)))

    def save(self) -> Path:
        """Write what was changed; return the path."""
        (self.path / MODEL).write_bytes(self.spec.SerializeToString(deterministic=True))
        (self.path / WEIGHTS).write_bytes(bytes(self.weights))
        return self.path

    # Operations

    @property
    def block(self) -> Any:
        """The function's block of operations."""
        body = self.spec.mlProgram.functions[self.function]
        return body.block_specializations[body.opset]

    def ops(self, op_type: str) -> list[Any]:
        """Return the operations of a type, in order."""
        return [op for op in self.block.operations if op.type == op_type]

    def convs(self, **shape: int) -> list[Any]:
        """Return the convolutions whose weight has a ``kernel`` and ``groups`` as given."""
        found = []
        for op in self.ops("conv"):
            kernel = self._dimensions(self._defining(op, "weight"))[2]
            groups = int(self.array(self.value(op, "groups")))
            facts = {"kernel": kernel, "groups": groups}
            if all(facts[name] == size for name, size in shape.items()):
                found.append(op)
        return found

    def insert_before(self, op: Any, new: Any) -> None:
        """Put a new operation before another one."""
        operations = list(self.block.operations)
        place = next(i for i, other in enumerate(operations) if other == op)
        self._replace([*operations[:place], new, *operations[place:]])

    def insert_after(self, op: Any, new: Any) -> None:
        """Put a new operation after another one."""
        operations = list(self.block.operations)
        place = next(i for i, other in enumerate(operations) if other == op) + 1
        self._replace([*operations[:place], new, *operations[place:]])

    def bypass(self, op: Any) -> None:
        """Remove an operation; what used its result uses its ``x`` instead."""
        source, result = op.inputs["x"].arguments[0].name, op.outputs[0].name
        self._replace([other for other in self.block.operations if other != op])
        for other in self.block.operations:
            for argument in other.inputs.values():
                for binding in argument.arguments:
                    if binding.name == result:
                        binding.name = source

    def _replace(self, operations: Sequence[Any]) -> None:
        copies = [type(op).FromString(op.SerializeToString()) for op in operations]
        del self.block.operations[:]
        self.block.operations.extend(copies)

    def reconnect(self, op: Any, parameter: str) -> None:
        """Connect a parameter to the first other value of the same type that precedes it."""
        (binding,) = op.inputs[parameter].arguments
        operations = [other for other in self.block.operations if other.type != "const"]
        place = operations.index(op)
        outputs = {o.name: o.type for other in operations[:place] for o in other.outputs}
        taken = {b.name for argument in op.inputs.values() for b in argument.arguments}
        binding.name = next(
            name
            for name, value_type in outputs.items()
            if value_type == outputs[binding.name] and name not in taken
        )

    # Stored values

    def value(self, op: Any, parameter: str) -> Any:
        """Return the stored value given for a parameter, which other operations may share."""
        if parameter in op.attributes:
            return op.attributes[parameter]
        (binding,) = op.inputs[parameter].arguments
        if binding.WhichOneof("binding") == "value":
            return binding.value
        defining = self._producer(binding.name)
        assert defining.type == "const"
        return defining.attributes["val"]

    def own(self, op: Any, parameter: str) -> Any:
        """Return the same, after giving the operation a copy of its own."""
        shared = self.value(op, parameter)
        (binding,) = op.inputs[parameter].arguments
        copy = type(shared).FromString(shared.SerializeToString())
        binding.ClearField("name")
        binding.value.CopyFrom(copy)
        return binding.value

    def set(self, op: Any, parameter: str, *values: Any) -> None:
        """Replace an attribute of one operation."""
        value = self.own(op, parameter)
        self.store(value, np.asarray(values))

    def array(self, value: Any) -> np.ndarray:
        """Decode a stored value of a type as wide as a byte or more."""
        tensor = value.type.tensorType
        shape = [dimension.constant.size for dimension in tensor.dimensions]
        if value.WhichOneof("value") == "blobFileValue":
            start, size = self._blob(value)
            data = bytes(self.weights[start : start + size])
            return np.frombuffer(data, _NUMPY[tensor.dataType]).reshape(shape).copy()
        stored = value.immediateValue.tensor
        kind = stored.WhichOneof("value")
        if kind == "bytes":
            return np.frombuffer(stored.bytes.values, _NUMPY[tensor.dataType]).reshape(shape).copy()
        return np.array(list(getattr(stored, kind).values)).reshape(shape)

    def store(self, value: Any, array: np.ndarray) -> None:
        """Overwrite a stored value by another of the same size."""
        if value.WhichOneof("value") == "blobFileValue":
            start, size = self._blob(value)
            data = np.ascontiguousarray(array).astype(self.array(value).dtype).tobytes()
            assert len(data) == size
            self.weights[start : start + size] = data
            return
        stored = value.immediateValue.tensor
        kind = stored.WhichOneof("value")
        if kind == "bytes":
            dtype = _NUMPY[value.type.tensorType.dataType]
            stored.bytes.values = np.asarray(array).astype(dtype).tobytes()
            return
        values = getattr(stored, kind).values
        assert len(values) == np.size(array)
        values[:] = np.asarray(array).ravel().tolist()

    def change(self, op: Any, parameter: str, change: Any) -> None:
        """Overwrite a stored array by what ``change(array)`` makes of it."""
        value = self.value(op, parameter)
        self.store(value, change(self.array(value)))

    def _blob(self, value: Any) -> tuple[int, int]:
        offset = value.blobFileValue.offset
        sentinel, _, size, start = struct.unpack_from("<IIQQ", self.weights, offset)
        assert sentinel == 0xDEADBEEF
        return start, size

    def _producer(self, name: str) -> Any:
        return next(op for op in self.block.operations if op.outputs[0].name == name)

    def _defining(self, op: Any, parameter: str) -> Any:
        (binding,) = op.inputs[parameter].arguments
        return self._producer(binding.name)

    @staticmethod
    def _dimensions(op: Any) -> list[int]:
        return [d.constant.size for d in op.outputs[0].type.tensorType.dimensions]

    # Palettes, as iOS 16 and 17 store them

    def palettes(self) -> list[Any]:
        """Return the operations that hold palettes."""
        return self.ops("constexpr_lut_to_dense")

    def indices(self, palette: Any) -> np.ndarray:
        """Return the index of every element."""
        bits = int(self.array(self.value(palette, "lut")).size).bit_length() - 1
        count = int(np.prod(self._dimensions(palette)))
        packed = self.array(self.value(palette, "indices"))
        unpacked = np.unpackbits(packed, bitorder="little", count=count * bits)
        return unpacked.reshape(count, bits) @ (1 << np.arange(bits))

    def store_indices(self, palette: Any, indices: np.ndarray) -> None:
        """Overwrite the index of every element."""
        bits = int(self.array(self.value(palette, "lut")).size).bit_length() - 1
        unpacked = (indices[:, None] >> np.arange(bits)) & 1
        packed = np.packbits(unpacked.astype(np.uint8).ravel(), bitorder="little")
        self.store(self.value(palette, "indices"), packed)

    # Metadata

    @property
    def metadata(self) -> Any:
        """The metadata's keys and values."""
        return self.spec.description.metadata.userDefined

    def prepare(self, **changes: Any) -> None:
        """Change what the metadata says of the preparation of photos."""
        described = json.loads(self.metadata[_PREPROCESSING])
        for entry in described.values():
            entry.update(changes)
        self.metadata[_PREPROCESSING] = json.dumps(described)

    def labels(self) -> Any:
        """The class labels of a classifier, one message each."""
        (classify,) = self.ops("classify")
        return self.value(classify, "classes").immediateValue.list.values
