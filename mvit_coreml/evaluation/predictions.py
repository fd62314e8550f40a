"""Predictions of a package to show: likeliest classes, shares of pixels, painted class maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.evaluation.metrics import top_k
from mvit_coreml.evaluation.targets import NOT_SEEN, Answer
from mvit_coreml.visualization.segmentation_colors import LegendEntry, add_legend, overlay


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """A class that a classifier takes a photo for.

    Attributes:
        index: of the class.
        label: its name, or ``class N`` where the package has no names.
        probability: from 0 to 1; the softmax of the logits where the package answers logits.
        logit: ``None`` where the package answers probabilities.
    """

    index: int
    label: str
    probability: float
    logit: float | None


@dataclass(frozen=True, kw_only=True)
class ClassShare:
    """A class that a segmenter sees in a photo.

    Attributes:
        index: of the class.
        label: its name, or ``class N`` where the package has no names.
        pixels: of the photo that are of the class.
        share: of the pixels that the package saw.
    """

    index: int
    label: str
    pixels: int
    share: float


def class_name(labels: Sequence[str] | None, index: int) -> str:
    """Return a class's name, or ``class N`` where there are no names."""
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


def top_classes(answer: Answer, labels: Sequence[str] | None, count: int) -> list[ClassScore]:
    """Return the most likely classes of a classifier's answer, the likeliest first.

    Args:
        answer: with probabilities or logits.
        labels: class names.
        count: how many to return.
    """
    scores, probabilities = answer.scores(), answer.probabilities()
    assert scores is not None
    assert probabilities is not None
    are_logits = "probabilities" not in answer.outputs
    return [
        ClassScore(
            index=index,
            label=class_name(labels, index),
            probability=float(probabilities[index]),
            logit=float(scores[index]) if are_logits else None,
        )
        for index in top_k(scores, count)
    ]


def class_shares(classes: NDArray[Any], labels: Sequence[str] | None) -> list[ClassShare]:
    """Return the classes of a photo's map, the largest first."""
    seen = classes[classes != NOT_SEEN]
    indices, counts = np.unique(seen, return_counts=True)
    shares = [
        ClassShare(
            index=int(index),
            label=class_name(labels, int(index)),
            pixels=int(count),
            share=float(count / seen.size),
        )
        for index, count in zip(indices, counts, strict=True)
    ]
    return sorted(shares, key=lambda share: (-share.pixels, share.index))


def paint_classes(
    photo: Any,
    classes: NDArray[Any],
    colors: NDArray[np.uint8],
    shares: Sequence[ClassShare],
    alpha: float = 0.5,
) -> NDArray[np.uint8]:
    """Blend the classes' colours over a photo and put a legend below.

    A class 0 named background is left unpainted, and what the package did not see.

    Args:
        photo: the photo.
        classes: (H, W) from :meth:`~mvit_coreml.evaluation.targets.Answer.photo_map`.
        colors: (num_labels, 3) uint8 RGB.
        shares: from :func:`class_shares`; what the legend lists.
        alpha: weight of the colours.

    Returns:
        (H + legend, W', 3) uint8 RGB, as :func:`add_legend` returns it.
    """
    background = {share.index for share in shares if _is_background(share)}
    bare = np.isin(classes, [NOT_SEEN, *background])
    pixels = np.asarray(photo)
    painted = overlay(pixels, np.where(bare, 0, classes), colors, alpha)
    entries = []
    for share in shares:
        if share.index not in background:
            red, green, blue = (int(value) for value in colors[share.index])
            text = f"{share.label} {100 * share.share:.1f} %"
            entries.append(LegendEntry(text, (red, green, blue)))
    return add_legend(np.where(bare[..., None], pixels, painted), entries)


def _is_background(share: ClassShare) -> bool:
    return share.index == 0 and share.label.lower() == "background"
