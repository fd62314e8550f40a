"""Two small trained checkpoints, a few pictures for them, and ``mvit-coreml demo``."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal, get_args

from mvit_coreml.errors import InputError

Kind = Literal["classifier", "segmenter"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def demo_checkpoint(kind: Kind) -> Path:
    """Return the folder of a bundled checkpoint, in Hugging Face's layout.

    Args:
        kind: ``classifier`` (20 classes such as ``red three``, 64 x 64 input) or ``segmenter``
            (background, red digit, blue digit; 96 x 96 input).

    Raises:
        InputError: another kind, or an installation without its data files.
    """
    if kind not in KINDS:
        raise InputError(f"there is no demo {kind!r}; choose {' or '.join(KINDS)}")
    return _part(kind)


def demo_images() -> list[tuple[Path, str]]:
    """Return the bundled pictures, each with the classifier's label for what it shows.

    The scans behind them were held out from training.

    Raises:
        InputError: an installation without its data files.
    """
    return [(path, path.stem.replace("-", " ")) for path in sorted(_part("images").glob("*.png"))]


def demo_masks() -> list[tuple[Path, Path]]:
    """Return (picture, mask): every bundled mask, whose pixels are classes of the segmenter.

    Raises:
        InputError: an installation without its data files.
    """
    images = _part("images")
    return [(images / mask.name, mask) for mask in sorted(_part("masks").glob("*.png"))]


def _part(name: str) -> Path:
    folder = Path(str(files("mvit_coreml.demo") / name))
    if not folder.is_dir():
        raise InputError(f"{folder}: the demo's files are missing; install mvit-coreml again")
    return folder
