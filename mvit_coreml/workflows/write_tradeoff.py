"""Writing a size-quality curve into a folder: its figures as JSON, its plot, its plans.

The plot is drawn by matplotlib: the same bytes from the same figures.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mvit_coreml.compression.plan_file import PLAN_SUFFIX, write_plan
from mvit_coreml.errors import InputError
from mvit_coreml.export.atomic_package import check_place, publish, staging_folder
from mvit_coreml.files import json_text, json_value
from mvit_coreml.reports.pictures import PALETTE, plot_style
from mvit_coreml.reports.wording import METRICS
from mvit_coreml.workflows.measure_tradeoff import Tradeoff, TradeoffPoint

# Raised when a key changes its meaning.
VERSION = 1
DOCUMENT = "tradeoff.json"
PLOT_SUFFIXES = (".svg", ".png")

_INK, _FAINT = "#24292f", "#8c959f"
# Curve to its colour and mark, in the order of the legend.
_CURVES = {
    "no palettes": (_INK, "D"),
    "coremltools": (_FAINT, "s"),
    "k-means": (PALETTE[1], "v"),
    "fitted": (PALETTE[0], "o"),
    "tuned": (PALETTE[4], "P"),
    "mixed bits, fitted": (PALETTE[2], "^"),
    "mixed bits, tuned": (PALETTE[3], "X"),
}
_PANEL_INCHES, _HEIGHT_INCHES = 4.2, 4.0
_DPI = 150
# A file is shown where the plot's own font may be missing.
_FONT, _FONTS = "'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif"


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
        tradeoff: from :func:`~mvit_coreml.workflows.measure_tradeoff.measure_tradeoff`.
        folder: to make.
        force: replace the folder of an earlier curve.
        plot_suffixes: ``.svg``, ``.png`` or both.

    Raises:
        InputError: a folder that cannot be made, or another kind of plot.
        MvitCoremlError: it cannot be written.
    """
    folder = Path(folder)
    check_folder(folder, force)
    files = {f"tradeoff{suffix}": plot_tradeoff(tradeoff, suffix) for suffix in plot_suffixes}
    files[DOCUMENT] = json_text(tradeoff_document(tradeoff)).encode()
    with staging_folder(folder) as staging:
        made = staging / folder.name
        made.mkdir()
        for name, content in files.items():
            (made / name).write_bytes(content)
        for point in tradeoff.points:
            if point.applied is not None:
                plan, values = point.applied.plan, point.applied.values
                write_plan(plan, made / f"{point.name}{PLAN_SUFFIX}", values)
        publish(made, folder)


def check_folder(folder: Path, force: bool) -> None:
    """Refuse a folder that :func:`write_tradeoff` could not write, before any work is done.

    Raises:
        InputError: no place for a folder, or one that exists without ``force``, or that is no
            curve's.
    """
    check_place(folder, force, DOCUMENT, f"holds no {DOCUMENT}")


def tradeoff_document(tradeoff: Tradeoff) -> dict[str, Any]:
    """Return a curve as JSON values: shares from 0 to 1, sizes in bytes, ratios in dB."""
    document = {"tradeoff_version": VERSION, **vars(tradeoff)}
    # Last, as there may be many.
    del document["points"], document["sensitivities"]
    document["points"] = [_point(point) for point in tradeoff.points]
    document["sensitivities"] = tradeoff.sensitivities
    return {name: json_value(value) for name, value in document.items()}


def _point(point: TradeoffPoint) -> dict[str, Any]:
    values = {name: value for name, value in vars(point).items() if name != "applied"}
    return {"series": point.series, **values}


def plot_tradeoff(tradeoff: Tradeoff, suffix: str) -> bytes:
    """Draw size against signal-to-noise ratio, agreement and accuracy, as far as measured.

    Args:
        tradeoff: with at least one point.
        suffix: ``.svg`` or ``.png``.

    Returns:
        Content of the plot's file.

    Raises:
        InputError: another suffix.
    """
    if suffix not in PLOT_SUFFIXES:
        raise InputError(f"{suffix}: a plot's name must end in {' or '.join(PLOT_SUFFIXES)}")
    panels = _panels(tradeoff)
    with plot_style("tradeoff", _INK, _FAINT):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(_PANEL_INCHES * len(panels), _HEIGHT_INCHES), layout="constrained")
        plots: Any = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, label, value) in zip(plots, panels, strict=True):
            _draw(axes, tradeoff, name, value)
            axes.set(xlabel="MB on disk", ylabel=label)
        reference = tradeoff.reference_accuracy
        if reference is not None:
            plots[-1].axhline(
                100 * reference.value, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1
            )
        handles, labels = plots[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        content = io.BytesIO()
        metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
        figure.savefig(content, format=suffix[1:], dpi=_DPI, facecolor="white", metadata=metadata)
    if suffix == ".png":
        return content.getvalue()
    return content.getvalue().decode().replace(_FONT, _FONTS).encode()


_Value = Callable[[TradeoffPoint], float]


def _panels(tradeoff: Tradeoff) -> list[tuple[str, str, _Value]]:
    """Return the name, the label and the figure of each panel."""
    panels: list[tuple[str, str, _Value]] = [
        ("snr", "signal to noise (dB)", lambda point: point.snr)
    ]
    if all(point.agreement is not None for point in tradeoff.points):
        classifies = any(point.kl is not None for point in tradeoff.points)
        label = f"{'images' if classifies else 'pixels'} with PyTorch's class (%)"
        panels.append(("agreement", label, lambda point: 100 * (point.agreement or 0.0)))
    if tradeoff.metric is not None:
        label = f"{METRICS[tradeoff.metric]} (%), dashed: PyTorch"
        panels.append(
            ("accuracy", label, lambda point: 100 * point.accuracy.value if point.accuracy else 0.0)
        )
    return panels


def _draw(axes: Any, tradeoff: Tradeoff, name: str, value: _Value) -> None:
    for series, (color, mark) in _CURVES.items():
        points = [point for point in tradeoff.points if point.series == series]
        points.sort(key=lambda point: point.size)
        if not points:
            continue
        (line,) = axes.plot(
            [point.size / 1e6 for point in points],
            [value(point) for point in points],
            color=color,
            marker=mark,
            markersize=5.5,
            markeredgewidth=0,
            linewidth=1.3,
            label=series,
        )
        line.set_gid(f"{name}-{series.replace(', ', '-').replace(' ', '-')}")
    axes.set_axisbelow(True)
    axes.grid()
