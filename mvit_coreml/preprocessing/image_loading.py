"""Loading images: files in folders, any format and pixel mode as 8-bit RGB, profiles to sRGB.

PyTorch's data loaders read pixel values as they are stored, whatever the profile beside them says;
iOS converts to the colour space it draws in. The two see different pixels of a Display P3 photo.
"""

from __future__ import annotations

import importlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from mvit_coreml.errors import InputError, errors_at

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
# Endings of files that are taken for images where a folder is searched.
IMAGE_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# A profile whose colours come out of a conversion to sRGB this close, of 255, is sRGB.
_SAME_COLOR = 3
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


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
    with errors_at(os.fspath(image)):
        return to_rgb(opened)


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


def is_image_name(name: str) -> bool:
    """Whether a file name ends as an image's does."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def images_in(folder: Path, *, deep: bool = True) -> list[Path]:
    """List the image files of a folder, in order of their paths.

    Hidden files and folders are left out, and with them what macOS leaves beside an image when it
    copies it to a foreign disk (AppleDouble: ``._photo.jpg``).

    Args:
        folder: the folder.
        deep: whether subfolders count too.
    """
    return sorted(
        path
        for path in (folder.rglob("*") if deep else folder.iterdir())
        if is_image_name(path.name)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def find_images(path: Path, limit: int | None = None) -> list[Path]:
    """List the photos of a folder and its subfolders in order of name, or the one photo.

    Args:
        path: folder or file.
        limit: keep this many, spread evenly.

    Raises:
        InputError: there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such folder or file; --images names photos")
    images = images_in(path)
    if not images:
        supported = ", ".join(sorted(IMAGE_SUFFIXES))
        raise InputError(f"{path}: holds no image; supported are {supported}")
    return [images[index] for index in evenly_spaced(len(images), limit)]


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Return ``limit`` positions among ``count``, evenly apart, or all if there are no more."""
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise InputError(f"the limit is {limit} images; it must be at least 1")
    return [index * count // limit for index in range(limit)]


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
        mode = _PROFILE_MODES.get(profile.profile.xcolor_space.strip())
        name = ImageCms.getProfileDescription(profile).strip()
        if mode is None or mode != _native_mode(image):
            return None  # describes other colours than the file holds
        if mode != "CMYK":
            sample = _profile_samples(mode)
            shift = np.abs(
                np.asarray(_apply_profile(sample, profile), int)
                - np.asarray(sample.convert("RGB"), int)
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
    return _apply_profile(native, profile.profile)


def _apply_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
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


def _profile_samples(mode: str) -> Image.Image:
    """Every eighth gray, or a cube of colours."""
    levels = np.linspace(0, 255, 33 if mode == "L" else 6).round().astype(np.uint8)
    if mode == "L":
        return Image.fromarray(levels[None])
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return Image.fromarray(cube.reshape(1, -1, 3))
