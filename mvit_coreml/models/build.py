"""From a configuration or a checkpoint to a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mvit_coreml.errors import CheckpointError
from mvit_coreml.models.base import Model
from mvit_coreml.models.config import ModelConfig, Task, architecture_name
from mvit_coreml.models.mobilenetv2 import (
    MobileNetV2ForImageClassification,
    MobileNetV2ForSemanticSegmentation,
    MobileNetV2Model,
)
from mvit_coreml.models.mobilevit import (
    MobileViTForImageClassification,
    MobileViTForSemanticSegmentation,
    MobileViTModel,
)
from mvit_coreml.models.mobilevitv2 import (
    MobileViTV2ForImageClassification,
    MobileViTV2ForSemanticSegmentation,
    MobileViTV2Model,
)

MODEL_CLASSES: dict[str, type[Model[Any]]] = {
    cls.__name__: cls
    for cls in (
        MobileViTModel,
        MobileViTForImageClassification,
        MobileViTForSemanticSegmentation,
        MobileViTV2Model,
        MobileViTV2ForImageClassification,
        MobileViTV2ForSemanticSegmentation,
        MobileNetV2Model,
        MobileNetV2ForImageClassification,
        MobileNetV2ForSemanticSegmentation,
    )
}


@runtime_checkable
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
        model: Model[Any] = _model_class(source, task or "backbone")(source)
        model.initialize()
        return model.eval()
    # Without storage of its own the model costs neither time nor memory until it gets its weights.
    with torch.device("meta"):
        model = _model_class(source.config, source.task)(source.config)
    try:
        model.load_state_dict(source.weights, strict=True, assign=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(f"the weights do not fit the configuration: {detail}") from None
    return model.eval().requires_grad_(True)


def _model_class(config: ModelConfig, task: Task) -> type[Model[Any]]:
    return MODEL_CLASSES[architecture_name(config, task)]
