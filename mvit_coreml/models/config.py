"""Configurations of the three families, with the field names and defaults of Hugging Face.

A configuration is a frozen dataclass: reading one from ``config.json`` needs neither torch nor
transformers. Fields marked :data:`EXTENSION` describe checkpoints that the Hugging Face
configuration cannot express (see :meth:`ModelConfig.unsupported_by_transformers`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, Self, get_origin, get_type_hints

from mvit_coreml.errors import ConfigError, refuse_misspelt

Task = Literal["backbone", "image-classification", "semantic-segmentation"]
# What is applied to a classifier's logits: sigmoid where a photo may have several labels, none
# where they are the values of a regression.
HeadActivation = Literal["softmax", "sigmoid", "none"]

EXTENSION = {"extension": True}

# The names of transformers' activations that have no parameters of their own, and ours for them.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_10": "gelu_10",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "hardswish": "hardswish",
    "laplace": "laplace",
    "leaky_relu": "leaky_relu",
    "linear": "linear",
    "mish": "mish",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "relu2": "relu2",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "sqrtsoftplus": "sqrtsoftplus",
    "swish": "silu",
    "tanh": "tanh",
}


# More channels, layers or pixels than any network has: nobody waits for what a slip asks for.
_LARGEST = 65536


@dataclass(frozen=True)
class Rule:
    """What the values of a field may be, part of the field's type.

    Attributes:
        requirement: what a value must be, in words.
        accepts: whether a value is one of them.
    """

    requirement: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and low <= value <= high


def _is_int(value: object, low: float = -math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_size(value: object, low: int = 1) -> bool:
    return _is_int(value, low) and value <= _LARGEST  # type: ignore[operator]


def _is_ints(value: object, count: int, low: int = 1) -> bool:
    return isinstance(value, tuple) and len(value) == count and all(_is_size(v, low) for v in value)


def _one_of(*values: object) -> Rule:
    words = ", ".join(str(value) for value in values if value is not None)
    return Rule(f"one of {words}", values.__contains__)


def _several(word: str, count: int, low: int) -> Rule:
    return Rule(f"{word} whole numbers from {low} to {_LARGEST}", lambda v: _is_ints(v, count, low))


Ints = tuple[int, ...]
Bool = Annotated[bool, Rule("true or false", lambda v: isinstance(v, bool))]
Int = Annotated[int, Rule("a whole number", _is_int)]
Count = Annotated[int, Rule(f"a whole number from 1 to {_LARGEST}", _is_size)]
OptionalCount = Annotated[
    int | None,
    Rule(f"a whole number from 1 to {_LARGEST}, or null", lambda v: v is None or _is_size(v)),
]
ThreeCounts = Annotated[Ints, _several("three", 3, 1)]
ThreeCountsFrom0 = Annotated[Ints, _several("three", 3, 0)]
SevenCounts = Annotated[Ints, _several("seven", 7, 1)]
Side = Annotated[
    int | tuple[int, int],
    Rule(
        "a whole number of pixels or a (height, width) pair",
        lambda v: _is_size(v) or _is_ints(v, 2),
    ),
]
Probability = Annotated[float, Rule("a probability from 0 to 1", lambda v: _is_number(v, 0, 1))]
PositiveNumber = Annotated[float, Rule("a number above 0", lambda v: _is_number(v) and v > 0)]
Deviation = Annotated[float, Rule("a number from 0", lambda v: _is_number(v, 0))]
Activation = Annotated[str, _one_of(*ACTIVATIONS)]
OutputStride = Annotated[int, _one_of(8, 16, 32)]
PatchGrid = Annotated[Literal["truncate", "interpolate"], _one_of("truncate", "interpolate")]
ProblemType = Annotated[
    str | None,
    _one_of(None, "regression", "single_label_classification", "multi_label_classification"),
]


def unnamed_labels(count: int) -> dict[int, str]:
    """Return the names of classes that have none, as transformers makes them up."""
    return {index: f"LABEL_{index}" for index in range(count)}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What every family's configuration holds.

    Attributes:
        num_channels: channels of the input image.
        image_size: side, or (height, width), the model was trained at, in pixels.
        hidden_act: name of the activation, one of :data:`ACTIVATIONS`.
        output_stride: input size over size of the last feature map: 8, 16 or 32.
        classifier_dropout_prob: dropout before the classifier, a probability.
        initializer_range: standard deviation of freshly initialised weights.
        layer_norm_eps: epsilon of layer and group normalisation (MobileNetV2: batch norm).
        semantic_loss_ignore_index: label that the segmentation loss skips.
        id2label: class index to class name; its length is the number of classes.
        problem_type: forces the classification loss, and with it :attr:`head_activation`; ``None``
            infers it as transformers does.
    """

    model_type: ClassVar[str]
    architecture_prefix: ClassVar[str]
    _rules: ClassVar[dict[str, Rule]]

    num_channels: Count = 3
    image_size: Side = 256
    hidden_act: Activation = "silu"
    output_stride: OutputStride = 32
    classifier_dropout_prob: Probability = 0.1
    initializer_range: Deviation = 0.02
    layer_norm_eps: PositiveNumber = 1e-5
    semantic_loss_ignore_index: Int = 255
    id2label: Mapping[int, str] = field(default_factory=partial(unnamed_labels, 2))
    problem_type: ProblemType = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        hints = get_type_hints(cls, include_extras=True)
        annotated = (name for name, hint in hints.items() if get_origin(hint) is Annotated)
        cls._rules = {name: hints[name].__metadata__[0] for name in annotated}

    def __post_init__(self) -> None:
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if isinstance(value, list):
                object.__setattr__(self, spec.name, tuple(value))
        for name, rule in self._rules.items():
            self._require(rule.accepts(getattr(self, name)), name, rule.requirement)
        object.__setattr__(self, "id2label", names_by_index(self.id2label, "config: id2label"))

    def _require(self, accepted: bool, name: str, requirement: str) -> None:
        if not accepted:
            raise ConfigError(
                f"{self.model_type} config: {name} is {getattr(self, name)!r}; "
                f"it must be {requirement}"
            )

    @property
    def num_labels(self) -> int:
        """Number of classes, the length of ``id2label``."""
        return len(self.id2label)

    @property
    def head_activation(self) -> HeadActivation:
        """What a classifier's logits go through, as in transformers' image-classification pipeline.

        A single class without a ``problem_type`` is a yes or no.
        """
        if self.problem_type == "regression":
            return "none"
        several = self.problem_type == "multi_label_classification"
        return "sigmoid" if several or self.num_labels == 1 else "softmax"

    @property
    def image_hw(self) -> tuple[int, int]:
        """Trained input size as (height, width) in pixels."""
        return _as_pair(self.image_size)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked like a new configuration."""
        return dataclasses.replace(self, **changes)

    def unsupported_by_transformers(self) -> str | None:
        """Say which field has no counterpart in transformers' configuration, or ``None``."""
        for spec in dataclasses.fields(self):
            value = getattr(self, spec.name)
            if "extension" in spec.metadata and value != spec.default:
                return f"{spec.name}={value!r} (transformers always has {spec.default!r})"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that transformers reads, extension fields left out."""
        data: dict[str, Any] = {"model_type": self.model_type}
        for spec in dataclasses.fields(self):
            if "extension" in spec.metadata or spec.name == "id2label":
                continue
            value = getattr(self, spec.name)
            data[spec.name] = list(value) if isinstance(value, tuple) else value
        data["id2label"] = {str(index): label for index, label in self.id2label.items()}
        data["label2id"] = {label: index for index, label in self.id2label.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Build from the content of a Hugging Face ``config.json``.

        Keys that belong to transformers at large (``architectures``, ``dtype``, …) are ignored; a
        key that looks like a misspelt field is an error, because the value meant for it would
        otherwise be lost in silence.

        Raises:
            ConfigError: a field has an unknown or impossible value, or looks misspelt.
        """
        known = {spec.name for spec in dataclasses.fields(cls)}
        refuse_misspelt(f"{cls.model_type} config: unknown field", data, known, _FOREIGN_FIELDS)
        kept = {name: value for name, value in data.items() if name in known}
        # transformers writes no labels when there are two unnamed ones.
        if data.get("id2label") is None:
            kept["id2label"] = unnamed_labels(data.get("num_labels", 2))
        return cls(**kept)


