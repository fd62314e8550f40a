"""Slices, gathers and scatters.

Until iOS 16 an index may be negative and counts from the end; from iOS 17 on that is undefined.
Undefined indices are an error here whether or not the program asks for the check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mvit_coreml.mil.kernels import kernel


@kernel("slice_by_index", "exact")
def slice_by_index(
    x: Tensor,
    *,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """Return x[begin:end:stride] on every axis.

    A masked begin or end is the start or end of the axis in the direction of the stride. A
    squeezed axis takes the one element at ``begin`` and disappears.
    """
    for axis in reversed(range(x.dim())):
        size = x.shape[axis]
        if squeeze_mask and squeeze_mask[axis]:
            x = x.select(axis, begin[axis] % size)
            continue
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        last = None if end_mask and end_mask[axis] else end[axis]
        step = stride[axis] if stride else 1
        places = range(*slice(first, last, step).indices(size))
        if step == 1:
            x = x.narrow(axis, places.start, len(places))
        else:
            x = x.index_select(axis, torch.tensor(places, dtype=torch.long, device=x.device))
    return x


@kernel("slice_by_size", "exact")
def slice_by_size(x: Tensor, *, begin: list[int], size: list[int]) -> Tensor:
    """Return ``size`` elements from ``begin`` on every axis; -1 takes all that are left."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        first = first + x.shape[axis] if first < 0 else first
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


@kernel("slice_update", "exact", since=18, attributes_of=slice_by_index)
def slice_update(x: Tensor, update: Tensor, **bounds: Any) -> Tensor:
    """Return ``x`` with the slice of the same arguments replaced by ``update``."""
    numbers = torch.arange(x.numel(), device=x.device).reshape(x.shape)
    places = slice_by_index(numbers, **bounds)
    return x.flatten().index_copy(0, places.flatten(), update.flatten()).reshape(x.shape)


@kernel("gather", "exact")
def gather_from_either_end(
    x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: int = 0
) -> Tensor:
    """Take elements along an axis; negative indices count from the end."""
    return gather(x, _wrapped(indices, x.shape[axis]), axis=axis, batch_dims=batch_dims)


@kernel("gather", "exact", since=17)
def gather(
    x: Tensor,
    indices: Tensor,
    *,
    axis: int = 0,
    batch_dims: int = 0,
    validate_indices: bool = False,
) -> Tensor:
    """Take elements along an axis; the first ``batch_dims`` axes of both belong together."""
    axis, rank = axis % x.dim(), indices.dim()
    taken = gather_slices(x.movedim(axis, batch_dims), indices.unsqueeze(-1), batch_dims=batch_dims)
    # The axes between the batch and the one that was gathered follow the indices' by now.
    places = range(rank, rank + axis - batch_dims), range(batch_dims, axis)
    return taken.movedim(*map(tuple, places)) if axis > batch_dims else taken


@kernel("gather_along_axis", "exact")
def gather_along_axis_from_either_end(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Take x[..., indices[...], ...] along an axis; negative indices count from the end."""
    return x.gather(axis, _wrapped(indices, x.shape[axis]))


@kernel("gather_along_axis", "exact", since=17)
def gather_along_axis(
    x: Tensor, indices: Tensor, *, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take x[..., indices[...], ...] along an axis."""
    return x.gather(axis, indices.long())


@kernel("gather_nd", "exact")
def gather_slices_from_either_end(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Take slices of ``x`` at the index vectors in the last axis of ``indices``."""
    depth = indices.shape[-1]
    sizes = torch.tensor(x.shape[batch_dims : batch_dims + depth], device=indices.device)
    return gather_slices(x, _wrapped(indices, sizes), batch_dims=batch_dims)


@kernel("gather_nd", "exact", since=17)
def gather_slices(
    x: Tensor, indices: Tensor, *, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take slices of ``x`` at the index vectors in the last axis of ``indices``."""
    index = indices.long()
    if index.device.type != "meta" and bool((index < 0).any()):
        raise IndexError("an index is negative")
    where = list(index.unbind(-1))
    for axis in range(batch_dims):
        shape = [1] * (index.dim() - 1)
        shape[axis] = -1
        where.insert(axis, torch.arange(x.shape[axis], device=x.device).reshape(shape))
    # One vector alone gets an axis for the time being: torch would read its numbers at once.
    return x[tuple(where)] if index.dim() > 1 else x[tuple(n[None] for n in where)][0]


# Integers are divided as floats, and truncated by the declared output type.
_COMBINE = {"add": "sum", "sub": "sum", "mul": "prod", "div": "prod", "max": "amax", "min": "amin"}


def _register_scatter(op_type: str, since: int, gather: Callable[..., Tensor]) -> None:
    @kernel(op_type, since=since, attributes_of=gather)
    def scatter(
        data: Tensor, indices: Tensor, updates: Tensor, *, mode: str = "add", **where: Any
    ) -> Tensor:
        """Return ``data`` with what ``gather`` would take combined with ``updates``."""
        numbers = torch.arange(data.numel(), device=data.device).reshape(data.shape)
        places, flat = gather(numbers, indices, **where).flatten(), data.flatten()
        if mode == "update":
            return flat.scatter(0, places, updates.flatten()).reshape(data.shape)
        start = torch.zeros_like(flat) if mode == "sub" else torch.ones_like(flat)
        start = start if mode in ("sub", "div") else flat
        combined = start.scatter_reduce(0, places, updates.flatten(), _COMBINE[mode])
        if mode == "sub":
            combined = flat - combined
        return (flat / combined if mode == "div" else combined).reshape(data.shape)


for _op_type, _gather, _newer in (
    ("scatter", gather_from_either_end, gather),
    ("scatter_along_axis", gather_along_axis_from_either_end, gather_along_axis),
    ("scatter_nd", gather_slices_from_either_end, gather_slices),
):
    _register_scatter(_op_type, 15, _gather)
    _register_scatter(_op_type, 17, _newer)


def _wrapped(indices: Tensor, size: int | Tensor) -> Tensor:
    index = indices.long()
    return torch.where(index < 0, index + size, index)
