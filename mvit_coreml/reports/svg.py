"""From matplotlib's SVG files to SVG that stands inside a page and takes on its colours."""

from __future__ import annotations

import re

from mvit_coreml.reports.markup import Html, escape

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


def inline_svg(source: str, name: str, label: str, shown: str = "") -> Html:
    """Return a figure that stands inside a page.

    What only a file needs goes: the prologue, metadata, comments, styles for every element, and ids
    that nothing refers to. The others get the figure's name before them, as ids are the page's.

    Args:
        source: an SVG file of matplotlib's, with its text as text.
        name: the figure's, different from all others on the page.
        label: what a reader who does not see it is told.
        shown: further class of the element.
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
    classes = f"plot {shown}".strip()
    return Html(
        f'<svg class="{classes}" viewBox="{view_box[1]}" role="img" aria-label="{escape(label)}" '
        f'stroke-linejoin="round">{body}</svg>'
    )
