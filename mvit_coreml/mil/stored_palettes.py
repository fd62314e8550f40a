"""The palettes of a stored function, with tables and indices kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.mil.program import Argument
from mvit_coreml.mil.stored_weights import Constants

_PALETTIZED = "constexpr_lut_to_dense"


@dataclass(frozen=True, eq=False)
class StoredPalette:
    """A tensor that is stored as tables of entries and the entry of every element.

    Attributes:
        tables: (groups, entries) floats; one group unless parts of the tensor have tables of
            their own.
        places: of every element's entry in ``tables.ravel()``; of the tensor's shape.
    """

    tables: NDArray[Any]
    places: NDArray[np.intp]

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return _bits(self.tables.shape[1])

    @property
    def values(self) -> NDArray[Any]:
        """The tensor that the operations use."""
        return self.tables.ravel()[self.places]


def read_palette(constants: Constants, argument: Argument) -> StoredPalette | None:
    """Read a constant argument's palette.

    Returns:
        ``None`` for a constant that is stored otherwise, or whose entries are vectors.

    Raises:
        PackageError: the palette cannot be decoded.
    """
    operation = constants.origin(argument)
    if operation is None or operation.op_type != _PALETTIZED:
        return None
    given = constants.given(operation)
    table = np.asarray(given["lut"])
    entries, length = _layout(table.shape)
    if length != 1:
        return None
    # Looking up in a table of running numbers gives the places, however they are packed.
    numbers = np.arange(table.size).reshape(table.shape)
    (places,) = constants.decompress(operation, {**given, "lut": numbers})
    return StoredPalette(tables=table.reshape(-1, entries), places=places)


def palette_bits(constants: Constants) -> set[int]:
    """Return the numbers of bits that the palettes of a function have."""
    found = set()
    for operation in constants.function.operations:
        if operation.op_type == _PALETTIZED:
            shape = constants.type_of(operation.inputs["lut"][0]).shape
            found.add(_bits(_layout(shape)[0]))
    return found


def _layout(shape: tuple[Any, ...]) -> tuple[int, int]:
    """Return the entries and their length of a table: a vector, or the last two of many axes.

    The vector is the form of iOS 16 and 17; later there is a table for each part of the tensor.
    """
    return (shape[0], 1) if len(shape) == 1 else (shape[-2], shape[-1])


def _bits(entries: int) -> int:
    return max(1, (entries - 1).bit_length())
