"""What Pillow makes of pictures, and where they then lie in a model's input."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

from golden.pictures import Pattern, picture
from PIL import Image, ImageOps

from mvit_coreml.preprocessing.geometry import Box, Fit, Placement, contained_size, place

SIZES = (
    *((1, 1), (1, 7), (7, 1), (2, 3), (5, 5), (13, 29), (29, 13), (64, 64), (72, 64), (71, 73)),
    *((255, 257), (256, 256), (288, 288), (289, 287), (640, 480), (480, 641), (1023, 769)),
    *((1, 400), (400, 1), (3, 999), (1999, 5), (2, 1500)),
)
INPUTS = ((64, 64), (256, 256), (96, 48), (33, 65), (224, 224))
FITS: tuple[Fit, ...] = ("crop", "stretch", "pad")
FILTERS = ("bilinear", "bicubic")
PATTERNS: tuple[Pattern, ...] = ("noise", "checks", "waves")


def cases() -> list[dict[str, Any]]:
    """Return every case with its expected pixels; sizes are (width, height) in the files."""
    return [_finished(number, **case) for number, case in enumerate(_plans())]


def placements() -> list[dict[str, Any]]:
    """Return crops of many more sizes, without pixels."""
    shapes = (
        *((1, 1), (1, 4000), (4000, 1), (640, 480), (480, 640), (4032, 3024), (3024, 4032)),
        *((1920, 1080), (1179, 2556), (257, 255), (288, 288), (300, 256), (100, 100), (12000, 9)),
    )
    plans: list[tuple[Any, Fit, tuple[int, int], Any]] = []
    for index, (size, fit) in enumerate(itertools.product(shapes, FITS)):
        frame = INPUTS[index % len(INPUTS)]
        edges = (max(frame) + 32, (frame[0] + 10, frame[1] + 4), None)
        plans += [(size, fit, frame, edge) for edge in (edges if fit == "crop" else (None,))]
    return [
        {
            "image": _size(size),
            **_steps(frame, fit, edge, "bilinear"),
            **_described(place(size, size=edge, crop_size=frame, fit=fit)),
        }
        for size, fit, frame, edge in plans
    ]


def _plans() -> list[dict[str, Any]]:
    plans: list[dict[str, Any]] = []
    for index, (size, fit) in enumerate(itertools.product(SIZES, FITS)):
        frame = INPUTS[(index // 2) % len(INPUTS)]
        plans.append(
            {
                "size": size,
                "fit": fit,
                "frame": frame,
                "target": frame[0] + 8 + 8 * (index % 4) if fit == "crop" else None,
                "resample": FILTERS[index % 2],
                "orientation": 1 + (index * 3 + index // 8) % 8,
            }
        )
    for orientation, resample in itertools.product(range(1, 9), FILTERS):
        common = {"frame": (32, 40), "resample": resample, "orientation": orientation}
        plans.append({"size": (61, 47), "fit": "crop", "target": 45, **common})
        plans.append({"size": (19, 83), "fit": "pad", "target": None, **common})
    for resample in ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"):
        for size, target, frame in (
            ((90, 70), (56, 50), (48, 48)),
            ((17, 23), (56, 50), (48, 48)),
            ((211, 307), (290, 190), (280, 180)),
        ):
            plans.append(
                {"size": size, "fit": "crop", "frame": frame, "target": target}
                | {"resample": resample, "orientation": 1}
            )
    # Around the point from which Pillow changes the height first.
    for size, orientation in (
        ((90, 60), 1),
        ((91, 60), 1),
        ((60, 91), 6),
        ((110, 60), 3),
        ((60, 30), 1),
        ((40, 30), 8),
    ):
        plans.append(
            {"size": size, "fit": "stretch", "frame": (50, 40), "target": None}
            | {"resample": "bicubic", "orientation": orientation}
        )
    # A picture that shows that Pillow has Hamming's constants in single precision.
    plans.append(
        {"size": (106, 110), "fit": "stretch", "frame": (60, 179), "target": None, "seed": 0}
        | {"resample": "hamming", "orientation": 1, "pattern": "noise"}
    )
    # Not resized at all: a centre crop, and one that overhangs on every side.
    for size, orientation in (((100, 77), 1), ((30, 41), 6), ((64, 20), 3)):
        plans.append(
            {"size": size, "fit": "crop", "frame": (64, 48), "target": None}
            | {"resample": "bilinear", "orientation": orientation}
        )
    for size, fit, target, resample, orientation in (
        ((3000, 4000), "crop", 288, "bilinear", 1),
        ((3000, 4000), "crop", 288, "bicubic", 6),
        ((4000, 3000), "pad", None, "bilinear", 8),
    ):
        plans.append(
            {"size": size, "fit": fit, "frame": (256, 256), "target": target}
            | {"resample": resample, "orientation": orientation}
        )
    return plans


def _finished(
    number: int,
    *,
    size: tuple[int, int],
    fit: Fit,
    frame: tuple[int, int],
    target: Any,
    resample: str,
    orientation: int,
    pattern: Pattern | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    pattern = pattern or PATTERNS[number % len(PATTERNS)]
    seed = number if seed is None else seed
    upright = _upright(Image.fromarray(picture(pattern, seed, size)), orientation)
    height_width = (upright.height, upright.width)
    laid_out = place(height_width, size=target, crop_size=frame, fit=fit)
    pixels = _expected(upright, laid_out, resample)
    return {
        "name": f"{number:03} {size[1]}x{size[0]} {fit} {resample} orientation {orientation}",
        "picture": {"pattern": pattern, "seed": seed, **_size(size)},
        "orientation": orientation,
        **_steps(frame, fit, target, resample),
        **_described(laid_out),
        "sha256": hashlib.sha256(pixels).hexdigest(),
        # For whoever looks for the reason of a difference.
        "first_row": pixels[: min(frame[1], 12) * 3].hex(),
    }


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image as Pillow does with one that has this EXIF orientation."""
    image.getexif()[0x0112] = orientation
    turned = ImageOps.exif_transpose(image)
    assert turned is not None
    return turned


