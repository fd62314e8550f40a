"""Weights of other libraries: renamed by tables of patterns, configured by their shapes.

What no shape tells (attention heads, output stride, epsilon) keeps its default; the caller says
so in a note. A result that does not fit the weights after all is caught by the shape check that
every checkpoint goes through.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from torch import Tensor

from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.config import (
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    unnamed_labels,
)

Shapes = Mapping[str, Sequence[int]]

# Width multipliers, the usual ones first: several give the same channels after rounding.
_WIDTHS = tuple(
    dict.fromkeys(
        (0.35, *(step * k / 100 for step in (25, 10, 5, 1) for k in range(1, 400 // step + 1)))
    )
)


def read_tables(library: str) -> dict[str, Any]:
    """Read ``<library>.toml``, which lies beside the module that reads the library's files."""
    file = files("mvit_coreml.checkpoints.formats").joinpath(f"{library}.toml")
    return tomllib.loads(file.read_text("utf-8"))


def rename_weights(
    tensors: Mapping[str, Tensor], renames: Iterable[Sequence[str]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Give weights our names; what is query, key and value at once becomes three weights.

    Args:
        tensors: weights by the names of their file.
        renames: (pattern, replacement) pairs of :func:`re.sub`, applied to every name in order.

    Returns:
        The weights under our names, and for each of our names the file's.

    Raises:
        CheckpointError: two weights of the file lead to one name.
    """
    renames = list(renames)
    weights: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for source, tensor in tensors.items():
        renamed = source
        for pattern, replacement in renames:
            renamed = re.sub(pattern, replacement, renamed)
        for name, part in _split(renamed, tensor):
            if name in weights:
                raise CheckpointError(
                    f"weights {origins[name]!r} and {source!r} are both {name!r}; keep one of them"
                )
            weights[name] = part
            origins[name] = source
    return weights, origins


def _split(name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
    # A size that does not divide is left whole for the shape check to report.
    if ".qkv." not in name or not tensor.ndim or tensor.shape[0] % 3:
        return [(name, tensor)]
    names = (name.replace(".qkv.", f".{part}.") for part in ("query", "key", "value"))
    return zip(names, tensor.chunk(3), strict=True)


def infer_mobilevit(shapes: Shapes) -> MobileViTConfig:
    """Read a MobileViT configuration off its weights' shapes.

    Raises:
        CheckpointError: a weight that tells part of the architecture is missing.
    """
    dim = _reader(shapes)
    layer_dims, hidden_sizes, fields = _mobilevit_fields(shapes, "mobilevit")
    # A segmenter has no last 1x1 convolution; the published models make it 4 times as wide.
    last = "mobilevit.conv_1x1_exp.convolution.weight"
    transformer = "mobilevit.encoder.layer.2.transformer.layer.0"
    return MobileViTConfig(
        hidden_sizes=hidden_sizes,
        neck_hidden_sizes=(*layer_dims, dim(last) if last in shapes else 4 * layer_dims[-1]),
        mlp_ratio=dim(f"{transformer}.intermediate.dense.weight") / hidden_sizes[0],
        qkv_bias=f"{transformer}.attention.attention.query.bias" in shapes,
        **fields,
    )


def infer_mobilevitv2(shapes: Shapes) -> MobileViTV2Config:
    """Read a MobileViTV2 configuration off its weights' shapes.

    Raises:
        CheckpointError: a telling weight is missing, or no width multiplier gives its channels.
    """
    dim = _reader(shapes)
    layer_dims, unit_dims, fields = _mobilevit_fields(shapes, "mobilevitv2")

    def fits(width: float) -> bool:
        config = MobileViTV2Config(width_multiplier=width)
        return (config.layer_dims, config.attn_unit_dims) == (layer_dims, unit_dims)

    stages = "mobilevitv2.encoder.layer"
    ffn = f"{stages}.4.transformer.layer.0.ffn.conv1.convolution.weight"
    return MobileViTV2Config(
        width_multiplier=_first_width(fits, "MobileViTV2", layer_dims),
        n_attn_blocks=tuple(
            _count(shapes, rf"{stages}\.{i}\.transformer\.layer\.(\d+)\.") for i in range(2, 5)
        ),
        # transformers takes whole numbers only.
        ffn_multiplier=round(dim(ffn) / dim(ffn, 1)),
        **fields,
    )


def _mobilevit_fields(
    shapes: Shapes, family: str
) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Read what both MobileViT generations share.

    Returns:
        Channels of the stem and the five stages, those of attention in the last three, and the
        fields that both configurations have.
    """
    dim = _reader(shapes)
    stem, stages = f"{family}.conv_stem.convolution.weight", f"{family}.encoder.layer"
    first_blocks = [f"{stages}.{i}.layer.0" for i in range(2)]
    first_blocks += [f"{stages}.{i}.downsampling_layer" for i in range(2, 5)]
    ends = [f"{block}.reduce_1x1.convolution.weight" for block in first_blocks]
    expand = f"{first_blocks[-1]}.expand_1x1.convolution.weight"
    fields = {
        "num_channels": dim(stem, 1),
        "expand_ratio": dim(expand) / dim(expand, 1),
        "conv_kernel_size": dim(f"{stages}.2.conv_kxk.convolution.weight", 2),
        **_head(shapes),
    }
    unit_dims = tuple(dim(f"{stages}.{i}.conv_1x1.convolution.weight") for i in range(2, 5))
    return (dim(stem), *map(dim, ends)), unit_dims, fields


def infer_mobilenet_v2(shapes: Shapes, stage_depths: Sequence[int]) -> MobileNetV2Config:
    """Read a MobileNetV2 configuration off its weights' shapes.

    Args:
        shapes: our names to shapes.
        stage_depths: number of blocks in each of the seven stages, the first block included.

    Raises:
        CheckpointError: a telling weight is missing, or no width multiplier gives its channels.
    """
    dim = _reader(shapes)
    ends = [sum(stage_depths[: stage + 1]) - 2 for stage in range(1, len(stage_depths))]
    widths = (
        dim("mobilenet_v2.conv_stem.reduce_1x1.convolution.weight"),
        *(dim(f"mobilenet_v2.layer.{end}.reduce_1x1.convolution.weight") for end in ends),
    )

    def fits(width: float) -> bool:
        scaled = MobileNetV2Config(depth_multiplier=width).scaled
        return tuple(map(scaled, MobileNetV2Config.stage_channels)) == widths

    config = MobileNetV2Config(
        num_channels=dim("mobilenet_v2.conv_stem.first_conv.convolution.weight", 1),
        depth_multiplier=_first_width(fits, "MobileNetV2", widths),
        stage_depths=tuple(stage_depths),
        **_head(shapes),
    )
    stem = dim("mobilenet_v2.conv_stem.first_conv.convolution.weight")
    head = dim("mobilenet_v2.conv_1x1.convolution.weight")
    return config.replace(
        stem_channels=None if stem == config.stem_dim else stem,
        head_channels=None if head == config.output_dim else head,
    )


def _reader(shapes: Shapes) -> Callable[..., int]:
    def dim(name: str, axis: int = 0) -> int:
        if name not in shapes or len(shapes[name]) <= axis:
            raise CheckpointError(f"weight {name!r} is missing, so no architecture can be read")
        return shapes[name][axis]

    return dim


def _head(shapes: Shapes) -> dict[str, Any]:
    """Return the configuration fields that the classifier or segmentation head shows."""
    fields: dict[str, Any] = {}
    for classifier in ("classifier", "segmentation_head.classifier.convolution"):
        if f"{classifier}.weight" in shapes:
            fields["id2label"] = unnamed_labels(shapes[f"{classifier}.weight"][0])
    project = "segmentation_head.aspp.project.convolution.weight"
    if project in shapes:
        fields["aspp_out_channels"] = shapes[project][0]
    return fields


def _count(shapes: Shapes, pattern: str) -> int:
    """Return the number of different values of a pattern's group among the names."""
    matches = (re.match(pattern, name) for name in shapes)
    return len({match.group(1) for match in matches if match})


def _first_width(fits: Callable[[float], bool], model: str, widths: tuple[int, ...]) -> float:
    width = next(filter(fits, _WIDTHS), None)
    if width is None:
        raise CheckpointError(f"no width multiplier of {model} gives layers of {widths} channels")
    return width
