"""Reader of a package's ``weight.bin``: constants, each behind a 64-byte descriptor.

The layout is that of MILBlob in coremltools' ``mlmodel`` sources (StorageFormat.hpp, version 2),
little-endian: a header (blob count, version), then for each blob a descriptor (sentinel, element
type, size in bytes, position of the data, unused bits at the end) and its data.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import numpy as np

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.value_types import BY_BLOB_CODE, TensorType

_HEADER = struct.Struct("<II56x")
_DESCRIPTOR = struct.Struct("<IIQQQ32x")
_SENTINEL = 0xDEADBEEF
_VERSION = 2


class WeightFile:
    """A weight file, mapped into memory: only what is decoded is read from disk.

    Args:
        path: the file.

    Raises:
        PackageError: the file is missing, too short, or not a weight file of version 2.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.size = path.stat().st_size
                if self.size < _HEADER.size:
                    raise PackageError(f"{path} holds {self.size} bytes: it is truncated")
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise PackageError(f"cannot read the weights {path}: {error.strerror}") from None
        _, version = _HEADER.unpack_from(self._bytes)
        if version != _VERSION:
            raise PackageError(f"{path} is no weight file of version {_VERSION}: it is damaged")

    def locate(self, offset: int, value_type: TensorType) -> int:
        """Return where the data of the constant are whose descriptor is at ``offset``.

        Raises:
            PackageError: descriptor or data lie outside the file, or the type or the number of
                elements is not the one that the program declares.
        """
        if offset < _HEADER.size or offset + _DESCRIPTOR.size > self.size:
            raise PackageError(
                f"{self.path.name} has no constant at byte {offset} of its {self.size}: "
                "it is truncated or belongs to another program"
            )
        sentinel, code, size, start, _ = _DESCRIPTOR.unpack_from(self._bytes, offset)
        if sentinel != _SENTINEL:
            raise PackageError(
                f"{self.path.name} has no constant at byte {offset}: "
                "it is damaged or belongs to another program"
            )
        stored = BY_BLOB_CODE.get(code)
        if stored is not value_type.data_type:
            kind = stored.name if stored else f"unknown type {code}"
            raise PackageError(
                f"{self.path.name} stores {kind} at byte {offset} where {value_type} is declared"
            )
        if size != value_type.stored_bytes:
            raise PackageError(
                f"{self.path.name} stores {size} bytes at byte {offset} where {value_type} "
                f"takes {value_type.stored_bytes}"
            )
        if start < offset + _DESCRIPTOR.size or start + size > self.size:
            raise PackageError(
                f"{self.path.name} ends at byte {self.size}, before the constant at byte "
                f"{offset} does: it is truncated"
            )
        return int(start)

    def read(self, offset: int, value_type: TensorType) -> np.ndarray:
        """Decode the constant at ``offset`` into an array of its declared shape."""
        start = self.locate(offset, value_type)
        return value_type.decode(
            np.frombuffer(self._bytes, np.uint8, value_type.stored_bytes or 0, start)
        )
