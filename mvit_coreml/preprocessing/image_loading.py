"""Reading any image, whatever its file format and pixel mode, as 8-bit RGB."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from mvit_coreml.errors import InputError

# What counts as white in modes deeper than 8 bits. Sixteen-bit files always use their full range;
# the 32-bit modes have no agreed one, so the smallest that holds the image's maximum is meant.
_FULL_SCALES: dict[str, tuple[int, ...]] = {
    "I;16": (65535,),
    "I": (255, 65535, 2**31 - 1),
    "F": (1, 255, 65535),
}
# What turns an image upright, by its EXIF orientation: where row 0 and column 0 of the pixels lie
# (CIPA DC-008, tag 274).
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def load_image(image: str | os.PathLike[str] | Image.Image) -> Image.Image:
    """Read a file, or take an open image, as an 8-bit RGB image.

    Files are turned upright by their EXIF orientation; an image that is already open is taken as
    it lies. See :func:`to_rgb` for the pixels.

    Raises:
        InputError: the file is missing, empty, truncated, too large or no image.
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    opened = open_image(image)
    try:
        return to_rgb(opened)
    except InputError as error:
        raise InputError(f"{os.fspath(image)}: {error}") from None


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Decode an image file in its own pixel mode, turned upright by its EXIF orientation.

    Of an animation, the first frame is read. Colour profiles are left to Pillow, which does not
    apply them.

    Raises:
        InputError: the file is missing, empty, truncated, too large or no image.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: no such image file")
        if not path.is_file():
            raise InputError(f"{path}: is not a file; name an image in it")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the image file is empty (0 bytes)")
        with _identify(path) as image:
            image.load()
            return _upright(image)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(
            f"{path}: the image has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which "
            "is refused as a possible decompression bomb; make it smaller first"
        ) from None
    # Decoders of broken files raise nearly anything (OSError, SyntaxError, struct.error, …).
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read as an image ({error}); is the file complete and readable?"
        ) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any Pillow mode to RGB.

    Alpha and palette transparency are dropped, not composited: a pixel keeps the colour stored
    under its transparency. Modes deeper than 8 bits are scaled so that white becomes 255, rounding
    halves up: white is 65535 for ``I;16``; for ``I`` it is the smallest of 255, 65535 and
    2147483647 that holds the image's maximum, for ``F`` the smallest of 1, 255 and 65535.

    Raises:
        InputError: a 32-bit image with negative, not finite or larger values.
    """
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    if mode == "RGB":
        return image
    if mode in _FULL_SCALES:
        return _scale_to_8_bits(image, _FULL_SCALES[mode]).convert("RGB")
    if mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # None is for conversions in place
        return converted
    if mode == "La":  # Pillow has no direct way.
        return image.convert("LA").convert("RGB")
    if mode == "P" and "transparency" in image.info:  # The direct way draws a warning.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bits(image: Image.Image, full_scales: tuple[int, ...]) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    full_scale = next((scale for scale in full_scales if high <= scale), None)
    if full_scale is None or not low >= 0:
        raise InputError(
            f"image of mode {image.mode} holds values from {low:g} to {high:g}; "
            f"it must hold values from 0 to {full_scales[-1]}"
        )
    return Image.fromarray(np.floor(values * 255 / full_scale + 0.5).astype(np.uint8))


def _upright(image: Image.Image) -> Image.Image:
    # ImageOps.exif_transpose also writes the other EXIF fields anew, and fails on odd ones.
    transposition = _TRANSPOSITIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image.copy() if transposition is None else image.transpose(transposition)


def _identify(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError:
        with path.open("rb") as file:
            header = file.read(12)
        if header[4:8] != b"ftyp" or header[8:12] not in _HEIF_BRANDS:
            raise InputError(f"{path}: is not an image in a format that Pillow reads") from None
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        raise InputError(
            f"{path}: HEIC images need the pillow-heif package; run: pip install pillow-heif"
        ) from None
    return Image.open(path)
