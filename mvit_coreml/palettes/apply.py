"""Palettizing the weights of a program, with coremltools' own operations."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.coreml.toolkit import load_coremltools, quiet
from mvit_coreml.palettes.kmeans import optimal_palette

Bits = Literal[4, 6, 8]

# Smaller tensors gain nothing: a look-up table and its padding cost what the indices save.
WEIGHT_THRESHOLD = 2048


def palettize_program(program: Any, bits: Bits, *, verbose: bool = False) -> None:
    """Replace the weights of a program by look-up tables and indices, in place.

    Each table is the global optimum of the squared error over its tensor.

    Args:
        program: a ``coremltools`` MIL program.
        bits: of the indices; a table has 2 to that power entries.
        verbose: let coremltools print.
    """
    load_coremltools()
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.optimize.coreml import OpPalettizerConfig, OptimizationConfig

    def look_up_table(weights: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        palette = optimal_palette(weights, 2**bits, dtype=weights.dtype)
        return palette.lut.astype(weights.dtype), palette.indices.ravel()

    config = OpPalettizerConfig(
        mode="custom", lut_function=look_up_table, weight_threshold=WEIGHT_THRESHOLD
    )
    palettize = PASS_REGISTRY["compression::palettize_weights"]
    palettize.set_options([PassOption("config", OptimizationConfig(config))])
    with quiet(not verbose):
        palettize(program)
