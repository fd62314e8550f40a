"""Checkpoints of Apple's cvnets: MobileViT and MobileViTV2, classifiers and DeepLabV3 segmenters.

Such a file is a bare state dict. The architecture is read off the shapes; what no shape tells is
assumed as the published training recipes have it, and said in a note.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor

from mvit_coreml.checkpoints.checkpoint import Reading
from mvit_coreml.checkpoints.formats.huggingface import task_of
from mvit_coreml.checkpoints.formats.names_and_shapes import (
    KeyMap,
    infer_mobilevit,
    infer_mobilevitv2,
)
from mvit_coreml.models.config import ModelConfig
from mvit_coreml.preprocessing.image_processor import ImageProcessor

# cvnets counts layers from 1; layer_1 and layer_2 are convolutional, the others end in attention.
_LAYERS = (
    (r"^encoder\.", ""),
    (r"^conv_1\.", "conv_stem."),
    *((rf"^layer_{i + 1}\.(\d+)\.", rf"encoder.layer.{i}.layer.\1.") for i in range(2)),
    *((rf"^layer_{i + 1}\.0\.", f"encoder.layer.{i}.downsampling_layer.") for i in range(2, 5)),
    *((rf"^layer_{i + 1}\.1\.", f"encoder.layer.{i}.") for i in range(2, 5)),
    (r"\.block\.exp_1x1\.", ".expand_1x1."),
    (r"\.block\.conv_3x3\.", ".conv_3x3."),
    (r"\.block\.red_1x1\.", ".reduce_1x1."),
    (r"\.local_rep\.(conv_3x3|0)\.", ".conv_kxk."),
    (r"\.local_rep\.(conv_1x1|1)\.", ".conv_1x1."),
    (r"\.conv_proj\.", ".conv_projection."),
    (r"\.global_rep\.(\d+)\.pre_norm_", r".transformer.layer.\1.pre_norm_"),
    (r"\.global_rep\.\d+\.(?=weight|bias)", ".layernorm."),
    (r"\.pre_norm_(mha|attn)\.0\.", ".layernorm_before."),
    (r"\.pre_norm_ffn\.0\.", ".layernorm_after."),
    (r"^seg_head\.aspp\.aspp_layer\.", "segmentation_head.aspp."),
    (r"\.aspp_pool\.", "."),
    (r"^seg_head\.classifier\.", "segmentation_head.classifier."),
    (r"\.block\.conv\.", ".convolution."),
    (r"\.block\.norm\.", ".normalization."),
)
_MOBILEVIT = KeyMap(
    renames=(
        *_LAYERS,
        (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attention.attention.qkv."),
        (r"\.pre_norm_mha\.1\.out_proj\.", ".attention.output.dense."),
        (r"\.pre_norm_ffn\.1\.", ".intermediate.dense."),
        (r"\.pre_norm_ffn\.4\.", ".output.dense."),
        (r"^classifier\.fc\.", "classifier."),
        (r"^(?=conv_stem|encoder|conv_1x1_exp)", "mobilevit."),
    ),
    splits=((r"(?<=\.)qkv(?=\.)", ("query", "key", "value")),),
)
_MOBILEVITV2 = KeyMap(
    renames=(
        *_LAYERS,
        (r"\.pre_norm_attn\.1\.", ".attention."),
        (r"\.pre_norm_ffn\.1\.", ".ffn.conv1."),
        (r"\.pre_norm_ffn\.3\.", ".ffn.conv2."),
        (r"^classifier\.1\.", "classifier."),
        (r"^(?=conv_stem|encoder)", "mobilevitv2."),
    ),
)
# Parts of a segmentation file that only pre-training or the training loss used.
_UNUSED_BY_SEGMENTER = (
    r"encoder\.classifier\.",
    r"encoder\.conv_1x1_exp\.",
    r"seg_head\.aux_head\.",
)


def recognises(names: Collection[str]) -> bool:
    """Tell whether weights of these names come from cvnets."""
    return "conv_1.block.conv.weight" in names or "encoder.conv_1.block.conv.weight" in names


def read(tensors: Mapping[str, Tensor], output_stride: int | None) -> Reading:
    """Read a bare cvnets file.

    Args:
        tensors: the file's weights.
        output_stride: the caller's choice, which the file cannot tell.

    Raises:
        CheckpointError: weights of no known architecture.
    """
    is_v2 = any(".pre_norm_attn." in name for name in tensors)
    table = _MOBILEVITV2 if is_v2 else _MOBILEVIT
    shapes = {table.rename(name): tensor.shape for name, tensor in tensors.items()}
    task = task_of(shapes)
    is_segmenter = task == "semantic-segmentation"
    key_map = KeyMap(table.renames, table.splits, _UNUSED_BY_SEGMENTER if is_segmenter else ())
    weights, origins = key_map.apply(tensors)
    shapes |= {name: tensor.shape for name, tensor in weights.items()}
    stride = output_stride or (16 if is_segmenter else 32)
    size = 512 if is_segmenter else 256
    order = "RGB" if is_v2 else "BGR"
    config: ModelConfig = (
        infer_mobilevitv2(shapes).replace(patch_grid="interpolate")
        if is_v2
        else infer_mobilevit(shapes)
    )
    notes = []
    if output_stride is None:
        notes.append(
            f"A cvnets file does not tell its output stride: {stride} was assumed; "
            "--output-stride names another."
        )
    if not is_v2:
        notes.append("A cvnets file does not tell its attention heads: 4 were assumed.")
    if is_segmenter:
        config = config.replace(atrous_rates=_atrous_rates(stride))
        notes.append(
            "A cvnets file does not tell its atrous rates: "
            f"{', '.join(map(str, _atrous_rates(stride)))} were assumed."
        )
    notes.append(
        f"A cvnets file does not tell its preprocessing: {order} at {size} pixels was assumed; "
        "--color-order or --image-processor names another."
    )
    return Reading(
        config=config.replace(output_stride=stride, image_size=size),
        task=task,
        weights=weights,
        origins=origins,
        image_processor=ImageProcessor.for_mobilevit(
            image_size=size, do_flip_channel_order=not is_v2
        ),
        notes=tuple(notes),
    )


def _atrous_rates(output_stride: int) -> tuple[int, int, int]:
    # On maps of twice the size cvnets doubles the rates, to look at the same part of the image.
    return (12, 24, 36) if output_stride == 8 else (6, 12, 18)
