"""Results as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mvit_coreml.validation.pytorch_comparison import ParityReport
    from mvit_coreml.workflows.convert import ConvertedPackage
    from mvit_coreml.workflows.package_options import PaletteOptions
    from mvit_coreml.workflows.palettize import PalettizedPackage


def echo_json(document: Any) -> None:
    """Print one JSON document; numbers that JSON does not have become null."""
    click.echo(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def table(rows: Sequence[Sequence[str]], indent: int = 0, right: Sequence[int] = ()) -> str:
    """Lay rows out in columns of equal width.

    Args:
        rows: equally long rows of cells.
        indent: spaces before every row.
        right: columns, counted from 0, to align at the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def shorten(text: str, length: int) -> str:
    """Return a text, its end cut off where it is longer than ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def shape_in_words(shape: Sequence[int]) -> str:
    """Return a shape such as ``1x3x256x256``."""
    return "x".join(map(str, shape))


def palettes_in_words(options: PaletteOptions) -> str:
    """Say in a summary which palettes were made."""
    if options.bits == "auto":
        return "palettes of mixed bits"
    if options.plan is not None:
        return "palettes of a plan"
    if options.bits is not None:
        return f"{options.bits}-bit palettes"
    return "weights not palettized"


def outcome_rows(
    package: ConvertedPackage | PalettizedPackage, original: str = "the checkpoint"
) -> Iterator[tuple[str, str]]:
    """Yield the end of a summary: how a fresh package compared, and what to know about it.

    Args:
        package: the package.
        original: what to call what it was made from.
    """
    parity = package.parity
    if parity is None:
        yield "checked", f"no: it was not compared with {original}"
    else:
        verdict = f"answers like {original}" if parity.passed else "FAILED"
        kind = "synthetic pictures" if parity.synthetic else "photos"
        agreement = "".join(f", {name} {value:.3f}" for name, value in parity.agreement.items())
        yield (
            "checked",
            f"{verdict}: SNR {parity.scores.snr:.1f} dB on {parity.images} {kind}{agreement}",
        )
    quality = [note for note in (parity.notes if parity else ()) if note.startswith("quality: ")]
    for note in (*package.notes, *quality):
        yield "note", note


def package_as_json(package: ConvertedPackage | PalettizedPackage) -> dict[str, Any]:
    """Return a fresh package, and how it compared, for ``--json``."""
    parity = None if package.parity is None else parity_as_json(package.parity)
    return dataclasses.asdict(dataclasses.replace(package, parity=None)) | {"parity": parity}


def parity_as_json(report: ParityReport) -> dict[str, Any]:
    """Return how a package compared for ``--json``, without the images of a report."""
    document = dataclasses.asdict(dataclasses.replace(report, recording=None))
    del document["recording"]
    return {"passed": report.passed, **document}
