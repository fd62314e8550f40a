"""A weight as it is stored in a palettized package: which bits and groups, tables and indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import InputError
from mvit_coreml.mil.value_types import DATA_TYPES, unpack_bits

# Widths of an index that Core ML has (constexpr_lut_to_dense; 3 bits from iOS 18 on).
BIT_WIDTHS = (1, 2, 3, 4, 6, 8)

# Types of the entries: those of a float weight in a program.
LUT_DTYPES = (np.dtype(np.float16), np.dtype(np.float32))

# First version with 3-bit indices, and with a table for each group of output channels.
BLOCKWISE_IOS = 18


@dataclass(frozen=True)
class Choice:
    """A way to store a weight.

    Attributes:
        bits: of an index: 1, 2, 3, 4, 6 or 8; None leaves the weight as it is.
        group_size: output channels that share a lookup table; 0 for one table.

    Raises:
        InputError: Core ML has no such palette.
    """

    bits: int | None
    group_size: int = 0

    def __post_init__(self) -> None:
        if self.bits is not None and self.bits not in BIT_WIDTHS:
            widths = ", ".join(map(str, BIT_WIDTHS))
            raise InputError(f"{self.bits} bits: a palette has indices of {widths} bits")
        if self.group_size < 0 or (self.bits is None and self.group_size):
            raise InputError(
                f"group size {self.group_size}: use 0 for one lookup table, or the number of"
                " output channels that share one"
            )

    def __str__(self) -> str:
        if self.bits is None:
            return "uncompressed"
        groups = f" in groups of {self.group_size}" if self.group_size else ""
        return f"{self.bits} bit{'s' if self.bits > 1 else ''}{groups}"

    def check_target(self, ios: int) -> None:
        """Refuse what packages for an iOS version cannot hold.

        Raises:
            InputError: naming the version that can, and what this one can.
        """
        if ios >= BLOCKWISE_IOS:
            return
        remedy = f"need iOS {BLOCKWISE_IOS}; this package is for iOS {ios}: --ios {BLOCKWISE_IOS},"
        if self.bits is not None and self.bits not in bit_widths(ios):
            lower = max(bits for bits in bit_widths(ios) if bits < self.bits)
            upper = min(bits for bits in bit_widths(ios) if bits > self.bits)
            raise InputError(f"{self.bits} bits {remedy} or {lower} or {upper} bits")
        if self.group_size:
            raise InputError(f"groups of channels {remedy} or group_size = 0")

    def check_channels(self, channels: int) -> None:
        """Refuse a group size that does not divide the output channels.

        Raises:
            InputError: naming sizes nearby that do.
        """
        if not self.group_size or channels % self.group_size == 0:
            return
        divisors = [size for size in range(1, channels + 1) if channels % size == 0]
        below = max(size for size in divisors if size <= max(self.group_size, 1))
        above = min((size for size in divisors if size > self.group_size), default=below)
        nearby = " or ".join(map(str, dict.fromkeys((below, above))))
        raise InputError(
            f"a group size of {self.group_size} does not divide its {channels} output channels;"
            f" use {nearby}, or 0 for one lookup table"
        )


UNCOMPRESSED = Choice(None)


def bit_widths(ios: int) -> tuple[int, ...]:
    """Return the index widths that packages for an iOS version can hold, ascending."""
    return tuple(bits for bits in BIT_WIDTHS if bits != 3 or ios >= BLOCKWISE_IOS)


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

    @property
    def places(self) -> NDArray[np.int64]:
        """The place of every element's entry in ``lut.ravel()``, of the weight's shape."""
        table = np.repeat(np.arange(self.groups), self.group_size)
        shape = [1] * self.indices.ndim
        shape[self.axis] = table.size
        return self.indices.astype(np.int64) + (table * self.lut.shape[1]).reshape(shape)

    def decode(self) -> NDArray[Any]:
        """Return the weight that a program computes with: the entries, in the tables' dtype."""
        if self.groups == 1:
            # Without places of eight bytes an element.
            return self.lut[0][self.indices]
        return self.lut.ravel()[self.places]


def pack_indices(indices: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack indices one after another, from the least significant bit of the first byte upwards.

    Args:
        indices: of any shape, each below ``2**bits``; read in C order.
        bits: of an index.

    Returns:
        (ceil(size * bits / 8),) bytes; the bits after the last index are 0.
    """
    flat = indices.ravel()
    if bits == 8:
        return flat.copy()
    # Eight indices fill a whole number of bytes: ``bits`` of them.
    padded = np.zeros((-(-flat.size // 8), 8), dtype=np.uint64)
    padded.ravel()[: flat.size] = flat
    padded <<= np.arange(8, dtype=np.uint64) * np.uint64(bits)
    words = np.bitwise_or.reduce(padded, axis=1).astype("<u8")
    packed = words.view(np.uint8).reshape(-1, 8)[:, :bits].ravel()
    return packed[: packed_size(flat.size, bits)]


def unpack_indices(packed: NDArray[Any], bits: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Undo :func:`pack_indices`."""
    if bits == 8:
        return packed.reshape(shape).copy()
    count = int(np.prod(shape))
    return unpack_bits(packed, DATA_TYPES[f"uint{bits}"], count).reshape(shape)


def packed_size(count: int, bits: int) -> int:
    """Return the bytes that ``count`` indices of ``bits`` take."""
    return (count * bits + 7) // 8
