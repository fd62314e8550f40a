"""Many weights at once, in groups, and with a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mvit_coreml.compression import kmeans as clustering
from mvit_coreml.compression.cache import Cache
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights, optimal_palette
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.errors import InputError

pytestmark = pytest.mark.fast


def weight(seed: int, shape: tuple[int, ...], dtype: str = "float16") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module")
def jobs() -> dict[str, ClusterJob]:
    return {
        "grouped": ClusterJob(weight(0, (12, 7, 3)), Choice(3, 4)),
        "whole": ClusterJob(weight(1, (12, 7, 3)), Choice(2)),
        "transposed": ClusterJob(weight(2, (5, 6), "float32"), Choice(1, 2), 1),
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
                dtype=job.values.dtype,
            )
            np.testing.assert_array_equal(found[name].decode()[part], alone.lut[alone.indices])
        assert found[name].lut.dtype == job.values.dtype
        assert found[name].axis == job.axis


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
    values = weight(7, (5, 6), "float32")
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
