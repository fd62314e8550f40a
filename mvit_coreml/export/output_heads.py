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
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.models.folding import prepare_for_export

OutputKind = Literal["probabilities", "logits", "values", "classes", "features", "embedding"]
MapSize = Literal["input", "logits"] | tuple[int, int]
# Form of a class map: an array of 32 or of 8 bits (iOS 26, classes to 127), or a grayscale image.
MapType = Literal["int32", "uint8", "image"]

OUTPUTS_OF_TASK: dict[str, tuple[OutputKind, ...]] = {
    "image-classification": ("probabilities", "logits", "values", "features", "embedding"),
    "semantic-segmentation": ("classes", "probabilities", "logits", "features", "embedding"),
    "backbone": ("features", "embedding"),
}


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output of a package.

    Attributes:
        name: its name in the package.
        shape: its shape; empty for the class label.
        dtype: ``float32``, ``int32``, ``int8``, ``image`` (gray), ``string`` or ``dictionary``.
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
    """Probabilities or logits of an image classifier, or the values of a regression.

    All are (1, num_labels).
    """

    def __init__(
        self, model: Model[Any], image: ImageInput, kind: OutputKind, activation: HeadActivation
    ) -> None:
        super().__init__(model, image)
        self.output_names = (kind,)
        self.activation = activation

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Score (1, 3, H, W)."""
        logits = self.model(image).logits
        if self.output_names != ("probabilities",):
            return (logits,)
        return (logits.sigmoid() if self.activation == "sigmoid" else logits.softmax(dim=-1),)


class SegmenterExport(ExportedModel):
    """Class map, or probabilities or logits (1, num_labels, H, W).

    A class map is (H, W) of int32, as an image (1, 1, H, W) of float32. The confidence beside it is
    the probability of each position's class, (H, W).
    """

    def __init__(
        self,
        model: Model[Any],
        image: ImageInput,
        kind: OutputKind,
        map_size: MapSize,
        map_type: MapType,
        confidence: bool,
    ) -> None:
        super().__init__(model, image)
        self.output_names = (kind, "confidence") if confidence else (kind,)
        self.map_type = map_type
        self.size = (image.height, image.width) if map_size == "input" else map_size

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Score every position of (1, 3, H, W)."""
        scores = self.model(image).logits
        if self.size != "logits" and tuple(scores.shape[-2:]) != self.size:
            scores = F.interpolate(scores, size=self.size, mode="bilinear", align_corners=False)
        if self.output_names[0] != "classes":
            return (scores.softmax(dim=1) if self.output_names[0] == "probabilities" else scores,)
        if self.map_type == "image":
            classes = scores.argmax(dim=1, keepdim=True).float()
        else:
            classes = scores.argmax(dim=1).squeeze(0).to(torch.int32)
        if len(self.output_names) == 1:
            return (classes,)
        return classes, scores.softmax(dim=1).amax(dim=1).squeeze(0)


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


class EmbeddingExport(ExportedModel):
    """Pooled features of a backbone as a vector of length 1, (1, channels)."""

    output_names = ("embedding",)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the embedding of (1, 3, H, W)."""
        backbone = self.model
        assert isinstance(backbone, Backbone)
        pooled = backbone.expand(backbone.forward_features(image)).mean(dim=(-2, -1))
        # The squares of large features are beyond half precision, those of small ones below it.
        scaled = pooled / pooled.abs().amax(dim=1, keepdim=True)
        return (scaled * scaled.square().sum(dim=1, keepdim=True).rsqrt(),)


def read_outputs(
    spec: Any, labels: Sequence[str], activation: HeadActivation | None = None
) -> tuple[Output, ...]:
    """Describe the outputs that a model specification declares, those of its first function.

    Args:
        spec: a ``Model`` protobuf message.
        labels: class names, for the number of classes.
        activation: what a classifier's logits go through.
    """
    description = spec.description
    features = (description.functions[0] if description.functions else description).output
    return tuple(_read_output(feature, len(labels), activation) for feature in features)


def _read_output(feature: Any, num_labels: int, activation: HeadActivation | None) -> Output:
    name, kind = feature.name, feature.type.WhichOneof("Type")
    array = feature.type.multiArrayType  # without a shape where it is something else
    shape = tuple(array.shape)
    if kind == "multiArrayType":
        dtype = {array.INT32: "int32", array.INT8: "int8"}.get(array.dataType, "float32")
    else:
        dtype = kind.removesuffix("Type")
    if kind == "imageType":
        shape = (feature.type.imageType.height, feature.type.imageType.width)
    layer = name.removeprefix("hidden_state_")
    described = _DESCRIPTIONS | (_LABEL_DESCRIPTIONS if activation == "sigmoid" else {})
    description = described.get(name) or f"Feature map of stage {layer} (1, channels, h, w)."
    description = description.format(classes=num_labels)
    return Output(name=name, shape=shape, dtype=dtype, description=description)


_DESCRIPTIONS = {
    "classLabel": "Name of the most likely class.",
    "classLabel_probs": "Probability of every class, by name.",
    "probabilities": "Probability of every one of the {classes} classes.",
    "logits": "Score of every one of the {classes} classes, before softmax.",
    "values": "Value of every one of {classes} quantities (1, quantities).",
    "classes": "Index of the most likely of {classes} classes for every pixel (height, width).",
    "confidence": "Probability of the class of every pixel (height, width).",
    "embedding": "Features of the photo as a vector of length 1 (1, channels).",
    "last_hidden_state": "Feature map of the last stage (1, channels, h, w).",
    "pooler_output": "Mean of the last feature map over its pixels (1, channels).",
}
_LABEL_DESCRIPTIONS = {
    "classLabel": "Name of the likeliest label; a photo may have several, or none.",
    "classLabel_probs": "Probability of every label by itself, by name: there from 0.5 on.",
    "logits": "Score of every one of the {classes} labels, before its sigmoid.",
}


def export_model(
    model: Model[Any],
    image: ImageInput,
    kind: OutputKind,
    *,
    activation: HeadActivation = "softmax",
    map_size: MapSize = "input",
    map_type: MapType = "int32",
    confidence: bool = False,
    layers: Sequence[int] = (),
) -> ExportedModel:
    """Prepare a model for conversion with one kind of output.

    Args:
        model: a reference model.
        image: the package's input; its ``weight_scale`` goes into the first convolution.
        kind: one of :data:`OUTPUTS_OF_TASK` for the model's task.
        activation: what makes probabilities of a classifier's logits.
        map_size: size of a segmenter's maps: the input's, the logits' own, or (height, width).
        map_type: form of a class map.
        confidence: add the probability of each position's class to a class map.
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
    if kind == "embedding":
        exported = EmbeddingExport(backbone_of(model), image)
    elif kind == "features":
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
        exported = ClassifierExport(model, image, kind, activation)
    else:
        assert isinstance(model, SemanticSegmenter)
        exported = SegmenterExport(model, image, kind, map_size, map_type, confidence)
    return exported.eval()


def _scale_input(model: Model[Any], factors: tuple[float, float, float]) -> None:
    conv = backbone_of(model).first_convolution
    weight = conv.weight.double() * torch.tensor(factors, dtype=torch.float64)[:, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
