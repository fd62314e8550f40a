"""Indices of few bits, packed into bytes as Core ML packs them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.mil.value_types import DATA_TYPES, unpack_bits


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
