"""Writing files: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from mvit_coreml.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there; one that is there is replaced.

    Args:
        path: in an existing folder.
        content: of the whole file.

    Raises:
        OSError: it cannot be written; nothing has changed then.
    """
    # Not by tempfile, whose files are for their owner alone.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes) -> None:
    """Write a file that a user named, whole or not at all.

    Raises:
        InputError: it cannot be written; nothing has changed then.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
