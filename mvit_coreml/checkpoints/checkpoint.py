"""A trained model as data: what every weight format is turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from mvit_coreml.errors import CheckpointError, ConfigError
from mvit_coreml.models.base import save_pretrained
from mvit_coreml.models.config import ModelConfig, Task
from mvit_coreml.preprocessing.image_processor import ImageProcessor

Format = Literal["huggingface", "timm", "cvnets"]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a checkpoint came from; holds no path of the machine it was read on.

    Attributes:
        name: the hub id, or the folder's or file's own name.
        format: library whose conventions the weights followed.
        revision: the hub commit, if it came from the hub.
        sha256: SHA-256 of the weight files' bytes, one after the other, in hexadecimal.
        files: names of the weight files.
    """

    name: str
    format: Format
    revision: str | None
    sha256: str
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Everything that a model is built from and an image is prepared with.

    Attributes:
        config: the model's configuration, class names included.
        task: what the model is for.
        weights: parameter and buffer names, which are Hugging Face's, to float32 tensors.
        image_processor: turns images into the model's input.
        provenance: where it came from.
        notes: a sentence for everything that the source did not say and was assumed.
    """

    config: ModelConfig
    task: Task
    weights: Mapping[str, Tensor]
    image_processor: ImageProcessor
    provenance: Provenance
    notes: tuple[str, ...] = ()

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels of the images that it was trained on."""
        return self.image_processor.input_size or self.config.image_hw

    @property
    def family(self) -> str:
        """``mobilevit``, ``mobilevitv2`` or ``mobilenet_v2``."""
        return self.config.model_type

    @property
    def id2label(self) -> Mapping[int, str]:
        """Class index to class name."""
        return self.config.id2label

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the checkpoint as transformers reads it.

        See :func:`~mvit_coreml.models.base.save_pretrained`; a ``preprocessor_config.json`` is
        written as well.

        Raises:
            CheckpointError: transformers cannot express the model, or the folder cannot be written.
        """
        try:
            save_pretrained(
                folder, self.config, self.task, self.weights, self.image_processor.to_dict()
            )
        except ConfigError as error:
            raise CheckpointError(f"{self.provenance.name}: {error}") from None
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be written: {error.strerror}") from None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a format makes of a file, before its weights are checked against the model.

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
