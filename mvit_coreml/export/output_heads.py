"""What a package answers: the module that is converted, from image tensor to named outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.errors import InputError
from mvit_coreml.export.image_input import ImageInput
from mvit_coreml.models.base import Backbone, ImageClassifier, Model, SemanticSegmenter, backbone_of
from mvit_coreml.models.folding import prepare_for_export

OutputKind = Literal["probabilities", "logits", "classes", "features"]
MapSize = Literal["input", "logits"] | tuple[int, int]

OUTPUTS_OF_TASK: dict[str, tuple[OutputKind, ...]] = {
    "image-classification": ("probabilities", "logits", "features"),
    "semantic-segmentation": ("classes", "probabilities", "logits", "features"),
    "backbone": ("features",),
}


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a package.

    Attributes:
        name: its name in the package.
        shape: its shape; empty for the class label.
        dtype: ``float32``, ``int32``, ``string`` or ``dictionary``.
        description: a sentence for whoever reads the package in Xcode.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    description: str


class ExportedModel(nn.Module):
    """A folded model with its head for one kind of output.

    The result is always a tuple of tensors, one for each name of :attr:`output_names`.
    """

    output_names: tuple[str, ...]

    def __init__(self, model: Model[Any], image: ImageInput) -> None:
        super().__init__()
        self.model = prepare_for_export(model)
        if image.weight_scale is not None:
            _scale_input(self.model, image.weight_scale)


class ClassifierExport(ExportedModel):
    """Probabilities or logits of an image classifier, (1, num_labels)."""

    def __init__(self, model: Model[Any], image: ImageInput, kind: OutputKind) -> None:
        super().__init__(model, image)
        self.output_names = (kind,)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Score (1, 3, H, W)."""
        logits = self.model(image).logits
        return (logits.softmax(dim=-1) if self.output_names == ("probabilities",) else logits,)


class SegmenterExport(ExportedModel):
    """Class map (H, W) of int32, or probabilities or logits (1, num_labels, H, W)."""

    def __init__(
        self, model: Model[Any], image: ImageInput, kind: OutputKind, map_size: MapSize
    ) -> None:
        super().__init__(model, image)
        self.output_names = (kind,)
        self.size = (image.height, image.width) if map_size == "input" else map_size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Score every position of (1, 3, H, W)."""
        scores = self.model(image).logits
        if self.size != "logits" and tuple(scores.shape[-2:]) != self.size:
            scores = F.interpolate(scores, size=self.size, mode="bilinear", align_corners=False)
        if self.output_names == ("classes",):
            return (scores.argmax(dim=1).squeeze(0).to(torch.int32),)
        return (scores.softmax(dim=1) if self.output_names == ("probabilities",) else scores,)


class FeatureExport(ExportedModel):
    """Feature map and pooled features of a backbone, and chosen hidden states."""

    def __init__(self, model: Backbone[Any], image: ImageInput, layers: Sequence[int]) -> None:
        super().__init__(model, image)
        self.layers = tuple(layers)
        self.output_names = (
            "last_hidden_state",
            "pooler_output",
            *(f"hidden_state_{index}" for index in self.layers),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute features of (1, 3, H, W)."""
        hidden_states: list[Tensor] = []
        backbone = self.model
        assert isinstance(backbone, Backbone)
        features = backbone.expand(backbone.forward_features(image, hidden_states))
        chosen = (hidden_states[index] for index in self.layers)
        # A tensor under two names would lose one of them in the conversion.
        chosen = (state * 1.0 if state is features else state for state in chosen)
        return (features, features.mean(dim=(-2, -1)), *chosen)


def read_outputs(spec: Any, labels: Sequence[str]) -> tuple[Output, ...]:
    """Describe the outputs that a model specification declares, those of its first function.

    Args:
        spec: a ``Model`` protobuf message.
        labels: class names, for the number of classes.
    """
    description = spec.description
    features = (description.functions[0] if description.functions else description).output
    return tuple(_read_output(feature, len(labels)) for feature in features)


def _read_output(feature: Any, num_labels: int) -> Output:
    name, kind = feature.name, feature.type.WhichOneof("Type")
    array = feature.type.multiArrayType  # without a shape where it is something else
    if kind == "multiArrayType":
        dtype = "int32" if array.dataType == array.INT32 else "float32"
    else:
        dtype = {"stringType": "string", "dictionaryType": "dictionary"}[kind]
    layer = name.removeprefix("hidden_state_")
    description = _DESCRIPTIONS.get(name) or f"Feature map of stage {layer} (1, channels, h, w)."
    description = description.format(classes=num_labels)
    return Output(name=name, shape=tuple(array.shape), dtype=dtype, description=description)


_DESCRIPTIONS = {
    "classLabel": "Name of the most likely class.",
    "classLabel_probs": "Probability of every class, by name.",
    "probabilities": "Probability of every one of the {classes} classes.",
    "logits": "Score of every one of the {classes} classes, before softmax.",
    "classes": "Index of the most likely of {classes} classes for every pixel (height, width).",
    "last_hidden_state": "Feature map of the last stage (1, channels, h, w).",
    "pooler_output": "Mean of the last feature map over its pixels (1, channels).",
}


def export_model(
    model: Model[Any],
    image: ImageInput,
    kind: OutputKind,
    *,
    map_size: MapSize = "input",
    layers: Sequence[int] = (),
) -> ExportedModel:
    """Prepare a model for conversion with one kind of output.

    Args:
        model: a reference model.
        image: the package's input; its ``weight_scale`` goes into the first convolution.
        kind: one of :data:`OUTPUTS_OF_TASK` for the model's task.
        map_size: size of a segmenter's maps: the input's, the logits' own, or (height, width).
        layers: hidden states to add to ``features``, counted from 0 as transformers does.

    Raises:
        InputError: an output that the task does not have, or a layer that does not exist or is
            given twice.
    """
    if kind not in OUTPUTS_OF_TASK[model.task]:
        raise InputError(
            f"output {kind!r} does not apply to {model.task}; "
            f"it has {', '.join(OUTPUTS_OF_TASK[model.task])}"
        )
    if layers and kind != "features":
        raise InputError(f"hidden states ({_listed(layers)}) come with output 'features' only")
    exported: ExportedModel
    if kind == "features":
        backbone = backbone_of(model)
        count = backbone.num_hidden_states
        beyond = [index for index in layers if not 0 <= index < count]
        if beyond:
            raise InputError(
                f"layer {beyond[0]} does not exist; {backbone.config.model_type} has hidden "
                f"states 0 to {count - 1}"
            )
        if len(set(layers)) != len(layers):
            raise InputError(f"a layer of {_listed(layers)} is given twice; give each once")
        exported = FeatureExport(backbone, image, layers)
    elif isinstance(model, ImageClassifier):
        exported = ClassifierExport(model, image, kind)
    else:
        assert isinstance(model, SemanticSegmenter)
        exported = SegmenterExport(model, image, kind, map_size)
    return exported.eval()


def _scale_input(model: Model[Any], factors: tuple[float, float, float]) -> None:
    conv = backbone_of(model).first_convolution
    weight = conv.weight.double() * torch.tensor(factors, dtype=torch.float64)[:, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
