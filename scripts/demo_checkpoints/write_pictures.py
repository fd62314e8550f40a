"""Writes pictures as a data set that ``mvit-coreml evaluate`` reads.

``python scripts/demo_checkpoints/write_pictures.py FOLDER --count 500`` draws held-out pictures;
with ``--bundle`` it draws those that the package ships.
"""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from pathlib import Path

import click
import numpy as np
from digit_pictures import CLASS_LABELS, DIGITS, Pictures, draw
from PIL import Image

from mvit_coreml.errors import InputError
from mvit_coreml.visualization.segmentation_colors import paletted_mask

TABLE = "pictures.csv"
_MASK_COLORS = np.array([(0, 0, 0), (220, 40, 40), (40, 70, 220)], np.uint8)
# The bundled pictures are none of those that the figures are measured on, seed 0.
_BUNDLE_SEED = 1


def write_pictures(pictures: Pictures, folder: str | Path) -> Path:
    """Write pictures, their masks and a table of both; the folder appears once it is complete.

    Args:
        pictures: from :func:`digit_pictures.draw`.
        folder: to create. It gets ``images/red-three.png``, ``images/red-three-2.png``, …, masks
            of class indices under the same names in ``masks/``, and ``pictures.csv`` with the
            columns image, label and mask.

    Returns:
        The path of ``pictures.csv``.

    Raises:
        InputError: the folder exists or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists already; name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as staging:
            complete = Path(staging) / "pictures"
            _write(pictures, complete)
            complete.rename(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from None
    return folder / TABLE


def _write(pictures: Pictures, folder: Path) -> None:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    seen: Counter[str] = Counter()
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("image", "label", "mask"))
        for pixels, mask, index in zip(
            pictures.images, pictures.masks, pictures.labels, strict=True
        ):
            label = CLASS_LABELS[index]
            seen[label] += 1
            number = "" if seen[label] == 1 else f"-{seen[label]}"
            name = f"{label.replace(' ', '-')}{number}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            # Three classes need two bits a pixel, which Pillow would not choose by itself.
            paletted_mask(mask, _MASK_COLORS).save(folder / "masks" / name, bits=2)
            table.writerow((f"images/{name}", label, f"masks/{name}"))


def bundled_pictures() -> Pictures:
    """Draw the pictures that the package ships: every held-out digit once, colours in turn.

    Of each label the first that the seed leads to is taken, whatever the models say to it.
    """
    pictures = draw("held-out", 200, _BUNDLE_SEED)
    labels = [digit + len(DIGITS) * (digit % 2) for digit in range(len(DIGITS))]
    first = np.array([np.flatnonzero(pictures.labels == label)[0] for label in labels])
    return Pictures(
        images=pictures.images[first],
        masks=pictures.masks[first],
        labels=pictures.labels[first],
        samples=pictures.samples[first],
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", default=500, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
@click.option("--bundle", is_flag=True, help="Draw the pictures that the package ships instead.")
def main(folder: Path, count: int, seed: int, bundle: bool) -> None:
    """Write held-out pictures, their labels and masks to a new FOLDER."""
    try:
        pictures = bundled_pictures() if bundle else draw("held-out", count, seed)
        print(write_pictures(pictures, folder))
    except InputError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
