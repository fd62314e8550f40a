"""HTML elements as text, with everything escaped that is not markup."""

from __future__ import annotations

import html
import re

# What browsers and XML alike refuse, whatever its escaping.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Turn any text into markup that shows it, in an element or in a quoted attribute."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(_CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Return an element.

    Args:
        tag: its name.
        children: markup or text; ``None`` is left out.
        attributes: text; ``True`` stands for a name without value, ``None`` and ``False`` for no
            attribute. ``class_`` is ``class``, ``aria_label`` is ``aria-label``.
    """
    opening = tag
    for name, value in attributes.items():
        key = name.rstrip("_").replace("_", "-")
        if value is True:
            opening += f" {key}"
        elif value is not None and value is not False:
            opening += f' {key}="{escape(value)}"'
    if tag in ("img", "meta", "br"):
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(*children)}</{tag}>")


def join(*children: object) -> Html:
    """Return pieces of markup or text one after the other."""
    return Html("".join(escape(child) for child in children if child is not None))


def breakable(name: str) -> Html:
    """Return text whose long names may break after their separators rather than anywhere."""
    pieces = re.split(r"(?<=\w\w[_/])(?=\w)|(?<=\w\w\w)(?=\.[a-z])", name)
    return Html("<wbr>".join(escape(piece) for piece in pieces if piece))
