"""What all models share: building one, outputs, initialisation, saving, task heads, losses."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.errors import CheckpointError, ConfigError, InputError
from mvit_coreml.models.config import ModelConfig, Task, architecture_name

if TYPE_CHECKING:
    from mvit_coreml.checkpoints.checkpoint import Checkpoint

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclass
class ModelOutput:
    """Fields by attribute, by name (``out["logits"]``) or by position among those that are set."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, in order of declaration."""
        return tuple(getattr(self, name) for name in self.keys())

    def keys(self) -> list[str]:
        """Return the names of the fields that are set."""
        names = (spec.name for spec in dataclasses.fields(self))
        return [name for name in names if getattr(self, name) is not None]

    def __getitem__(self, key: str | int | slice) -> Any:
        if isinstance(key, str):
            if key not in self.keys():
                raise KeyError(key)
            return getattr(self, key)
        return self.to_tuple()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())


@dataclass
class BackboneOutput(ModelOutput):
    """Features of a backbone.

    Attributes:
        last_hidden_state: (B, C, H, W) feature map.
        pooler_output: (B, C) mean of the feature map over its pixels.
        hidden_states: a (B, C, H, W) map per stage (MobileNetV2: per block), on request.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class HeadOutput(ModelOutput):
    """Scores of a classifier or segmenter.

    Attributes:
        loss: scalar, when labels were given.
        logits: scores before softmax: (B, num_labels) of a classifier, (B, num_labels,
            H / output_stride, W / output_stride) of a segmenter.
        hidden_states: see :class:`BackboneOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


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
            OSError: the folder cannot be written.
        """
        save_pretrained(folder, self.config, self.task, self.state_dict())


def save_pretrained(
    folder: str | Path,
    config: ModelConfig,
    task: Task,
    weights: Mapping[str, Tensor],
    preprocessor_config: Mapping[str, Any] | None = None,
) -> None:
    """Write a model as transformers reads it.

    The files are written beside their destinations and renamed once all are complete; other files
    of the folder stay as they are.

    Args:
        folder: made if it is missing.
        config: content of ``config.json``.
        task: what the model is for.
        weights: tensors by parameter name.
        preprocessor_config: content of ``preprocessor_config.json``, if there is to be one.

    Raises:
        ConfigError: the configuration holds something transformers cannot express.
        OSError: the folder cannot be written.
    """
    from safetensors.torch import save

    reason = config.unsupported_by_transformers()
    if reason is not None:
        raise ConfigError(f"cannot be written for transformers: {reason}")
    extra = {"architectures": [architecture_name(config, task)], "dtype": "float32"}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
        staged = Path(staging)
        _write_json(staged / "config.json", config.to_dict() | extra)
        if preprocessor_config is not None:
            _write_json(staged / "preprocessor_config.json", preprocessor_config)
        contiguous = {name: weight.contiguous() for name, weight in weights.items()}
        (staged / "model.safetensors").write_bytes(save(contiguous, metadata={"format": "pt"}))
        for path in sorted(staged.iterdir()):
            path.replace(folder / path.name)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")


class Backbone(Model[ConfigT], ABC):
    """A feature extractor.

    Attributes:
        encoder_dim: channels of the last stage, what a segmentation head reads.
        feature_dim: channels of ``last_hidden_state`` and ``pooler_output``.
        num_hidden_states: number of maps in ``hidden_states``.
        expand_output: whether ``pooler_output`` is computed.
    """

    task: ClassVar[Task] = "backbone"
    encoder_dim: int
    feature_dim: int
    num_hidden_states: int

    def __init__(self, config: ConfigT, expand_output: bool = True) -> None:
        super().__init__(config)
        self.expand_output = expand_output

    @property
    @abstractmethod
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that reads the image."""

    @abstractmethod
    def forward_features(
        self, pixel_values: Tensor, hidden_states: list[Tensor] | None = None
    ) -> Tensor:
        """Run all stages; append each stage's map to ``hidden_states`` when it is a list."""

    def expand(self, features: Tensor) -> Tensor:
        """Apply the last 1x1 convolution, if the family has one."""
        return features

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
            pooler_output=features.mean(dim=(-2, -1)) if self.expand_output else None,
            hidden_states=None if hidden_states is None else tuple(hidden_states),
        )
        return output if return_dict else output.to_tuple()


def backbone_of(model: Model[ConfigT]) -> Backbone[ConfigT]:
    """Return a model's feature extractor; a backbone is its own."""
    if isinstance(model, Backbone):
        return model
    assert isinstance(model, ModelWithHead)
    return model.backbone


class ModelWithHead(Model[ConfigT], ABC):
    """A backbone and a head that scores its features.

    Attributes:
        backbone_class: makes the feature extractor.
    """

    backbone_class: ClassVar[type[Backbone[Any]]]

    def __init__(self, config: ConfigT, expand_output: bool) -> None:
        super().__init__(config)
        # transformers names the backbone after the family.
        self.add_module(config.model_type, self.backbone_class(config, expand_output))

    @property
    def backbone(self) -> Backbone[ConfigT]:
        """The feature extractor."""
        return getattr(self, self.config.model_type)

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Map the features of the last stage, (B, encoder_dim, H, W), to logits."""

    @abstractmethod
    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar that training lowers."""

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool = True,
    ) -> HeadOutput | tuple[Any, ...]:
        """Score images.

        Args:
            pixel_values: (B, num_channels, H, W), at least 32 pixels on a side.
            labels: for the loss: of a segmenter (B, H, W) class indices, of a classifier see
                :meth:`ImageClassifier.loss`.
            output_hidden_states: also return the map of every stage.
            return_dict: return a :class:`HeadOutput`; otherwise a tuple of what is set.
        """
        hidden_states: list[Tensor] | None = [] if output_hidden_states else None
        logits = self.score(self.backbone.forward_features(pixel_values, hidden_states))
        output = HeadOutput(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=None if hidden_states is None else tuple(hidden_states),
        )
        return output if return_dict else output.to_tuple()


class ImageClassifier(ModelWithHead[ConfigT]):
    """A backbone with a linear layer on its pooled features."""

    task: ClassVar[Task] = "image-classification"

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config, expand_output=True)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier: nn.Module = (
            nn.Linear(self.backbone.feature_dim, config.num_labels)
            if config.num_labels
            else nn.Identity()
        )

    def score(self, features: Tensor) -> Tensor:
        """Map (B, encoder_dim, H, W) to (B, num_labels)."""
        # The package's operation is called after this variable.
        features = self.backbone.expand(features)
        return self.classifier(self.dropout(features.mean(dim=(-2, -1))))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, or the loss that the configuration's ``problem_type`` names.

        Args:
            logits: (B, num_labels).
            labels: (B,) class indices, (B,) or (B, num_labels) targets of a regression, or
                (B, num_labels) floating-point targets for several labels at once.
        """
        problem, num_labels = self.config.problem_type, self.config.num_labels
        if problem is None:
            if num_labels == 1:
                problem = "regression"
            elif labels.dtype in (torch.long, torch.int):
                problem = "single_label_classification"
            else:
                problem = "multi_label_classification"
        if problem == "regression":
            if num_labels == 1:
                return F.mse_loss(logits.squeeze(), labels.squeeze())
            return F.mse_loss(logits, labels)
        if problem == "single_label_classification":
            return F.cross_entropy(logits.view(-1, num_labels), labels.view(-1).long())
        return F.binary_cross_entropy_with_logits(logits, labels)


class SemanticSegmenter(ModelWithHead[ConfigT]):
    """A backbone with a head that scores every position of its last stage.

    Attributes:
        head_class: makes the head from the configuration and the channels of the last stage.
    """

    task: ClassVar[Task] = "semantic-segmentation"
    head_class: ClassVar[type[nn.Module]]

    def __init__(self, config: ConfigT) -> None:
        super().__init__(config, expand_output=False)
        self.segmentation_head = self.head_class(config, self.backbone.encoder_dim)

    def score(self, features: Tensor) -> Tensor:
        """Map (B, encoder_dim, H, W) to (B, num_labels, H, W)."""
        return self.segmentation_head(features)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the logits upsampled to the label map.

        Args:
            logits: (B, num_labels, h, w).
            labels: (B, H, W) class indices; the configuration's ``semantic_loss_ignore_index``
                marks pixels to skip.

        Raises:
            InputError: the model has a single class.
        """
        if self.config.num_labels == 1:
            raise InputError(
                "labels were given but the segmenter has one class; it needs two or more"
            )
        size = (labels.shape[-2], labels.shape[-1])
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        ignored = self.config.semantic_loss_ignore_index
        return F.cross_entropy(logits, labels, ignore_index=ignored)


def build_model(source: ModelConfig | Checkpoint, task: Task | None = None) -> Model[Any]:
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
