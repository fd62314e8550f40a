"""Writing files whole or not at all, what JSON can hold, and reading TOML that a user wrote."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

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


def json_value(value: Any, *, whole_paths: bool = False) -> Any:
    """Return dataclasses, mappings and NumPy's numbers as JSON values.

    A number that JSON does not have is ``None``.

    Args:
        value: what is to be written.
        whole_paths: keep paths as they are; of a file that goes elsewhere they are their last part,
            as where a file lies on this machine is nobody's business.
    """
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "tolist"):  # an array, or one of its numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): json_value(item, whole_paths=whole_paths) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, whole_paths=whole_paths) for item in value]
    if isinstance(value, Path):
        return str(value) if whole_paths else value.name
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_toml(path: Path, kind: str) -> tuple[str, dict[str, Any]]:
    """Read a TOML file that a user named.

    Args:
        path: the file.
        kind: what it should be, in one word for messages: ``plan``, ``recipe``.

    Returns:
        Its text, to find lines in, and its content.

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot read the {kind}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: no {kind}: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from None
