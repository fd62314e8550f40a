"""Everything that a recipe's package depends on, as one checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.sources import Source, open_source
from mvit_coreml.errors import InputError
from mvit_coreml.workflows.recipes.package_index import file_sha256
from mvit_coreml.workflows.recipes.recipe_file import Recipe

# Files of a local checkpoint that may enter a package.
_CHECKPOINT_SUFFIXES = frozenset((".json", ".safetensors", ".bin"))
_PROCESSOR_FILES = ("preprocessor_config.json", "config.json")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipeInputs:
    """What a recipe's package is made from.

    Attributes:
        sha256: of all of it, in hexadecimal.
        revision: commit of a hub checkpoint, ``None`` of a local one.
    """

    sha256: str
    revision: str | None


def versions() -> dict[str, str]:
    """Return the versions of the libraries that a package depends on."""
    return {name: version(name) for name in ("mvit-coreml", "coremltools", "torch")}


def image_digest(images: Sequence[Path]) -> str:
    """Return the SHA-256, in hexadecimal, of photos and their order.

    Raises:
        InputError: one cannot be read.
    """
    return hashlib.sha256("".join(map(_file, images)).encode()).hexdigest()


def recipe_inputs(recipe: Recipe, images_sha256: str | None, **hub: Any) -> RecipeInputs:
    """Find out what a recipe's package depends on, without reading weights from the hub.

    Args:
        recipe: the recipe.
        images_sha256: of the photos it is measured on, ``None`` for synthetic pictures.
        hub: ``token``, ``cache_dir`` and ``local_files_only`` of
            :func:`~mvit_coreml.load_checkpoint`.

    Raises:
        CheckpointError: the checkpoint is missing, or the hub cannot be reached.
        InputError: a file that the recipe names is missing.
    """
    place = open_source(recipe.source, revision=recipe.revision, **hub)
    options = dataclasses.asdict(recipe.options)
    if recipe.options.plan is not None:
        options["plan"] = _file(recipe.options.plan)
    inputs = {
        "source": place.name,
        # A commit stands for all of its files.
        "files": place.revision or _local_files(Path(recipe.source).expanduser(), place),
        "labels": None if recipe.labels is None else _file(recipe.labels),
        "image_processor": _processor(recipe.image_processor, hub),
        "output_stride": recipe.output_stride,
        "options": options,
        "tolerances": dataclasses.asdict(recipe.tolerances),
        "license_note": recipe.license_note,
        "images": images_sha256,
        "versions": versions(),
    }
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return RecipeInputs(sha256=hashlib.sha256(text.encode()).hexdigest(), revision=place.revision)


def _local_files(source: Path, place: Source) -> dict[str, str]:
    if place.weight_file is not None:
        beside = [source, *(source.with_name(name) for name in _PROCESSOR_FILES)]
        files = [file for file in beside if file.is_file()]
    else:
        files = [file for file in source.iterdir() if file.suffix in _CHECKPOINT_SUFFIXES]
    return {file.name: _file(file) for file in files}


def _processor(name: str | Path | None, hub: dict[str, Any]) -> str | None:
    if name is None or Path(name).is_file():
        return None if name is None else _file(Path(name))
    place = open_source(name, **hub)
    found = next(filter(None, map(place.fetch, _PROCESSOR_FILES)), None)
    return None if found is None else _file(found)


def _file(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
