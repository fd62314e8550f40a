"""Many weights at once, in groups, with importance and with a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvit_coreml.compression import cluster_weights as clustering
from mvit_coreml.compression.cache import Cache
from mvit_coreml.compression.choices import UNCOMPRESSED, Choice
from mvit_coreml.compression.cluster_weights import ClusterJob, assign_to_tables, cluster_weights
from mvit_coreml.compression.kmeans import optimal_palette
from mvit_coreml.errors import InputError


def weight(seed: int, shape: tuple[int, ...], dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module")
def jobs() -> dict[str, ClusterJob]:
    importance = np.random.default_rng(9).random((12, 7, 3)).astype(np.float32)
    return {
        "grouped": ClusterJob(weight(0, (12, 7, 3)), Choice(3, 4)),
        "weighed": ClusterJob(weight(1, (12, 7, 3)), Choice(2), importance=importance),
        "transposed": ClusterJob(
            weight(2, (5, 6), "float32"), Choice(1, 2), 1, weight(3, (5, 6)) ** 2
        ),
        "small": ClusterJob(weight(4, (3, 2)), Choice(6)),
    }


def test_each_group_gets_its_own_optimum(jobs: dict[str, ClusterJob]) -> None:
    found = cluster_weights(jobs)
    assert list(found) == list(jobs)
    for name, job in jobs.items():
        size = job.choice.group_size or job.values.shape[job.axis]
        for group in range(job.values.shape[job.axis] // size):
            place = [slice(None)] * job.values.ndim
            place[job.axis] = slice(group * size, (group + 1) * size)
            part = tuple(place)
            alone = optimal_palette(
                job.values[part],
                2 ** (job.choice.bits or 0),
                None if job.importance is None else job.importance[part],
                dtype=job.values.dtype,
            )
            np.testing.assert_array_equal(found[name].decode()[part], alone.lut[alone.indices])
        assert found[name].lut.dtype == job.values.dtype
        assert found[name].axis == job.axis


def test_tables_alone_give_back_the_indices(jobs: dict[str, ClusterJob]) -> None:
    for name, found in cluster_weights(jobs).items():
        again = assign_to_tables(jobs[name].values, found.lut, found.axis)
        np.testing.assert_array_equal(again, found.indices, err_msg=name)


def test_elements_go_to_the_nearest_entry_of_a_table_in_any_order() -> None:
    values = weight(5, (40, 10), "float32")
    lut = np.array([[0.5, -1.0, 2.0, 0.5, -0.25, 0.0, 0.1, 7.0]], dtype=np.float32)
    indices = assign_to_tables(values, lut)
    distances = np.abs(values[..., None].astype(np.float64) - lut[0])
    np.testing.assert_array_equal(indices, distances.argmin(-1))


def test_the_number_of_threads_changes_nothing(jobs: dict[str, ClusterJob]) -> None:
    one, four = cluster_weights(jobs, workers=1), cluster_weights(jobs, workers=4)
    for name in jobs:
        assert one[name].lut.tobytes() == four[name].lut.tobytes()
        assert one[name].indices.tobytes() == four[name].indices.tobytes()


def test_cached_tables_give_the_same_without_clustering(
    jobs: dict[str, ClusterJob], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    fresh = cluster_weights(jobs, cache=cache)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("clustered again")

    monkeypatch.setattr(clustering, "optimal_palette", refuse)
    cached = cluster_weights(jobs, cache=cache)
    for name in jobs:
        np.testing.assert_array_equal(cached[name].lut, fresh[name].lut)
        np.testing.assert_array_equal(cached[name].indices, fresh[name].indices)
    values = weight(2, (5, 6), "float32")
    for changed in (
        ClusterJob(weight(6, (3, 2)), Choice(6)),
        ClusterJob(weight(4, (3, 2)), Choice(6, 1)),
        ClusterJob(weight(4, (3, 2)), Choice(6), 1),
        ClusterJob(weight(4, (3, 2)), Choice(4)),
        ClusterJob(weight(4, (3, 2)).astype(np.float32), Choice(6)),
        ClusterJob(values, Choice(1, 2), 1),
    ):
        with pytest.raises(AssertionError, match="clustered again"):
            cluster_weights({"changed": changed}, cache=cache)


def test_errors_name_the_weight() -> None:
    bad = np.full((4, 4), np.nan, dtype=np.float16)
    with pytest.raises(InputError, match=r"weight 'stem'.*NaN"):
        cluster_weights({"stem": ClusterJob(bad, Choice(4))})
    with pytest.raises(InputError, match=r"weight 'stem'.*3 does not divide its 4"):
        cluster_weights({"stem": ClusterJob(weight(0, (4, 4)), Choice(4, 3))})
    with pytest.raises(InputError, match=r"weight 'stem'.*uncompressed"):
        cluster_weights({"stem": ClusterJob(weight(0, (4, 4)), UNCOMPRESSED)})
