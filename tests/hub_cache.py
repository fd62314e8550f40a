"""A cache of the hub filled by hand, and stand-ins of the published checkpoints to fill it with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import timm
from packages import make_checkpoint
from safetensors.torch import save_file
from standins import PUBLISHED, enliven

from mvit_coreml.preprocessing.image_processor import ImageProcessor

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def publish(
    cache: Path,
    repo: str,
    write: Callable[[Path], None],
    commit: str = COMMIT,
    branch: str = "main",
) -> Path:
    """Fill the cache as a download of a commit would, and let a branch point to it.

    Args:
        cache: folder given as ``cache_dir``.
        repo: id on the hub.
        write: writes the checkpoint's files into a folder.
        commit: 40 hexadecimal digits.
        branch: that leads to the commit.

    Returns:
        The folder of the files.
    """
    model = cache / ("models--" + repo.replace("/", "--"))
    folder = model / "snapshots" / commit
    folder.mkdir(parents=True)
    write(folder)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / branch).write_text(commit)
    return folder


def publish_stand_in(cache: Path, repo: str) -> None:
    """Publish random weights of a published checkpoint's shape under its id."""
    publish(cache, repo, lambda folder: write_stand_in(repo, folder))


def write_stand_in(repo: str, folder: Path) -> None:
    """Write random weights of a published checkpoint's shape, in its format."""
    owner, name = repo.split("/")
    if owner == "timm":
        _write_timm(name, folder)
        return
    config, task, size = PUBLISHED[name.removesuffix("-imagenet1k-256")]
    processor = None
    if task == "semantic-segmentation" and config.model_type == "mobilevit":
        processor = replace(ImageProcessor.for_mobilevit(image_size=size), size=544)
    make_checkpoint(config, task, size, processor, name=repo).save_pretrained(folder)


def _write_timm(name: str, folder: Path) -> None:
    model = timm.create_model(name.partition(".")[0])
    enliven(model, (96, 96))
    published = timm.get_pretrained_cfg(name)
    config = {
        "architecture": name.partition(".")[0],
        "num_classes": 1000,
        "pretrained_cfg": {
            key: getattr(published, key)
            for key in ("input_size", "interpolation", "crop_pct", "mean", "std")
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
