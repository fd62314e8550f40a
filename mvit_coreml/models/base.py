"""What all models share: the configuration, initialisation, saving, and the two task heads."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn

from mvit_coreml.errors import ConfigError
from mvit_coreml.models.config import ModelConfig, Task, architecture_name
from mvit_coreml.models.layers import classification_loss, segmentation_loss
from mvit_coreml.models.outputs import (
    BackboneOutput,
    ImageClassifierOutput,
    SemanticSegmenterOutput,
)

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


class Model(nn.Module, Generic[ConfigT]):
    """A model with its configuration.

    Attributes:
        config: the configuration it was built from.
        task: ``backbone``, ``image-classification`` or ``semantic-segmentation``.
    """

    task: ClassVar[Task]
    config: ConfigT

    def __init__(self, config: ConfigT) -> None:
        super().__init__()
        self.config = config

    def initialize(self) -> None:
        """Draw fresh weights: normal with ``initializer_range``, biases zero, norms one."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=self.config.initializer_range)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` and ``model.safetensors``, which transformers loads.

        Raises:
            ConfigError: the configuration holds something transformers cannot express.
        """
        from safetensors.torch import save

        reason = self.config.unsupported_by_transformers()
        if reason is not None:
            raise ConfigError(f"transformers cannot load this model: {reason}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = self.config.to_dict() | {
            "architectures": [architecture_name(self.config, self.task)]
        }
        (folder / "config.json").write_text(
            json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
        )
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))


class Backbone(Model[ConfigT], ABC):
    """A feature extractor.

    Attributes:
        encoder_dim: channels of the last stage, what a segmentation head reads.
        feature_dim: channels of ``last_hidden_state`` and ``pooler_output``.
    """

    task: ClassVar[Task] = "backbone"
    encoder_dim: int
    feature_dim: int

    @property
    @abstractmethod
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that reads the image."""

    @property
    @abstractmethod
    def num_hidden_states(self) -> int:
        """Number of maps in ``hidden_states``."""

    @abstractmethod
    def forward_features(
        self, pixel_values: Tensor, hidden_states: list[Tensor] | None = None
    ) -> Tensor:
        """Run all stages; append each stage's map to ``hidden_states`` when it is a list."""

    def expand(self, features: Tensor) -> Tensor:
        """Apply the last 1x1 convolution, if the family has one."""
        return features

    def pools(self) -> bool:
        """Whether ``pooler_output`` is computed."""
        return True

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, return_dict: bool = True
    ) -> BackboneOutput | tuple[Any, ...]:
        """Compute features.

        Args:
            pixel_values: (B, num_channels, H, W), at least 32 pixels on a side.
            output_hidden_states: also return the map of every stage.
            return_dict: return a :class:`BackboneOutput`; otherwise a tuple of what is set.
        """
        hidden_states: list[Tensor] | None = [] if output_hidden_states else None
        features = self.expand(self.forward_features(pixel_values, hidden_states))
        output = BackboneOutput(
            last_hidden_state=features,
            pooler_output=features.mean(dim=(-2, -1)) if self.pools() else None,
            hidden_states=None if hidden_states is None else tuple(hidden_states),
        )
        return output if return_dict else output.to_tuple()


def backbone_of(model: Model[ConfigT]) -> Backbone[ConfigT]:
    """Return a model's feature extractor; a backbone is its own."""
    if isinstance(model, Backbone):
        return model
    assert isinstance(model, ImageClassifier | SemanticSegmenter)
    return model.backbone


class ImageClassifier(Model[ConfigT]):
    """A backbone with a linear layer on its pooled features."""

    task: ClassVar[Task] = "image-classification"

    def __init__(self, config: ConfigT, backbone: Backbone[ConfigT], dropout: float) -> None:
        super().__init__(config)
        # transformers names the backbone after the family.
        self.add_module(config.model_type, backbone)
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = (
            nn.Linear(backbone.feature_dim, config.num_labels)
            if config.num_labels
            else nn.Identity()
        )

    @property
    def backbone(self) -> Backbone[ConfigT]:
        """The feature extractor."""
        return getattr(self, self.config.model_type)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Score images.

        Args:
            pixel_values: (B, num_channels, H, W), at least 32 pixels on a side.
            labels: see :func:`~mvit_coreml.models.layers.classification_loss`.
            output_hidden_states: also return the map of every stage.
            return_dict: return an :class:`ImageClassifierOutput`; otherwise a tuple.
        """
        hidden_states: list[Tensor] | None = [] if output_hidden_states else None
        backbone = self.backbone
        features = backbone.expand(backbone.forward_features(pixel_values, hidden_states))
        logits = self.classifier(self.dropout(features.mean(dim=(-2, -1))))
        output = ImageClassifierOutput(
            loss=None if labels is None else classification_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=None if hidden_states is None else tuple(hidden_states),
        )
        return output if return_dict else output.to_tuple()


class SemanticSegmenter(Model[ConfigT]):
    """A backbone with a head that scores every position of its last stage."""

    task: ClassVar[Task] = "semantic-segmentation"

    def __init__(self, config: ConfigT, backbone: Backbone[ConfigT], head: nn.Module) -> None:
        super().__init__(config)
        self.add_module(config.model_type, backbone)
        self.segmentation_head = head

    @property
    def backbone(self) -> Backbone[ConfigT]:
        """The feature extractor."""
        return getattr(self, self.config.model_type)

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> SemanticSegmenterOutput | tuple[Any, ...]:
        """Score every position.

        Args:
            pixel_values: (B, num_channels, H, W), at least 32 pixels on a side.
            labels: (B, H, W) class indices, for the loss.
            output_hidden_states: also return the map of every stage.
            return_dict: return a :class:`SemanticSegmenterOutput`; otherwise a tuple.
        """
        hidden_states: list[Tensor] | None = [] if output_hidden_states else None
        logits = self.segmentation_head(self.backbone.forward_features(pixel_values, hidden_states))
        output = SemanticSegmenterOutput(
            loss=None if labels is None else segmentation_loss(logits, labels, self.config),
            logits=logits,
            hidden_states=None if hidden_states is None else tuple(hidden_states),
        )
        return output if return_dict else output.to_tuple()
