"""The size-quality curve as a plot, drawn by matplotlib: the same bytes from the same figures."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.errors import InputError
from mvit_coreml.files import write_atomically
from mvit_coreml.reports.plots import PALETTE, plot_style
from mvit_coreml.reports.wording import METRICS
from mvit_coreml.workflows.tradeoff.curve import Tradeoff, TradeoffPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def draw_tradeoff(tradeoff: Tradeoff, path: str | Path) -> None:
    """Draw size against signal-to-noise ratio, agreement and accuracy, as far as measured.

    Args:
        tradeoff: with at least one point.
        path: a file that ends in ``.svg`` or ``.png``.

    Raises:
        InputError: another ending, or a file that cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in PLOT_SUFFIXES:
        raise InputError(f"{path}: a plot's name must end in {' or '.join(PLOT_SUFFIXES)}")
    try:
        write_atomically(path, plot(tradeoff, suffix.removeprefix(".")))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def plot(tradeoff: Tradeoff, file_format: str) -> bytes:
    """Return the content of a plot's file.

    Args:
        tradeoff: with at least one point.
        file_format: ``svg`` or ``png``.
    """
    panels = _panels(tradeoff)
    with plot_style("tradeoff", _INK, _FAINT):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(_PANEL_INCHES * len(panels), _HEIGHT_INCHES), layout="constrained")
        plots: Any = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, label, value) in zip(plots, panels, strict=True):
            _draw(axes, tradeoff, name, value)
            axes.set_xlabel("MB on disk")
            axes.set_ylabel(label)
        reference = tradeoff.reference_accuracy
        if reference is not None:
            plots[-1].axhline(
                100 * reference.value, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1
            )
        handles, labels = plots[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        content = io.BytesIO()
        metadata = {"Date": None} if file_format == "svg" else {"Software": None}
        figure.savefig(content, format=file_format, dpi=_DPI, facecolor="white", metadata=metadata)
    if file_format == "png":
        return content.getvalue()
    return content.getvalue().decode().replace(_FONT, _FONTS).encode()


_Value = Callable[[TradeoffPoint], float]


def _panels(tradeoff: Tradeoff) -> list[tuple[str, str, _Value]]:
    """Return the name, the label and the figure of each panel."""
    panels: list[tuple[str, str, _Value]] = [
        ("snr", "signal to noise (dB)", lambda point: point.snr)
    ]
    if all(point.agreement is not None for point in tradeoff.points):
        of = "pixels with PyTorch's class (%)"
        if any(point.kl is not None for point in tradeoff.points):
            of = "images with PyTorch's class (%)"
        panels.append(("agreement", of, lambda point: 100 * (point.agreement or 0.0)))
    if tradeoff.metric is not None:
        panels.append(
            (
                "accuracy",
                f"{METRICS[tradeoff.metric]} (%), dashed: PyTorch",
                lambda point: 100 * point.accuracy.value if point.accuracy is not None else 0.0,
            )
        )
    return panels


def _draw(axes: Axes, tradeoff: Tradeoff, name: str, value: _Value) -> None:
    for series, (color, mark) in _CURVES.items():
        points = _curve(tradeoff.points, series)
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


def _curve(points: Sequence[TradeoffPoint], series: str) -> list[TradeoffPoint]:
    """Return the points of a curve in the order of their sizes."""
    return sorted((p for p in points if p.series == series), key=lambda p: p.size)
