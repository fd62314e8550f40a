"""Checkpoints of timm: MobileViT, MobileViTV2 and MobileNetV2 classifiers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from mvit_coreml.checkpoints.checkpoint import Reading
from mvit_coreml.checkpoints.formats.huggingface import task_of
from mvit_coreml.checkpoints.formats.names_and_shapes import (
    Shapes,
    infer_mobilenet_v2,
    infer_mobilevit,
    infer_mobilevitv2,
    read_tables,
    rename_weights,
)
from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.config import CONFIG_CLASSES, ModelConfig
from mvit_coreml.preprocessing.image_processor import ImageProcessor
from mvit_coreml.preprocessing.processor_config import PROCESSOR_OF_MODEL

_TABLES = read_tables("timm")
# Configuration of each supported architecture.
_ARCHITECTURES: dict[str, ModelConfig] = {
    name: CONFIG_CLASSES[family](**_TABLES["fixed"][family] | fields)
    for family, architectures in _TABLES["architectures"].items()
    for name, fields in architectures.items()
}
# Model arguments that the weights show, or that change training only.
_HARMLESS_ARGUMENTS = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "img_size"}
_RESAMPLING = {filter_.name.lower(): filter_ for filter_ in Image.Resampling}


def recognises(names: Collection[str]) -> bool:
    """Tell whether weights of these names come from timm."""
    return "stem.conv.weight" in names or "conv_stem.weight" in names


def read(tensors: Mapping[str, Tensor], config_json: Mapping[str, Any] | None) -> Reading:
    """Read weights, alone or next to timm's ``config.json``.

    Raises:
        CheckpointError: an unsupported architecture, option or preprocessing.
    """
    config = None if config_json is None else _read_config(config_json)
    family = _family(tensors) if config is None else config.model_type
    blocks = _blocks(tensors) if family == "mobilenet_v2" else []
    weights, origins = rename_weights(tensors, _renames(family, blocks))
    shapes = {name: weight.shape for name, weight in weights.items()}
    inferred = config or _infer(family, shapes, blocks)
    image_processor = read_image_processor(config_json or {}, family)
    height, width = image_processor.crop_size
    note = (
        "The file comes without timm's config.json: timm's usual "
        f"{'4 attention heads and ' if family == 'mobilevit' else ''}preprocessing at {width} "
        "pixels were assumed; --image-processor names another."
    )
    return Reading(
        config=inferred.replace(image_size=height if height == width else (height, width)),
        task=task_of(weights),
        weights=weights,
        origins=origins,
        image_processor=image_processor,
        notes=(note,) if config is None else (),
    )


def read_image_processor(config_json: Mapping[str, Any], family: str | None) -> ImageProcessor:
    """Return the preprocessing of timm's evaluation that its ``config.json`` describes.

    Args:
        config_json: content of the file; what it leaves out is as usual for the family.
        family: ``model_type`` of the model; by default that of the file's architecture.

    Raises:
        CheckpointError: a crop mode or interpolation without counterpart.
    """
    if family is None:
        known = ("mobilevitv2", "mobilevit")
        family = next(filter(str(config_json["architecture"]).startswith, known), "mobilenet_v2")
    own = {name: value for name, value in _pretrained_cfg(config_json).items() if value is not None}
    options = _TABLES["preprocessing"][family] | own
    _, height, width = options["input_size"]
    crop_mode = options.get("crop_mode") or "center"
    resample = _RESAMPLING.get(options["interpolation"])
    if crop_mode not in ("center", "squash") or resample is None:
        raise CheckpointError(
            f"timm's crop_mode {crop_mode!r} with interpolation "
            f"{options['interpolation']!r} is not supported; name other preprocessing with "
            "--image-processor"
        )
    scaled = tuple(math.floor(side / options["crop_pct"]) for side in (height, width))
    keeps_aspect = crop_mode == "center" and height == width
    mean, std = tuple(options["mean"]), tuple(options["std"])
    return ImageProcessor(
        image_processor_type=PROCESSOR_OF_MODEL[family],
        size=scaled[0] if keeps_aspect else scaled,
        resample=resample,
        crop_size=(height, width),
        do_normalize=any(mean) or any(value != 1 for value in std),
        image_mean=mean,
        image_std=std,
    )


def _read_config(data: Mapping[str, Any]) -> ModelConfig:
    architecture = data.get("architecture")
    if architecture not in _ARCHITECTURES:
        raise CheckpointError(
            f"timm architecture {architecture!r} is not supported; supported are "
            + ", ".join(_ARCHITECTURES)
        )
    arguments = data.get("model_args") or {}
    for name, value in arguments.items():
        if name not in _HARMLESS_ARGUMENTS and (name, value) != ("global_pool", "avg"):
            raise CheckpointError(f"timm model argument {name}={value!r} is not supported")
    pretrained = _pretrained_cfg(data)
    classes = data.get("num_classes", pretrained.get("num_classes", 1000))
    names = data.get("label_names") or pretrained.get("label_names") or []
    described = data.get("label_descriptions") or pretrained.get("label_descriptions") or {}
    if isinstance(names, Mapping):
        names = [names.get(str(i), f"LABEL_{i}") for i in range(classes)]
    labels = [described.get(name, name) for name in names] or [f"LABEL_{i}" for i in range(classes)]
    return _ARCHITECTURES[architecture].replace(
        num_channels=arguments.get("in_chans", 3), id2label=dict(enumerate(labels))
    )


def _pretrained_cfg(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the preprocessing part, which older files keep at the top."""
    return data.get("pretrained_cfg") or data


def _family(names: Collection[str]) -> str:
    if "conv_stem.weight" in names:
        return "mobilenet_v2"
    return "mobilevitv2" if any(".attn.qkv_proj." in name for name in names) else "mobilevit"


def _blocks(names: Collection[str]) -> list[tuple[int, int]]:
    """Return (stage, block) of every block of MobileNetV2, in order."""
    matches = (re.match(r"blocks\.(\d+)\.(\d+)\.", name) for name in names)
    return sorted({(int(match[1]), int(match[2])) for match in matches if match})


def _renames(family: str, blocks: Sequence[tuple[int, int]]) -> list[Sequence[str]]:
    own = _TABLES["renames"][family]
    if family != "mobilenet_v2":
        return [*_TABLES["renames"]["mobilevits"], *own]
    numbering = [
        (rf"^blocks\.{stage}\.{block}\.", f"layer.{i - 1}." if i else "first_block.")
        for i, (stage, block) in enumerate(blocks)
    ]
    return [*numbering, *own]


def _infer(family: str, shapes: Shapes, blocks: Sequence[tuple[int, int]]) -> ModelConfig:
    if family == "mobilevit":
        return infer_mobilevit(shapes)
    if family == "mobilevitv2":
        return infer_mobilevitv2(shapes).replace(**_TABLES["fixed"][family])
    depths = Counter(stage for stage, _ in blocks)
    if sorted(depths) != list(range(7)):
        raise CheckpointError(
            f"the file has {len(depths)} stages of blocks where MobileNetV2 has 7; supported timm "
            f"architectures are {', '.join(_ARCHITECTURES)}"
        )
    config = infer_mobilenet_v2(shapes, [depths[stage] for stage in range(7)])
    return config.replace(**_TABLES["fixed"][family])
