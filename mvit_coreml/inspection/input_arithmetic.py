"""The arithmetic that a package does on its image first: scale and bias, read from its program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.mil.program import Function, ImageFeature, Operation, Reference
from mvit_coreml.mil.stored_weights import Constants

_ARITHMETIC = ("mul", "add", "sub", "real_div")
_PASSING = ("cast", "identity")


@dataclass(frozen=True, kw_only=True)
class BakedPreprocessing:
    """``scale * pixel + bias``, which the program computes of every image.

    Attributes:
        color_order: in which the program sees the channels: ``rgb``, ``bgr`` or ``grayscale``.
        scale: factor on pixel values 0 to 255, for each channel in ``color_order``.
        bias: added after scaling, likewise.
        operations: names of the operations that do it.
    """

    color_order: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]
    operations: tuple[str, ...]

    @property
    def ranges(self) -> tuple[tuple[float, float], ...]:
        """What black and white become, for each channel."""
        return tuple(
            (bias, 255 * scale + bias) for scale, bias in zip(self.scale, self.bias, strict=True)
        )


def channel_numbers(values: Sequence[float]) -> str:
    """Return a number as text, or one for each channel where they differ."""
    numbers = values[:1] if len(set(values)) == 1 else values
    return ", ".join(f"{value:.6g}" for value in numbers)


def read_baked_preprocessing(function: Function, constants: Constants) -> BakedPreprocessing | None:
    """Read what a function does to its image before anything else.

    Follows the image through multiplications, additions and casts with constants of one value or
    one for each channel, as long as nothing else uses the intermediate results.

    Returns:
        ``None`` for a function without an image input.
    """
    image = next((one for one in function.inputs if isinstance(one, ImageFeature)), None)
    if image is None:
        return None
    channels = image.shape[1]
    scale, bias = np.ones(channels), np.zeros(channels)
    names: list[str] = []
    value = image.name
    while value not in function.results:
        users = [step for step in function.operations if value in step.value_names]
        if len(users) != 1:
            break
        (step,) = users
        if step.op_type not in _PASSING:
            affine = _affine(step, value, constants, channels)
            if affine is None:
                break
            scale, bias = scale * affine[0], bias * affine[0] + affine[1]
            names.append(step.name)
        value = step.outputs[0].name
    return BakedPreprocessing(
        color_order=image.color_order,
        scale=tuple(scale.tolist()),
        bias=tuple(bias.tolist()),
        operations=tuple(names),
    )


def _affine(
    operation: Operation, value: str, constants: Constants, channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return an operation as a factor and a summand for each channel, if it is no more."""
    if operation.op_type not in _ARITHMETIC:
        return None
    (x,), (y,) = operation.inputs["x"], operation.inputs["y"]
    first = isinstance(x, Reference) and x.name == value
    other = y if first else x
    if not constants.is_constant(other):
        return None
    constant = np.asarray(constants.decode(other), np.float64)
    try:
        constant = np.broadcast_to(constant, (1, channels, 1, 1)).reshape(channels)
    except ValueError:
        return None
    zero, one = np.zeros(channels), np.ones(channels)
    match operation.op_type:
        case "mul":
            return constant, zero
        case "add":
            return one, constant
        case "sub":
            return (one, -constant) if first else (-one, constant)
    return (1 / constant, zero) if first else None
