"""The options that say how a checkpoint is loaded, the same for every command that loads one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

_MODEL_OPTIONS = (
    click.option(
        "--labels",
        type=click.Path(path_type=Path),
        help="Class names instead of the checkpoint's: a text or JSON file.",
    ),
    click.option(
        "--image-processor",
        help="Preprocessing instead of the checkpoint's: hub id, folder, or "
        "preprocessor_config.json.",
    ),
    click.option(
        "--output-stride", type=click.Choice(["8", "16", "32"]), help="For files that do not tell."
    ),
    click.option("--revision", help="Branch, tag or commit of a hub checkpoint."),
)
_HUB_OPTIONS = (
    click.option("--token", help="Hub token for private checkpoints."),
    click.option("--cache-dir", type=click.Path(path_type=Path), help="Folder of the hub cache."),
    click.option("--offline", is_flag=True, help="Never ask the hub, use its cache alone."),
)


def checkpoint_options(command: _Command) -> _Command:
    """Add the options to a command's function."""
    for option in reversed(_MODEL_OPTIONS + _HUB_OPTIONS):
        command = option(command)
    return command


def hub_options(command: _Command) -> _Command:
    """Add only the options that say how the hub is used."""
    for option in reversed(_HUB_OPTIONS):
        command = option(command)
    return command


def loading_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options as arguments of ``load_checkpoint``, without those left out.

    Args:
        given: a command's parameters by name.
    """
    names = ("labels", "image_processor", "revision")
    arguments = {name: given[name] for name in names if given[name] is not None}
    if given["output_stride"] is not None:
        arguments["output_stride"] = int(given["output_stride"])
    return arguments | hub_arguments(given)


def hub_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given options about the hub as arguments of ``load_checkpoint``, likewise.

    Args:
        given: a command's parameters by name.
    """
    arguments = {name: given[name] for name in ("token", "cache_dir") if given[name] is not None}
    if given["offline"]:
        arguments["local_files_only"] = True
    return arguments
