"""What a model returns: named fields that also work as a tuple, like transformers' outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass
class ModelOutput:
    """Fields by attribute, by name (``out["logits"]``) or by position among those that are set."""

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the fields that are set, in order of declaration."""
        values = (getattr(self, spec.name) for spec in dataclasses.fields(self))
        return tuple(value for value in values if value is not None)

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
class ImageClassifierOutput(ModelOutput):
    """Scores of an image classifier.

    Attributes:
        loss: scalar, when labels were given.
        logits: (B, num_labels) scores before softmax.
        hidden_states: see :class:`BackboneOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


@dataclass
class SemanticSegmenterOutput(ModelOutput):
    """Scores of a semantic segmenter.

    Attributes:
        loss: scalar, when labels were given.
        logits: (B, num_labels, H / output_stride, W / output_stride) scores before softmax.
        hidden_states: see :class:`BackboneOutput`.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
