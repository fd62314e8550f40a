"""Rounding weights to fp16 so that what they add up to stays what it was.

Rounding each weight to its nearest neighbour leaves every filter with a small random gain on a
constant input. Feature maps are mostly smooth and, after an activation, mostly of one sign, so that
this gain is what survives the sum, while the rest of the rounding averages out. Where large weights
cancel each other, as in the folded depthwise filters of MobileNetV2, it dominates. A few weights of
each filter are therefore rounded to their other neighbour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_REFINEMENTS = 3


def round_rows(weights: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round every row to fp16, keeping its sum.

    Weights are moved from the nearest fp16 number to the next one on the other side, those first
    that this costs the least squared error for their share of the sum, until the sum is as near to
    the unrounded one as another move would leave it.

    Args:
        weights: (rows, columns) values within fp16's range.

    Returns:
        (rows, columns) values, each one of the two fp16 numbers around the weight.
    """
    rounded = weights.astype(np.float16)
    other, step, cost, missing = _moves(weights, rounded)
    order = np.argsort(cost, axis=1, kind="stable")
    returned = np.take_along_axis(np.where(np.isfinite(cost), step, 0.0), order, axis=1)
    returned = np.concatenate([np.zeros_like(missing), np.cumsum(returned, axis=1)], axis=1)
    moves = np.abs(np.abs(missing) - returned).argmin(axis=1)
    moved = np.zeros(weights.shape, bool)
    np.put_along_axis(moved, order, np.arange(weights.shape[1]) < moves[:, None], axis=1)
    rounded = np.where(moved & np.isfinite(cost), other, rounded)
    # What is left is less than a step of the last weight; a smaller one may still give it.
    for _ in range(_REFINEMENTS):
        other, step, cost, missing = _moves(weights, rounded)
        left = np.where(np.isfinite(cost), np.abs(np.abs(missing) - step), np.inf)
        best = left.argmin(axis=1)[:, None]
        helps = np.take_along_axis(left, best, axis=1) < np.abs(missing)
        chosen = np.where(
            helps,
            np.take_along_axis(other, best, axis=1),
            np.take_along_axis(rounded, best, axis=1),
        )
        np.put_along_axis(rounded, best, chosen, axis=1)
    return rounded


def _moves(
    weights: NDArray[np.float32], rounded: NDArray[np.float16]
) -> tuple[NDArray[np.float16], Floats, Floats, Floats]:
    """Say what moving each weight to its other neighbour means.

    Returns:
        The other neighbours, their distances, what a move costs in squared error for its distance
        (infinity where it does not bring the sum nearer), and (rows, 1) what the sums lack.
    """
    error = weights.astype(np.float64) - rounded
    missing = error.sum(axis=1, keepdims=True)
    direction = np.where(missing > 0, np.float16(np.inf), np.float16(-np.inf))
    other = np.nextafter(rounded, direction)
    step = np.abs(other.astype(np.float64) - rounded)
    # Only a weight that was rounded against the missing sum can give some of it back.
    movable = (error * np.sign(missing) > 0) & np.isfinite(other)
    return other, step, np.where(movable, step - 2 * np.abs(error), np.inf), missing


def round_weight(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Round a convolution's or linear layer's weight, output channel by output channel.

    Args:
        weight: (out, …) weight.

    Returns:
        The same shape in float32, its values those of fp16.
    """
    rows = weight.reshape(weight.shape[0], -1).astype(np.float32)
    return round_rows(rows).astype(np.float32).reshape(weight.shape)
