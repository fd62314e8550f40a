"""Pictures of any size from a formula, the same here and in Swift's tests."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Pattern = Literal["noise", "checks", "waves"]

PERIOD = 8191
# The four bytes of a pixel; the last is alpha, which must not matter.
_WAVE_LENGTHS = (97, 61, 37, 23)


@cache
def _strip(pattern: Pattern) -> NDArray[np.uint8]:
    """Return the pixels that every row of a pattern is cut out of, (PERIOD, 4)."""
    if pattern == "waves":
        steps = np.arange(PERIOD)[:, None] * 510 // np.array(_WAVE_LENGTHS)
        return np.abs(steps % 510 - 255).astype(np.uint8)
    count = PERIOD * 4
    values = np.empty(count, np.uint8)
    state = 12345
    for index in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        values[index] = state >> 24
    noise = values.reshape(PERIOD, 4)
    if pattern == "noise":
        return noise
    return np.where(noise[np.arange(PERIOD) // 5] < 128, 0, 255).astype(np.uint8)


def _first_pixel(pattern: Pattern, seed: int, row: int) -> int:
    """Return where in its strip a row begins."""
    if pattern == "waves":
        return (2 * row + 10 * seed) % PERIOD
    block = row // 3 if pattern == "checks" else row
    return (block * block * 31 + block * 7919 + seed * 4729) % PERIOD


def picture(pattern: Pattern, seed: int, size: tuple[int, int]) -> NDArray[Any]:
    """Return (height, width, 3) uint8 RGB.

    Args:
        pattern: ``noise``, ``checks`` of black and white channels, or smooth ``waves``.
        seed: another picture for every number.
        size: (height, width).
    """
    height, width = size
    strip = np.resize(_strip(pattern), (PERIOD + width, 4))
    rows = [
        strip[(start := _first_pixel(pattern, seed, row)) : start + width, :3]
        for row in range(height)
    ]
    return np.stack(rows)
