"""Sizes and positions: how an image becomes a model's input and where that input lay in it.

Sizes are (height, width) in pixels, everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvit_coreml.errors import InputError

Fit = Literal["crop", "stretch", "pad"]
"""How an image is brought to a model's input size.

``crop`` resizes and centre-crops as the image processor does; ``stretch`` resizes to the input
size whatever the aspect ratio; ``pad`` resizes the whole image into the input, keeping its aspect
ratio, and centres it on zeros.
"""

Size = int | tuple[int, int]
"""Target of a resize: the length of the shortest edge, or a (height, width)."""


def resized_size(image_size: tuple[int, int], size: Size) -> tuple[int, int]:
    """Return the (height, width) that an image is resized to.

    For a shortest edge, the other edge keeps the aspect ratio, rounded down.
    """
    if isinstance(size, tuple):
        return size
    height, width = image_size
    if width <= height:
        return int(size * height / width), size
    return size, int(size * width / height)


def contained_size(image_size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """Return the largest (height, width) of an image's aspect ratio that fits into a frame.

    The edge that does not fill the frame is rounded to the nearest pixel and at least 1.
    """
    height, width = image_size
    frame_height, frame_width = frame
    if height * frame_width >= width * frame_height:
        return frame_height, max(1, round(width * frame_height / height))
    return max(1, round(height * frame_width / width)), frame_width


def covering_edge(image_size: tuple[int, int], frame: tuple[int, int]) -> int:
    """Return the least shortest edge with which an image covers a frame, so that it can be cut out.

    Both sizes are (height, width) in pixels.
    """
    scale = max(frame[0] / image_size[0], frame[1] / image_size[1])
    edge = max(1, round(scale * min(image_size)))
    # The other edge is rounded down.
    while any(
        have < need for have, need in zip(resized_size(image_size, edge), frame, strict=True)
    ):
        edge += 1
    return edge


def crop_offset(image_size: tuple[int, int], crop_size: tuple[int, int]) -> tuple[int, int]:
    """Return the (top, left) of a centred window, rounded down; negative where it overhangs."""
    return (image_size[0] - crop_size[0]) // 2, (image_size[1] - crop_size[1]) // 2


@dataclass(frozen=True, kw_only=True)
class Box:
    """A rectangle in pixel coordinates; right and bottom lie outside it."""

    top: float
    left: float
    bottom: float
    right: float


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How one image maps to the model's input: it is resized, then centre-cropped or padded.

    Attributes:
        image_size: (height, width) of the original image.
        resized_size: (height, width) after resizing.
        input_size: (height, width) of the model's input, a centred window on the resized image.
    """

    image_size: tuple[int, int]
    resized_size: tuple[int, int]
    input_size: tuple[int, int]

    @property
    def valid(self) -> Box:
        """The part of the input, in its whole pixels, that shows the image and not padding."""
        top, left = crop_offset(self.resized_size, self.input_size)
        height, width = self.resized_size
        return Box(
            top=max(0, -top),
            left=max(0, -left),
            bottom=min(self.input_size[0], height - top),
            right=min(self.input_size[1], width - left),
        )

    @property
    def source(self) -> Box:
        """The part of the original image, in its fractional pixels, that the input shows."""
        top, left = crop_offset(self.resized_size, self.input_size)
        scale_y = self.image_size[0] / self.resized_size[0]
        scale_x = self.image_size[1] / self.resized_size[1]
        valid = self.valid
        return Box(
            top=(valid.top + top) * scale_y,
            left=(valid.left + left) * scale_x,
            bottom=(valid.bottom + top) * scale_y,
            right=(valid.right + left) * scale_x,
        )


def place(
    image_size: tuple[int, int],
    *,
    size: Size | None,
    crop_size: tuple[int, int] | None,
    fit: Fit = "crop",
) -> Placement:
    """Lay out an image of a given size on a model's input.

    Args:
        image_size: (height, width) of the image.
        size: what the processor resizes to, ``None`` if it does not.
        crop_size: (height, width) that the processor crops to, ``None`` if it does not.
        fit: see :data:`Fit`.

    Raises:
        InputError: unknown ``fit``, or one that needs an input size where the processor has none.
    """
    if fit == "crop":
        resized = image_size if size is None else resized_size(image_size, size)
        return Placement(
            image_size=image_size, resized_size=resized, input_size=crop_size or resized
        )
    if fit not in ("stretch", "pad"):
        raise InputError(f"fit is {fit!r}; it must be 'crop', 'stretch' or 'pad'")
    frame = crop_size or (size if isinstance(size, tuple) else None)
    if frame is None:
        raise InputError(
            f"fit={fit!r} needs a fixed input size; set a crop_size or a (height, width) size"
        )
    resized = frame if fit == "stretch" else contained_size(image_size, frame)
    return Placement(image_size=image_size, resized_size=resized, input_size=frame)
