"""What each iOS version can hold, and what is said where it cannot."""

from __future__ import annotations

import pytest

from mvit_coreml.compression.choices import UNCOMPRESSED, Choice, bit_widths
from mvit_coreml.errors import InputError


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
