"""Colour profiles in image files.

PyTorch's data loaders read pixel values as they are stored, whatever the profile beside them says;
iOS converts to the colour space it draws in. The two see different pixels of a Display P3 photo.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms

from mvit_coreml.preprocessing.image_loading import to_rgb

# A profile whose colours come out of a conversion to sRGB this close, of 255, is sRGB.
_SAME_COLOR = 3
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


@dataclass(frozen=True)
class ColorProfile:
    """A colour profile other than sRGB.

    Attributes:
        name: as the profile describes itself.
        mode: Pillow mode of the colours it describes: ``RGB``, ``L`` or ``CMYK``.
        profile: for Pillow's ``ImageCms``.
    """

    name: str
    mode: str
    profile: ImageCms.ImageCmsProfile


def foreign_profile(image: Image.Image) -> ColorProfile | None:
    """Return an open image's profile if it changes colours; ``None`` for none, sRGB or damaged."""
    data = image.info.get("icc_profile")
    if not isinstance(data, bytes) or not data:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = _MODES.get(profile.profile.xcolor_space.strip())
        name = ImageCms.getProfileDescription(profile).strip()
        if mode is None or mode != _native_mode(image):
            return None  # describes other colours than the file holds
        if mode != "CMYK":
            sample = _samples(mode)
            shift = np.abs(
                np.asarray(_convert(sample, profile), int) - np.asarray(sample.convert("RGB"), int)
            )
            if shift.max() <= _SAME_COLOR:
                return None
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    return ColorProfile(name or "without a name", mode, profile)


def to_srgb(image: Image.Image, profile: ColorProfile) -> Image.Image:
    """Convert an image from its profile to sRGB, 8-bit RGB, with relative colorimetric intent.

    Args:
        image: an open image of any mode.
        profile: what :func:`foreign_profile` returned for it.
    """
    native = image if image.mode == profile.mode else to_rgb(image).convert(profile.mode)
    return _convert(native, profile.profile)


def _convert(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    converted = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
    )
    assert converted is not None  # None is for conversions in place
    return converted


def _native_mode(image: Image.Image) -> str:
    if image.mode == "CMYK":
        return "CMYK"
    return "L" if image.mode in ("1", "L", "LA", "La", "I", "F") or "I;" in image.mode else "RGB"


def _samples(mode: str) -> Image.Image:
    """Every eighth gray, or a cube of colours."""
    levels = np.linspace(0, 255, 33 if mode == "L" else 6).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return Image.fromarray(cube.reshape(1, -1, 3))
