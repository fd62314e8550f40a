"""Writing files whole or not at all, what JSON can hold, and checking TOML that a user wrote."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel

TableT = TypeVar("TableT", bound="BaseModel")


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


def file_sha256(*paths: Path) -> str:
    """Return the SHA-256, in hexadecimal, of files' bytes, one after the other.

    Raises:
        InputError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write a file that a user named, whole or not at all.

    Raises:
        InputError: it cannot be written; nothing has changed then.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; choose another place"
        ) from None


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


def json_text(value: Any, *, whole_paths: bool = False) -> str:
    """Return :func:`json_value` of something as the text of a JSON file."""
    document = json_value(value, whole_paths=whole_paths)
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def parse_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is no JSON, or nested deeper than anything that people write.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits are a ValueError too.
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise InputError(f"{path}: not valid TOML: {reason}") from None


def check_table(
    table: type[TableT],
    content: Mapping[str, Any],
    error: Callable[[tuple[str, ...], str], InputError],
    *place: str,
) -> TableT:
    """Check the values of a table that a user wrote.

    Args:
        table: its keys, whose descriptions are what messages say that a value must be.
        content: what was written.
        error: makes the error from the key that is wrong, after ``place``, and what is wrong.
        place: keys that the table lies behind.

    Raises:
        InputError: a key is unknown or missing, or its value is of another kind.
    """
    from pydantic import ValidationError

    try:
        return table.model_validate(content)
    except ValidationError as invalid:
        keys = [str(fault["loc"][0]) for fault in invalid.errors()]
    # What is missing may be what an unknown key was meant to be.
    key = next((key for key in keys if key in content), keys[0])
    expected = table.model_fields[key].description if key in table.model_fields else None
    if expected is None:
        close = difflib.get_close_matches(key, table.model_fields, 1)
        meant = f", did you mean {close[0]!r}?" if close else ";"
        message = f"unknown key {key!r}{meant} the keys are {', '.join(table.model_fields)}"
    elif key in content:
        message = f"{'.'.join((*place, key))} must be {expected}, not {content[key]!r}"
    else:
        message = f"{key} is missing: {expected}"
    raise error((*place, key), message)
