"""What each iOS version can hold; what tables and indices decode to; indices packed into bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mvit_coreml.compression.palettized_weight import (
    UNCOMPRESSED,
    Choice,
    PalettizedWeight,
    bit_widths,
    pack_indices,
    packed_size,
    unpack_indices,
)
from mvit_coreml.errors import InputError
from mvit_coreml.export.coremltools_import import load_coremltools

pytestmark = pytest.mark.fast


def test_one_table_serves_every_element() -> None:
    lut = np.array([[-1.5, 0.0, 0.25, 2.0]], dtype=np.float16)
    weight = PalettizedWeight(lut, np.array([[3, 0], [2, 2]], dtype=np.uint8))
    np.testing.assert_array_equal(weight.decode(), [[2.0, -1.5], [0.25, 0.25]])
    assert weight.decode().dtype == np.float16
    assert (weight.bits, weight.groups, weight.group_size) == (2, 1, 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_group_of_channels_has_a_table_of_its_own(axis: int) -> None:
    rng = np.random.default_rng(axis)
    lut = rng.standard_normal((3, 8)).astype(np.float32)
    shape = [4, 5, 2]
    shape[axis] = 6
    indices = rng.integers(0, 8, shape).astype(np.uint8)
    weight = PalettizedWeight(lut, indices, axis)
    for place in np.ndindex(*shape):
        assert weight.decode()[place] == lut[place[axis] // 2, indices[place]]
    assert (weight.bits, weight.group_size) == (3, 2)


def arguments(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "lut": np.zeros((2, 4), dtype=np.float16),
        "indices": np.zeros((4, 3), dtype=np.uint8),
    }
    return given | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lut": np.zeros((2, 4))}, "float64"),
        ({"lut": np.zeros((2, 5), np.float16)}, "(2, 5)"),
        ({"lut": np.zeros(4, np.float16)}, "(4,)"),
        ({"lut": np.full((2, 4), np.inf, np.float16)}, "infinity"),
        ({"indices": np.zeros((4, 3), np.int64)}, "int64"),
        ({"indices": np.zeros((0, 3), np.uint8)}, "(0, 3)"),
        ({"indices": np.full((4, 3), 4, np.uint8)}, "an index is 4"),
        ({"axis": 2}, "axis 2"),
        ({"axis": 1}, "2 lookup tables do not divide the 3 elements on axis 1"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        PalettizedWeight(**arguments(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_three_bits_and_groups_come_with_ios_18() -> None:
    # Core ML's definitions of constexpr_lut_to_dense, iOS 16 and iOS 18.
    assert bit_widths(16) == bit_widths(17) == (1, 2, 4, 6, 8)
    assert bit_widths(18) == bit_widths(26) == (1, 2, 3, 4, 6, 8)


def test_three_bits_before_ios_18_are_refused_with_the_ways_out() -> None:
    with pytest.raises(InputError) as caught:
        Choice(3).check_target(17)
    assert str(caught.value) == (
        "3 bits need iOS 18; this package is for iOS 17: --ios 18, or 2 or 4 bits"
    )
    Choice(3).check_target(18)


def test_groups_before_ios_18_are_refused() -> None:
    with pytest.raises(InputError, match=r"groups of channels need iOS 18.*for iOS 16"):
        Choice(4, 8).check_target(16)
    Choice(4, 8).check_target(26)


@pytest.mark.parametrize("bits", [0, 5, 7, 16])
def test_widths_that_core_ml_lacks_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match=f"{bits} bits.*1, 2, 3, 4, 6, 8"):
        Choice(bits)


def test_a_group_size_must_divide_the_channels() -> None:
    Choice(4, 8).check_channels(24)
    with pytest.raises(InputError, match=r"10 does not divide its 24 output channels; use 8 or 12"):
        Choice(4, 10).check_channels(24)


def test_an_uncompressed_weight_has_no_groups() -> None:
    with pytest.raises(InputError, match="group size 4"):
        Choice(None, 4)


def test_choices_read_as_words() -> None:
    assert [str(choice) for choice in (UNCOMPRESSED, Choice(1), Choice(6), Choice(4, 16))] == [
        "uncompressed",
        "1 bit",
        "6 bits",
        "4 bits in groups of 16",
    ]


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
