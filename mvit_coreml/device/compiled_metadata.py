"""``metadata.json`` of a compiled model (``.mlmodelc``): what the compiler says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvit_coreml.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CompiledMetadata:
    """What a compiled model says of itself.

    Attributes:
        path: of the file.
        facts: its plain values, by their own names; absent where it does not say them.
        operations: type of operation to how often the compiled program has it.
        inputs: name to type.
        outputs: likewise.
    """

    path: Path
    facts: Mapping[str, str]
    operations: Mapping[str, int]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def read_compiled_metadata(path: str | Path) -> CompiledMetadata:
    """Read the metadata of a compiled model.

    The file is an array of one object. Nothing in it is required: what is absent is left out.

    Args:
        path: ``metadata.json``, or the ``.mlmodelc`` folder that holds it.

    Raises:
        InputError: it cannot be read or is no such file.
    """
    file = Path(path)
    file = file / "metadata.json" if file.is_dir() else file
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{file}: is no JSON; compile the model again") from None
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise InputError(f"{file}: is no metadata of a compiled model: an array of one object")
    return CompiledMetadata(
        path=file,
        facts=_facts(content),
        operations=_histogram(file, content.get("mlProgramOperationTypeHistogram") or {}),
        inputs=_schema(content.get("inputSchema")),
        outputs=_schema(content.get("outputSchema")),
    )


def _facts(content: Mapping[str, Any]) -> dict[str, str]:
    plain = {name: value for name, value in content.items() if isinstance(value, str | int | float)}
    facts = {name: str(value) for name, value in sorted(plain.items()) if value != ""}
    availability = content.get("availability")
    if isinstance(availability, dict):
        facts["availability"] = ", ".join(f"{k} {v}" for k, v in sorted(availability.items()))
    return facts


def _histogram(file: Path, counts: Any) -> dict[str, int]:
    """Return counts by type, as programs spell it: ``Ios16.constexprLutToDense`` has a version."""
    if not isinstance(counts, dict) or not all(isinstance(n, int) for n in counts.values()):
        message = "mlProgramOperationTypeHistogram must hold a number for each type"
        raise InputError(f"{file}: {message}")
    counted: dict[str, int] = {}
    for name, n in counts.items():
        op_type = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
        counted[op_type] = counted.get(op_type, 0) + n
    return dict(sorted(counted.items(), key=lambda pair: (-pair[1], pair[0])))


def _schema(entries: Any) -> dict[str, str]:
    if not isinstance(entries, list):
        return {}
    return {
        str(entry.get("name", "")): str(entry.get("formattedType") or entry.get("type", ""))
        for entry in entries
        if isinstance(entry, dict)
    }
