"""Reading the options of an image processor, and Hugging Face's ``preprocessor_config.json``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from PIL import Image

from mvit_coreml.errors import ConfigError, refuse_misspelt
from mvit_coreml.preprocessing.geometry import Size

MOBILEVIT = "MobileViTImageProcessor"
MOBILENET_V2 = "MobileNetV2ImageProcessor"
# Not a class of transformers: it would refuse the file rather than read other pixels from it.
GENERAL = "ImageProcessor"
PROCESSOR_TYPES = (MOBILEVIT, MOBILENET_V2, GENERAL)

PROCESSOR_OF_MODEL = {
    "mobilevit": MOBILEVIT,
    "mobilevitv2": MOBILEVIT,
    "mobilenet_v2": MOBILENET_V2,
}

# The documented defaults of the two classes, as the published checkpoints mean them: what a
# preprocessor_config.json stands for where it says nothing.
CLASS_DEFAULTS: dict[str, dict[str, Any]] = {
    MOBILEVIT: {"size": 224, "crop_size": 256, "do_flip_channel_order": True},
    MOBILENET_V2: {"size": 256, "crop_size": 224, "do_normalize": True},
    GENERAL: {},
}
# The step that each class of transformers does not have, and skips whatever its file says.
_SKIPPED_STEP = {MOBILEVIT: "do_normalize", MOBILENET_V2: "do_flip_channel_order"}
# Options of other image processors whose names resemble ours.
_FOREIGN_KEYS = frozenset({"do_pad", "pad_size"})


def processor_type_of(name: str) -> str:
    """Return the processor type behind any published spelling of its class.

    ``…FeatureExtractor`` is the spelling before transformers 4.26; ``Fast`` and ``Pil`` name the
    backend it was saved with.

    Raises:
        ConfigError: a class of another kind of model.
    """
    base = name.removesuffix("Fast").removesuffix("Pil")
    base = base.replace("FeatureExtractor", "ImageProcessor")
    if base not in PROCESSOR_TYPES:
        raise ConfigError(
            f"preprocessor config: image_processor_type {name!r} is not supported; "
            f"supported are {MOBILEVIT} and {MOBILENET_V2}"
        )
    return base


def type_that_reads_back(options: Mapping[str, Any]) -> str:
    """Return the class that makes the same pixels from these options in transformers.

    transformers' MobileViT class never normalises, its MobileNetV2 class never flips the channels;
    where both are needed the answer is :data:`GENERAL`, which transformers refuses.
    """
    if options["do_normalize"]:
        return GENERAL if options["do_flip_channel_order"] else MOBILENET_V2
    if options["do_flip_channel_order"] or options["image_processor_type"] == GENERAL:
        return MOBILEVIT
    return str(options["image_processor_type"])


def read_preprocessor_config(
    data: Mapping[str, Any], model_type: str | None, known: Iterable[str]
) -> dict[str, Any]:
    """Turn the content of a ``preprocessor_config.json`` into constructor arguments.

    Args:
        data: the file's content, as any version of transformers wrote it.
        model_type: the family, for a file that does not name its class.
        known: names of the options.

    Raises:
        ConfigError: unknown class or family, or a key that looks like a misspelt option.
    """
    known = set(known)
    refuse_misspelt("preprocessor config: unknown key", data, known, _FOREIGN_KEYS)
    name = data.get("image_processor_type") or data.get("feature_extractor_type")
    if name is None:
        if model_type not in PROCESSOR_OF_MODEL:
            raise ConfigError(
                f"preprocessor config: names no image_processor_type, and model_type "
                f"{model_type!r} is none of {', '.join(PROCESSOR_OF_MODEL)}"
            )
        name = PROCESSOR_OF_MODEL[model_type]
    processor_type = processor_type_of(str(name))
    options = {key: data[key] for key in data if key in known and data[key] is not None}
    skipped = _SKIPPED_STEP.get(processor_type)
    if skipped and options.pop(skipped, False):
        warnings.warn(
            f"preprocessor config: {processor_type} skips {skipped}, as in transformers; "
            f"pass {skipped}=True if the model was trained with it",
            stacklevel=3,
        )
    return CLASS_DEFAULTS[processor_type] | options | {"image_processor_type": processor_type}


def read_option(name: str, value: object) -> Any:
    """Read one option of an image processor, in any form that a file has for it.

    Args:
        name: of the option.
        value: ``size``: a whole number (the legacy form) or ``{"shortest_edge": n}`` for the
            shortest edge, a pair or ``{"height": h, "width": w}`` for both. ``crop_size``: the
            latter, or a whole number for a square. ``image_mean`` and ``image_std``: three numbers
            for red, green and blue, or one for all.

    Returns:
        The value in the one form that :class:`ImageProcessor` holds.

    Raises:
        ConfigError: an impossible value.
    """
    if not name.startswith("do_"):
        return _READERS[name](name, value)
    if not isinstance(value, bool):
        raise bad_option(name, value, "true or false")
    return value


def _read_size(name: str, value: object) -> Size:
    size = value
    if isinstance(value, Mapping):
        size = {key: edge for key, edge in value.items() if edge is not None}
    match size:
        case {"shortest_edge": int(edge), **others} if name == "size" and not others:
            size = edge
        case {"height": height, "width": width, **others} if not others:
            size = (height, width)
    if _is_length(size):
        return int(size) if name == "size" else (int(size), int(size))
    if isinstance(size, list | tuple) and len(size) == 2 and all(map(_is_length, size)):
        return int(size[0]), int(size[1])
    edge_form = ', {"shortest_edge": n}' if name == "size" else ""
    form = f'pixels as a whole number{edge_form} or {{"height": h, "width": w}}'
    raise bad_option(name, value, form)


def _read_resample(name: str, value: object) -> Image.Resampling:
    values = [int(filter_) for filter_ in Image.Resampling]
    if not isinstance(value, int) or isinstance(value, bool) or value not in values:
        filters = (f"{int(filter_)} ({filter_.name.lower()})" for filter_ in Image.Resampling)
        raise bad_option(name, value, f"one of {', '.join(filters)}")
    return Image.Resampling(value)


def _read_factor(name: str, value: object) -> float:
    if not _is_number(value) or value <= 0:
        raise bad_option(name, value, "a number above 0")
    return float(value)


def _read_per_channel(name: str, value: object) -> tuple[float, float, float]:
    values = (value,) * 3 if _is_number(value) else value
    if isinstance(values, list | tuple) and len(values) == 3 and all(map(_is_number, values)):
        red, green, blue = map(float, values)
        if name != "image_std" or min(red, green, blue) > 0:
            return red, green, blue
    above = " above 0" if name == "image_std" else ""
    raise bad_option(name, value, f"three numbers{above}, in RGB order")


# Pixels of an edge: longer ones are a slip.
_LONGEST = 65536
_READERS: dict[str, Callable[[str, object], Any]] = {
    "size": _read_size,
    "crop_size": _read_size,
    "resample": _read_resample,
    "rescale_factor": _read_factor,
    "image_mean": _read_per_channel,
    "image_std": _read_per_channel,
}


def size_as_json(size: Size) -> dict[str, int]:
    """Return a size as a ``preprocessor_config.json`` holds it."""
    if isinstance(size, int):
        return {"shortest_edge": size}
    return {"height": size[0], "width": size[1]}


def bad_option(name: str, value: object, requirement: str) -> ConfigError:
    """Make the error that names an option, its value and what it may be."""
    return ConfigError(f"image processor: {name} is {value!r}; it must be {requirement}")


def _is_length(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LONGEST


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
