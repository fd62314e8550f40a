"""Whether a package's outputs follow from its own scores.

A softmax over the wrong axis or a class map off by one leaves the scores before it as they were,
and agreement on a few pictures says little. This holds whatever the weights are, palettes included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import softmax

Array = NDArray[Any]

# Half precision leaves a probability about 5e-4 of error.
_PROBABILITY_ERROR = 4e-3


def consistent_share(raw_scores: Array, outputs: dict[str, Array]) -> float | None:
    """Return which share of the outputs' values follows from the scores.

    Args:
        raw_scores: (1, num_labels) or (1, num_labels, h, w), before softmax or argmax.
        outputs: ``probabilities`` and ``classes`` by name, of as many positions; others are
            left out.

    Returns:
        From 0 to 1; ``None`` where nothing follows from the scores.
    """
    shares = []
    scores = raw_scores.astype(np.float64)
    probabilities, classes = outputs.get("probabilities"), outputs.get("classes")
    if probabilities is not None and probabilities.size == scores.size and scores.ndim > 1:
        expected = softmax(scores, axis=1).reshape(probabilities.shape)
        shares.append(np.mean(np.abs(probabilities - expected) <= _PROBABILITY_ERROR))
    if classes is not None and scores.ndim == 4 and classes.size == scores[0, 0].size:
        shares.append(np.mean(classes.reshape(-1) == scores[0].argmax(axis=0).reshape(-1)))
    return float(min(shares)) if shares else None
