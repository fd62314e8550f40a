"""The published checkpoints that this package is known to read.

Any other checkpoint of the three families works through its configuration; the catalogue only
names what is published, for ``mvit-coreml list`` and for documentation. It needs no torch.

The table itself is ``catalogue.csv``: accuracies are those of the sources it names, licences
those of model cards and timm's configurations, where one was seen to name one.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

Family = Literal["mobilevit", "mobilevitv2", "mobilenet_v2"]
PublishedTask = Literal["image-classification", "semantic-segmentation"]
PublishedFormat = Literal["huggingface", "timm", "cvnets"]


@dataclass(frozen=True)
class Metric:
    """A published accuracy.

    Attributes:
        name: what was measured, on which data.
        value: in per cent.
        source: who published it.
    """

    name: str
    value: float
    source: str


@dataclass(frozen=True, kw_only=True)
class CatalogueEntry:
    """A published checkpoint.

    Attributes:
        id: the hub id; for format ``cvnets``, which Apple publishes as files, the architecture.
        family: ``model_type`` of its configuration.
        task: what it is for.
        format: library whose conventions its weights follow.
        image_size: side of its square input, in pixels.
        parameters: number of trained parameters, ``None`` where published files differ.
        metric: its published accuracy, where one is known.
        license: its weights' licence, where known.
        in_transformers: whether transformers can express the model.
    """

    id: str
    family: Family
    task: PublishedTask
    format: PublishedFormat
    image_size: int
    parameters: int | None
    metric: Metric | None = None
    license: str | None = None
    in_transformers: bool = True


def _read_catalogue() -> tuple[CatalogueEntry, ...]:
    """Read ``catalogue.csv``; an empty field stands for what is not known."""
    text = files("mvit_coreml.checkpoints").joinpath("catalogue.csv").read_text("utf-8")
    return tuple(_entry(row) for row in csv.DictReader(text.splitlines()))


def _entry(row: dict[str, Any]) -> CatalogueEntry:
    metric = (
        Metric(row["metric"], float(row["accuracy"]), row["source"]) if row["accuracy"] else None
    )
    return CatalogueEntry(
        id=row["id"],
        family=row["family"],
        task=row["task"],
        format=row["format"],
        image_size=int(row["image_size"]),
        parameters=int(row["parameters"]) if row["parameters"] else None,
        metric=metric,
        license=row["license"] or None,
        in_transformers=row["in_transformers"] == "yes",
    )


CATALOGUE = _read_catalogue()


def find(family: str | None = None, task: str | None = None) -> tuple[CatalogueEntry, ...]:
    """Return the entries of a family and for a task; ``None`` stands for any."""
    return tuple(
        entry
        for entry in CATALOGUE
        if family in (None, entry.family) and task in (None, entry.task)
    )
