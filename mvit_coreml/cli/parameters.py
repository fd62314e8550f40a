"""Kinds of values, and an option, that several commands take."""

from __future__ import annotations

import re
from typing import Any

import click

ios_option = click.option(
    "--ios",
    type=click.Choice(["16", "17", "18", "26"]),
    default="17",
    show_default=True,
    help="Deployment target.",
)


class Size(click.ParamType[tuple[int, int]]):
    """``N`` or ``HxW``."""

    name = "N|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no size; give N or HEIGHTxWIDTH in pixels", param, ctx)
        height = int(match[1])
        return height, int(match[2] or height)


class MapSize(Size):
    """``input``, ``logits``, ``N`` or ``HxW``."""

    name = "input|logits|HxW"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Read the text."""
        return value if value in ("input", "logits") else super().convert(value, param, ctx)


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers with commas between.

    Args:
        name: what help texts call it.
        what: the numbers are.
        example: what messages give as one.
    """

    def __init__(self, name: str, what: str, example: str) -> None:
        self.name, self.what, self.example = name, what, example

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        """Read the text."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of {self.what} such as {self.example}", param, ctx)
