"""Slices and gathers.

Until iOS 16 an index may be negative and counts from the end; from iOS 17 on that is undefined.
Undefined indices are an error here whether or not the program asks for the check.
"""

from __future__ import annotations

import math

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
    places = _places(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis in reversed(range(x.dim())):
        place = places[axis]
        if isinstance(place, int):
            x = x.select(axis, place)
        elif place.step == 1:
            x = x.narrow(axis, place.start, len(place))
        else:
            x = x.index_select(axis, torch.tensor(place, dtype=torch.long, device=x.device))
    return x


@kernel("slice_by_size", "exact")
def slice_by_size(x: Tensor, *, begin: list[int], size: list[int]) -> Tensor:
    """Return ``size`` elements from ``begin`` on every axis; -1 takes all that are left."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        first = first + x.shape[axis] if first < 0 else first
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


@kernel("slice_update", "exact", since=18)
def slice_update(
    x: Tensor,
    update: Tensor,
    *,
    begin: list[int],
    end: list[int],
    stride: list[int] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """Return ``x`` with the slice of the same arguments replaced by ``update``."""
    places = _places(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    taken = [[place] if isinstance(place, int) else list(place) for place in places]
    index = torch.meshgrid(*[torch.tensor(t, dtype=torch.long) for t in taken], indexing="ij")
    result = x.clone()
    result[tuple(part.to(x.device) for part in index)] = update.reshape([len(t) for t in taken])
    return result


def _places(
    x: Tensor,
    begin: list[int],
    end: list[int],
    stride: list[int] | None,
    begin_mask: list[bool] | None,
    end_mask: list[bool] | None,
    squeeze_mask: list[bool] | None,
) -> list[range | int]:
    """Return the elements that a slice takes on each axis, an integer where it is squeezed."""
    places: list[range | int] = []
    for axis, size in enumerate(x.shape):
        if squeeze_mask and squeeze_mask[axis]:
            places.append(begin[axis] % size)
            continue
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        last = None if end_mask and end_mask[axis] else end[axis]
        step = stride[axis] if stride else 1
        places.append(range(*slice(first, last, step).indices(size)))
    return places


@kernel("gather", "exact")
def gather_from_either_end(
    x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: int = 0
) -> Tensor:
    """Take elements along an axis; negative indices count from the end."""
    return _gather(x, _wrapped(indices, x.shape[axis]), axis, batch_dims)


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
    return _gather(x, indices, axis, batch_dims)


def _gather(x: Tensor, indices: Tensor, axis: int, batch_dims: int) -> Tensor:
    axis = axis % x.dim()
    index = indices.long()
    if batch_dims == 0:
        taken = x.index_select(axis, index.reshape(-1))
        return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    batch = x.shape[:batch_dims]
    rows = x.reshape(math.prod(batch), *x.shape[batch_dims:])
    row_indices = index.reshape(math.prod(batch), *index.shape[batch_dims:])
    pairs = zip(rows, row_indices, strict=True)
    taken = torch.stack([_gather(row, index, axis - batch_dims, 0) for row, index in pairs])
    return taken.reshape(*batch, *taken.shape[1:])


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
    return _gather_slices(x, _wrapped(indices, sizes), batch_dims)


@kernel("gather_nd", "exact", since=17)
def gather_slices(
    x: Tensor, indices: Tensor, *, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Take slices of ``x`` at the index vectors in the last axis of ``indices``."""
    return _gather_slices(x, indices.long(), batch_dims)


def _gather_slices(x: Tensor, index: Tensor, batch_dims: int) -> Tensor:
    if index.device.type != "meta" and bool((index < 0).any()):
        raise IndexError("an index is negative")
    where = list(index.unbind(-1))
    for axis in range(batch_dims):
        shape = [1] * (index.dim() - 1)
        shape[axis] = -1
        where.insert(axis, torch.arange(x.shape[axis], device=x.device).reshape(shape))
    return x[tuple(where)]


def _wrapped(indices: Tensor, size: int | Tensor) -> Tensor:
    index = indices.long()
    return torch.where(index < 0, index + size, index)
