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
    infer_mobilevit,
    infer_mobilevitv2,
    read_tables,
    rename_weights,
)
from mvit_coreml.models.config import ModelConfig
from mvit_coreml.preprocessing.image_processor import ImageProcessor

_RENAMES = read_tables("cvnets")["renames"]
# Parts of a segmentation file that only pre-training or the training loss used.
_UNUSED_BY_SEGMENTER = ("encoder.classifier.", "encoder.conv_1x1_exp.", "seg_head.aux_head.")


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
    family = _RENAMES["mobilevitv2" if is_v2 else "mobilevit"]
    weights, origins = rename_weights(tensors, _RENAMES["mobilevits"] + family)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    task = task_of(shapes)
    is_segmenter = task == "semantic-segmentation"
    if is_segmenter:
        used = [name for name in weights if not origins[name].startswith(_UNUSED_BY_SEGMENTER)]
        weights = {name: weights[name] for name in used}
        origins = {name: origins[name] for name in used}
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
