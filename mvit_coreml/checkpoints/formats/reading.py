"""What a format module makes of a file, before it is checked against the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from mvit_coreml.models.config import ModelConfig, Task
from mvit_coreml.preprocessing.image_processor import ImageProcessor


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Weights under our names with the configuration they were found to have.

    Attributes:
        config: the configuration, its labels still those of the file or ``LABEL_i``.
        task: what the model is for.
        weights: our name to tensor, in the file's floating-point type.
        origins: our name to the file's, for messages.
        image_processor: preprocessing that the format itself names or implies, if any.
        notes: sentences about what had to be assumed.
    """

    config: ModelConfig
    task: Task
    weights: Mapping[str, Tensor]
    origins: Mapping[str, str]
    image_processor: ImageProcessor | None = None
    notes: tuple[str, ...] = ()
