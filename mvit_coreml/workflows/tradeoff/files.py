"""A size-quality curve as a JSON document, and as a folder with its plot and plans."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mvit_coreml.compression.plan_file import write_plan
from mvit_coreml.errors import InputError
from mvit_coreml.export.atomic_package import publish, staging_folder
from mvit_coreml.reports.json_report import json_value
from mvit_coreml.workflows.tradeoff.curve import Tradeoff, TradeoffPoint
from mvit_coreml.workflows.tradeoff.plot import draw_tradeoff

# Raised when a key changes its meaning.
VERSION = 1
DOCUMENT = "tradeoff.json"
PLAN_SUFFIX = ".plan.toml"


def tradeoff_document(tradeoff: Tradeoff) -> dict[str, Any]:
    """Return a curve as JSON values: shares from 0 to 1, sizes in bytes, ratios in dB."""
    document: dict[str, Any] = {"tradeoff_version": VERSION}
    for name in vars(tradeoff):
        if name not in ("points", "sensitivities"):
            document[name] = json_value(getattr(tradeoff, name))
    document["points"] = [_point(point) for point in tradeoff.points]
    document["sensitivities"] = [
        {
            "name": weight.name,
            "elements": weight.elements,
            "noise": {str(choice): json_value(value) for choice, value in weight.noise.items()},
        }
        for weight in tradeoff.sensitivities
    ]
    return document


def _point(point: TradeoffPoint) -> dict[str, Any]:
    values = {name: json_value(value) for name, value in vars(point).items() if name != "found"}
    return {"series": point.series, **values}


def check_folder(folder: Path, force: bool) -> None:
    """Refuse a folder that :func:`write_tradeoff` could not write, before any work is done.

    Raises:
        InputError: no place for a folder, or one that exists without ``force``, or that is no
            curve's.
    """
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: the folder {folder.parent} does not exist; create it first")
    if not os.access(folder.parent, os.W_OK):
        raise InputError(f"{folder}: the folder {folder.parent} is not writable; choose another")
    if folder.exists() or folder.is_symlink():
        if not force:
            raise InputError(f"{folder}: exists already; use --force to replace it")
        if not (folder / DOCUMENT).is_file():
            raise InputError(f"{folder}: exists and holds no {DOCUMENT}; it is not replaced")


def write_tradeoff(
    tradeoff: Tradeoff,
    folder: str | Path,
    *,
    force: bool = False,
    plot_suffixes: Sequence[str] = (".svg",),
) -> None:
    """Write a curve into a folder: the figures, the plot, and every plan with its values.

    A plan, ``NAME.plan.toml`` after its point, leads to the measured package again (``convert
    --plan``). The folder appears complete or not at all.

    Args:
        tradeoff: from :func:`~mvit_coreml.workflows.tradeoff.tradeoff.measure_tradeoff`.
        folder: to make.
        force: replace the folder of an earlier curve.
        plot_suffixes: ``.svg``, ``.png`` or both.

    Raises:
        InputError: a folder that cannot be made.
        MvitCoremlError: it cannot be written.
    """
    folder = Path(folder)
    check_folder(folder, force)
    with staging_folder(folder) as staging:
        made = staging / folder.name
        made.mkdir()
        document = json.dumps(tradeoff_document(tradeoff), indent=2, ensure_ascii=False)
        (made / DOCUMENT).write_text(document + "\n", encoding="utf-8")
        for suffix in plot_suffixes:
            draw_tradeoff(tradeoff, made / f"tradeoff{suffix}")
        for point in tradeoff.points:
            if point.found is not None:
                plan, values = point.found
                write_plan(plan, made / f"{point.name}{PLAN_SUFFIX}", values)
        publish(made, folder)
