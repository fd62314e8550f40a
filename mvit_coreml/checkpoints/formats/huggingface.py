"""Checkpoints of Hugging Face transformers, whose weight names are ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mvit_coreml.checkpoints.checkpoint import Reading
from mvit_coreml.models.config import CONFIG_CLASSES, Task, architecture_name, read_config

# The first weight of each model's backbone, which all three model classes of a family share.
_FIRST_WEIGHTS = (
    *(f"{model_type}.conv_stem." for model_type in CONFIG_CLASSES),
    "conv_stem.convolution.",
    "conv_stem.first_conv.",
)


def recognises(names: Collection[str]) -> bool:
    """Tell whether weights of these names come from transformers."""
    return any(name.startswith(_FIRST_WEIGHTS) for name in names)


def read(
    tensors: Mapping[str, Tensor], config_json: Mapping[str, Any], task: Task | None
) -> Reading:
    """Read weights next to a Hugging Face ``config.json``.

    Args:
        tensors: the file's weights.
        config_json: content of ``config.json``.
        task: the task the caller asked for, used where the configuration names none.

    Raises:
        ConfigError: unsupported ``model_type`` or architecture, or a bad field.
    """
    notes = []
    if config_json.get("architectures"):
        config, named_task = read_config(config_json)
    else:
        config, _ = read_config({**config_json, "architectures": None})
        named_task = task or task_of(tensors)
        notes.append(
            "config.json names no architecture; the weights are those of "
            f"{architecture_name(config, named_task)}."
        )
    return Reading(
        config=config,
        task=named_task,
        weights=dict(tensors),
        origins={name: name for name in tensors},
        notes=tuple(notes),
    )


def task_of(names: Collection[str]) -> Task:
    """Read the task off weight names that are already ours."""
    if any(name.startswith("segmentation_head.") for name in names):
        return "semantic-segmentation"
    return "image-classification" if "classifier.weight" in names else "backbone"
