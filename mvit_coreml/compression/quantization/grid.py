"""The grids of 8-bit numbers that activations and weights are rounded to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvit_coreml.errors import InputError

GridType = Literal["int8", "uint8"]

# Least and greatest level of each type.
LEVELS: dict[GridType, tuple[int, int]] = {"int8": (-128, 127), "uint8": (0, 255)}
# Weights leave out -128, so that their range is symmetric as coremltools has it.
WEIGHT_LEVELS = 127
# Where zero lies in weights stored as unsigned bytes.
UNSIGNED_ZERO = 128


@dataclass(frozen=True)
class Grid:
    """The numbers that one activation is rounded to: ``scale * (level - zero_point)``.

    Attributes:
        scale: distance of two levels; a number of the activation's own type.
        zero_point: level of zero.
        dtype: of the levels.

    Raises:
        InputError: no such grid exists.
    """

    scale: float
    zero_point: int
    dtype: GridType

    def __post_init__(self) -> None:
        if self.dtype not in LEVELS:
            raise InputError(f"levels of type {self.dtype!r}; they are int8 or uint8")
        low, high = LEVELS[self.dtype]
        if not low <= self.zero_point <= high:
            raise InputError(f"a zero point of {self.zero_point} is no {self.dtype}")
        if not 0 < self.scale < float("inf"):
            raise InputError(f"a scale of {self.scale:g}: it must be positive and finite")

    def round(self, values: Tensor) -> Tensor:
        """Return the nearest number of the grid to each value, in the values' type.

        Halves go to the even level, as in ``quantize`` of MIL.
        """
        low, high = LEVELS[self.dtype]
        lowest, highest = low - self.zero_point, high - self.zero_point
        levels = (values / self.scale).round_().clamp_(lowest, highest)
        return levels.mul_(self.scale)

    def __str__(self) -> str:
        zero = f" from {self.zero_point}" if self.zero_point else ""
        return f"{self.dtype} {self.scale:.6g}{zero}"


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight as 8-bit levels with a scale for each output channel; zero is level 0.

    Attributes:
        levels: int8, -127 to 127, of the weight's shape.
        scale: (channels,) float16 or float32, the type that it decodes to.
        axis: of the weight, on which the output channels lie.
    """

    levels: NDArray[np.int8]
    scale: NDArray[Any]
    axis: int = 0

    def decode(self) -> NDArray[Any]:
        """Return the weight that the program computes with, in the type of its scales."""
        scale = self.scale_along_axis().astype(np.float32)
        return (self.levels.astype(np.float32) * scale).astype(self.scale.dtype)

    def scale_along_axis(self) -> NDArray[Any]:
        """Return the scales, shaped so that they broadcast."""
        shape = [1] * self.levels.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape)


def storable_scale(scale: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """Return positive scales as the type that they are stored in holds them, in fp32."""
    half = dtype == np.float16
    smallest = float(np.finfo(dtype).smallest_subnormal) if half else 1e-30
    return scale.clamp(min=smallest).to(torch.float16 if half else torch.float32).float()
