"""Reductions over axes, running sums, sorting, and which label or boxes a model returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvit_coreml.mil.kernels import kernel

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _register(op_type: str, reduce: Reduction, *, exact: bool = False) -> None:
    @kernel(op_type, "exact" if exact else "widened")
    def reduction(x: Tensor, *, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
        chosen = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
        return reduce(x, chosen, keep_dims) if chosen else x


def _product(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep_dims)
    return x


def _mean(x: Tensor, axes: list[int], keep_dims: bool) -> Tensor:
    # Integers are averaged exactly and truncated by the declared output type.
    return (x if x.is_floating_point() else x.double()).mean(axes, keep_dims)


_register("reduce_sum", lambda x, axes, keep: x.sum(axes, keep))
_register("reduce_mean", _mean)
_register("reduce_prod", _product)
_register("reduce_max", lambda x, axes, keep: x.amax(axes, keep), exact=True)
_register("reduce_min", lambda x, axes, keep: x.amin(axes, keep), exact=True)
_register("reduce_l1_norm", lambda x, axes, keep: x.abs().sum(axes, keep))
_register("reduce_l2_norm", lambda x, axes, keep: (x * x).sum(axes, keep).sqrt())
_register("reduce_log_sum", lambda x, axes, keep: x.sum(axes, keep).log())
_register("reduce_log_sum_exp", lambda x, axes, keep: torch.logsumexp(x, axes, keep))
_register("reduce_sum_square", lambda x, axes, keep: (x * x).sum(axes, keep))


@kernel("reduce_argmax", "exact")
def reduce_argmax(
    x: Tensor, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """Return where along ``axis`` the largest value is; the first one in a tie.

    ``output_dtype`` (iOS 17) is repeated in the declared type of the output.
    """
    return x.argmax(axis, keep_dims)


@kernel("reduce_argmin", "exact")
def reduce_argmin(
    x: Tensor, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    """Return where along ``axis`` the smallest value is; the first one in a tie."""
    return x.argmin(axis, keep_dims)


@kernel("cumsum")
def cumsum(x: Tensor, *, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Return the running sum, of the elements before only if ``exclusive``."""
    source = x.flip(axis) if reverse else x
    total = source.cumsum(axis)
    if exclusive:
        # Moving by one place, not subtracting, so that no digit is lost.
        total = torch.cat(
            [torch.zeros_like(total.narrow(axis, 0, 1)), total.narrow(axis, 0, x.shape[axis] - 1)],
            axis,
        )
    return total.flip(axis) if reverse else total


@kernel("argsort", "exact")
def argsort(x: Tensor, *, axis: int = -1, ascending: bool = False) -> Tensor:
    """Return the order that sorts ``x``; equal elements keep their order."""
    return x.argsort(dim=axis, descending=not ascending, stable=True)


@kernel("topk", "exact")
def topk(
    x: Tensor,
    *,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the k largest (smallest if ``ascending``) elements in order, and where they are.

    -1 selects all. Unsorted results may come in any order, so sorting them is right too.
    """
    values, indices = x.sort(dim=axis, descending=not ascending, stable=True)
    count = x.shape[axis] if k == -1 else k
    values, indices = values.narrow(axis, 0, count), indices.narrow(axis, 0, count)
    return (values, indices) if return_indices else values


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


@kernel("non_maximum_suppression", "exact")
def suppress_boxes(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float,
    max_boxes: int,
    score_threshold: float = -math.inf,
    per_class_suppression: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Select boxes by their best scores that overlap no better one (of their class) too much.

    ``boxes`` are (N, B, 4) centres and sizes, ``scores`` (N, B, classes). Returns (N, max_boxes,
    4) boxes, (N, max_boxes, classes) scores and (N, max_boxes) indices, filled up with zeros and
    -1, and the (N,) numbers of boxes. Where no score suffices, the best box is selected anyway.
    """
    taken_boxes = boxes.new_zeros(len(boxes), max_boxes, 4)
    taken_scores = scores.new_zeros(len(boxes), max_boxes, scores.shape[2])
    indices = torch.full((len(boxes), max_boxes), -1, dtype=torch.int32)
    counts = torch.zeros(len(boxes), dtype=torch.int32)
    for image, (places, values) in enumerate(zip(boxes.float(), scores, strict=True)):
        best, label = values.max(-1)
        low, high = places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2
        left = best.argsort(descending=True, stable=True)
        chosen = [int(left[0])]
        left = left[best[left] >= score_threshold]
        if len(left):
            chosen = []
        while len(left) and len(chosen) < max_boxes:
            first, left = left[0], left[1:]
            chosen.append(int(first))
            sides = torch.minimum(high[first], high[left]) - torch.maximum(low[first], low[left])
            shared = sides.clamp(min=0).prod(-1)
            areas = places[:, 2:].prod(-1)
            worse = shared / (areas[first] + areas[left] - shared) > iou_threshold
            if per_class_suppression:
                worse &= label[left] == label[first]
            left = left[~worse]
        count = counts[image] = len(chosen)
        taken_boxes[image, :count] = boxes[image, chosen]
        taken_scores[image, :count] = values[chosen]
        indices[image, :count] = torch.tensor(chosen, dtype=torch.int32)
    return taken_boxes, taken_scores, indices, counts


@kernel("non_maximum_suppression", "exact", since=17, attributes_of=suppress_boxes)
def suppress_transposed_boxes(
    boxes: Tensor, scores: Tensor, **attributes: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Select of (N, 4, B) boxes with (N, classes, B) scores, without counting them."""
    chosen, values, indices, _ = suppress_boxes(boxes.mT, scores.mT, **attributes)
    return chosen.mT, values.mT, indices
