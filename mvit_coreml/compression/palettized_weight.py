"""One weight as it is stored in a palettized package: its lookup tables and indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import InputError

# Widths of an index that Core ML has (constexpr_lut_to_dense; 3 bits from iOS 18 on).
BIT_WIDTHS = (1, 2, 3, 4, 6, 8)

# Types of the entries: those of a float weight in a program.
LUT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))


@dataclass(frozen=True, eq=False)
class PalettizedWeight:
    """A weight as indices into lookup tables.

    Attributes:
        lut: (groups, 2**bits) float16 or float32 entries, finite.
        indices: uint8, of the weight's shape, each below 2**bits.
        axis: of the weight, along which groups of equal size lie: with ``n`` elements on the axis
            the first ``n / groups`` of them use the first table, and so on.

    Raises:
        InputError: the fields contradict each other or the rules above.
    """

    lut: NDArray[Any]
    indices: NDArray[np.uint8]
    axis: int = 0

    def __post_init__(self) -> None:
        lut, indices = self.lut, self.indices
        entries = [2**bits for bits in BIT_WIDTHS]
        if lut.dtype not in LUT_DTYPES:
            raise InputError(f"a lookup table is {lut.dtype}; use float16 or float32")
        if lut.ndim != 2 or lut.shape[0] < 1 or lut.shape[1] not in entries:
            raise InputError(
                f"lookup tables have shape {lut.shape}; use (groups, entries) with"
                f" {', '.join(map(str, entries))} entries"
            )
        if not np.isfinite(lut).all():
            raise InputError("a lookup table holds NaN or infinity; use finite entries")
        if indices.dtype != np.uint8 or indices.size == 0:
            raise InputError(
                f"indices are {indices.dtype} of shape {indices.shape}; use a filled uint8 array"
            )
        if not 0 <= self.axis < indices.ndim:
            raise InputError(f"axis {self.axis} is not one of a weight of shape {indices.shape}")
        if indices.shape[self.axis] % lut.shape[0]:
            raise InputError(
                f"{lut.shape[0]} lookup tables do not divide the {indices.shape[self.axis]}"
                f" elements on axis {self.axis}"
            )
        if int(indices.max()) >= lut.shape[1]:
            raise InputError(
                f"an index is {indices.max()}, but the lookup tables have {lut.shape[1]} entries"
            )

    @property
    def bits(self) -> int:
        """Bits of an index: 1, 2, 3, 4, 6 or 8."""
        return self.lut.shape[1].bit_length() - 1

    @property
    def groups(self) -> int:
        """Number of lookup tables."""
        return self.lut.shape[0]

    @property
    def group_size(self) -> int:
        """Number of elements on ``axis`` that share a lookup table."""
        return self.indices.shape[self.axis] // self.groups

    def decode(self) -> NDArray[Any]:
        """Return the weight that a program computes with: the entries, in the tables' dtype."""
        if self.groups == 1:
            return self.lut[0][self.indices]
        table = np.repeat(np.arange(self.groups), self.group_size)
        shape = [1] * self.indices.ndim
        shape[self.axis] = table.size
        return self.lut[table.reshape(shape), self.indices]
