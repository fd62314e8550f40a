"""Measures a demo checkpoint on held-out pictures.

python scripts/demo_checkpoints/measure_checkpoint.py classifier
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import click
from digit_pictures import draw
from write_pictures import write_pictures

from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.demo import KINDS, Kind, demo_checkpoint
from mvit_coreml.errors import MvitCoremlError
from mvit_coreml.evaluation.accuracy import Evaluation, evaluate
from mvit_coreml.evaluation.labeled_datasets import read_labeled_images, read_masked_images
from mvit_coreml.evaluation.open_targets import OpenOptions, open_targets
from mvit_coreml.preprocessing.image_processor import ColorOrder
from mvit_coreml.workflows.convert import convert
from mvit_coreml.workflows.package_options import ConvertOptions

COUNT = 1000
FILE = "figures.json"
_BITS: Literal[6] = 6


def measure(checkpoint: Path, count: int = COUNT) -> dict[str, Any]:
    """Measure a checkpoint in both colour orders, and the package it converts to.

    Args:
        checkpoint: folder of a classifier or segmenter of the demo's classes.
        count: held-out pictures to measure on.

    Returns:
        Sizes in bytes, and shares from 0 to 1: the main figure (top-1 accuracy or mean IoU) of the
        checkpoint, of the checkpoint fed with red and blue swapped, and of the palettized package,
        with the share of pictures (of a segmenter: pixels) on which package and checkpoint agree.

    Raises:
        MvitCoremlError: a checkpoint that cannot be used, or no scikit-learn.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = write_pictures(draw("held-out", count), Path(folder) / "pictures")
        loaded = load_checkpoint(checkpoint)
        declared = loaded.image_processor.color_order
        swapped: ColorOrder = "RGB" if declared == "BGR" else "BGR"
        wrong = _evaluate([checkpoint], table, swapped)
        package = convert(
            loaded, ConvertOptions(bits=_BITS), Path(folder) / "demo.mlpackage", keep_failed=True
        )
        right = _evaluate([checkpoint, package.path], table, None)
        assert right.agreement is not None
        metric = next(iter(right.accuracies[0].figures))
        return {
            "metric": metric,
            "held_out_pictures": count,
            "parameters": sum(
                weight.numel() for weight in loaded.weights.values() if weight.is_floating_point()
            ),
            "checkpoint_bytes": sum(
                path.stat().st_size for path in checkpoint.iterdir() if path.name != FILE
            ),
            "package_bits": _BITS,
            "package_bytes": package.size,
            "checkpoint": right.accuracies[0].main.value,
            "checkpoint_red_and_blue_swapped": wrong.accuracies[0].main.value,
            "package": right.accuracies[1].main.value,
            "package_agrees_with_checkpoint": right.agreement.share.value,
        }


def _evaluate(sources: Sequence[Path], table: Path, order: ColorOrder | None) -> Evaluation:
    opened = open_targets(sources, OpenOptions(engine="portable", color_order=order))
    classes = opened[0].classes
    assert classes is not None
    read = read_masked_images if opened[0].task == "semantic-segmentation" else None
    data = read(table) if read is not None else read_labeled_images(table, classes)
    return evaluate([each.target for each in opened], data, classes.count)


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder to measure; by default the bundled one.",
)
@click.option("--count", default=COUNT, show_default=True, type=click.IntRange(1))
def main(kind: Kind, checkpoint: Path | None, count: int) -> None:
    """Measure a checkpoint of the demo, and write figures.json into its folder."""
    try:
        folder = checkpoint or demo_checkpoint(kind)
        figures = json.dumps(measure(folder, count), indent=2) + "\n"
        (folder / FILE).write_text(figures, encoding="utf-8")
        print(figures, end="")
    except MvitCoremlError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