@dataclass(frozen=True, kw_only=True)
class _AsppConfig(ModelConfig):
    """Fields of the DeepLabV3 head that both MobileViT generations share.

    Attributes:
        patch_size: side, or (height, width), of the patches that attention works across.
        conv_kernel_size: kernel of the local convolution of a MobileViT block.
        expand_ratio: expansion of the inverted residual blocks.
        aspp_out_channels: channels of every ASPP branch.
        atrous_rates: the three dilations of ASPP.
        aspp_dropout_prob: dropout after ASPP, a probability.
    """

    patch_size: Side = 2
    expand_ratio: PositiveNumber = 2.0
    conv_kernel_size: Count = 3
    aspp_out_channels: Count = 256
    atrous_rates: ThreeCounts = (6, 12, 18)
    aspp_dropout_prob: Probability = 0.1

    @property
    def patch_hw(self) -> tuple[int, int]:
        """Patch size as (height, width)."""
        return _as_pair(self.patch_size)


@dataclass(frozen=True, kw_only=True)
class MobileViTConfig(_AsppConfig):
    """Configuration of MobileViT (Mehta and Rastegari, 2021, arXiv:2110.02178).

    Attributes:
        hidden_sizes: width of the transformer in each of the three MobileViT blocks.
        neck_hidden_sizes: channels of the stem, the five stages and the last 1x1 convolution.
        num_attention_heads: heads of self-attention; divides every hidden size.
        mlp_ratio: width of the feed-forward network over the hidden size.
        hidden_dropout_prob: dropout after attention and feed-forward.
        attention_probs_dropout_prob: dropout on the attention matrix.
        qkv_bias: whether query, key and value have a bias.
    """

    model_type: ClassVar[str] = "mobilevit"
    architecture_prefix: ClassVar[str] = "MobileViT"
    # Inverted residuals in the two convolutional stages, transformer layers in the other three.
    conv_stage_blocks: ClassVar[tuple[int, int]] = (1, 3)
    n_attn_blocks: ClassVar[tuple[int, int, int]] = (2, 4, 3)

    hidden_sizes: ThreeCounts = (144, 192, 240)
    neck_hidden_sizes: SevenCounts = (16, 32, 64, 96, 128, 160, 640)
    num_attention_heads: Count = 4
    mlp_ratio: PositiveNumber = 2.0
    expand_ratio: PositiveNumber = 4.0
    hidden_dropout_prob: Probability = 0.1
    attention_probs_dropout_prob: Probability = 0.0
    qkv_bias: Bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        heads, smallest = self.num_attention_heads, min(self.hidden_sizes)
        self._require(
            self.conv_kernel_size % 2 == 1,
            "conv_kernel_size",
            "odd: the local features are joined to the block's input at equal size",
        )
        self._require(
            all(size % heads == 0 for size in self.hidden_sizes),
            "hidden_sizes",
            f"divisible by num_attention_heads ({heads})",
        )
        self._require(
            int(smallest * self.mlp_ratio) >= 1,
            "mlp_ratio",
            "large enough to give the feed-forward network a channel",
        )

    @property
    def layer_dims(self) -> tuple[int, ...]:
        """Channels of the stem and the five stages."""
        return self.neck_hidden_sizes[:-1]

    @property
    def attn_unit_dims(self) -> tuple[int, ...]:
        """Channels of attention in each of the three MobileViT blocks."""
        return self.hidden_sizes


