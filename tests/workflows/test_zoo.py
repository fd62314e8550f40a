"""Networks of timm and torchvision as others convert them: run, and palettized at 4 bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_packages import (
    Plain,
    compress_plainly,
    convert_plainly,
    decompress_plainly,
    write_photos,
)
from zoo import ZOO

from mvit_coreml import PaletteOptions, ValidateOptions, palettize_package
from mvit_coreml.compression.promise import Promise
from mvit_coreml.mil.compiler import Arithmetic
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.preprocessing.image_loading import open_image
from mvit_coreml.workflows.validate import validate_against_package

FITTED, UNSEEN = 24, 6
# Those that are palettized in a minute or two; benchmarks/other_models.py takes all.
SMALL = ("MobileNetV4-Conv-S", "RegNetY-200MF")


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_a_network_of_another_family_runs_as_in_pytorch(name: str, tmp_path: Path) -> None:
    build, size, _ = ZOO[name]
    network = Plain(build()).eval()
    photos = write_photos(tmp_path / "photos", 1, (size, size))
    single = convert_plainly(network, size, tmp_path / "fp32.mlpackage", ios=16, precision="fp32")
    pixels = np.asarray(open_image(photos[0]))
    with torch.no_grad():
        result = network(torch.from_numpy(pixels / 255.0).float().permute(2, 0, 1)[None])
    expected = result if isinstance(result, tuple) else (result,)
    values = Predictor(single, engine="portable").run({"image": pixels}).values()
    for value, truth in zip(values, expected, strict=True):
        noise = float((torch.from_numpy(value) - truth).double().square().sum())
        assert 10 * np.log10(float(truth.double().square().sum()) / noise) >= 80


def answers(package: Path, pixels: Any, arithmetic: Arithmetic = "program") -> list[Any]:
    predictor = Predictor(package, engine="portable", arithmetic=arithmetic)
    return list(predictor.run({"image": pixels}).values())


def decibels(values: Sequence[Any], expected: Sequence[Any]) -> float:
    """SNR of the worst of several outputs."""
    pairs = [np.float64(np.stack(pair)) for pair in zip(values, expected, strict=True)]
    noise = [max(np.square(value - truth).sum(), 1e-300) for value, truth in pairs]
    return min(
        10 * np.log10(np.square(truth).sum() / one)
        for (_, truth), one in zip(pairs, noise, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_half_precision_and_compressed_weights_of_another_family(name: str, tmp_path: Path) -> None:
    build, size, _ = ZOO[name]
    network = Plain(build()).eval()
    pixels = np.asarray(open_image(write_photos(tmp_path / "photos", 1, (size, size))[0]))
    x = torch.from_numpy(pixels / 255.0).float().permute(2, 0, 1)[None]

    def torch_answers(dtype: torch.dtype) -> list[Any]:
        with torch.no_grad():
            result = network.to(dtype)(x.to(dtype))
        results = result if isinstance(result, tuple) else (result,)
        return [one.float().numpy() for one in results]

    floor = decibels(torch_answers(torch.float16), truth := torch_answers(torch.float32))
    for ios in (16, 17, 18):
        plain = convert_plainly(network, size, tmp_path / f"{ios}.mlpackage", ios=ios)
        # One photo's rounding errors are a sample of few: they lie several dB apart.
        assert decibels(answers(plain, pixels), truth) >= floor - 5
    for kind in ("4-bit palettes", "8-bit linear"):
        small = compress_plainly(plain, kind, tmp_path / f"{kind}.mlpackage")
        whole = decompress_plainly(small, tmp_path / f"{kind} decoded.mlpackage")
        ours, theirs = (answers(package, pixels, "fp32") for package in (small, whole))
        assert decibels(ours, theirs) >= 80
        assert decibels(ours, truth) < floor


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_fitted_palettes_of_another_family_beat_those_of_coremltools(
    name: str, tmp_path: Path
) -> None:
    build, size, _ = ZOO[name]
    photos = write_photos(tmp_path / "photos", FITTED + UNSEEN, (size, size))
    plain = convert_plainly(Plain(build()), size, tmp_path / "fp16.mlpackage", ios=17)
    theirs = compress_plainly(plain, "4-bit palettes", tmp_path / "Theirs.mlpackage")
    anything = Promise(min_snr=-100)
    ours = palettize_package(
        plain,
        PaletteOptions(bits=4, promise=anything),
        tmp_path / "Ours.mlpackage",
        images=photos[:FITTED],
    )
    fitted, kmeans = (
        validate_against_package(one, plain, photos[FITTED:], ValidateOptions(promise=anything))
        for one in (ours.path, theirs)
    )
    for role, closeness in fitted.outputs.items():
        assert closeness.snr > kmeans.outputs[role].snr
