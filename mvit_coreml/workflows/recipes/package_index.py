"""The index of a folder of built packages: ``index.json``, for programs to read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvit_coreml.errors import InputError, MvitCoremlError
from mvit_coreml.files import write_atomically

INDEX_NAME = "index.json"
FORMAT = 1


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
            if name == entry.name or self._stands(entries[name], folder)
        }
        packages = [dataclasses.asdict(entry) for entry in self.entries.values()]
        text = json.dumps({"format": FORMAT, "packages": packages}, indent=2, ensure_ascii=False)
        try:
            write_atomically(self.path, f"{text}\n".encode())
        except OSError as error:
            raise MvitCoremlError(
                f"{self.path}: cannot be written: {error.strerror or error}; choose another folder"
            ) from None

    @staticmethod
    def _stands(entry: IndexEntry, folder: Path) -> bool:
        return entry.path is None or (folder / entry.path).is_dir()

    def _read(self) -> dict[str, IndexEntry]:
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ValueError("unknown format")
            entries = [_entry(fields) for fields in data["packages"]]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise InputError(
                f"{self.path}: is no index that this version of mvit-coreml wrote; "
                "move it away, or choose another folder"
            ) from None
        return {entry.name: entry for entry in entries}


def _entry(fields: dict[str, Any]) -> IndexEntry:
    """Return the entry that was written as ``fields``; any other error means that none was."""
    read = fields | {
        "checks": tuple(Check(**check) for check in fields["checks"]),
        "functions": {name: (size[0], size[1]) for name, size in fields["functions"].items()},
        "outputs": tuple(fields["outputs"]),
        "notes": tuple(fields["notes"]),
    }
    return IndexEntry(**read)


def tree_sha256(folder: Path) -> str:
    """Return the SHA-256, in hexadecimal, of the paths and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        line = f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
