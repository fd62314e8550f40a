"""Packed indices are those that coremltools packs."""

from __future__ import annotations

import numpy as np
import pytest

from mvit_coreml.compression.packing import pack_indices, packed_size, unpack_indices
from mvit_coreml.export.coremltools_import import load_coremltools


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (5, 3, 3), (16, 9)])
def test_packing_agrees_with_coremltools_and_is_undone(bits: int, shape: tuple[int, ...]) -> None:
    load_coremltools()
    from coremltools.optimize._utils import pack_elements_into_bits

    indices = np.random.default_rng(bits).integers(0, 2**bits, shape).astype(np.uint8)
    packed = pack_indices(indices, bits)
    np.testing.assert_array_equal(packed, pack_elements_into_bits(indices, bits))
    assert packed.size == packed_size(indices.size, bits)
    np.testing.assert_array_equal(unpack_indices(packed, bits, shape), indices)
