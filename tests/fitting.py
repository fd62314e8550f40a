"""What tests of fitted palettes share: a small model, noise to fit to, and measuring only once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import package_cache
import pytest
from packages import image, small_checkpoint
from PIL import Image

from mvit_coreml import Checkpoint
from mvit_coreml.compression.calibration import tuner as tuning
from mvit_coreml.validation.synthetic_images import calibration_pictures
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
    monkeypatch.setattr(palette_fitting, "calibration_pictures", _pictures_once)


def fit_to_few_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit to as few synthetic pictures as there ever are: for tests of what comes after."""
    monkeypatch.setattr(palette_fitting, "_MOST_PICTURES", palette_fitting._FEWEST_PICTURES)


@cache
def _pictures_once(count: int, size: tuple[int, int]) -> list[Any]:
    """Draw the synthetic pictures of a size once; nobody changes them."""
    return calibration_pictures(count, size)


def _once(original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the results by all arguments that they depend on."""

    def call(function: Any, pixels: Any, choices: Any, *more: Any, **options: Any) -> Any:
        arguments = hashlib.sha256(pixels.numpy().tobytes())
        for name, value in function.constants.items():
            arguments.update(name.encode() + value.numpy().tobytes())
        fisher = options["fisher"] if "fisher" in options else more[0]
        for name, layer in fisher.items():
            arguments.update(name.encode() + layer.diagonal.numpy().tobytes())
        asked = repr((function.scores, choices, options.get("samples")))
        key = (original.__name__, arguments.hexdigest(), asked)
        if key not in _known:
            name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
            measure = partial(original, function, pixels, choices, *more, **options)
            _known[key] = package_cache.measured(name, measure)
        return _known[key]

    return call
