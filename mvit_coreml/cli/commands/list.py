"""``mvit-coreml list``: the published checkpoints."""

from __future__ import annotations

import dataclasses

import click

from mvit_coreml.checkpoints.catalogue import CATALOGUE, CatalogueEntry, find
from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.tables import table

_EXAMPLES = """\b
Examples:
  mvit-coreml list
  mvit-coreml list --family mobilevitv2 --task image-classification
  mvit-coreml list --json
"""
_HEADER = ("ID", "FAMILY", "TASK", "FORMAT", "PIXELS", "PARAMS", "PUBLISHED")


def _values_of(field: str) -> click.Choice[str]:
    return click.Choice(list(dict.fromkeys(getattr(entry, field) for entry in CATALOGUE)))


@click.command("list", epilog=_EXAMPLES)
@click.option("--family", type=_values_of("family"), help="Only checkpoints of this family.")
@click.option("--task", type=_values_of("task"), help="Only checkpoints for this task.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(family: str | None, task: str | None, as_json: bool) -> None:
    """List the published checkpoints with their size and accuracy.

    Hugging Face and timm ids load from the hub. Apple publishes those of format "cvnets" as .pt
    files: download one and give its path. A checkpoint that is not listed works all the same if
    its configuration is of one of the three families.
    """
    entries = find(family, task)
    if as_json:
        echo_json([dataclasses.asdict(entry) for entry in entries])
    else:
        click.echo(table([_HEADER, *map(_row, entries)]))


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
