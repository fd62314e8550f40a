"""Conditions, loops, lists of tensors, and the state that a function keeps between calls.

A list is a Python list of tensors, None where nothing was written to one of unknown shape; an
operation that changes one returns another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mvit_coreml.mil.kernels import kernel

_Block = Callable[..., tuple[Any, ...]]
_List = list[Tensor | None]


@kernel("cond", "exact")
def condition(pred: Tensor, *, blocks: Sequence[_Block]) -> tuple[Any, ...]:
    """Run the first block if ``pred`` holds, the second otherwise."""
    return blocks[0 if bool(pred) else 1]()


@kernel("while_loop", "exact")
def while_loop(loop_vars: tuple[Any, ...], *, blocks: Sequence[_Block]) -> tuple[Any, ...]:
    """Run the second block on what it last gave for as long as the first block holds of it."""
    holds, body = blocks
    while bool(holds(*loop_vars)[0]):
        loop_vars = body(*loop_vars)
    return loop_vars


@kernel("make_list", "exact")
def make_list(
    *,
    init_length: int = 1,
    dynamic_length: bool = True,
    elem_shape: int | str | list[int | str] = (),
    dtype: str = "fp32",
) -> _List:
    """Return a list of ``init_length`` zeros, or of nothing where ``elem_shape`` has symbols."""
    sizes = elem_shape if isinstance(elem_shape, list) else [elem_shape]
    known = all(isinstance(size, int) for size in sizes)
    types = {"fp16": torch.float16, "fp32": torch.float32, "bool": torch.bool}
    zeros = torch.zeros(sizes, dtype=types.get(dtype, torch.int32)) if known else None
    return [zeros] * init_length


@kernel("list_length", "exact")
def list_length(ls: _List) -> Tensor:
    """Return the number of elements."""
    return torch.tensor(len(ls), dtype=torch.int32)


@kernel("list_read", "exact")
def list_read(ls: _List, *, index: int) -> Tensor:
    """Return an element."""
    return list_gather(ls, indices=[index])[0]


@kernel("list_gather", "exact")
def list_gather(ls: _List, *, indices: list[int]) -> Tensor:
    """Return elements as one tensor with a new first axis."""
    chosen = [ls[index] for index in indices]
    written = [element for element in chosen if element is not None]
    if len(written) < len(chosen):
        raise IndexError("an element is read that was never written")
    return torch.stack(written)


@kernel("list_write", "exact")
def list_write(ls: _List, value: Tensor, *, index: int) -> _List:
    """Return the list with another element; it grows to hold it."""
    return list_scatter(ls, value[None], indices=[index])


@kernel("list_scatter", "exact")
def list_scatter(ls: _List, value: Tensor, *, indices: list[int]) -> _List:
    """Return the list with the slices of ``value`` at some places; it grows to hold them.

    What lies between is zero.
    """
    longer = max(indices, default=-1) + 1 - len(ls)
    changed = [*ls, *[torch.zeros_like(value[0])] * longer]
    for index, element in zip(indices, value, strict=True):
        changed[index] = element
    return changed


@kernel("read_state", "exact", since=18)
def read_state(input: Tensor) -> Tensor:  # noqa: A002 (MIL's name)
    """Return a copy of a state."""
    return input.clone()


@kernel("write_state", "exact", since=18)
def write_state(input: Tensor, data: Tensor) -> tuple[()]:  # noqa: A002 (MIL's name)
    """Put other values into a state."""
    input.copy_(data)
    return ()
