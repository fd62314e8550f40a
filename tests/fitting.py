"""What tests of fitted palettes share: a small model, noise to fit to, and measuring only once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import package_cache
import pytest
import torch
from packages import image, small_checkpoint
from PIL import Image

from mvit_coreml import Checkpoint
from mvit_coreml.compression.calibration import tuner as tuning
from mvit_coreml.workflows import fit_palettes as palette_fitting

SIZE = 32
_known: dict[tuple[str, ...], Any] = {}


def fitted_checkpoint() -> Checkpoint:
    """Return the checkpoint whose palettes are fitted."""
    return small_checkpoint("mobilenet_v2", size=SIZE)


def write_images(folder: Path, count: int) -> list[Path]:
    """Write images of noise, the same for every folder, and return their files in order."""
    folder.mkdir(exist_ok=True)
    files = [folder / f"{index:02}.png" for index in range(count)]
    for index, file in enumerate(files):
        Image.fromarray(image((SIZE, SIZE), seed=index)).save(file)
    return files


def measure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what takes long once for the same model and images; ``monkeypatch`` undoes it."""
    monkeypatch.setattr(
        palette_fitting, "predict_sensitivity", _once(palette_fitting.predict_sensitivity)
    )
    monkeypatch.setattr(tuning, "reconstruct", _once(tuning.reconstruct))


def _once(original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the results by the constants, the pixels, the choices, the samples and the processor."""

    def call(function: Any, pixels: Any, choices: Any, *more: Any, **options: Any) -> Any:
        constants = hashlib.sha256()
        for name, value in function.constants.items():
            constants.update(name.encode() + value.numpy().tobytes())
        seen = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
        asked = repr((choices, options.get("samples")))
        key = (original.__name__, constants.hexdigest(), seen, asked)
        if key not in _known:
            kernels = (
                torch.backends.cpu.get_cpu_capability(),
                os.environ.get("ONEDNN_MAX_CPU_ISA"),
            )
            name = hashlib.sha256(repr((*key, *kernels)).encode()).hexdigest()[:32]
            measure = partial(original, function, pixels, choices, *more, **options)
            _known[key] = package_cache.measured(name, measure)
        return _known[key]

    return call
