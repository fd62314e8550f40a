"""A cache on disk for results that are the same every time, such as the lookup tables of k-means.

The cache saves time and nothing else: whatever is wrong with it, the result is computed anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.files import write_atomically

# Names the folder to use instead of the user's cache folder; empty turns the cache off.
FOLDER_VARIABLE = "MVIT_COREML_CACHE"

DEFAULT_LIMIT = 256 * 10**6

_SUFFIX = ".cached"
_DIGEST_SIZE = hashlib.sha256().digest_size

KeyPart = str | int | float | None | NDArray[Any]


def cache_folder() -> Path | None:
    """Return the folder for cached results, None if the user wants none.

    It is that of ``MVIT_COREML_CACHE``, or else ``mvit-coreml`` where the system keeps caches:
    ``~/Library/Caches`` on a Mac, ``%LOCALAPPDATA%`` on Windows, ``XDG_CACHE_HOME`` or ``~/.cache``
    elsewhere.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("mvit-coreml", appauthor=False, opinion=False)
    except RuntimeError:  # a user without a home, whom older versions give a relative path
        return None
    return folder if folder.is_absolute() else None


def cache_key(kind: str, version: int, *parts: KeyPart) -> str:
    """Return the key of a result: a digest of everything that it depends on.

    Args:
        kind: of result.
        version: of the algorithm; raise it when results change.
        parts: what it was computed from, in a fixed order.
    """
    digest = hashlib.sha256()
    for part in (kind, version, *parts):
        if isinstance(part, np.ndarray):
            content = np.ascontiguousarray(part)
            head = f"array {content.dtype.str} {content.shape}"
            data = content.view(np.uint8).data if content.size else b""
        else:
            head, data = f"{type(part).__name__} {part!r}", b""
        # With its length before it, no part can be mistaken for a piece of another.
        digest.update(f"{len(head)} {head} ".encode())
        digest.update(data)
    return digest.hexdigest()


class Cache:
    """Arrays by key, in a folder of bounded size.

    Several processes may share it: entries appear whole or not at all.

    Args:
        folder: that holds the entries; None keeps nothing.
        limit: bytes; the entries not used for longest go when they are more.
    """

    def __init__(self, folder: Path | None, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = folder
        self.limit = limit

    def load(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of an entry; None if there is none, or it is damaged."""
        if self.folder is None:
            return None
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        content = stored[_DIGEST_SIZE:]
        if hashlib.sha256(content).digest() != stored[:_DIGEST_SIZE]:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of the last use
        from safetensors.numpy import load

        return dict(load(content))

    def store(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays under a key, if that is possible."""
        if self.folder is None:
            return
        from safetensors.numpy import save

        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        path = self.folder / f"{key}{_SUFFIX}"
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(content).digest() + content)

    def trim(self) -> None:
        """Remove the entries not used for longest until the rest is within the limit."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError):
            entries = sorted(
                ((path.stat(), path) for path in self.folder.glob(f"*{_SUFFIX}")),
                key=lambda entry: (entry[0].st_mtime_ns, entry[1].name),
            )
            excess = sum(status.st_size for status, _ in entries) - self.limit
            for status, path in entries:
                if excess <= 0:
                    break
                path.unlink(missing_ok=True)
                excess -= status.st_size


def default_cache() -> Cache:
    """Return the cache in the user's folder, see :func:`cache_folder`."""
    folder = cache_folder()
    return Cache(None if folder is None else folder / "palettes")
