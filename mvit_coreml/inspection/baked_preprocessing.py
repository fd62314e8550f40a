"""The preprocessing that a package's program does itself, read from its first operations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.mil.program import Argument, Function, ImageFeature, Operation, Reference
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


def read_baked_preprocessing(function: Function, constants: Constants) -> BakedPreprocessing | None:
    """Read what a function does to its image before anything else.

    Follows the image through multiplications, additions and casts with constants of one value or
    one for each channel, as long as nothing else uses the intermediate results.

    Returns:
        ``None`` for a function without an image input.
    """
    image = next(
        (feature for feature in function.inputs if isinstance(feature, ImageFeature)), None
    )
    if image is None:
        return None
    channels = 1 if image.color_order == "grayscale" else 3
    scale, bias = np.ones(channels), np.zeros(channels)
    names: list[str] = []
    value, following = image.name, 0
    while True:
        users = [
            (index, operation)
            for index, operation in enumerate(function.operations[following:], following)
            if any(_is(given, value) for values in operation.inputs.values() for given in values)
        ]
        if len(users) != 1 or value in function.results:
            break
        index, operation = users[0]
        if operation.op_type not in _PASSING:
            step = _affine(operation, value, constants, channels)
            if step is None:
                break
            scale, bias = scale * step[0], bias * step[0] + step[1]
            names.append(operation.name)
        value, following = operation.outputs[0].name, index + 1
    return BakedPreprocessing(
        color_order=image.color_order,
        scale=tuple(scale.tolist()),
        bias=tuple(bias.tolist()),
        operations=tuple(names),
    )


def _is(argument: Argument, name: str) -> bool:
    return isinstance(argument, Reference) and argument.name == name


def _affine(
    operation: Operation, value: str, constants: Constants, channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return an operation as a factor and a summand for each channel, if it is no more."""
    if operation.op_type not in _ARITHMETIC:
        return None
    (x,), (y,) = operation.inputs["x"], operation.inputs["y"]
    first = _is(x, value)
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