def _expected(image: Image.Image, laid_out: Placement, resample: str) -> bytes:
    """Resize and crop with Pillow alone; its crop is black outside the image."""
    height, width = laid_out.resized_size
    for step in _passes(image.size, (width, height)):
        image = image.resize(step, Image.Resampling[resample.upper()])
    left, top = (width - laid_out.input_size[1]) // 2, (height - laid_out.input_size[0]) // 2
    cropped = image.crop((left, top, left + laid_out.input_size[1], top + laid_out.input_size[0]))
    return cropped.convert("RGB").tobytes()


def shrinks_height_first(image_size: tuple[int, int], size: tuple[int, int]) -> bool:
    """Tell which pass Pillow begins with since its version 13; before, always with the width.

    The pixels are rounded between the passes, so their order shows. Sizes are (width, height).
    """
    lost_columns, lost_rows = image_size[0] - size[0], image_size[1] - size[1]
    return lost_rows > 0 and lost_rows > 2 * lost_columns


def _passes(image_size: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the sizes of a resize one axis at a time, which any version of Pillow does alike."""
    if shrinks_height_first(image_size, size):
        return [(image_size[0], size[1]), size]
    return [(size[0], image_size[1]), size]


def _steps(frame: tuple[int, int], fit: str, target: Any, resample: str) -> dict[str, Any]:
    resize = {"shortest_edge": target} if isinstance(target, int) else None
    return {
        "input": _size(frame),
        "fit": fit,
        "resize": _size(target) if isinstance(target, tuple) else resize,
        "resample": resample,
    }


def _described(laid_out: Placement) -> dict[str, Any]:
    return {
        "resized": _size(laid_out.resized_size),
        "valid": _box(laid_out.valid),
        "source": _box(laid_out.source),
        "vision": _vision(laid_out),
    }


def _vision(laid_out: Placement) -> dict[str, Any] | None:
    """Return Vision's region of interest, whose origin is the lower left corner."""
    (height, width), source = laid_out.image_size, laid_out.source
    whole = Box(top=0, left=0, bottom=laid_out.input_size[0], right=laid_out.input_size[1])
    if laid_out.valid == whole:
        return {
            "x": source.left / width,
            "y": (height - source.bottom) / height,
            "width": (source.right - source.left) / width,
            "height": (source.bottom - source.top) / height,
            "scaling": "scaleFill",
        }
    if laid_out.resized_size == contained_size(laid_out.image_size, laid_out.input_size):
        return {"x": 0, "y": 0, "width": 1, "height": 1, "scaling": "scaleFit"}
    return None


def _size(size: tuple[int, int]) -> dict[str, int]:
    return {"width": size[1], "height": size[0]}


def _box(box: Box) -> dict[str, float]:
    return {"left": box.left, "top": box.top, "right": box.right, "bottom": box.bottom}
