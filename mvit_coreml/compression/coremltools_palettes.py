"""coremltools' own palettization, for comparison."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mvit_coreml.export.coremltools_import import load_coremltools, quiet

# coremltools calls its k-means for small tensors, but does not depend on it.
_NEEDED = "scikit-learn"


def missing_requirement() -> str | None:
    """Return the package that coremltools' k-means lacks here, ``None`` if it lacks nothing."""
    return _NEEDED if importlib.util.find_spec("sklearn") is None else None


def palettize_by_coremltools(source: Path, bits: int, destination: Path) -> None:
    """Write the package that ``coremltools.optimize.coreml.palettize_weights`` makes of another.

    Args:
        source: a package without palettes.
        bits: of an index, for every weight that coremltools palettizes, by plain k-means.
        destination: the package to write.
    """
    coremltools = load_coremltools()
    from coremltools.optimize import coreml as optimize

    with quiet():
        model = coremltools.models.MLModel(str(source), skip_model_load=True)
        palettizer = optimize.OpPalettizerConfig(mode="kmeans", nbits=bits)
        config = optimize.OptimizationConfig(global_config=palettizer)
        optimize.palettize_weights(model, config).save(str(destination))
