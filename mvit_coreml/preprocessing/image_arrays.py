"""From what a caller may pass as images to a list of NumPy arrays, and from arrays to a batch."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.preprocessing.image_loading import load_image, open_image

if TYPE_CHECKING:
    import torch

Array: TypeAlias = npt.NDArray[Any]
DataFormat = Literal["channels_first", "channels_last"]
ReturnTensors = Literal["pt", "np"] | None
ImageLike = Union[str, "os.PathLike[str]", Image.Image, Array, "torch.Tensor"]
Images = ImageLike | list[Any] | tuple[Any, ...]
# A tensor, an array or a list of arrays: the caller's ``return_tensors`` says which.
Batch: TypeAlias = Any

_CHANNEL_COUNTS = (1, 3, 4)


def is_tensor(value: object) -> bool:
    """Tell whether a value is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_list(images: Images, ndim: int) -> list[ImageLike]:
    """Return one image, a batch or a nested list of either as a flat list of images.

    Args:
        images: paths, Pillow images, arrays or tensors.
        ndim: dimensions of a single array; one with one more is a batch.

    Raises:
        InputError: there are no images.
    """
    if isinstance(images, list | tuple):
        flat = [image for item in images for image in to_list(item, ndim)]
    elif getattr(images, "ndim", None) == ndim + 1:
        flat = list(images)  # type: ignore[arg-type]
    else:
        flat = [images]
    if not flat:
        raise InputError("there are no images to process; pass at least one")
    return flat


def image_array(
    image: ImageLike, *, convert_rgb: bool = True, input_data_format: str | None = None
) -> Array:
    """Return one image as an array of pixels.

    Args:
        image: a path, a Pillow image, or an (H, W), (H, W, C) or (C, H, W) array or tensor of
            1, 3 or 4 channels.
        convert_rgb: turn every mode into RGB: see
            :func:`~mvit_coreml.preprocessing.image_loading.to_rgb`; of an
            array, one channel is repeated and the fourth dropped.
        input_data_format: ``channels_first`` or ``channels_last``, for arrays; ``None`` looks for
            an axis of 1, 3 or 4, the first axis before the last.

    Returns:
        (H, W, C) array of the image's own dtype: uint8 for 8-bit images.

    Raises:
        InputError: unreadable file, or no such array.
    """
    if input_data_format not in (None, "channels_first", "channels_last"):
        raise InputError(
            f"input_data_format is {input_data_format!r}; "
            "it must be 'channels_first', 'channels_last' or None"
        )
    if isinstance(image, str | os.PathLike):
        image = load_image(image) if convert_rgb else open_image(image)
    if isinstance(image, Image.Image):
        pixels = np.array(load_image(image) if convert_rgb else image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    else:
        pixels = _channels_last(as_array(image, "image"), input_data_format)
        if convert_rgb:
            pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    if pixels.size == 0:
        raise InputError(f"image of shape {pixels.shape} has no pixels")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise InputError("image holds values that are not finite numbers")
    return pixels


def to_batch(arrays: list[Array], return_tensors: str | None) -> Batch:
    """Stack arrays into what the caller asked for.

    Args:
        arrays: equally shaped arrays (of any shapes if they are not stacked).
        return_tensors: ``pt`` for a torch tensor, ``np`` for an array, ``None`` for the list.

    Raises:
        InputError: arrays of different shapes cannot be stacked, or unknown ``return_tensors``.
    """
    arrays = [np.ascontiguousarray(array) for array in arrays]
    if return_tensors is None:
        return arrays
    if return_tensors not in ("pt", "np"):
        raise InputError(f"return_tensors is {return_tensors!r}; it must be 'pt', 'np' or None")
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise InputError(
            f"images end up in different shapes ({shapes[0]} and {shapes[1]}) and cannot be "
            "stacked; set do_center_crop=True or return_tensors=None"
        )
    stacked = np.stack(arrays)
    if return_tensors == "np":
        return stacked
    import torch

    return torch.from_numpy(stacked)


def warn_if_already_rescaled(image: Array) -> None:
    """Warn about fractions from 0 to 1 that are about to be divided by 255 once more."""
    if image.dtype.kind == "f" and image.max() <= 1:
        warnings.warn(
            "an image holds floats up to 1 and is rescaled again; pass do_rescale=False if its "
            "values already lie between 0 and 1",
            stacklevel=2,
        )


def as_array(value: object, what: str) -> Array:
    """Return an array or tensor of real numbers as an array.

    Args:
        value: what the caller passed.
        what: name of it, for the error.

    Raises:
        InputError: anything else.
    """
    array: Array
    if is_tensor(value):
        import torch

        tensor = cast(torch.Tensor, value).detach().cpu()
        # NumPy has no bfloat16.
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    elif isinstance(value, np.ndarray):
        array = value
    else:
        raise InputError(
            f"{what} is of type {type(value).__name__}; "
            "pass a path, a Pillow image, a NumPy array or a torch tensor"
        )
    if array.dtype.kind not in "buif":
        raise InputError(f"{what} has dtype {array.dtype}; it must hold real numbers")
    return array


def _channels_last(array: Array, data_format: str | None) -> Array:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise InputError(
            f"image has shape {array.shape}; it must be (height, width), "
            "(height, width, channels) or (channels, height, width)"
        )
    first, last = array.shape[0] in _CHANNEL_COUNTS, array.shape[-1] in _CHANNEL_COUNTS
    if data_format is None:
        if first and last:
            warnings.warn(
                f"image of shape {array.shape} is taken as (channels, height, width); "
                "pass input_data_format to be sure",
                stacklevel=2,
            )
        data_format = "channels_first" if first else "channels_last"
    if not (first if data_format == "channels_first" else last):
        raise InputError(
            f"image of shape {array.shape} has no axis of 1, 3 or 4 channels where "
            f"input_data_format={data_format!r} looks for it"
        )
    return np.moveaxis(array, 0, -1) if data_format == "channels_first" else array
