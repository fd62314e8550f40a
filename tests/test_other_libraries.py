"""Checkpoints of timm, loaded and run by our models, against timm itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from standins import enliven, pictures, relative_error

from mvit_coreml import build_model, load_checkpoint, prepare_for_export

ARCHITECTURES = [
    name
    for family in ("mobilevit_*", "mobilevitv2_*", "mobilenetv2_*")
    for name in timm.list_models(family)
]
FAST = ("mobilevit_xxs", "mobilevitv2_050", "mobilenetv2_035", "mobilenetv2_110d")


def saved(name: str, folder: Path) -> Any:
    """Save a lively timm model as its hub folders are laid out."""
    model = timm.create_model(name, num_classes=7)
    enliven(model, (96, 96))
    config = {
        "architecture": name,
        "num_classes": 7,
        "pretrained_cfg": {
            key: model.pretrained_cfg[key]
            for key in ("input_size", "interpolation", "crop_pct", "mean", "std")
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


def assert_answers_like_timm(name: str, folder: Path) -> None:
    oracle = saved(name, folder)
    checkpoint = load_checkpoint(folder)
    model = build_model(checkpoint)
    side = checkpoint.config.image_hw[0]
    # The second size leaves patch grids that must be resized.
    for size in ((side, side), (200, 168)):
        images = pictures(1, size, 3)
        with torch.no_grad():
            expected = oracle(images)
            assert relative_error(model(images).logits, expected) <= 1e-5
            assert relative_error(prepare_for_export(model)(images).logits, expected) <= 2e-5


@pytest.mark.parametrize("name", FAST)
def test_timm_checkpoint_answers_like_timm(name: str, tmp_path: Path) -> None:
    assert_answers_like_timm(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in FAST])
def test_other_timm_checkpoint_answers_like_timm(name: str, tmp_path: Path) -> None:
    assert_answers_like_timm(name, tmp_path)
