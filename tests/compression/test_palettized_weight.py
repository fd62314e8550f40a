"""A palettized weight decodes to what its tables say, and refuses contradictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mvit_coreml.compression.palettized_weight import PalettizedWeight
from mvit_coreml.errors import InputError


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
