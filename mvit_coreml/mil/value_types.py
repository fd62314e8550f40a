"""Types of values in an ML Program, and how each is stored and computed with."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class DataType:
    """An element type of MIL.

    Attributes:
        name: as coremltools writes it: ``fp16``, ``int32``, ``uint4``, ...
        code: number of the type in MIL.proto's ``DataType``.
        bits: storage size of one element; 0 for strings.
        numpy: type that one decoded element is held in. Sub-byte integers are unpacked to bytes.
        blob_code: number of the type in a weight file, None where it cannot be stored there.
    """

    name: str
    code: int
    bits: int
    numpy: np.dtype[np.generic]
    blob_code: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether this is a floating-point type."""
        return self.name.startswith("fp")


def _types(*rows: tuple[str, int, int, str, int | None]) -> dict[str, DataType]:
    return {row[0]: DataType(row[0], row[1], row[2], np.dtype(row[3]), row[4]) for row in rows}


# The codes are those of MIL.proto and of MILBlob's BlobDataType in coremltools' mlmodel sources.
DATA_TYPES = _types(
    ("bool", 1, 8, "bool", None),
    ("string", 2, 0, "object", None),
    ("fp16", 10, 16, "float16", 1),
    ("fp32", 11, 32, "float32", 2),
    ("fp64", 12, 64, "float64", None),
    ("int8", 21, 8, "int8", 4),
    ("int16", 22, 16, "int16", 6),
    ("int32", 23, 32, "int32", 14),
    ("int64", 24, 64, "int64", None),
    ("int4", 25, 4, "int8", 8),
    ("uint8", 31, 8, "uint8", 3),
    ("uint16", 32, 16, "uint16", 7),
    ("uint32", 33, 32, "uint32", 15),
    ("uint64", 34, 64, "uint64", None),
    ("uint4", 35, 4, "uint8", 11),
    ("uint2", 36, 2, "uint8", 10),
    ("uint1", 37, 1, "uint8", 9),
    ("uint6", 38, 6, "uint8", 13),
    ("uint3", 39, 3, "uint8", 12),
)
BY_CODE = {data_type.code: data_type for data_type in DATA_TYPES.values()}
BY_BLOB_CODE = {kind.blob_code: kind for kind in DATA_TYPES.values() if kind.blob_code}


@dataclass(frozen=True)
class TensorType:
    """A tensor or, with shape (), a scalar.

    Attributes:
        data_type: element type.
        shape: one size for each axis; None where it is only known when the program runs.
    """

    data_type: DataType
    shape: tuple[int | None, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape, with 0 in place of what is not fixed."""
        return tuple(size or 0 for size in self.shape)

    @property
    def count(self) -> int | None:
        """Number of elements, None when the shape is not fixed."""
        return None if None in self.shape else math.prod(self.sizes)

    @property
    def stored_bytes(self) -> int | None:
        """Bytes of the packed elements, None when the shape is not fixed."""
        count = self.count
        return None if count is None else (count * self.data_type.bits + 7) // 8

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a value of ``shape`` is of this type."""
        return len(shape) == len(self.shape) and all(
            expected is None or expected == size
            for expected, size in zip(self.shape, shape, strict=True)
        )

    def decode(self, packed: np.ndarray) -> np.ndarray:
        """Return the array whose elements the uint8 array ``packed`` holds."""
        if self.data_type.bits < 8:
            values = unpack_bits(packed, self.data_type, self.count or 0)
        else:
            values = packed.view(self.data_type.numpy)
        return values.reshape(self.sizes)

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.data_type.name}[{sizes}]"


@dataclass(frozen=True)
class ListType:
    """A list of ``length`` values (None: not fixed), such as the labels of a classifier."""

    element: TensorType
    length: int | None

    def __str__(self) -> str:
        return f"list<{self.element}>"


@dataclass(frozen=True)
class DictionaryType:
    """A dictionary, such as the probability of each label of a classifier."""

    key: TensorType
    value: TensorType

    def __str__(self) -> str:
        return f"dictionary<{self.key}, {self.value}>"


ValueType = TensorType | ListType | DictionaryType


def unpack_bits(packed: np.ndarray, data_type: DataType, count: int) -> np.ndarray:
    """Return ``count`` integers from bytes that hold them one after another.

    Elements follow each other from the least significant bit of the first byte upwards, and may
    straddle two bytes (MIL's ``constexpr_lut_to_dense``).

    Args:
        packed: uint8 array.
        data_type: integer type of fewer than 8 bits.
        count: number of elements; the bits after them are padding.

    Returns:
        (count,) int8 or uint8 array.
    """
    unpacked = np.unpackbits(packed, bitorder="little", count=count * data_type.bits)
    bits = unpacked.reshape(count, data_type.bits)
    values = np.packbits(bits, axis=1, bitorder="little").reshape(count)
    if data_type.numpy.kind == "u":
        return values
    # Shifting the sign bit to the top of the byte and back repeats it over the upper bits.
    empty = 8 - data_type.bits
    return (values << empty).view(np.int8) >> empty
