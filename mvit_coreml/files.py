"""Writing files: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


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
