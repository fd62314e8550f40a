"""What a package's metadata says: names and colours of its classes, how photos are prepared."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.export.metadata import (
    KEY_PREFIX,
    PREPROCESSING_KEY,
    PREVIEW_PARAMS,
    label_colors,
)
from mvit_coreml.files import parse_json
from mvit_coreml.mil.program import ArrayFeature, Function, ImageFeature, Package
from mvit_coreml.preprocessing.geometry import Fit, covering_edge
from mvit_coreml.preprocessing.image_arrays import image_array
from mvit_coreml.preprocessing.image_processor import FittedImage, ImageProcessor, fit_image
from mvit_coreml.preprocessing.processor_config import MOBILEVIT

LABELS_KEY = KEY_PREFIX + "labels"
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """Brings any photo to a package's input.

    Attributes:
        processor: sizes and filter; its value steps are the package's own business.
        fit: how the photo is brought to the input's shape.
        color_order: order that the package declares, ``RGB`` or ``BGR``.
        swap_channels: hand over red as blue and blue as red, which turns the package's order round.
        covers: resize each photo until it just covers the input, whatever the processor's size.
    """

    processor: ImageProcessor
    fit: Fit
    color_order: str
    swap_channels: bool = False
    covers: bool = False

    def __call__(self, image: Any) -> FittedImage:
        """Prepare one image: a path, a Pillow image, or an array."""
        processor = self.processor
        if self.covers:
            image = image_array(image)
            edge = covering_edge(image.shape[:2], processor.crop_size)
            processor = processor.replace(size=edge)
        fitted = fit_image(image, processor, self.fit)
        if not self.swap_channels:
            return fitted
        return replace(fitted, pixels=np.ascontiguousarray(fitted.pixels[..., ::-1]))


def is_own(package: Package) -> bool:
    """Whether this project converted a package."""
    own = package.metadata.user_defined
    return KEY_PREFIX + "output" in own and PREPROCESSING_KEY in own


@dataclass(frozen=True, kw_only=True)
class PreparationOptions:
    """How photos are brought to the input of a package that does not say it.

    Attributes:
        fit: ``stretch``, as Core ML does by itself; ``crop`` cuts out the centre as Vision's
            ``centerCrop`` does; ``pad`` fits in the whole photo, on black. ``None`` stretches, or
            crops where the photo is resized otherwise.
        resize: shortest edge in pixels to resize photos to before the centre is cut out.
        processor: gives the sizes and the filter instead; values are scaled by the package itself.
    """

    fit: Fit | None = None
    resize: int | None = None
    processor: ImageProcessor | None = None

    def check(self, image: ImageFeature) -> None:
        """Refuse what excludes each other, or leads to less than an input.

        Raises:
            InputError: naming the option.
        """
        if self.resize is None:
            return
        if self.processor is not None:
            raise InputError("--resize and --image-processor both say a size; give one of them")
        if self.fit not in (None, "crop"):
            raise InputError(
                f"--resize cuts out the centre, --fit {self.fit} does not; give one of them"
            )
        if self.resize < max(image.height, image.width):
            raise InputError(
                f"--resize {self.resize} is less than the input of {image.width}x{image.height}"
                " pixels; give at least its longest edge"
            )

    @property
    def given(self) -> str | None:
        """The first of them that is set, as the command line has it."""
        for name, value in (
            ("--image-processor", self.processor),
            ("--fit", self.fit),
            ("--resize", self.resize),
        ):
            if value is not None:
                return name
        return None


def choose_preparation(
    package: Package,
    function: Function,
    options: PreparationOptions | None = None,
    others: Collection[str] = (),
) -> tuple[Preparation, str]:
    """Return how photos are prepared: as the package says, or by options and Core ML's own habit.

    Args:
        package: of any tool.
        function: one of its functions.
        options: for packages that do not say it; an image processor goes before what one says.
        others: names of further inputs that are at hand.

    Returns:
        The preparation, and a sentence about it; that is empty where the package or an option
        says it.

    Raises:
        InputError: options that exclude each other, or contradict the package.
        PackageError: the package's metadata is damaged, or it does not take one image.
    """
    options = options or PreparationOptions()
    image = image_input(package, function, others)
    if options.processor is not None:
        options.check(image)
        return preparation_for(image, options.processor, options.fit or "crop"), ""
    stored = read_preparation(package, function)
    if stored is not None:
        if options.given is not None:
            raise InputError(
                f"{options.given} goes with --image-processor; without, the package says it"
            )
        return stored, ""
    options.check(image)
    size = image.size
    fit = options.fit or ("stretch" if options.resize is None else "crop")
    processor = ImageProcessor(
        image_processor_type=MOBILEVIT,
        size=size if options.resize is None else options.resize,
        crop_size=size,
        resample=Image.Resampling.BILINEAR,
    )
    preparation = Preparation(
        processor=processor,
        fit=fit,
        color_order=image.color_order.upper(),
        covers=fit == "crop" and options.resize is None,
    )
    if options.given is not None:
        return preparation, ""
    note = (
        f"{package.path.name} does not say how photos are brought to its input: they are stretched"
        f" to {image.width}x{image.height} pixels, as Core ML does by itself; --fit, --resize or"
        " --image-processor say otherwise"
    )
    return preparation, note


def preparation_for(
    image: ImageFeature, processor: ImageProcessor, fit: Fit, trained: tuple[int, int] | None = None
) -> Preparation:
    """Return how photos are prepared for an input whose package does not say it.

    Args:
        image: the input.
        processor: stands in for what the package lacks.
        fit: how photos are brought to the input's shape.
        trained: (height, width) that the processor is meant for; by default what it leads to.
    """
    trained = trained or processor.input_size or image.size
    return Preparation(
        processor=processor.for_input_size(image.size, trained),
        fit=fit,
        color_order=image.color_order.upper(),
    )


def image_input(package: Package, function: Function, others: Collection[str] = ()) -> ImageFeature:
    """Return the one image input of a function.

    Args:
        package: of any tool.
        function: one of its functions.
        others: names of further inputs that are at hand.

    Raises:
        PackageError: the function takes something else.
    """
    inputs = [feature for feature in function.inputs if feature.name not in others]
    if len(inputs) == 1 and isinstance(inputs[0], ImageFeature):
        return inputs[0]
    arrays = any(isinstance(feature, ArrayFeature) for feature in inputs)
    how = "; predict runs it with --input NAME=FILE.npy" if arrays else ""
    raise PackageError(
        f"{package.path}: function {function.name!r} does not take one image, but"
        f" {_in_words(inputs)}{how}"
    )


def _in_words(inputs: Sequence[ImageFeature | ArrayFeature]) -> str:
    words = [
        f"{'an image' if isinstance(feature, ImageFeature) else 'an array'} {feature.name!r}"
        for feature in inputs
    ]
    return " and ".join(words) or "nothing"


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
        described = parse_json(text)[function.name]
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
    if size != image.size:
        raise PackageError(
            f"{package.path}: the metadata prepares {size[1]}x{size[0]} pixels, but the input "
            f"takes {image.width}x{image.height}; convert the checkpoint again"
        )
    return Preparation(
        processor=processor, fit=fit, color_order=str(described.get("color_order", ""))
    )


def class_labels(package: Package, function: Function) -> tuple[str, ...] | None:
    """Return the class names in order of class index, ``None`` where the package has none.

    They stand in the program of a classifier with labels, in the parameters of Xcode's preview, or
    under this project's own key.

    Raises:
        PackageError: the metadata that should hold them is damaged.
    """
    if function.labels is not None:
        return tuple(str(label) for label in function.labels)
    for key, labels in (
        (PREVIEW_PARAMS, _preview(package).get("labels")),
        (LABELS_KEY, _json(package, LABELS_KEY)),
    ):
        if labels is None:
            continue
        if not isinstance(labels, list):
            raise PackageError(f"{package.path}: the metadata {key} holds no list of labels")
        return tuple(str(label) for label in labels)
    return None


def class_colors(package: Package, function: Function, count: int) -> NDArray[np.uint8]:
    """Return a colour for every class.

    They are those of the preview's parameters; a package without gets the ones that a conversion
    would give its labels, or as many that are easy to tell apart.

    Args:
        package: the package.
        function: one of its functions.
        count: number of classes.

    Returns:
        (count, 3) uint8 RGB.

    Raises:
        PackageError: the package has colours, but they are damaged or too few.
    """
    stored = _preview(package).get("colors")
    if stored is None:
        labels = class_labels(package, function)
        if labels is None or len(labels) < count:
            from mvit_coreml.visualization.segmentation_colors import distinct_colors

            return np.asarray(distinct_colors(count), np.uint8)
        stored = label_colors(labels)
    colors = [[*bytes.fromhex(str(c)[1:])] for c in stored if _COLOR.fullmatch(str(c))]
    if len(colors) != len(stored) or len(colors) < count:
        raise PackageError(
            f"{package.path}: the metadata {PREVIEW_PARAMS} holds {len(colors)} colours of the "
            f"form #RRGGBB for {count} classes"
        )
    return np.array(colors[:count], np.uint8).reshape(count, 3)


def _preview(package: Package) -> dict[str, Any]:
    content = _json(package, PREVIEW_PARAMS)
    return content if isinstance(content, dict) else {}


def _json(package: Package, key: str) -> Any:
    text = package.metadata.user_defined.get(key)
    try:
        return None if text is None else parse_json(text)
    except ValueError:
        raise PackageError(f"{package.path}: the metadata {key} is damaged: no JSON") from None
