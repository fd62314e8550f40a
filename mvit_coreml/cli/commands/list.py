"""``mvit-coreml list``: the published checkpoints."""

from __future__ import annotations

from dataclasses import dataclass

import click

from mvit_coreml.checkpoints.catalogue import CATALOGUE, CatalogueEntry, find
from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import table

_HEADER = ("ID", "FAMILY", "TASK", "FORMAT", "PIXELS", "PARAMS", "PUBLISHED")


def _values_of(field: str) -> click.Choice[str]:
    return click.Choice(list(dict.fromkeys(getattr(entry, field) for entry in CATALOGUE)))


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.JsonArguments):
    """What the command is asked.

    Attributes:
        family: Only checkpoints of this family.
        task: Only checkpoints for this task.
    """

    family: str | None = opt.option(type=_values_of("family"))
    task: str | None = opt.option(type=_values_of("task"))


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """List the published checkpoints with their size and accuracy.

    Hugging Face and timm ids load from the hub. Apple publishes those of format "cvnets" as .pt
    files: download one and give its path. A checkpoint that is not listed works all the same if
    its configuration is of one of the three families.

    Examples:
        mvit-coreml list
        mvit-coreml list --family mobilevitv2 --task image-classification
        mvit-coreml list --json
    """
    entries = find(arguments.family, arguments.task)
    arguments.show(entries, [table([_HEADER, *map(_row, entries)])])


def _row(entry: CatalogueEntry) -> tuple[str, ...]:
    size = "" if entry.parameters is None else f"{entry.parameters / 1e6:.1f} M"
    metric = "" if entry.metric is None else f"{entry.metric.value:.1f} {entry.metric.name}"
    return (
        entry.id,
        entry.family,
        entry.task,
        entry.format,
        str(entry.image_size),
        size,
        metric,
    )
