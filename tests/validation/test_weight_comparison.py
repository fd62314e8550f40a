"""Which constants count as the expected ones, on numbers chosen by hand."""

from __future__ import annotations

import numpy as np
import pytest

from mvit_coreml.mil.stored_weights import StoredPalette
from mvit_coreml.validation.weight_comparison import compare_constants

HALF = np.array([[1.0, -2.0, 0.5], [0.25, 100.0, -0.001]], np.float16)


def with_element(array, place, value):
    changed = array.copy()
    changed.flat[place] = value
    return changed


def up(array, place, bits):
    number = array.flat[place]
    for _ in range(bits):
        number = np.nextafter(number, array.dtype.type(np.inf))
    return with_element(array, place, number)


@pytest.mark.parametrize("place", range(5))
def test_one_last_bit_is_rounding_and_three_are_not(place):
    assert compare_constants(up(HALF, place, 1), HALF) is None
    assert "differs in 1 of 6 numbers" in compare_constants(up(HALF, place, 3), HALF)


def test_a_small_number_is_not_hidden_by_a_large_one():
    found = compare_constants(with_element(HALF, 5, -0.002), HALF)
    assert found.startswith("differs in 1 of 6 numbers, most at [1, 2]: -0.002")


def test_float32_has_more_bits():
    wide = HALF.astype(np.float32)
    assert compare_constants(up(wide, 4, 1), wide) is None
    assert compare_constants(with_element(wide, 4, 100.001), wide) is not None


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_what_is_no_number_or_of_another_sign_differs(value):
    assert compare_constants(with_element(HALF, 0, value), HALF) is not None


def test_attributes_are_compared_exactly():
    assert compare_constants(np.array([1, 2]), np.array([1, 2])) is None
    assert compare_constants(np.array([1, 2]), np.array([1, 3])) == "is [1, 2], not [1, 3]"
    scalar = np.array(1e-5, np.float32)
    assert compare_constants(scalar, scalar.copy()) is None
    assert compare_constants(np.nextafter(scalar, np.float32(1)).reshape(()), scalar) is not None
    assert compare_constants(["a", "b"], ["a", "b"]) is None
    assert compare_constants(["a", "b"], ["b", "a"]) == "is ['a', 'b'], not ['b', 'a']"


def test_types_and_shapes_are_compared():
    assert compare_constants(HALF.astype(np.float32), HALF) == (
        "is float32 [2, 3] instead of float16 [2, 3]"
    )
    assert compare_constants(HALF.T, HALF) == "is float16 [3, 2] instead of float16 [2, 3]"
    assert compare_constants(HALF, "text") is not None


# Two weights around each entry, so that the entries are exact means.
TABLE = np.array([-1.0, -0.25, 0.25, 1.0], np.float16)
OFFSETS = np.tile(np.array([-0.0625, 0.0625], np.float16), 4)
WEIGHTS = (np.repeat(TABLE, 2) + OFFSETS).reshape(2, 4)
PLACES = np.repeat(np.arange(4), 2).reshape(2, 4)


def palette(table=TABLE, places=PLACES, groups=1):
    return StoredPalette(tables=np.asarray(table, np.float16).reshape(groups, -1), places=places)


def compare(stored, values="means", weights=WEIGHTS):
    return compare_constants(stored.values, weights, stored, values)


def test_means_of_the_nearest_weights_are_a_palette():
    assert compare(palette()) is None
    # Neither the order of the entries matters nor one that no weight has.
    order = np.array([2, 0, 3, 1])
    assert compare(palette(TABLE[order], np.argsort(order)[PLACES])) is None
    spare = np.append(TABLE, [7, 7, 7, 7])
    assert compare(palette(spare)) is None


def test_a_weight_with_an_entry_that_is_not_the_nearest_is_found():
    found = compare(palette(places=with_element(PLACES, 3, 2)))
    assert found == (
        "gives 1 of 8 weights an entry that is not the nearest, "
        "such as 0.25 for -0.1875 where -0.25 is"
    )


@pytest.mark.parametrize("gap", [0.01, -0.01, 0.1])
def test_an_entry_that_is_no_mean_is_found(gap):
    found = compare(palette(with_element(TABLE, 1, -0.25 + gap * 0.5)))
    assert "for 2 weights of mean -0.25" in found


def test_an_entry_may_be_rounded():
    assert compare(palette(up(TABLE, 1, 1))) is None


@pytest.mark.parametrize("tied", [0, 1])
def test_a_tie_may_go_either_way(tied):
    # So many that one more leaves the means where the tie is one.
    weights = np.repeat([[-1.0, 0.0, 1.0]], [1000, 1, 1000], axis=1).astype(np.float16)
    places = np.repeat([[0, tied, 1]], [1000, 1, 1000], axis=1)
    assert compare(palette([-1.0, 1.0], places), weights=weights) is None


def test_another_tensor_is_found_by_its_noise():
    found = compare(palette(places=PLACES[::-1]))
    assert found.endswith("dB against its weights, where 2 bits give 4 dB")
    assert compare(palette(with_element(TABLE, 1, np.nan))).startswith("has -300.0 dB")


def test_each_group_has_a_table_of_its_own():
    weights = np.concatenate([WEIGHTS, 2 * WEIGHTS])
    places = np.concatenate([PLACES, PLACES + 4])
    stored = palette(np.stack([TABLE, 2 * TABLE]), places, groups=2)
    assert stored.bits == 2
    assert compare(stored, weights=weights) is None
    wrong = palette(np.stack([TABLE, 2 * TABLE]), with_element(places, 8, 5), groups=2)
    assert "gives 1 of 8 weights" in compare(wrong, weights=weights)


def test_training_may_move_what_it_trains_but_not_shuffle_it():
    bias, moved = np.array([0, 1], np.float16), np.array([0.5, -3], np.float16)
    assert compare_constants(moved, bias) is not None
    assert compare_constants(moved, bias, values="trained") is None
    assert compare_constants(with_element(moved, 0, np.nan), bias, values="trained") == (
        "holds 1 numbers that are not finite"
    )
    assert compare_constants(HALF * np.float16(1.2), HALF, values="trained") is None
    assert compare_constants(-HALF, HALF, values="trained") == (
        "has a cosine of -1.00 with what it was"
    )
    assert compare(palette(TABLE * np.float16(1.3)), "trained") is None
    assert compare(palette(TABLE[::-1]), "trained").startswith("has ")
    stride = np.array([1, 2])
    assert compare_constants(stride, stride + 1, values="trained") is not None
