"""Operations that move elements or make them up: reshapes, joins, padding, fills, chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel


@kernel("reshape", "exact")
def reshape(x: Tensor, *, shape: list[int]) -> Tensor:
    """Give ``x`` another shape; 0 keeps the size of the same axis, -1 is inferred."""
    if 0 in shape and len(shape) != x.dim():
        raise ValueError(f"a shape with 0 needs the rank of x: {list(shape)}, {list(x.shape)}")
    return x.reshape([size or x.shape[axis] for axis, size in enumerate(shape)])


@kernel("reshape", "exact", since=17)
def reshape_right_aligned(x: Tensor, *, shape: list[int]) -> Tensor:
    """Give ``x`` another shape; 0 keeps the size of the axis as far from the last one."""
    sizes = list(x.shape)
    kept = [1] * max(len(shape) - len(sizes), 0) + sizes[max(len(sizes) - len(shape), 0) :]
    return x.reshape([size or old for size, old in zip(shape, kept, strict=True)])


@kernel("reshape_like", "exact", since=16)
def reshape_like(
    x: Tensor,
    ref_tensors: tuple[Tensor, ...],
    *,
    begins: int | list[int],
    ends: int | list[int],
    end_masks: bool | list[bool],
) -> Tensor:
    """Give ``x`` the joined shapes of parts of other tensors."""
    bounds = zip(
        *(v if isinstance(v, list) else [v] for v in (begins, ends, end_masks)), strict=True
    )
    parts = (
        reference.shape[begin : None if mask else end]
        for reference, (begin, end, mask) in zip(ref_tensors, bounds, strict=True)
    )
    return x.reshape(list(chain.from_iterable(parts)))


@kernel("flatten2d", "exact")
def flatten_to_matrix(x: Tensor, *, axis: int = 1) -> Tensor:
    """Merge the axes before ``axis`` and those from it on."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@kernel("expand_dims", "exact")
