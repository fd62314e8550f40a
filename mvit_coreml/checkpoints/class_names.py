"""Class names: a checkpoint's own, those of a file, or those of a well-known data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from mvit_coreml.errors import CheckpointError, ConfigError
from mvit_coreml.files import parse_json
from mvit_coreml.models.config import Task, names_by_index

# A file of names, names in order, or names by index.
LabelSource = str | Path | Sequence[str] | Mapping[int, str]

_UNNAMED = "LABEL_"


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return the 1000 names of ImageNet-1k, as the Hugging Face configurations spell them."""
    return _bundled("imagenet1k.txt")


@cache
def voc_names() -> tuple[str, ...]:
    """Return the 21 names of PASCAL VOC, the background first."""
    return _bundled("voc.txt")


def _bundled(name: str) -> tuple[str, ...]:
    text = resources.files("mvit_coreml.checkpoints").joinpath("labels", name)
    return tuple(text.read_text(encoding="utf-8").splitlines())


def read_names(file: str | Path) -> tuple[str, ...]:
    """Read class names from a text file with one a line, or from JSON, in class order.

    Raises:
        CheckpointError: unreadable names, or gaps between them.
    """
    names = _read_names(Path(file))
    return tuple(_given_names(names, len(names)).values())


def assumed_names(task: Task, count: int) -> tuple[tuple[str, ...], str] | None:
    """Return the names that a model with so many classes has by custom, and a note about that."""
    known = _known_names(task, count)
    if known is None:
        return None
    data_set, names = known
    return names, (
        f"as there are {count} classes without names, those of {data_set} were assumed; --labels"
        " gives others"
    )


def resolve_labels(
    own: Mapping[int, str], task: Task, labels: LabelSource | None
) -> tuple[dict[int, str], str | None]:
    """Decide on the names of a checkpoint's classes.

    Args:
        own: the checkpoint's names, ``LABEL_i`` where it has none.
        task: what the model is for.
        labels: names to use instead, or a file of them.

    Returns:
        Class index to name, and a sentence about what was assumed, if anything was.

    Raises:
        CheckpointError: unreadable names, or not as many as there are classes.
    """
    count = len(own)
    if labels is not None:
        return _given_names(labels, count), None
    if task == "backbone" or any(not name.startswith(_UNNAMED) for name in own.values()):
        return dict(own), None
    known = _known_names(task, count)
    if known is None:
        return dict(own), f"The checkpoint names none of its {count} classes; --labels does."
    data_set, names = known
    note = (
        f"The checkpoint does not name its classes: as there are {count}, the names of {data_set} "
        "were assumed; --labels gives others."
    )
    return dict(enumerate(names)), note


def _known_names(task: Task, count: int) -> tuple[str, tuple[str, ...]] | None:
    if task == "semantic-segmentation":
        return ("PASCAL VOC", voc_names()) if count == 21 else None
    if count == 1000:
        return "ImageNet-1k", imagenet_names()
    if count == 1001:
        return "ImageNet-1k after a background class", ("background", *imagenet_names())
    return None


def _given_names(labels: LabelSource, count: int) -> dict[int, str]:
    where = "labels"
    if isinstance(labels, str | Path):
        where, labels = str(labels), _read_names(Path(labels))
    named = labels if isinstance(labels, Mapping) else dict(enumerate(labels))
    try:
        by_index = names_by_index(named, where)
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if len(by_index) != count:
        raise CheckpointError(
            f"{where}: {len(by_index)} class names for a model of {count} classes"
        )
    return by_index


def _read_names(path: Path) -> Sequence[str] | Mapping[int, str]:
    try:
        text = path.expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text in UTF-8"
        raise CheckpointError(f"{path}: class names cannot be read: {reason}") from None
    if path.suffix.lower() != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = parse_json(text)
    except ValueError as error:
        raise CheckpointError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(names, list | dict):
        raise CheckpointError(f"{path}: must hold a list of names, or names by class index")
    return names
