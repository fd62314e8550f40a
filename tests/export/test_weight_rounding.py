"""Rounding weights to fp16 with the sums of their filters kept."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from packages import SavedPackage

from mvit_coreml import ConvertOptions, ValidateOptions, convert, load_checkpoint, validate
from mvit_coreml.export.graph_passes import round_rows, round_weight

pytestmark = pytest.mark.fast

GENERATOR = np.random.default_rng(5)


def neighbours(value: float) -> set[float]:
    """The fp16 numbers around a value, by comparison with all of them."""
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
    halves = halves[np.isfinite(halves)]
    return {float(halves[halves <= value].max()), float(halves[halves >= value].min())}


def test_every_weight_becomes_one_of_the_numbers_around_it() -> None:
    weights = GENERATOR.standard_normal((6, 40)).astype(np.float32)
    weights[0] *= 1e-6  # subnormal numbers of fp16
    weights[1] *= 1e4
    for weight, rounded in zip(weights.ravel(), round_rows(weights).ravel(), strict=True):
        assert float(rounded) in neighbours(float(weight))


@pytest.mark.parametrize("columns", [9, 64, 960])
def test_the_sum_of_a_row_is_kept(columns: int) -> None:
    weights = (GENERATOR.standard_normal((200, columns)) * 0.1).astype(np.float32)
    exact = weights.astype(np.float64)
    plain = np.abs((exact - weights.astype(np.float16)).sum(axis=1))
    kept = np.abs((exact - round_rows(weights)).sum(axis=1))
    assert (kept <= plain).all()
    assert np.sqrt((kept**2).mean()) < 0.25 * np.sqrt((plain**2).mean())
    # It costs little: nine weights leave less choice than hundreds.
    noise = ((exact - round_rows(weights)) ** 2).mean() / (
        (exact - weights.astype(np.float16)) ** 2
    ).mean()
    assert noise < (1.3 if columns < 64 else 1.05)


def test_no_choice_of_neighbours_comes_nearer_to_the_sum() -> None:
    """Exhaustive search over short rows of weights of one binade, where all moves are alike."""
    for _ in range(20):
        row = GENERATOR.uniform(1, 2, 7).astype(np.float32)
        choices = itertools.product(*(sorted(neighbours(float(weight))) for weight in row))
        best = min(abs(sum(choice) - row.astype(np.float64).sum()) for choice in choices)
        found = abs(
            round_rows(row[None])[0].astype(np.float64).sum() - row.astype(np.float64).sum()
        )
        assert found == pytest.approx(best, abs=1e-12)


def test_numbers_of_fp16_stay_as_they_are() -> None:
    halves = GENERATOR.standard_normal((4, 3, 3, 3)).astype(np.float16).astype(np.float32)
    assert np.array_equal(round_weight(halves), halves)
    largest = np.full((1, 4), 65504.0, np.float32)
    assert np.array_equal(round_weight(largest), largest)


def test_large_weights_that_cancel_keep_their_scores(real_data: Path, tmp_path: Path) -> None:
    """A folded depthwise filter of this checkpoint has weights up to 56; torch's half: 36 dB."""
    checkpoint = load_checkpoint(real_data / "mobilenet_v2_1.0_224")
    path = tmp_path / "package.mlpackage"
    convert(checkpoint, ConvertOptions(bits=None), path, check=False)
    photos = sorted((real_data / "imagenet").rglob("*.[jJ]*"))[:4]
    assert validate(path, checkpoint, photos, ValidateOptions(structure=False)).scores.snr > 41
    assert SavedPackage(path).size < 7.1e6
