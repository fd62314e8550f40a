"""Pictures inside a report: plots as SVG by matplotlib, thumbnails of photos and class maps."""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from mvit_coreml.evaluation.metrics import MAX_DB
from mvit_coreml.reports.report import SizeBar
from mvit_coreml.reports.wording import byte_size
from mvit_coreml.validation.operation_precision import LayerError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A plot's unit is a CSS pixel at its own width: on a phone, and on anything wider than a tablet.
NARROW, WIDE = 350, 880
_UNITS_PER_INCH = 72
_BADGE = 15  # height and width of a number on a plot, in its units
_STEEP = 0.03  # share of a line's range that is seen as a fall

# Colours that plots are drawn in, each standing for one of the page's: the text's own, or a
# variable with what is drawn where nothing sets it. No plot uses these for anything else.
INK = "#010203"
FAINT = "#010204"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
# Okabe and Ito (2008), Color Universal Design: told apart with any colour vision.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_COLORS = {
    INK: "currentColor",
    FAINT: "var(--faint, #888888)",
    **{
        color: f"var(--series-{number}, {default})"
        for number, (color, default) in enumerate(zip(SERIES, PALETTE, strict=True), 1)
    },
}
# Depending on its version, matplotlib writes ``font: 700 11px 'DejaVu Sans'`` or every part apart.
_FONT = re.compile(r"font: (?:([0-9]+) )?([0-9.]+)px [^;\"]*")
_FAMILY = re.compile(r"font-family: [^;\"]*;? ?")
_ID = re.compile(r'\sid="([^"]*)"')
_REFERENCE = re.compile(r'(?:xlink:)?href="#([^"]*)"|url\(#([^)]*)\)')
_VIEW_BOX = re.compile(r'viewBox="([^"]*)"')
_INK_PARTS = ("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor")
_FAINT_PARTS = ("axes.edgecolor", "xtick.color", "ytick.color", "grid.color")
_STYLE = Path(__file__).with_name("templates") / "plot.mplstyle"


