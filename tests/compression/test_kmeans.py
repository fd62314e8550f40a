"""Optimal 1-D k-means, against exhaustive search in exact arithmetic and coremltools' kmeans1d."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairwise import pairwise
from safetensors.numpy import load_file

from mvit_coreml.compression.kmeans import Palette, nearest_entries, optimal_palette
from mvit_coreml.errors import InputError


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(2024)


def least_errors(values: Any, weights: Any, most: int) -> list[float]:
    """Try every partition of the sorted points into at most 1 … most intervals, in rationals."""
    points = sorted(
        (Fraction(float(v)), Fraction(float(w))) for v, w in zip(values, weights, strict=True)
    )
    n = len(points)

    def cost(first: int, last: int) -> Fraction:
        cluster = points[first:last]
        total = sum((w for _, w in cluster), Fraction())
        if not total:
            return total
        mean = sum(v * w for v, w in cluster) / total
        return sum((w * (v - mean) ** 2 for v, w in cluster), Fraction())

    costs = {(i, j): cost(i, j) for i in range(n) for j in range(i + 1, n + 1)}
    best = [
        min(
            sum(costs[link] for link in itertools.pairwise((0, *inner, n)))
            for inner in itertools.combinations(range(1, n), clusters - 1)
        )
        for clusters in range(1, min(most, n) + 1)
    ]
    return [float(min(best[:k])) for k in range(1, most + 1)]


def squares(values: Any, weights: Any) -> float:
    """The weighted sum of squares about the mean: the scale of the rounding errors."""
    values = np.asarray(values, dtype=np.float64)
    mean = np.average(values, weights=weights) if np.any(weights) else 0.0
    return float(np.sum(weights * (values - mean) ** 2))


def error_of(values: Any, palette: Palette, weights: Any = 1.0) -> float:
    kept = palette.lut.astype(np.float64)[palette.indices]
    return float(np.sum(weights * (np.asarray(values, dtype=np.float64) - kept) ** 2))


def small_cases(random: np.random.Generator) -> Iterator[tuple[str, Any]]:
    for _ in range(3):
        n = int(random.integers(5, 13))
        yield "normal", random.normal(size=n)
        yield "with many duplicates", random.integers(-3, 4, size=n) * 0.25
        yield "evenly spaced", np.arange(n) * 0.125
        yield "in pairs", np.repeat(np.arange((n + 1) // 2), 2) + np.tile([0, 0.5], (n + 1) // 2)
        yield "of very different sizes", random.normal(size=n) * 10.0 ** random.integers(-3, 3, n)
        yield "far from zero", 100 + random.normal(size=n) * 1e-3


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("weighing", ["equal", "whole", "real", "steep"])
def test_no_partition_of_few_points_has_a_smaller_error(
    weighing: str, dtype: Any, random: np.random.Generator
) -> None:
    for name, case in small_cases(random):
        values = case.astype(dtype)
        weights = {
            "equal": np.ones(values.size),
            "whole": random.integers(0, 4, values.size) + (np.arange(values.size) == 0),
            "real": random.random(values.size),
            "steep": 10.0 ** random.integers(-6, 3, values.size),
        }[weighing]
        allowed = 1e-13 * squares(values, weights)
        for k, expected in enumerate(least_errors(values, weights, most=4), start=1):
            palette = optimal_palette(values, k, None if weighing == "equal" else weights)
            assert palette.error == pytest.approx(expected, rel=1e-9, abs=allowed), (name, k)
            assert error_of(values, palette, weights) == pytest.approx(
                palette.error, rel=1e-9, abs=allowed
            ), (name, k)


def test_ties_between_numbers_of_clusters_are_resolved() -> None:
    # Every merger of neighbours costs exactly 1/2, so one penalty is optimal from 20 to 40 clusters
    # and no penalty alone singles out a number in between.
    values = np.arange(40.0)
    for k in range(20, 40):
        assert optimal_palette(values, k).error == pytest.approx((40 - k) / 2, rel=1e-12)


def kmeans1d_error(values: Any, k: int, weights: Any = None) -> float:
    from coremltools._deps import _kmeans1d

    points, inverse = np.unique(values, return_inverse=True)
    points = points.astype(np.float64)
    weight = np.bincount(inverse.ravel(), None if weights is None else weights.ravel())
    found = _kmeans1d.cluster(points, k, weights=weight)
    error = weight * (points - np.array(found.centroids)[found.clusters]) ** 2
    return float(error.sum())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("distribution", ["normal", "laplace", "uniform", "grid", "outliers"])
def test_error_is_that_of_kmeans1d_on_random_tensors(
    distribution: str, weighted: bool, random: np.random.Generator
) -> None:
    size = 3000
    values = {
        "normal": lambda: random.normal(size=size) * 0.05,
        "laplace": lambda: random.laplace(size=size),
        "uniform": lambda: random.uniform(-1, 1, size),
        "grid": lambda: random.integers(-400, 400, size) / 64,
        "outliers": lambda: random.standard_cauchy(size).clip(-1e4, 1e4),
    }[distribution]()
    values = values.astype(np.float16)
    weights = random.gamma(0.5, size=size) if weighted else None
    for k in (2, 7, 32, 150):
        palette = optimal_palette(values, k, weights)
        expected = kmeans1d_error(values, k, weights)
        assert palette.error == pytest.approx(expected, rel=1e-9)
        assert error_of(values, palette, 1.0 if weights is None else weights) <= expected * (
            1 + 1e-9
        )


def test_error_is_that_of_kmeans1d_on_more_values_than_are_searched_at_once(
    random: np.random.Generator,
) -> None:
    values = random.normal(size=50_000).astype(np.float32)
    assert np.unique(values).size > 40_000
    for k in (4, 48):
        expected = kmeans1d_error(values, k)
        assert optimal_palette(values, k).error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    "folder",
    [
        "mobilenet_v2_1.0_224",
        "mobilevit_xxs_cifar10_64",
        pytest.param("deeplabv3_mobilenet_v2_1.0_513_os16", id="deeplabv3 (8-bit grids)"),
    ],
)
def test_error_is_never_above_that_of_coremltools_on_trained_weights(
    folder: str, real_data: Path
) -> None:
    from coremltools.models.neural_network.quantization_utils import (
        _get_kmeans_lookup_table_and_weight as cluster,
    )

    tensors = load_file(real_data / folder / "model.safetensors").values()
    tensors = [t.astype(np.float16) for t in tensors if t.ndim > 1 and t.size > 2048]
    # coremltools takes kmeans1d for 10,000 elements and more, scikit-learn below.
    large = [t for t in tensors if t.size >= 10_000]
    small = [t for t in tensors if t.size < 10_000]
    for bits, chosen in ((2, large[::5]), (4, large[::7]), (6, large[::15]), (4, small[::4])):
        for tensor in chosen:
            palette = optimal_palette(tensor, 1 << bits)
            lut, indices = cluster(bits, tensor)
            found = np.asarray(lut, dtype=np.float64).ravel()[np.asarray(indices).ravel()]
            expected = float(np.sum((tensor.ravel().astype(np.float64) - found) ** 2))
            assert palette.error <= expected * (1 + 1e-9)
            assert error_of(tensor, palette) == pytest.approx(palette.error, rel=1e-9)


@pytest.mark.parametrize(
    ("stored", "source", "k"),
    pairwise([np.float16, np.float32, np.float64], [np.float16, np.float32], [2, 16, 256]),
)
def test_every_element_gets_the_nearest_entry(
    stored: Any, source: Any, k: int, random: np.random.Generator
) -> None:
    values = random.normal(size=(40, 25, 3)).astype(source)
    palette = optimal_palette(values, k, dtype=stored)
    assert palette.lut.dtype == stored
    assert palette.lut.shape == (k,)
    assert palette.indices.dtype == np.uint8
    assert palette.indices.shape == values.shape
    assert (np.diff(palette.lut) >= 0).all()
    distances = np.abs(values[..., None].astype(np.float64) - palette.lut.astype(np.float64))
    chosen = np.take_along_axis(distances, palette.indices[..., None].astype(np.intp), -1)
    assert (chosen[..., 0] <= distances.min(-1) * (1 + 1e-12)).all()
    assert palette.error == pytest.approx(float(np.sum(chosen**2)), rel=1e-9)


@pytest.mark.parametrize("source", [np.float16, np.float32])
def test_entries_are_the_weighted_means_of_their_elements(
    source: Any, random: np.random.Generator
) -> None:
    values = random.normal(size=5000).astype(source)
    weights = random.random(5000)
    palette = optimal_palette(values, 64, weights)
    rounded = optimal_palette(values, 64, weights, dtype=np.float16)
    for entry in range(64):
        mine = palette.indices == entry
        mean = np.average(values[mine].astype(np.float64), weights=weights[mine])
        assert palette.lut[entry] == pytest.approx(mean, rel=1e-12)
        mine = rounded.indices == entry
        mean = np.average(values[mine].astype(np.float64), weights=weights[mine])
        assert rounded.lut[entry] == np.float16(mean)


def test_a_rounded_table_loses_little_and_only_by_rounding(random: np.random.Generator) -> None:
    values = (random.normal(size=20_000) * 0.02).astype(np.float16)
    exact = optimal_palette(values, 64)
    rounded = optimal_palette(values, 64, dtype=np.float16)
    simply = exact.lut.astype(np.float16).astype(np.float64)
    nearest = np.abs(values.astype(np.float64)[:, None] - simply).min(-1)
    assert exact.error <= rounded.error <= float(np.sum(nearest**2))
    assert rounded.error <= exact.error * 1.001


def test_rounding_and_moving_elements_repeat_until_nothing_changes(
    random: np.random.Generator,
) -> None:
    # Values so close that the rounding of entries moves elements between them.
    gains = []
    for spread, k in ((0.005, 16), (0.02, 16), (0.02, 64), (0.1, 256)):
        values = random.normal(1.3, spread, size=5000).astype(np.float16)
        palette = optimal_palette(values, k, dtype=np.float16)
        for entry in np.unique(palette.indices):
            mine = values[palette.indices == entry].astype(np.float64)
            assert palette.lut[entry] == np.float16(mine.mean())
        rounded = optimal_palette(values, k).lut.astype(np.float16).astype(np.float64)
        once = np.abs(values.astype(np.float64)[:, None] - rounded).min(-1)
        gains.append(float(np.sum(once**2)) - palette.error)
    assert min(gains) >= -1e-12
    assert max(gains) > 1e-5


def test_a_cluster_of_one_value_keeps_it_exactly(random: np.random.Generator) -> None:
    values = np.concatenate((random.normal(size=200), random.uniform(100, 1000, 30)))
    values = np.repeat(values, 3)
    palette = optimal_palette(values, 40, random.random(values.size))
    apart = values > 50
    assert np.array_equal(palette.lut[palette.indices[apart]], values[apart])


def test_entries_that_round_to_the_same_value_leave_a_valid_table() -> None:
    # 300 float32 values within a few float16 steps: most entries collide.
    values = np.linspace(1, 1.01, 300, dtype=np.float32)
    palette = optimal_palette(values, 64, dtype=np.float16)
    assert np.unique(palette.lut).size < 20
    nearest = values.astype(np.float16).astype(np.float64)
    best = float(np.sum((values.astype(np.float64) - nearest) ** 2))
    assert palette.error == pytest.approx(best, rel=1e-9)


def test_order_of_the_elements_does_not_matter(random: np.random.Generator) -> None:
    for dtype in (np.float16, np.float32):
        values = random.normal(size=3000).astype(dtype)
        order = random.permutation(values.size)
        plain, shuffled = optimal_palette(values, 32), optimal_palette(values[order], 32)
        assert np.array_equal(plain.lut, shuffled.lut)
        assert np.array_equal(plain.indices[order], shuffled.indices)
        assert plain.error == shuffled.error


def test_whole_weights_are_repetitions(random: np.random.Generator) -> None:
    values = random.normal(size=800).astype(np.float32)
    repeats = random.integers(0, 5, values.size)
    weighted = optimal_palette(values, 16, repeats)
    repeated = optimal_palette(np.repeat(values, repeats), 16)
    assert np.array_equal(weighted.lut, repeated.lut)
    assert np.array_equal(np.repeat(weighted.indices, repeats), repeated.indices)


def test_scaling_by_powers_of_two_scales_the_table_bit_for_bit(random: np.random.Generator) -> None:
    values, weights = random.normal(size=2000), random.random(2000)
    plain = optimal_palette(values, 16, weights)
    for exponent in (-900, -40, 30, 400):
        scaled = optimal_palette(np.ldexp(values, exponent), 16, np.ldexp(weights, -exponent))
        assert np.array_equal(scaled.lut, np.ldexp(plain.lut, exponent))
        assert np.array_equal(scaled.indices, plain.indices)


def test_a_single_number_is_a_tensor() -> None:
    for dtype in (np.float16, np.float64):
        palette = optimal_palette(np.array(0.3, dtype=dtype), 2)
        assert palette.indices.shape == ()
        assert palette.lut[palette.indices] == dtype(0.3)


def test_any_memory_layout_gives_the_same_palette(random: np.random.Generator) -> None:
    values = random.normal(size=(60, 50)).astype(np.float16)
    weights = random.random((60, 50))
    plain = optimal_palette(values, 16, weights)
    views = optimal_palette(np.asfortranarray(values), 16, np.asfortranarray(weights))
    assert np.array_equal(plain.lut, views.lut)
    assert np.array_equal(plain.indices, views.indices)
    swapped = optimal_palette(values.astype(">f4"), 16, weights)
    assert np.array_equal(plain.indices, swapped.indices)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_table_alone_gives_back_the_indices(random: np.random.Generator, dtype: Any) -> None:
    values = random.normal(size=(40, 50)).astype(dtype)
    for k in (2, 16, 256):
        palette = optimal_palette(values, k, dtype=dtype)
        assert np.array_equal(nearest_entries(values, palette.lut), palette.indices)
    distances = np.abs(values[..., None].astype(np.float64) - palette.lut)
    assert np.array_equal(nearest_entries(values, palette.lut), distances.argmin(-1))


def test_a_constant_tensor_is_exact() -> None:
    for dtype in (np.float16, np.float32, np.float64):
        palette = optimal_palette(np.full((3, 4), 0.3, dtype=dtype), 16)
        assert palette.error == 0
        assert np.array_equal(palette.lut, np.full(16, dtype(0.3)))
        assert np.array_equal(palette.indices, np.zeros((3, 4)))
    assert optimal_palette(np.zeros(5), 2).error == 0


@pytest.mark.parametrize("k", [5, 6, 256])
def test_no_more_values_than_entries_is_exact_with_the_last_repeated(k: int) -> None:
    values = np.array([3.0, -1, 3, 0.1, 7, -2, -2], dtype=np.float32)
    palette = optimal_palette(values, k)
    assert palette.error == 0
    assert np.array_equal(palette.lut, [-2, -1, np.float32(0.1), 3, 7] + [7] * (k - 5))
    assert np.array_equal(palette.lut[palette.indices], values)


def test_zeros_of_both_signs_are_one_value() -> None:
    values = np.array([0.0, -0.0, 1.0, -0.0, -1.0])
    for dtype in (np.float16, np.float32):
        palette = optimal_palette(values.astype(dtype), 3)
        assert np.array_equal(palette.lut, [-1, 0, 1])
        assert np.array_equal(palette.indices, [1, 1, 2, 1, 0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_elements_of_weight_zero_do_not_move_the_table(
    dtype: Any, random: np.random.Generator
) -> None:
    values = random.normal(size=1000).astype(dtype)
    weights = np.where(np.arange(1000) % 3 == 0, 0.0, 1.0)
    palette = optimal_palette(values, 8, weights)
    alone = optimal_palette(values[weights > 0], 8)
    assert np.array_equal(palette.lut, alone.lut)
    assert palette.error == pytest.approx(alone.error, rel=1e-12)
    nearest = np.abs(values[:, None].astype(np.float64) - palette.lut).argmin(-1)
    assert np.array_equal(palette.indices, nearest)


def test_fewer_weighted_values_than_entries_are_exact() -> None:
    values = np.array([1.0, 2, 3, 4, 5])
    palette = optimal_palette(values, 3, np.array([0, 1, 0, 1, 0]))
    assert palette.error == 0
    assert np.array_equal(palette.lut, [2, 4, 4])
    assert np.array_equal(palette.indices, [0, 0, 0, 1, 1])


def test_weights_that_are_all_zero_cluster_as_equal_ones(random: np.random.Generator) -> None:
    values = random.normal(size=200)
    palette = optimal_palette(values, 4, np.zeros(200))
    assert np.array_equal(palette.lut, optimal_palette(values, 4).lut)
    assert palette.error == 0


@pytest.mark.parametrize(
    ("values", "k", "weights", "dtype", "message"),
    [
        ([1.0, np.nan], 2, None, "f8", "1 of 2 values are NaN or infinite"),
        ([1.0, -np.inf], 2, None, "f8", "NaN or infinite"),
        ([], 2, None, "f8", "empty"),
        ([1.0], 0, None, "f8", "k is 0"),
        ([1.0], 257, None, "f8", "k is 257"),
        ([1, 2], 2, None, "f8", "values are int64"),
        ([1.0, 2.0], 2, [1.0], "f8", r"weights have shape \(1,\)"),
        ([1.0, 2.0], 2, [1.0, -0.5], "f8", "weights reach -0.5"),
        ([1.0, 2.0], 2, [1.0, np.nan], "f8", "weights hold NaN"),
        ([1.0, 2.0], 2, ["a", "b"], "f8", "weights are <U1"),
        ([1.0, 2.0], 2, None, "i4", "int32"),
        ([1.0, 1e6], 2, None, "f2", "1e[+]06, beyond float16"),
    ],
)
def test_what_cannot_be_clustered_is_named(
    values: Any, k: int, weights: Any, dtype: str, message: str
) -> None:
    weights = None if weights is None else np.array(weights)
    with pytest.raises(InputError, match=message) as caught:
        optimal_palette(np.array(values), k, weights, dtype=dtype)
    assert "\n" not in str(caught.value)
