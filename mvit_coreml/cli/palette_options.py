"""The options that say how weights are palettized, the same for every command that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from mvit_coreml.errors import InputError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--bits",
        type=click.Choice(["none", "8", "6", "4", "3", "2", "1"]),
        help="Palettize the weights to this many bits (3 from iOS 18 on).  [default: 6]",
    ),
    click.option(
        "--group-size",
        type=click.IntRange(min=0),
        default=0,
        help="Output channels that share a look-up table (iOS 18); 0 for one table a weight.",
    ),
    click.option(
        "--plan",
        type=click.Path(path_type=Path),
        help="Carry out this palettization plan (plan.toml).",
    ),
)


def palette_options(command: _Command) -> _Command:
    """Add the options to a command's function."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def palette_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options as fields of ``ConvertOptions``.

    Args:
        given: a command's parameters by name.

    Raises:
        InputError: options that exclude each other.
    """
    bits = given["bits"]
    if given["plan"] is not None:
        if bits is not None or given["group_size"]:
            raise InputError("--plan says everything about the palettes; leave out the others")
        return {"plan": given["plan"]}
    bits = bits or "6"
    return {"bits": None if bits == "none" else int(bits), "group_size": given["group_size"]}
