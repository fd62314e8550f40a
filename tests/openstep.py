"""Reads property lists in the OpenStep format, in which Xcode writes its projects."""

from __future__ import annotations

import re
from typing import Any

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*|/\*.*?\*/)
    | (?P<sign>[{}()=;,])
    | "(?P<quoted>(?:[^"\\]|\\.)*)"
    | (?P<bare>[A-Za-z0-9_./$]+)
    """,
    re.VERBOSE | re.DOTALL,
)


def read_openstep(text: str) -> Any:
    """Return dicts, lists and strings; a ``ValueError`` says where the text is broken."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"line {text.count(chr(10), 0, position) + 1}: unexpected character")
        position = match.end()
        if match.lastgroup == "sign":
            tokens.append(("sign", match["sign"]))
        elif match.lastgroup == "quoted":
            tokens.append(("string", re.sub(r"\\(.)", r"\1", match["quoted"])))
        elif match.lastgroup == "bare":
            tokens.append(("string", match["bare"]))
    tokens.reverse()
    value = _value(tokens)
    if tokens:
        raise ValueError(f"{tokens[-1][1]!r} after the end")
    return value


def _value(tokens: list[tuple[str, str]]) -> Any:
    kind, text = _next(tokens)
    if kind == "string":
        return text
    if text == "{":
        found: dict[str, Any] = {}
        while tokens and tokens[-1] != ("sign", "}"):
            key = _string(tokens)
            if key in found:
                raise ValueError(f"{key!r} stands twice")
            _expect(tokens, "=")
            found[key] = _value(tokens)
            _expect(tokens, ";")
        _expect(tokens, "}")
        return found
    if text == "(":
        items = []
        while tokens and tokens[-1] != ("sign", ")"):
            items.append(_value(tokens))
            if tokens and tokens[-1] == ("sign", ")"):
                break
            _expect(tokens, ",")
        _expect(tokens, ")")
        return items
    raise ValueError(f"a value was expected, not {text!r}")


def _next(tokens: list[tuple[str, str]]) -> tuple[str, str]:
    if not tokens:
        raise ValueError("the text ends too early")
    return tokens.pop()


def _string(tokens: list[tuple[str, str]]) -> str:
    kind, text = _next(tokens)
    if kind != "string":
        raise ValueError(f"a key was expected, not {text!r}")
    return text


def _expect(tokens: list[tuple[str, str]], sign: str) -> None:
    found = _next(tokens)
    if found != ("sign", sign):
        raise ValueError(f"{sign!r} was expected, not {found[1]!r}")
