"""Numeric faults that the noise of palettes hides, in any tool's package.

They leave every stored palette as it is, and most of them the package's answers as close to the
checkpoint's as they were.
"""

from __future__ import annotations

import numpy as np
from faults.editor import PackageEditor


def pad_other_side(package: PackageEditor) -> None:
    """Move the padding of the last strided convolution from one side to the other."""
    conv = next(
        conv
        for conv in reversed(package.convs(kernel=3))
        if package.array(package.value(conv, "pad_type")).tolist() == "same"
        and 2 in package.array(package.value(conv, "strides"))
    )
    package.set(conv, "pad_type", "same_lower")


def residual_from_elsewhere(package: PackageEditor) -> None:
    """Let the last residual connection start at another value of the same size."""
    package.reconnect(package.ops("add")[-1], "x")


def query_for_key(package: PackageEditor) -> None:
    """Exchange the operands of an attention's first product."""
    x, y = (package.ops("matmul")[0].inputs[side].arguments[0] for side in "xy")
    x.name, y.name = y.name, x.name


def coarse_epsilon(package: PackageEditor) -> None:
    """Make the epsilon of the first layer norm a hundred times as large."""
    package.set(package.ops("layer_norm")[0], "epsilon", 1e-3)


def aligned_corners(package: PackageEditor) -> None:
    """Enlarge the map of scores with its corners on the corners."""
    package.set(package.ops("upsample_bilinear")[0], "align_corners", True)


def brighter_input(package: PackageEditor) -> None:
    """Multiply the pixels by a number 5 % too large."""
    value = package.own(package.ops("mul")[0], "y")
    package.store(value, package.array(value) * 1.05)


def biases_exchanged(package: PackageEditor) -> None:
    """Exchange the biases of the first two 1x1 convolutions that have as many channels."""
    seen: dict[tuple[int, ...], object] = {}
    for conv in package.convs(kernel=1):
        value = package.value(conv, "bias")
        bias = package.array(value)
        other = seen.setdefault(bias.shape, value)
        if not np.array_equal(package.array(other), bias):
            package.store(value, package.array(other))
            package.store(other, bias)
            return
    raise AssertionError("no two biases of equal length")