def expand_dims(x: Tensor, *, axes: list[int]) -> Tensor:
    """Insert axes of size 1 at the given positions of the result."""
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@kernel("squeeze", "exact")
def squeeze(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """Remove axes of size 1: the given ones (others are ignored) or all."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@kernel("transpose", "exact")
def transpose(x: Tensor, *, perm: list[int]) -> Tensor:
    """Reorder the axes."""
    return x.permute(*perm)


@kernel("concat", "exact")
def concat(values: tuple[Tensor, ...], *, axis: int, interleave: bool = False) -> Tensor:
    """Join tensors along an axis, or alternate their elements along it."""
    if values[0].dim() == 0:
        return torch.stack(values)
    if interleave:
        axis = axis % values[0].dim()
        return torch.stack(values, axis + 1).flatten(axis, axis + 1)
    return torch.cat(values, axis)


@kernel("stack", "exact")
def stack(values: tuple[Tensor, ...], *, axis: int) -> Tensor:
    """Join tensors along a new axis."""
    return torch.stack(values, axis)


@kernel("split", "exact")
def split(
    x: Tensor, *, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Cut along an axis into parts of the given sizes, or into ``num_splits`` equal parts."""
    if split_sizes is None:
        if num_splits is None or x.shape[axis] % num_splits:
            raise ValueError(f"{x.shape[axis]} elements cannot be cut into {num_splits} parts")
        split_sizes = [x.shape[axis] // num_splits] * num_splits
    return torch.split_with_sizes(x, split_sizes, axis)


@kernel("tile", "exact")
def tile(x: Tensor, *, reps: list[int]) -> Tensor:
    """Repeat along each axis."""
    return x.repeat(*reps)


@kernel("reverse_sequence", "exact")
def reverse_sequence(
    x: Tensor, lengths: Tensor, *, seq_axis: int = 0, batch_axis: int = 0
) -> Tensor:
    """Reverse the first ``lengths[b]`` elements along ``seq_axis`` of each b of ``batch_axis``."""
    x = x.movedim((batch_axis, seq_axis), (0, 1))
    place = torch.arange(x.shape[1], device=x.device)
    last = lengths.long()[:, None] - 1
    place = torch.where(place <= last, last - place, place)  # (batch, sequence)
    place = place.reshape(*place.shape, *[1] * (x.dim() - 2)).expand_as(x)
    return x.gather(1, place).movedim((0, 1), (batch_axis, seq_axis))


@kernel("reverse", "exact")
def reverse(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """Reverse the order along the given axes or all."""
    return x.flip(list(range(x.dim())) if axes is None else list(axes))


@kernel("pixel_shuffle", "exact")
def pixel_shuffle(x: Tensor, *, upscale_factor: int) -> Tensor:
    """(N, C f², H, W) to (N, C, H f, W f); channels of one output channel are adjacent."""
    return F.pixel_shuffle(x, upscale_factor)


@kernel("pixel_unshuffle", "exact", since=16)
def pixel_unshuffle(x: Tensor, *, downscale_factor: int) -> Tensor:
    """(N, C, H f, W f) to (N, C f², H, W): the inverse of ``pixel_shuffle``."""
    return F.pixel_unshuffle(x, downscale_factor)


@kernel("depth_to_space", "exact")
def depth_to_space(x: Tensor, *, block_size: int) -> Tensor:
    """(N, b² C, H, W) to (N, C, H b, W b); the place in the block is the slower channel index.

    This is TensorFlow's order, unlike ``pixel_shuffle``.
    """
    n, channels, height, width = x.shape
    block = block_size
    x = x.reshape(n, block, block, channels // block**2, height, width)
    return x.permute(0, 3, 4, 1, 5, 2).reshape(n, -1, height * block, width * block)


@kernel("space_to_depth", "exact")
def space_to_depth(x: Tensor, *, block_size: int) -> Tensor:
    """(N, C, H b, W b) to (N, b² C, H, W): the inverse of ``depth_to_space``."""
    n, channels, height, width = x.shape
    block = block_size
    x = x.reshape(n, channels, height // block, block, width // block, block)
    return x.permute(0, 3, 5, 1, 2, 4).reshape(n, -1, height // block, width // block)


@kernel("space_to_batch", "exact")
def space_to_batch(x: Tensor, *, block_shape: list[int], paddings: list[list[int]]) -> Tensor:
    """(N, C, H a, W b), after padding with zeros, to (a b N, C, H, W)."""
    x = pad_spatial(x, [(before, after) for before, after in paddings], 0.0)
    n, channels, height, width = x.shape
    rows, columns = block_shape
    x = x.reshape(n, channels, height // rows, rows, width // columns, columns)
    return x.permute(3, 5, 0, 1, 2, 4).reshape(-1, channels, height // rows, width // columns)


@kernel("batch_to_space", "exact")
def batch_to_space(x: Tensor, *, block_shape: list[int], crops: list[list[int]]) -> Tensor:
    """(a b N, C, H, W) to (N, C, H a, W b), cropped: the inverse of ``space_to_batch``."""
    _, channels, height, width = x.shape
    rows, columns = block_shape
    x = x.reshape(rows, columns, -1, channels, height, width).permute(2, 3, 4, 0, 5, 1)
    x = x.reshape(-1, channels, height * rows, width * columns)
    return pad_spatial(x, [(-before, -after) for before, after in crops], 0.0)


@kernel("pad", "exact")
def pad(x: Tensor, *, pad: list[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Pad the last axes, two numbers (before, after) for each."""
    amounts = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    if mode == "constant":
        return pad_spatial(x, amounts, constant_val)
    for axis, (before, after) in zip(range(-len(amounts), 0), amounts, strict=True):
        if before or after:
            size = x.shape[axis]
            position = torch.arange(-before, size + after, device=x.device)
            if mode == "reflect":
                position = size - 1 - (size - 1 - position.abs()).abs()
            elif mode == "replicate":
                position = position.clamp(0, size - 1)
            else:
                raise ValueError(f"unknown mode {mode!r}")
            x = x.index_select(axis, position)
    return x


def pad_spatial(x: Tensor, amounts: Sequence[tuple[int, int]], value: float) -> Tensor:
    """Pad, or crop where an amount is negative, the last axes of ``x``."""
    flat = [amount for pair in reversed(amounts) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


@kernel("crop", "exact")
def crop(x: Tensor, *, crop_height: list[int], crop_width: list[int]) -> Tensor:
    """Remove rows and columns (before, after) from the last two axes."""
    amounts = [(-crop_height[0], -crop_height[1]), (-crop_width[0], -crop_width[1])]
    return pad_spatial(x, amounts, 0.0)


@kernel("shape", "exact")
def shape_of(x: Tensor) -> Tensor:
    """Return the shape as integers."""
    return torch.tensor(x.shape, dtype=torch.int32)


@kernel("fill", "exact")
def fill(*, shape: list[int], value: float = 0.0) -> Tensor:
    """Return a tensor of one value."""
    return torch.full(list(shape), value)


@kernel("fill_like", "exact", since=16)
def fill_like(ref_tensor: Tensor, *, value: float = 0.0) -> Tensor:
    """Return a tensor of one value in the shape of another."""
    return torch.full(ref_tensor.shape, value, device=ref_tensor.device)


@kernel("random_uniform")
def random_uniform(
    *, shape: list[int], low: float = 0.0, high: float = 1.0, seed: int = -1
) -> Tensor:
    """Return random numbers of [low, high); not Core ML's own, as of every random operation."""
    return torch.rand(shape, generator=_generator(seed)) * (high - low) + low


@kernel("random_normal")
def random_normal(
    *, shape: list[int], mean: float = 0.0, stddev: float = 1.0, seed: int = -1
) -> Tensor:
    """Return random numbers of a normal distribution."""
    return torch.randn(shape, generator=_generator(seed)) * stddev + mean


@kernel("random_bernoulli")
def random_bernoulli(*, shape: list[int], prob: float = 0.5, seed: int = -1) -> Tensor:
    """Return ones with a probability, zeros elsewhere."""
    return (torch.rand(shape, generator=_generator(seed)) < prob).float()


@kernel("random_categorical")
def random_categorical(x: Tensor, *, mode: str = "logits", size: int = 1, seed: int = -1) -> Tensor:
    """Draw ``size`` indices, with replacement, by the logits or probabilities of the last axis."""
    shares = x.softmax(-1) if mode == "logits" else x
    drawn = shares.reshape(-1, x.shape[-1]).multinomial(size, True, generator=_generator(seed))
    return drawn.reshape(*x.shape[:-1], size).float()


def _generator(seed: int) -> torch.Generator | None:
    """Return torch's own, unseeded generator for a negative seed."""
    return None if seed < 0 else torch.Generator().manual_seed(seed)


@kernel("range_1d", "exact")
def arithmetic_sequence(*, start: float, end: float, step: float) -> Tensor:
    """Return start, start + step, ... up to but without ``end``."""
    return torch.arange(start, end, step)


@kernel("one_hot", "exact")
def one_hot(
    indices: Tensor,
    *,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: float = 1.0,
    off_value: float = 0.0,
) -> Tensor:
    """Return ``on_value`` at each index along a new axis, ``off_value`` elsewhere."""
    axis = axis % (indices.dim() + 1)
    places = torch.arange(one_hot_vector_size, device=indices.device)
    hot = indices.unsqueeze(axis) == places.reshape(-1, *[1] * (indices.dim() - axis))
    return torch.where(hot, on_value, off_value)


@kernel("band_part", "exact")
def band_part(x: Tensor, *, lower: int = -1, upper: int = -1) -> Tensor:
    """Zero all but a band around the diagonal of the last two axes; negative keeps a side."""
    rows, columns = x.shape[-2:]
    x = x if upper < 0 else x.tril(min(upper, columns))
    return x if lower < 0 else x.triu(-min(lower, rows))


@kernel("non_zero", "exact")
def non_zero(x: Tensor) -> Tensor:
    """Return the indices of non-zero elements, one row for each."""
    return x.nonzero()


@kernel("sliding_windows", "exact")
def sliding_windows(x: Tensor, *, axis: int, size: int, stride: int = 1) -> Tensor:
    """Return all windows of ``size`` along an axis, as a new axis after it."""
    axis = axis % x.dim()
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)
