"""What a package says about itself: to Xcode, to an app, and to whoever checks it later."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from mvit_coreml.export.image_input import ImageInput
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ImageProcessor
from mvit_coreml.preprocessing.processor_config import size_as_json

PREVIEW_TYPE = "com.apple.coreml.model.preview.type"
PREVIEW_PARAMS = "com.apple.coreml.model.preview.params"
KEY_PREFIX = "mvit_coreml."
PREPROCESSING_KEY = KEY_PREFIX + "preprocessing"
PREPROCESSING_VERSION = 1


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a package depends on."""
    return {name: version(name) for name in ("mvit-coreml", "coremltools", "torch")}


def describe_preprocessing(
    processor: ImageProcessor, image: ImageInput, fit: Fit
) -> dict[str, Any]:
    """Say how an app turns a photo into the package's input, and what the package then does.

    The result is JSON. ``resize``, ``crop`` and ``fit`` are the app's part; ``baked`` is done by
    the package on pixel values 0 to 255 and repeated here so that it can be checked.
    """
    crops = fit == "crop"
    return {
        "version": PREPROCESSING_VERSION,
        "width": image.width,
        "height": image.height,
        "fit": fit,
        "resize": size_as_json(processor.size) if crops and processor.do_resize else None,
        "resample": processor.resample.name.lower(),
        "crop": size_as_json((image.height, image.width)) if crops else None,
        "color_order": image.color_order,
        "rescale_factor": processor.rescale_factor if processor.do_rescale else None,
        "mean": list(processor.image_mean) if processor.do_normalize else None,
        "std": list(processor.image_std) if processor.do_normalize else None,
        "baked": {"scale": image.scale, "bias": list(image.bias)},
    }


def preview(task: str, labels: Sequence[str]) -> dict[str, str]:
    """Return the keys that make Xcode offer a preview, with a colour for every class."""
    if task == "image-classification":
        return {PREVIEW_TYPE: "imageClassifier"}
    if task != "semantic-segmentation":
        return {}
    params = {"labels": list(labels), "colors": label_colors(labels)}
    return {
        PREVIEW_TYPE: "imageSegmenter",
        PREVIEW_PARAMS: json.dumps(params, ensure_ascii=False, separators=(",", ":")),
    }


def label_colors(labels: Sequence[str]) -> list[str]:
    """Return ``#RRGGBB`` for every class: those of PASCAL VOC for its 21 classes.

    A background that comes first is black, as it is there.
    """
    # Only segmenters have a preview with colours.
    from mvit_coreml.visualization.segmentation_colors import distinct_colors, voc_colors

    colors: Iterable[Any]
    if is_voc(labels):
        colors = voc_colors(21)
    elif labels and labels[0].lower() == "background":
        colors = [*voc_colors(1), *distinct_colors(len(labels) - 1)]
    else:
        colors = distinct_colors(len(labels))
    return ["#{:02X}{:02X}{:02X}".format(*(int(value) for value in color)) for color in colors]


def is_voc(labels: Sequence[str]) -> bool:
    """Whether these are the classes of PASCAL VOC, whatever the spelling."""
    return len(labels) == 21 and [labels[1].lower(), labels[15].lower()] == ["aeroplane", "person"]


def unique_labels(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Make class names unique; Core ML keys the probabilities by name.

    Returns:
        The names, a repeated one followed by its class index (``crane (517)``), and those changed.
    """
    taken = set(labels)
    unique: dict[str, None] = {}
    changed = []
    for index, label in enumerate(labels):
        name = label
        while name in unique or (name != label and name in taken):
            name = f"{name} ({index})"
        unique[name] = None
        if name != label:
            changed.append(name)
    return list(unique), changed
