"""Decompression of weights: the constexpr operations, which have only constant inputs.

They work on NumPy arrays and run once, when a function is compiled. Computed values are rounded
to the declared element type, which is what coremltools materialises too.
"""

from __future__ import annotations

import numpy as np

from mvit_coreml.mil.kernels import kernel
from mvit_coreml.mil.value_types import DATA_TYPES, unpack_bits

Array = np.ndarray


@kernel("constexpr_cast", since=16)
def cast_constant(source_val: Array, *, output_dtype: str) -> Array:
    """Return a stored fp16 constant as fp32."""
    return source_val.astype(DATA_TYPES[output_dtype].numpy)


@kernel("constexpr_affine_dequantize", since=16)
def affine_dequantize(
    quantized_data: Array, zero_point: Array, scale: Array, *, axis: int
) -> Array:
    """Return scale * (quantized_data - zero_point), each a scalar or a vector along ``axis``."""
    shape = [1] * quantized_data.ndim
    shape[axis] = -1
    shift = zero_point.astype(np.float32).reshape(shape if zero_point.ndim else ())
    factor = scale.astype(np.float32).reshape(shape if scale.ndim else ())
    return ((quantized_data.astype(np.float32) - shift) * factor).astype(scale.dtype)


@kernel("constexpr_lut_to_dense", since=16)
def lut_to_dense(indices: Array, lut: Array, *, shape: list[int]) -> Array:
    """Look up each element in one table of 2, 4, 16, 64 or 256 values.

    ``indices`` are bytes that hold log2(len(lut)) bits for each element.
    """
    if lut.size not in (2, 4, 16, 64, 256):
        raise ValueError(f"a table of {lut.size} values")
    count = int(np.prod(shape))
    bits = lut.size.bit_length() - 1
    if indices.size != (count * bits + 7) // 8:
        raise ValueError(f"{indices.size} bytes of indices for {count} elements of {bits} bits")
    if bits < 8:
        indices = unpack_bits(indices, DATA_TYPES[f"uint{bits}"], count)
    return lut[indices].reshape(shape)


@kernel("constexpr_lut_to_dense", since=18)
def blockwise_lut_to_dense(indices: Array, lut: Array, *, vector_axis: int | None = None) -> Array:
    """Look up each element, or vector of elements, in the table of its block.

    The table has two axes more than the indices: (number of blocks along each axis, values,
    vector length). Vectors are laid out along ``vector_axis``.
    """
    *blocks, entries, length = lut.shape
    block = _repeat_blocks(np.arange(np.prod(blocks, dtype=int)).reshape(blocks), indices.shape)
    vectors = lut.reshape(-1, entries, length)[block, indices]  # (*indices.shape, length)
    if length == 1:
        return vectors[..., 0]
    if vector_axis is None:
        raise ValueError("a table of vectors needs a vector_axis")
    axis = vector_axis % indices.ndim
    shape = list(indices.shape)
    shape[axis] *= length
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


@kernel("constexpr_sparse_to_dense", since=16)
def sparse_to_dense(nonzero_data: Array, mask: Array, *, shape: list[int]) -> Array:
    """Put values where the bits of ``mask`` are set, and zeros elsewhere."""
    bits = np.unpackbits(mask, count=int(np.prod(shape)), bitorder="little")
    return masked_to_dense(nonzero_data, bits.reshape(shape))


@kernel("constexpr_sparse_to_dense", since=18)
def masked_to_dense(nonzero_data: Array, mask: Array) -> Array:
    """Put values where ``mask`` is set, and zeros elsewhere."""
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


@kernel("constexpr_blockwise_shift_scale", since=18)
def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """Return scale * (data - offset), with one scale and offset for each block."""
    levels = data.astype(np.float32)
    if offset is not None:
        levels = levels - _repeat_blocks(offset.astype(np.float32), data.shape)
    return (_repeat_blocks(scale.astype(np.float32), data.shape) * levels).astype(scale.dtype)


@kernel("constexpr_lut_to_sparse", since=18)
def lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, *, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """Look up the set elements only; return the mask of the result and its values."""
    indices = masked_to_dense(indices_nonzero_data, indices_mask)
    dense = blockwise_lut_to_dense(indices, lut, vector_axis=vector_axis)
    mask = indices_mask
    if vector_axis is not None:
        mask = np.repeat(mask, lut.shape[-1], axis=vector_axis)
    return mask, dense[mask != 0]


@kernel("constexpr_sparse_blockwise_shift_scale", since=18)
def sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """Scale and shift the set elements only; return their mask and their values."""
    dense = blockwise_shift_scale(masked_to_dense(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask != 0]


def _repeat_blocks(values: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each value over its block of ``shape``."""
    if values.ndim != len(shape) or any(
        size % count for size, count in zip(shape, values.shape, strict=True)
    ):
        raise ValueError(f"blocks of shape {values.shape} for data of shape {shape}")
    for axis, size in enumerate(shape):
        values = values.repeat(size // values.shape[axis], axis)
    return values
