"""How a package says a photo is to be prepared, read back from its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from PIL import Image

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.program import Function, ImageFeature, Package
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import FittedImage, ImageProcessor, fit_image
from mvit_coreml.preprocessing.processor_config import MOBILEVIT

PREPROCESSING_KEY = "mvit_coreml.preprocessing"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Brings any photo to a package's input.

    Attributes:
        processor: sizes and filter; its value steps are the package's own business.
        fit: how the photo is brought to the input's shape.
        color_order: order that the package declares, ``RGB`` or ``BGR``.
    """

    processor: ImageProcessor
    fit: Fit
    color_order: str

    def __call__(self, image: Any) -> FittedImage:
        """Prepare one image: a path, a Pillow image, or an array."""
        return fit_image(image, self.processor, self.fit)


def image_input(package: Package, function: Function) -> ImageFeature:
    """Return the one image input of a function.

    Raises:
        PackageError: the function takes something else.
    """
    if len(function.inputs) != 1 or not isinstance(function.inputs[0], ImageFeature):
        raise PackageError(f"{package.path}: function {function.name!r} does not take one image")
    return function.inputs[0]


def read_preparation(package: Package, function: Function) -> Preparation | None:
    """Read a function's preparation; ``None`` for a package that another tool made.

    Raises:
        PackageError: the metadata is damaged, or contradicts the input.
    """
    text = package.metadata.user_defined.get(PREPROCESSING_KEY)
    if text is None:
        return None
    image = image_input(package, function)
    try:
        described: Mapping[str, Any] = json.loads(text)[function.name]
        size = (int(described["height"]), int(described["width"]))
        resize, fit = described["resize"], described["fit"]
        resample = Image.Resampling[described["resample"].upper()]
        if fit not in get_args(Fit):
            raise ValueError(f"fit {fit!r}")
        edge: Any = size
        if resize is not None:
            edge = resize.get("shortest_edge") or (resize["height"], resize["width"])
        processor = ImageProcessor(
            image_processor_type=MOBILEVIT,
            size=edge,
            crop_size=size,
            do_resize=fit != "crop" or resize is not None,
            resample=resample,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackageError(
            f"{package.path}: the metadata {PREPROCESSING_KEY} is damaged: {error}; "
            "convert the checkpoint again"
        ) from None
    if size != (image.height, image.width):
        raise PackageError(
            f"{package.path}: the metadata prepares {size[1]}x{size[0]} pixels, but the input "
            f"takes {image.width}x{image.height}; convert the checkpoint again"
        )
    return Preparation(
        processor=processor, fit=fit, color_order=str(described.get("color_order", ""))
    )
