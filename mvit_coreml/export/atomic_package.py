"""Writing packages: all or nothing, and the same bytes every time."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mvit_coreml.errors import InputError, MvitCoremlError
from mvit_coreml.files import file_sha256

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SUFFIX = ".mlpackage"
# In a staging folder; locked while its process lives.
_LOCK = ".lock"
_MODEL_PATH = Path("Data/com.apple.CoreML/model.mlmodel")
_WEIGHTS_PATH = Path("Data/com.apple.CoreML/weights")
# Identifiers in the manifest are drawn from the content, in a namespace of this project's own.
_NAMESPACE = uuid.UUID("b1d86c1e-6c59-5d4a-9f0e-6f1c7f3c1f53")


def check_destination(path: Path, force: bool) -> None:
    """Refuse a destination that cannot become a package, before any work is done.

    Raises:
        InputError: wrong suffix, missing or unwritable folder, or an existing path without
            ``force``.
    """
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a package's name must end in {SUFFIX}")
    check_place(path, force, "Manifest.json", "is no package")


def check_place(path: Path, force: bool, known_by: str, otherwise: str) -> None:
    """Refuse a place where no folder can be put, before any work is done.

    Args:
        path: of the folder.
        force: an older folder of its kind may be replaced.
        known_by: a file that every folder of its kind holds.
        otherwise: what messages say of a folder without it.

    Raises:
        InputError: missing or unwritable parent, or an existing path without ``force``.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} is not writable; choose another")
    if path.exists() or path.is_symlink():
        if not force:
            raise InputError(f"{path}: exists already; use --force to replace it")
        if not (path / known_by).is_file():
            raise InputError(f"{path}: exists and {otherwise}; it is not replaced")


@contextlib.contextmanager
def staging_folder(destination: Path) -> Iterator[Path]:
    """Yield a folder beside ``destination`` that is gone afterwards, whatever happens.

    What the system refuses, such as a full disk, becomes one clear error. Folders that processes
    left when they were killed go too.
    """
    try:
        prefix = f".{destination.name}."
        _remove_abandoned(destination.parent, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
        try:
            with _held(folder):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        message = f"{destination}: cannot be written: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            temporary = tempfile.gettempdir()
            message += (
                f"; free some space there and in {temporary}, or choose another place with -o"
            )
        elif error.filename is not None:
            message += f" ({error.filename})"
        raise MvitCoremlError(message) from None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a staging folder; however its process ends, the system takes the lock off."""
    # The name comes with the lock, so that nobody finds one that is not locked yet.
    new = folder / f"{_LOCK}.new"
    with new.open("wb") as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
            new.rename(folder / _LOCK)
        yield


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the staging folders that no process holds."""
    for folder in [entry for entry in parent.iterdir() if entry.name.startswith(prefix)]:
        try:
            with (folder / _LOCK).open("rb") as lock:
                if fcntl is None:
                    continue
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # Held, or no staging folder.
            continue


def finish_package(raw: Path, spec: Any) -> None:
    """Turn a package as coremltools writes it into a reproducible one, in place.

    Args:
        raw: the package.
        spec: the specification to store instead of its own.
    """
    model = raw / _MODEL_PATH
    # coremltools copies this file and the next folder with the permissions of temporary ones, for
    # the owner alone; new ones get those that the user's other files have.
    model.unlink()
    # Maps have no order of their own in a protobuf; deterministic serialisation sorts them.
    model.write_bytes(spec.SerializeToString(deterministic=True))
    weights = raw / _WEIGHTS_PATH
    items = [("model.mlmodel", "CoreML Model Specification", model)]
    if weights.is_dir():
        shutil.copymode(weights.parent, weights)
        items.append(("weights", "CoreML Model Weights", weights / "weight.bin"))
    entries, root = {}, ""
    for name, description, file in items:
        identifier = str(uuid.uuid5(_NAMESPACE, f"{name} {file_sha256(file)}")).upper()
        root = root or identifier
        entries[identifier] = {
            "author": "com.apple.CoreML",
            "description": description,
            "name": name,
            "path": f"com.apple.CoreML/{name}",
        }
    manifest = {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": dict(sorted(entries.items())),
        "rootModelIdentifier": root,
    }
    (raw / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")


def publish(package: Path, destination: Path, *, replace: bool = True) -> None:
    """Put a finished package in its place in one step; what was there before goes.

    Args:
        package: on the same file system as ``destination``.
        destination: absent, or an older package.
        replace: an older package may be replaced.

    Raises:
        InputError: one has come there since, and may not be replaced.
    """
    if not replace or not destination.exists():
        try:
            # Of folders the system replaces none that holds something.
            package.rename(destination)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise InputError(
                f"{destination}: another process has put something there meanwhile; use --force "
                "to replace it"
            ) from None
    elif not _exchange(package, destination):
        # No atomic exchange here: move the old one aside, and back if the new one cannot follow.
        aside = package.with_name("replaced" + SUFFIX)
        destination.rename(aside)
        try:
            package.rename(destination)
        except BaseException:
            aside.rename(destination)
            raise


def publish_with(
    files: Mapping[Path, Path | None], package: Path, destination: Path, *, replace: bool = True
) -> None:
    """Put a finished package and files that go with it in their places: all of them or none.

    The package comes last: where it lies, the rest does. If something fails, all is as it was.

    Args:
        files: place to the file that comes there; ``None`` takes away what is there.
        package: on the same file system as ``destination``, as the files are.
        destination: absent, or an older package.
        replace: an older package may be replaced.

    Raises:
        InputError: one has come there since, and may not be replaced.
    """
    # A file that was not there has no backup.
    backups: dict[Path, Path | None] = {}
    try:
        for place, file in files.items():
            backups[place] = None
            if place.exists():
                backup = package.with_name(f"old {place.name}")
                shutil.copy2(place, backup)
                backups[place] = backup
            if file is not None:
                file.replace(place)
            elif place.exists():
                place.unlink()
        publish(package, destination, replace=replace)
    except BaseException:
        for place, old in backups.items():
            if old is not None:
                old.replace(place)
            else:
                place.unlink(missing_ok=True)
        raise


def package_size(package: Path) -> int:
    """Return the sum of the sizes of a package's files, in bytes."""
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders atomically where the system can; return whether it did."""
    libc = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        swap = getattr(libc, "renamex_np", None)
        return swap is not None and swap(*names, 0x2) == 0  # RENAME_SWAP
    swap = getattr(libc, "renameat2", None)
    at_fdcwd, rename_exchange = -100, 0x2
    return swap is not None and swap(at_fdcwd, names[0], at_fdcwd, names[1], rename_exchange) == 0