def size_chart(bars: Sequence[SizeBar], width: int, name: str) -> Markup:
    """Draw the sizes of packages as bars, each divided into what its bytes are for.

    Args:
        bars: the packages, the first on top.
        width: of the plot in its units.
        name: of the figure, different from all others on the page.
    """
    other = bars[0].parts[-1][0]  # what no choice of bits changes has no colour of its own
    kinds = list(dict.fromkeys(kind for bar in bars for kind, _ in bar.parts if kind != other))
    shades = {kind: SERIES[place % len(SERIES)] for place, kind in enumerate(kinds)}
    shades[other] = FAINT
    kinds.append(other)
    rows = -(-len(kinds) // (2 if width == NARROW else 4))
    with _canvas(width, 44 + 34 * len(bars) + 20 * rows, name) as (figure, axes):
        largest = max(bar.size for bar in bars) / 1e6
        swatches = {}
        for place, bar in enumerate(bars):
            left = 0.0
            for kind, size in bar.parts:
                (swatches[kind],) = axes.barh(place, size / 1e6, 0.62, left, color=shades[kind])
                left += size / 1e6
            weight = "bold" if place == 0 else "normal"
            _write(axes, byte_size(bar.size), (left, place), (5, 0), weight=weight)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        end = largest * (1.26 if width == NARROW else 1.1)
        axes.set(xlim=(0, end), xlabel="MB on disk")
        axes.grid(axis="x")
        axes.spines[["left", "bottom"]].set_visible(False)
        figure.legend(
            [swatches[kind] for kind in kinds],
            kinds,
            loc="outside lower left",
            ncols=2 if width == NARROW else 4,
        )
        sizes = ", ".join(f"{bar.label} {byte_size(bar.size)}" for bar in bars)
        return _finish(figure, width, name, f"Bar chart of sizes on disk: {sizes}")


def layer_plot(
    layers: Sequence[LayerError], marked: Sequence[LayerError], width: int, name: str
) -> Markup:
    """Draw the signal-to-noise ratio of every operation, in order of execution.

    The line passes over operations without any error: their ratio has no bound.

    Args:
        layers: all operations; at least one has an error.
        marked: those that get a number, from 1.
        width: of the plot in its units.
        name: of the figure, different from all others on the page.
    """
    places = [place for place, layer in enumerate(layers) if layer.snr < MAX_DB]
    ratios = [layers[place].snr for place in places]
    with _canvas(width, 230 if width == NARROW else 270, name) as (figure, axes):
        axes.plot(places, ratios, "-o", color=SERIES[0], linewidth=1.3, markersize=2.8, mew=0)
        axes.grid(axis="y")
        low, high = min(ratios), max(ratios)
        ends = low - 0.2 * (high - low) - 1, high + 0.12 * (high - low) + 1
        axes.set(xlim=(-0.02 * len(layers), 1.02 * len(layers)), ylim=ends)
        axes.set(xlabel="operation, in order of execution", ylabel="signal to noise (dB)")
        order = {layer.operation: place for place, layer in enumerate(layers)}
        _number(figure, ratios, [places.index(order[layer.operation]) for layer in marked], places)
        worst = min(layers, key=lambda layer: layer.snr)
        label = (
            f"Line plot of the signal-to-noise ratio of {len(layers)} operations; the lowest is "
            f"{worst.snr:.1f} dB at {worst.operation}"
        )
        return _finish(figure, width, name, label)


def score_scatter(pairs: Sequence[tuple[float, float]], width: int, name: str) -> Markup:
    """Draw the package's scores over the reference's, with the line on which they are equal.

    Args:
        pairs: (reference's, package's) values.
        width: of the square plot in its units.
        name: of the figure, different from all others on the page.
    """
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Outline

    values = [value for pair in pairs for value in pair]
    with _canvas(width, width, name) as (figure, axes):
        low, high = min(values), max(values)
        margin = 0.04 * (high - low) or 1.0
        limits = low - margin, high + margin
        axes.plot(limits, limits, color=FAINT, linewidth=1.2, label="equal")
        # One path of dots is a tenth of the size of as many markers. A dot is the round end of a
        # line without length.
        ends = [end for pair in pairs for end in (pair, pair)]
        path = Outline(ends, [Outline.MOVETO, Outline.LINETO] * len(pairs))
        axes.add_patch(PathPatch(path, fill=False, ec=SERIES[0], lw=4, capstyle="round", alpha=0.6))
        axes.grid()
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.set(xlabel="PyTorch's score", ylabel="package's score")
        label = f"Scatter plot of {len(pairs)} scores of the package over PyTorch's"
        return _finish(figure, width, name, label)


def _number(
    figure: Figure, values: Sequence[float], marked: Sequence[int], places: Sequence[int]
) -> None:
    """Number the ends of falls of a line, where it leaves room, clear of each other.

    Args:
        figure: with the line drawn.
        values: of the line's points.
        marked: indices of the points, in the order of their numbers.
        places: x of the line's points.
    """
    (axes,) = figure.axes
    figure.draw_without_rendering()  # settles the layout, and with it where points are
    spread = max(values) - min(values)
    taken: list[tuple[float, float]] = []
    for number, index in sorted(enumerate(marked, 1), key=lambda item: item[1]):
        x, y = places[index], values[index]
        at_x, at_y = axes.transData.transform((x, y))
        # The line comes from above. Where it falls on, there is room at the upper right only.
        falls_on = index + 1 < len(values) and y - values[index + 1] > _STEEP * spread
        right, up, step = (9, 8, _BADGE) if falls_on else (0, -_BADGE + 1, -_BADGE)
        while any(
            abs(at_x + right - other_x) < _BADGE and abs(at_y + up - other_y) < _BADGE
            for other_x, other_y in taken
        ):
            up += step
        taken.append((at_x + right, at_y + up))
        axes.plot(x, y, "o", color=SERIES[5], markersize=5.5, markeredgewidth=0)
        style = {"ha": "center", "weight": "bold", "color": SERIES[5]}
        _write(axes, str(number), (x, y), (right, up), **style)


def _write(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], **style: Any
) -> None:
    """Write a text beside a place, as far from it as an offset in the plot's units says."""
    axes.annotate(text, place, offset, textcoords="offset points", va="center", **style)


@contextmanager
def plot_style(name: str, ink: str, faint: str) -> Iterator[None]:
    """Draw with matplotlib in the style of a report, whatever the user's own is.

    Args:
        name: of the figure; its ids depend on nothing else.
        ink: colour of texts.
        faint: colour of axes and grids.
    """
    # The first import may build a cache of fonts, and says so.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    import matplotlib

    parameters: Any = dict.fromkeys(_INK_PARTS, ink) | dict.fromkeys(_FAINT_PARTS, faint)
    with matplotlib.rc_context(parameters | {"svg.hashsalt": name}, _STYLE):
        yield