@dataclass(frozen=True, kw_only=True)
class MobileViTV2Config(_AsppConfig):
    """Configuration of MobileViTV2 (Mehta and Rastegari, 2022, arXiv:2206.02680).

    Attributes:
        n_attn_blocks: number of attention blocks in each of the three MobileViTV2 blocks.
        base_attn_unit_dims: width of those blocks before ``width_multiplier``.
        width_multiplier: scales every width.
        ffn_multiplier: width of the feed-forward network over the block's, rounded down to 16.
        attn_dropout: dropout on the context scores.
        ffn_dropout: dropout in the feed-forward network.
        patch_grid: what happens to a feature map that is no multiple of the patch size. With
            ``truncate`` the remainder is zero after a block, as in transformers; ``interpolate``
            resizes the map up to a multiple, as the training code (cvnets) and timm do.
    """

    model_type: ClassVar[str] = "mobilevitv2"
    architecture_prefix: ClassVar[str] = "MobileViTV2"
    # Inverted residuals in the two convolutional stages.
    conv_stage_blocks: ClassVar[tuple[int, int]] = (1, 2)

    hidden_act: Activation = "swish"
    aspp_out_channels: Count = 512
    n_attn_blocks: ThreeCountsFrom0 = (2, 4, 3)
    base_attn_unit_dims: ThreeCounts = (128, 192, 256)
    width_multiplier: PositiveNumber = 1.0
    ffn_multiplier: Count = 2
    attn_dropout: Probability = 0.0
    ffn_dropout: Probability = 0.0
    patch_grid: PatchGrid = field(default="truncate", metadata=EXTENSION)

    def __post_init__(self) -> None:
        multiplier: object = self.ffn_multiplier
        if isinstance(multiplier, float) and multiplier.is_integer():
            object.__setattr__(self, "ffn_multiplier", int(multiplier))
        super().__post_init__()
        self._require(
            all(self.ffn_dim(dim) >= 16 for dim in self.attn_unit_dims),
            "ffn_multiplier",
            "large enough to give the feed-forward network 16 channels",
        )

    def unsupported_by_transformers(self) -> str | None:
        """Say which field transformers lacks; how odd grids are met only matters where one is."""
        sides = (side // stride for side in self.image_hw for stride in (8, 16, 32))
        if all(side % patch == 0 for side in sides for patch in self.patch_hw):
            return None
        return super().unsupported_by_transformers()

    @property
    def layer_dims(self) -> tuple[int, ...]:
        """Channels of the stem and the five stages."""
        width = self.width_multiplier
        stem = make_divisible(max(16, min(64, 32 * width)), divisor=8, min_value=16)
        return (
            stem,
            make_divisible(64 * width, divisor=16),
            *(make_divisible(base * width, divisor=8) for base in (128, 256, 384, 512)),
        )

    @property
    def attn_unit_dims(self) -> tuple[int, ...]:
        """Channels of attention in each of the three MobileViTV2 blocks."""
        return tuple(
            make_divisible(base * self.width_multiplier, divisor=8)
            for base in self.base_attn_unit_dims
        )

    def ffn_dim(self, dim: int) -> int:
        """Channels of the feed-forward network in a block of ``dim`` channels."""
        return self.ffn_multiplier * dim // 16 * 16


@dataclass(frozen=True, kw_only=True)
class MobileNetV2Config(ModelConfig):
    """Configuration of MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381).

    Attributes:
        depth_multiplier: scales the channels of every layer.
        depth_divisible_by: channels are rounded to multiples of this.
        min_depth: smallest number of channels of a layer.
        expand_ratio: expansion of the inverted residual blocks.
        first_layer_is_expansion: the stem convolution doubles as the first block's expansion.
        finegrained_output: keep 1280 output channels when ``depth_multiplier`` is below 1.
        tf_padding: pad as TensorFlow's SAME does (asymmetric, depends on the input size).
        stage_depths: number of blocks in each of the seven stages (paper, table 2).
        stem_channels: channels of the stem convolution; ``None`` scales 32 like the rest.
        head_channels: channels of the last convolution; ``None`` scales 1280 as above.
    """

    model_type: ClassVar[str] = "mobilenet_v2"
    architecture_prefix: ClassVar[str] = "MobileNetV2"
    # Output channels of the seven stages at width 1 (paper, table 2).
    stage_channels: ClassVar[tuple[int, ...]] = (16, 24, 32, 64, 96, 160, 320)

    image_size: Side = 224
    hidden_act: Activation = "relu6"
    classifier_dropout_prob: Probability = 0.8
    layer_norm_eps: PositiveNumber = 0.001
    depth_multiplier: PositiveNumber = 1.0
    depth_divisible_by: Count = 8
    min_depth: Count = 8
    expand_ratio: PositiveNumber = 6.0
    first_layer_is_expansion: Bool = True
    finegrained_output: Bool = True
    tf_padding: Bool = True
    stage_depths: SevenCounts = field(default=(1, 2, 3, 4, 3, 3, 1), metadata=EXTENSION)
    stem_channels: OptionalCount = field(default=None, metadata=EXTENSION)
    head_channels: OptionalCount = field(default=None, metadata=EXTENSION)

    def scaled(self, channels: int) -> int:
        """Channels of a layer that the paper gives ``channels``."""
        return self._divisible(channels * self.depth_multiplier)

    def expanded(self, channels: int) -> int:
        """Channels inside an inverted residual block whose input has ``channels``."""
        return self._divisible(channels * self.expand_ratio)

    def _divisible(self, channels: float) -> int:
        return make_divisible(round(channels), self.depth_divisible_by, self.min_depth)

    @property
    def stem_dim(self) -> int:
        """Channels of the stem convolution."""
        return self.scaled(32) if self.stem_channels is None else self.stem_channels

    @property
    def output_dim(self) -> int:
        """Channels of the last 1x1 convolution."""
        if self.head_channels is not None:
            return self.head_channels
        if self.finegrained_output and self.depth_multiplier < 1.0:
            return 1280
        return self.scaled(1280)


AnyMobileViTConfig = MobileViTConfig | MobileViTV2Config

CONFIG_CLASSES: dict[str, type[ModelConfig]] = {
    cls.model_type: cls for cls in (MobileViTConfig, MobileViTV2Config, MobileNetV2Config)
}

_FOREIGN_FIELDS = frozenset(
    spec.name for cls in CONFIG_CLASSES.values() for spec in dataclasses.fields(cls)
)

_TASK_SUFFIXES: dict[Task, str] = {
    "backbone": "Model",
    "image-classification": "ForImageClassification",
    "semantic-segmentation": "ForSemanticSegmentation",
}


def architecture_name(config: ModelConfig, task: Task) -> str:
    """Return the class name that transformers gives this family and task."""
    return config.architecture_prefix + _TASK_SUFFIXES[task]


def read_config(data: Mapping[str, Any]) -> tuple[ModelConfig, Task]:
    """Read a Hugging Face configuration and the task its ``architectures`` names.

    Args:
        data: the content of a ``config.json``.

    Raises:
        ConfigError: unsupported ``model_type`` or architecture, bad field.
    """
    model_type = data.get("model_type")
    if not isinstance(model_type, str) or model_type not in CONFIG_CLASSES:
        raise ConfigError(
            f"config: model_type {model_type!r} is not supported; "
            f"supported are {', '.join(CONFIG_CLASSES)}"
        )
    config = CONFIG_CLASSES[model_type].from_dict(data)
    architectures = data.get("architectures") or [architecture_name(config, "backbone")]
    if not isinstance(architectures, list | tuple):
        raise ConfigError(f"config: architectures is {architectures!r}; it must be a list of names")
    for task in _TASK_SUFFIXES:
        if architecture_name(config, task) in architectures:
            return config, task
    supported = ", ".join(architecture_name(config, task) for task in _TASK_SUFFIXES)
    raise ConfigError(
        f"config: architecture {architectures[0]!r} is not supported; supported are {supported}"
    )


def make_divisible(value: float, divisor: int = 8, min_value: int | None = None) -> int:
    """Round a channel count to a multiple of ``divisor``, losing at most a tenth of it.

    Source: ``_make_divisible`` of the MobileNet reference implementation (tensorflow/models,
    ``research/slim/nets/mobilenet``), which all three families inherit.
    """
    rounded = max(min_value or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _as_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def names_by_index(names: object, where: str) -> dict[int, str]:
    """Read class names by class index, and sort them by it.

    Raises:
        ConfigError: no mapping, an index that is no whole number, or one that is left out.
    """
    if not isinstance(names, Mapping):
        raise ConfigError(f"{where} is {names!r}; it must map class indices to names")
    try:
        read = {int(index): str(name) for index, name in names.items()}
    except (TypeError, ValueError):
        raise ConfigError(f"{where}: class indices must be whole numbers from 0") from None
    for index in range(len(read)):
        if index not in read:
            raise ConfigError(f"{where}: no name for class {index} of {len(read)}")
    return dict(sorted(read.items()))
