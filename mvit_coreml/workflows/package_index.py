"""``index.json`` of a folder of built packages, and digests that tell which are up to date."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mvit_coreml.checkpoints.sources import Source, open_source
from mvit_coreml.errors import InputError, MvitCoremlError
from mvit_coreml.export.metadata import versions
from mvit_coreml.files import file_sha256, json_text, parse_json, write_atomically
from mvit_coreml.preprocessing.image_loading import is_image_name
from mvit_coreml.workflows.recipe_file import Recipe

INDEX_NAME = "index.json"
FORMAT = 1
# Files of a local checkpoint that may enter a package.
_CHECKPOINT_SUFFIXES = frozenset((".json", ".safetensors", ".bin"))
_PROCESSOR_FILES = ("preprocessor_config.json", "config.json")


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bound of a package and what was measured.

    Attributes:
        name: a gate of ``validate``, or a tolerance of the recipe.
        value: what was measured; ``None`` where it was no finite number.
        bound: the least that it may be; for ``structure`` and ``max_size_mb`` the most.
        passed: whether it holds.
    """

    name: str
    value: float | None
    bound: float
    passed: bool


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """What a recipe led to.

    Attributes:
        name: of the recipe.
        source: name of the checkpoint: a hub id, or the folder's or file's own name.
        passed: whether every check holds.
        path: of the package, relative to the index; ``None`` if it was not written.
        plan: of the file that says how its weights were palettized, likewise.
        report: of its report, likewise.
        message: why there is no package, or an older one.
        license_note: of the recipe.
        revision: commit of a hub checkpoint.
        inputs_sha256: of everything that the package depends on.
        weights_sha256: of the checkpoint's weight files.
        package_sha256: of the package's files.
        versions: of the libraries that made it.
        task: what the model is for.
        size: sum of the sizes of its files, in bytes.
        functions: function name to its input's (height, width) in pixels.
        outputs: name, type and shape of what it answers.
        options: as they were carried out.
        snr: signal-to-noise ratio of its scores against PyTorch, in dB.
        agreement: parts of the images on which it agrees with PyTorch.
        images: number of images that this was measured on.
        synthetic: whether they were synthetic pictures.
        checks: the bounds and whether they hold.
        notes: sentences about what was assumed or changed.
        seconds: that loading, converting and measuring took.
    """

    name: str
    source: str
    passed: bool
    path: str | None = None
    plan: str | None = None
    report: str | None = None
    message: str | None = None
    license_note: str | None = None
    revision: str | None = None
    inputs_sha256: str | None = None
    weights_sha256: str | None = None
    package_sha256: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    task: str | None = None
    size: int | None = None
    functions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    outputs: tuple[Mapping[str, Any], ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    snr: float | None = None
    agreement: Mapping[str, float] = field(default_factory=dict)
    images: int | None = None
    synthetic: bool | None = None
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float | None = None


class PackageIndex:
    """The entries of a folder's index by name.

    Args:
        folder: that holds the packages; an index that is already there is read.

    Raises:
        InputError: there is an ``index.json`` that this program did not write.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / INDEX_NAME
        self.entries = self._read()

    def put(self, entry: IndexEntry) -> None:
        """Add an entry or replace the one of its name, and write the index, all or nothing.

        Entries whose packages are gone are left out.

        Raises:
            MvitCoremlError: the index cannot be written.
        """
        entries = self.entries | {entry.name: entry}
        folder = self.path.parent
        self.entries = {
            name: entries[name]
            for name in sorted(entries)
            if name == entry.name or (folder / (entries[name].path or "")).is_dir()
        }
        text = json_text({"format": FORMAT, "packages": list(self.entries.values())})
        try:
            write_atomically(self.path, text.encode())
        except OSError as error:
            raise MvitCoremlError(
                f"{self.path}: cannot be written: {error.strerror or error}; choose another folder"
            ) from None

    def _read(self) -> dict[str, IndexEntry]:
        try:
            data = parse_json(self.path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError("unknown format")
            entries = TypeAdapter(list[IndexEntry]).validate_python(data["packages"])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError):  # pydantic's is a ValueError
            raise InputError(
                f"{self.path}: is no index that this version of mvit-coreml wrote; "
                "move it away, or choose another folder"
            ) from None
        return {entry.name: entry for entry in entries}


def tree_sha256(folder: Path) -> str:
    """Return the SHA-256, in hexadecimal, of the paths and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        line = f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n"
        digest.update(line.encode())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class RecipeInputs:
    """What a recipe's package is made from.

    Attributes:
        sha256: of all of it, in hexadecimal.
        revision: commit of a hub checkpoint, ``None`` of a local one.
    """

    sha256: str
    revision: str | None


def files_sha256(files: Sequence[Path]) -> str:
    """Return the SHA-256, in hexadecimal, of the contents of files and their order.

    Raises:
        InputError: one cannot be read.
    """
    return hashlib.sha256("".join(map(file_sha256, files)).encode()).hexdigest()


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
    # A plan, and labelled images.
    options |= {
        name: _with_images(value) for name, value in options.items() if isinstance(value, Path)
    }
    inputs = {
        "source": place.name,
        # A commit stands for all of its files.
        "files": place.revision or _local_files(Path(recipe.source).expanduser(), place),
        "labels": None if recipe.labels is None else file_sha256(recipe.labels),
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
    return {file.name: file_sha256(file) for file in files}


def _processor(name: str | Path | None, hub: dict[str, Any]) -> str | None:
    if name is None or Path(name).is_file():
        return None if name is None else file_sha256(Path(name))
    place = open_source(name, **hub)
    file = next(filter(None, map(place.fetch, _PROCESSOR_FILES)), None)
    return None if file is None else file_sha256(file)


def _with_images(path: Path) -> str:
    """Return the digest of a folder, or of a file and the files that its cells name."""
    if path.is_dir():
        return tree_sha256(path)
    files = [path]
    if path.suffix.lower() == ".csv":
        with path.open(encoding="utf-8", errors="replace", newline="") as stream:
            cells = {cell for row in csv.reader(stream) for cell in row}
        images = [path.parent / cell for cell in sorted(cells) if is_image_name(cell)]
        files += filter(Path.is_file, images)
    return files_sha256(files)
