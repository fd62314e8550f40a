"""Clustering the weights of a model beside coremltools' own k-means, in one run.

    python benchmarks/kmeans.py [--model mobilevit-small] [--bits 6] [--every 1] [--workers N]

Only the clustering is timed, on the same float16 tensors (those with more than 2048 elements, as
coremltools chooses them). The tensors take turns, so that a busy moment of the machine hits both;
the last row is the whole model at once, on all cores. The weights are random; the time
depends on the number of their distinct values.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SMALLEST = 2048


def model_weights(name: str) -> list[NDArray[np.float16]]:
    from standins import PUBLISHED, enliven

    from mvit_coreml.models.base import build_model
    from mvit_coreml.models.folding import prepare_for_export

    config, task, size = PUBLISHED[name]
    model = build_model(config, task)
    enliven(model, (size, size))
    tensors = prepare_for_export(model.eval()).state_dict().values()
    return [t.half().numpy() for t in tensors if t.ndim > 1 and t.numel() > SMALLEST]


def coremltools_error(cluster: Any, weights: NDArray[np.float16], bits: int) -> float:
    lut, indices = cluster(bits, weights)
    decoded = np.asarray(lut, dtype=np.float64).ravel()[np.asarray(indices).ravel()]
    return float(np.sum((weights.ravel().astype(np.float64) - decoded) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilevit-small")
    parser.add_argument("--bits", type=int, nargs="+", default=[6])
    parser.add_argument("--every", type=int, default=1, help="take every N-th tensor only")
    parser.add_argument("--workers", type=int, help="threads (default: one a core)")
    options = parser.parse_args()

    from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights, optimal_palette
    from mvit_coreml.compression.palettized_weight import Choice
    from mvit_coreml.export.coremltools_import import load_coremltools

    load_coremltools()
    from coremltools.models.neural_network.quantization_utils import (
        _get_kmeans_lookup_table_and_weight as cluster,
    )

    tensors = model_weights(options.model)
    start = time.perf_counter()
    optimal_palette(np.linspace(0, 1, 1000, dtype=np.float16), 16)
    print(f"first call (compiles once, then loads from the cache): {elapsed(start):.2f} s")
    everything = tensors
    tensors = tensors[:: options.every]
    print(f"{len(tensors)} of {len(everything)} tensors, {sum(t.size for t in tensors)} weights")
    print(
        f"{'bits':>4}{'coremltools s':>15}{'ours s':>9}{'ratio':>8}{'error ratio':>13}{'worst':>10}"
    )
    for bits in options.bits:
        theirs = ours = 0.0
        ratios = []
        for tensor in tensors:
            start = time.perf_counter()
            reference = coremltools_error(cluster, tensor, bits)
            theirs += elapsed(start)
            start = time.perf_counter()
            palette = optimal_palette(tensor, 1 << bits)
            ours += elapsed(start)
            ratios.append(palette.error / reference if reference else 1.0)
        print(
            f"{bits:4}{theirs:15.2f}{ours:9.3f}{theirs / ours:8.0f}"
            f"{np.mean(ratios):13.4f}{max(ratios):10.6f}"
        )
        start = time.perf_counter()
        jobs = {str(i): ClusterJob(tensor, Choice(bits)) for i, tensor in enumerate(everything)}
        cluster_weights(jobs, workers=options.workers)
        print(f"     all {len(everything)} tensors together: {elapsed(start):.3f} s")


def elapsed(start: float) -> float:
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
