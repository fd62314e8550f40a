"""What a caller hands over, as the tensor that a program receives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvit_coreml.errors import InputError
from mvit_coreml.mil.program import ArrayInput, ImageInput
from mvit_coreml.mil.value_types import TensorType


def input_tensor(feature: ImageInput | ArrayInput, declared: TensorType, value: Any) -> Tensor:
    """Return an input as a tensor; images as (1, C, height, width) values from 0 to 255.

    Raises:
        InputError: the value is of the wrong kind, element type or shape.
    """
    if isinstance(feature, ImageInput):
        return _image_tensor(feature, value)
    return _array_tensor(feature, declared, value)


def image_pixels(feature: ImageInput, value: Any) -> np.ndarray:
    """Return an image input as (height, width, 3) RGB or (height, width) gray uint8 pixels.

    Args:
        feature: the input, which has one size.
        value: Pillow image or uint8 array.

    Raises:
        InputError: the value is no 8-bit image of the declared size.
    """
    gray = feature.color_order == "grayscale"
    if isinstance(value, Image.Image):
        value = np.asarray(value.convert("L" if gray else "RGB"))
    elif isinstance(value, Tensor):
        value = value.numpy()
    name, size = feature.name, f"{feature.width}x{feature.height}"
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        found = getattr(value, "dtype", type(value).__name__)
        raise InputError(
            f"the input {name!r} takes a Pillow image or a uint8 array of {size} pixels, "
            f"not {found}"
        )
    if gray and value.ndim == 3 and value.shape[2] == 1:
        value = value[:, :, 0]
    expected = (feature.height, feature.width) if gray else (feature.height, feature.width, 3)
    if value.shape != expected:
        raise InputError(
            f"the input {name!r} takes an array of shape {list(expected)}, "
            f"not {list(value.shape)}; fit the image to {size} pixels first"
        )
    return value


def _image_tensor(feature: ImageInput, value: Any) -> Tensor:
    pixels = image_pixels(feature, value)
    if feature.color_order == "grayscale":
        return torch.from_numpy(pixels.astype(np.float32))[None, None]
    planes = np.moveaxis(pixels, -1, 0)
    if feature.color_order == "bgr":
        planes = planes[::-1]
    return torch.from_numpy(np.ascontiguousarray(planes, np.float32))[None]


def _array_tensor(feature: ArrayInput, declared: TensorType, value: Any) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    if not declared.accepts(tuple(tensor.shape)):
        raise InputError(
            f"the input {feature.name!r} takes an array of shape "
            f"{['?' if size is None else size for size in declared.shape]}, "
            f"not {list(tensor.shape)}"
        )
    return tensor
