"""Building a model from its configuration, or from a checkpoint with its weights."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.base import Model
from mvit_coreml.models.config import ModelConfig, Task, architecture_name


class HasWeights(Protocol):
    """What :func:`build_model` needs of a checkpoint."""

    @property
    def config(self) -> ModelConfig:
        """The configuration."""

    @property
    def task(self) -> Task:
        """The task."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights by parameter name."""


def build_model(source: ModelConfig | HasWeights, task: Task | None = None) -> Model[Any]:
    """Build a model in eval mode.

    Args:
        source: a checkpoint, whose weights are loaded strictly, or a configuration alone, which
            gives random weights.
        task: with a configuration, the kind of model; the backbone if not given. A checkpoint
            brings its own.

    Raises:
        CheckpointError: the checkpoint's weights do not fit its configuration.
    """
    if isinstance(source, ModelConfig):
        model: Model[Any] = model_class(source, task or "backbone")(source)
        model.initialize()
        return model.eval()
    # Without storage of its own the model costs neither time nor memory until it gets its weights.
    with torch.device("meta"):
        model = model_class(source.config, source.task)(source.config)
    try:
        model.load_state_dict(source.weights, strict=True, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"the weights do not fit the configuration: {detail}") from None
    return model.eval().requires_grad_(True)


def model_class(config: ModelConfig, task: Task) -> type[Model[Any]]:
    """Return the class of a family's model for a task; only that family's module is imported."""
    module = import_module(f"mvit_coreml.models.{config.architecture_prefix.lower()}")
    return getattr(module, architecture_name(config, task))
