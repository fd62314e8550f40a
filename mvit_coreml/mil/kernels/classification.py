"""The operation that makes a model a classifier."""

from __future__ import annotations

from torch import Tensor

from mvit_coreml.mil.kernels.registry import kernel


@kernel("classify", "exact")
def classify(
    probabilities: Tensor, *, classes: list[str | int]
) -> tuple[str | int, dict[str | int, float]]:
    """Return the label of the largest probability, and each label's probability.

    Labels that occur twice share one entry, the later one's, as in Core ML's dictionary.
    """
    values = probabilities.reshape(-1).tolist()
    if len(values) != len(classes):
        raise ValueError(f"{len(values)} probabilities for {len(classes)} labels")
    best = max(range(len(values)), key=values.__getitem__)
    return classes[best], dict(zip(classes, values, strict=True))
