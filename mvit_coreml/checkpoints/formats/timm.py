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
    KeyMap,
    Shapes,
    infer_mobilenet_v2,
    infer_mobilevit,
    infer_mobilevitv2,
)
from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.config import (
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    ModelConfig,
)
from mvit_coreml.preprocessing.image_processor import ImageProcessor

# Both MobileViT generations: a stem, five stages, a block of attention in the last three.
_MOBILEVIT_STAGES = (
    (r"^stem\.", "conv_stem."),
    (r"^stages\.([01])\.(\d+)\.", r"encoder.layer.\1.layer.\2."),
    (r"^stages\.([234])\.0\.", r"encoder.layer.\1.downsampling_layer."),
    (r"^stages\.([234])\.1\.", r"encoder.layer.\1."),
    (r"^final_conv\.", "conv_1x1_exp."),
    (r"^head\.fc\.", "classifier."),
    (r"\.conv1_1x1\.", ".expand_1x1."),
    (r"\.conv2_kxk\.", ".conv_3x3."),
    (r"\.conv3_1x1\.", ".reduce_1x1."),
    (r"\.conv_1x1\.weight$", ".conv_1x1.conv.weight"),
    (r"\.conv_proj\.", ".conv_projection."),
    (r"\.conv_fusion\.", ".fusion."),
    (r"\.conv\.", ".convolution."),
    (r"\.bn\.", ".normalization."),
    (r"(layer\.\d)\.norm\.", r"\1.layernorm."),
    (r"\.transformer\.(\d+)\.", r".transformer.layer.\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
)
_MOBILEVIT = KeyMap(
    renames=(
        *_MOBILEVIT_STAGES,
        (r"\.attn\.qkv\.", ".attention.attention.qkv."),
        (r"\.attn\.proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
        (r"^(?=conv_stem|encoder|conv_1x1_exp)", "mobilevit."),
    ),
    splits=((r"(?<=\.)qkv(?=\.)", ("query", "key", "value")),),
)
_MOBILEVITV2 = KeyMap(
    renames=(
        *_MOBILEVIT_STAGES,
        (r"\.attn\.(qkv_proj|out_proj)\.", r".attention.\1.convolution."),
        (r"\.mlp\.fc([12])\.", r".ffn.conv\1.convolution."),
        (r"^(?=conv_stem|encoder)", "mobilevitv2."),
    ),
)
# After the blocks are numbered through; our stem includes the first, depthwise-separable one.
_MOBILENET_V2 = KeyMap(
    renames=(
        (r"^conv_stem\.", "conv_stem.first_conv.convolution."),
        (r"^bn1\.", "conv_stem.first_conv.normalization."),
        (r"^conv_head\.", "conv_1x1.convolution."),
        (r"^bn2\.", "conv_1x1.normalization."),
        (r"^first_block\.conv_dw\.", "conv_stem.conv_3x3.convolution."),
        (r"^first_block\.bn1\.", "conv_stem.conv_3x3.normalization."),
        (r"^first_block\.conv_pw\.", "conv_stem.reduce_1x1.convolution."),
        (r"^first_block\.bn2\.", "conv_stem.reduce_1x1.normalization."),
        (r"\.conv_pw\.", ".expand_1x1.convolution."),
        (r"\.bn1\.", ".expand_1x1.normalization."),
        (r"\.conv_dw\.", ".conv_3x3.convolution."),
        (r"\.bn2\.", ".conv_3x3.normalization."),
        (r"\.conv_pwl\.", ".reduce_1x1.convolution."),
        (r"\.bn3\.", ".reduce_1x1.normalization."),
        (r"^(?=conv_stem|layer|conv_1x1)", "mobilenet_v2."),
    ),
)

# What timm fixes where the Hugging Face defaults differ.
_V2: dict[str, Any] = {"patch_grid": "interpolate"}
_MOBILENET: dict[str, Any] = {"tf_padding": False, "layer_norm_eps": 1e-5}
_ARCHITECTURES: dict[str, ModelConfig] = {
    "mobilevit_xxs": MobileViTConfig(
        hidden_sizes=(64, 80, 96),
        neck_hidden_sizes=(16, 16, 24, 48, 64, 80, 320),
        expand_ratio=2.0,
    ),
    "mobilevit_xs": MobileViTConfig(
        hidden_sizes=(96, 120, 144), neck_hidden_sizes=(16, 32, 48, 64, 80, 96, 384)
    ),
    "mobilevit_s": MobileViTConfig(),
    **{
        f"mobilevitv2_{percent:03}": MobileViTV2Config(width_multiplier=percent / 100, **_V2)
        for percent in (50, 75, 100, 125, 150, 175, 200)
    },
    **{
        f"mobilenetv2_{percent:03}": MobileNetV2Config(depth_multiplier=percent / 100, **_MOBILENET)
        for percent in (35, 50, 75, 100, 140)
    },
    # These two scale the depth as well, but neither the stem nor the last convolution. timm's
    # width 1.1 rounds to the channels that Hugging Face's rounding gives at 1.09.
    "mobilenetv2_110d": MobileNetV2Config(
        depth_multiplier=1.09,
        stage_depths=(1, 3, 4, 5, 4, 4, 1),
        head_channels=1280,
        **_MOBILENET,
    ),
    "mobilenetv2_120d": MobileNetV2Config(
        depth_multiplier=1.2,
        stage_depths=(1, 3, 5, 6, 5, 5, 1),
        stem_channels=32,
        head_channels=1280,
        **_MOBILENET,
    ),
}
# Model arguments that the weights show, or that change training only.
_HARMLESS_ARGUMENTS = {"num_classes", "in_chans", "drop_rate", "drop_path_rate", "img_size"}

# timm's preprocessing of each family, for a file that has no configuration.
_PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bicubic"}
_PREPROCESSING: dict[str, dict[str, Any]] = {
    "mobilevit": {**_PLAIN, "input_size": (3, 256, 256), "crop_pct": 0.9},
    "mobilevitv2": {**_PLAIN, "input_size": (3, 256, 256), "crop_pct": 0.888},
    "mobilenet_v2": {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
        "input_size": (3, 224, 224),
        "crop_pct": 0.875,
    },
}
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
    weights, origins = _key_map(family, blocks).apply(tensors)
    options = preprocessing(family, config_json)
    _, height, width = options["input_size"]
    notes: tuple[str, ...] = ()
    if config_json is None or config is None:
        config = _infer(family, {name: weight.shape for name, weight in weights.items()}, blocks)
        notes = (
            "The file comes without timm's config.json: timm's usual "
            f"{'4 attention heads and ' if family == 'mobilevit' else ''}preprocessing at {width} "
            "pixels were assumed; --image-processor names another.",
        )
    return Reading(
        config=config.replace(image_size=height if height == width else (height, width)),
        task=task_of(weights),
        weights=weights,
        origins=origins,
        image_processor=image_processor(options, family),
        notes=notes,
    )


def preprocessing(family: str, config_json: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return timm's preprocessing options: the configuration's, or else the family's usual ones."""
    own = {} if config_json is None else _pretrained_cfg(config_json)
    return _PREPROCESSING[family] | {name: own[name] for name in own if own[name] is not None}


def read_image_processor(config_json: Mapping[str, Any], family: str | None) -> ImageProcessor:
    """Return the preprocessing that timm's ``config.json`` describes.

    Args:
        config_json: content of the file.
        family: ``model_type`` of the model; by default that of the file's architecture.

    Raises:
        CheckpointError: a crop mode or interpolation without counterpart.
    """
    architecture = str(config_json["architecture"])
    if family is None:
        known = ("mobilevitv2", "mobilevit")
        family = next(filter(architecture.startswith, known), "mobilenet_v2")
    return image_processor(preprocessing(family, config_json), family)


def image_processor(options: Mapping[str, Any], family: str) -> ImageProcessor:
    """Return the preprocessing that timm's evaluation applies.

    Args:
        options: what :func:`preprocessing` returns, the fields of timm's ``pretrained_cfg``.
        family: ``model_type`` of the model.

    Raises:
        CheckpointError: a crop mode or interpolation without counterpart.
    """
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
        image_processor_type=(
            "MobileNetV2ImageProcessor" if family == "mobilenet_v2" else "MobileViTImageProcessor"
        ),
        do_resize=True,
        size=scaled[0] if keeps_aspect else scaled,
        resample=resample,
        do_center_crop=True,
        crop_size=(height, width),
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=any(mean) or any(value != 1 for value in std),
        image_mean=mean,
        image_std=std,
        do_flip_channel_order=False,
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


def _key_map(family: str, blocks: Sequence[tuple[int, int]]) -> KeyMap:
    if family != "mobilenet_v2":
        return _MOBILEVIT if family == "mobilevit" else _MOBILEVITV2
    numbering = [
        (rf"^blocks\.{stage}\.{block}\.", f"layer.{i - 1}." if i else "first_block.")
        for i, (stage, block) in enumerate(blocks)
    ]
    return KeyMap(renames=(*numbering, *_MOBILENET_V2.renames))


def _infer(family: str, shapes: Shapes, blocks: Sequence[tuple[int, int]]) -> ModelConfig:
    if family == "mobilevit":
        return infer_mobilevit(shapes)
    if family == "mobilevitv2":
        return infer_mobilevitv2(shapes).replace(**_V2)
    depths = Counter(stage for stage, _ in blocks)
    if sorted(depths) != list(range(7)):
        raise CheckpointError(
            f"the file has {len(depths)} stages of blocks where MobileNetV2 has 7; supported timm "
            f"architectures are {', '.join(_ARCHITECTURES)}"
        )
    return infer_mobilenet_v2(shapes, [depths[stage] for stage in range(7)]).replace(**_MOBILENET)