@contextmanager
def _canvas(width: int, height: int, name: str) -> Iterator[tuple[Figure, Axes]]:
    with plot_style(name, INK, FAINT):
        from matplotlib.figure import Figure

        size = width / _UNITS_PER_INCH, height / _UNITS_PER_INCH
        figure = Figure(figsize=size, dpi=_UNITS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        yield figure, axes


def _finish(figure: Figure, width: int, name: str, label: str) -> Markup:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    shown = "narrow" if width == NARROW else "wide"
    return _inline_svg(text.getvalue(), name, label, shown)


def _inline_svg(source: str, name: str, label: str, shown: str) -> Markup:
    """Return a figure that stands inside a page.

    What only a file needs goes: the prologue, metadata, comments, styles for every element, and ids
    that nothing refers to. The others get the figure's name before them, as ids are the page's.

    Args:
        source: an SVG file of matplotlib's, with its text as text.
        name: the figure's, different from all others on the page.
        label: what a reader who does not see it is told.
        shown: at which widths of the page: ``narrow`` or ``wide``.
    """
    opening = re.search(r"<svg\b[^>]*>", source)
    assert opening is not None
    view_box = _VIEW_BOX.search(opening[0])
    assert view_box is not None
    body = source[opening.end() : source.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style\b.*?</style>", "", body, flags=re.S)
    used = {first or second for first, second in _REFERENCE.findall(body)}
    body = _ID.sub(lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = body.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    body = _FONT.sub(lambda m: f"font-weight: {m[1] or 400}; font-size: {m[2]}px", body)
    body = _FAMILY.sub("", body)
    for color, shade in _COLORS.items():
        body = body.replace(color, shade)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><").strip()
    return Markup(
        f'<svg class="plot {shown}" viewBox="{view_box[1]}" role="img" '
        f'aria-label="{escape(label)}" stroke-linejoin="round">{body}</svg>'
    )


# Longer edge of a thumbnail in pixels; pictures smaller than that stay as they are.
EDGE = 160
# Where maps differ: Okabe and Ito's vermillion over pale grays.
_SHADES = 32
_PALE = np.vstack(
    [np.linspace(150, 247, _SHADES)[:, None].repeat(3, axis=1), [(213, 94, 0)]]
).astype(np.uint8)
_UNKNOWN = "#808080"


def photo_uri(pixels: NDArray[np.uint8]) -> str:
    """Return a thumbnail of (h, w, 3) uint8 RGB pixels."""
    return _data_uri(_thumbnail(pixels), "jpeg", quality=85)


def map_uri(class_map: NDArray[Any], colors: Sequence[str]) -> str:
    """Return a thumbnail of a class map.

    Args:
        class_map: (h, w) class indices.
        colors: ``#rrggbb`` of every class; a class without one is gray.
    """
    # The class in the middle of each pixel: a mean of class indices would be another class.
    whole = Image.fromarray(np.asarray(class_map, np.int32))
    small = np.asarray(whole.resize(_size(class_map), Image.Resampling.NEAREST))
    classes, places = np.unique(small, return_inverse=True)
    shades = [class_color(int(index), colors) for index in classes]
    table = np.array([tuple(bytes.fromhex(shade[1:])) for shade in shades], np.uint8)
    if len(classes) > 256:
        return _data_uri(Image.fromarray(table[places.reshape(small.shape)]), "png")
    image = Image.fromarray(places.reshape(small.shape).astype(np.uint8))
    image.putpalette(table.tobytes())  # makes the gray levels indices
    return _data_uri(image, "png")


def difference_uri(pixels: NDArray[np.uint8], maps: tuple[NDArray[Any], NDArray[Any]]) -> str:
    """Return a gray, pale thumbnail with marks where two class maps differ.

    A single pixel that differs is still seen: the marks stay as the picture shrinks.

    Args:
        pixels: (h, w, 3) uint8 RGB.
        maps: two (h', w') class maps over the same view.
    """
    gray = np.asarray(_thumbnail(pixels).convert("L"), np.float64)
    height, width = gray.shape
    marks = np.zeros((height, width), bool)
    rows, columns = np.nonzero(maps[0] != maps[1])
    scale_y, scale_x = height / maps[0].shape[0], width / maps[0].shape[1]
    # An enlarged map's pixel covers several of the thumbnail's.
    for down in range(max(1, round(scale_y))):
        for right in range(max(1, round(scale_x))):
            y = np.minimum((rows * scale_y).astype(np.intp) + down, height - 1)
            x = np.minimum((columns * scale_x).astype(np.intp) + right, width - 1)
            marks[y, x] = True
    # Few shades, and one more for the marks: lossless, and still a small file.
    shades = (gray * (_SHADES / 256)).astype(np.uint8)
    shades[marks] = _SHADES
    image = Image.fromarray(shades)
    image.putpalette(_PALE.tobytes())
    return _data_uri(image, "png")


def class_color(index: int, colors: Sequence[str]) -> str:
    """Return ``#rrggbb`` of a class: gray for one that has no colour."""
    return colors[index] if 0 <= index < len(colors) else _UNKNOWN


def _thumbnail(pixels: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(pixels).resize(_size(pixels), Image.Resampling.LANCZOS)


def _size(pixels: NDArray[Any]) -> tuple[int, int]:
    """Return the (width, height) of a thumbnail."""
    height, width = pixels.shape[:2]
    shrunk = min(1.0, EDGE / max(height, width))
    return max(1, round(width * shrunk)), max(1, round(height * shrunk))


def _data_uri(image: Image.Image, image_format: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, image_format, optimize=True, **options)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
