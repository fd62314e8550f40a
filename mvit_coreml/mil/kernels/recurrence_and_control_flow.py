"""Recurrent layers over (sequence, batch, features); loops, conditions, lists of tensors, states.

A list is a Python list of tensors, None where nothing was written to one of unknown shape; an
operation that changes one returns another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.mil.kernels import kernel

# With the constants that coremltools' tests call the default ones: scaled_tanh has scales of 1.
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "hard_sigmoid": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "linear": lambda x: x,
    "relu": torch.relu,
    "scaled_tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "sigmoid_hard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "tanh": torch.tanh,
}
# Takes the input's share of the gates and the states, and returns the new states.
_Cell = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]
_Block = Callable[..., tuple[Any, ...]]
_List = list[Tensor | None]


@kernel("rnn")
def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, ...]:
    """Return act(weight_ih x + weight_hh h + bias) of all steps or the last one, and h."""
    act = _activation(activation)

    def cell(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (act(gates + states[0] @ weight_hh.T),)

    return _run(F.linear(x, weight_ih, bias), (initial_h,), cell, direction, output_sequence)


@kernel("gru")
def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    input_bias: Tensor | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
) -> tuple[Tensor, ...]:
    """Return the hidden states of all steps or the last one, and the last; gates are r, o, z.

    The reset gate multiplies h before ``weight_hh``, or, with ``reset_after`` (iOS 18), what
    ``weight_hh`` and ``bias`` make of h, as in PyTorch.
    """
    act, gate = _activation(activation), _activation(recurrent_activation)
    size = weight_hh.shape[1]
    added = x.new_zeros(3 * size) if bias is None else bias

    def cell(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (h,) = states
        of_r, of_o, of_z = gates.chunk(3, -1)
        from_h = F.linear(h, weight_hh, added)
        reset = gate(of_r + from_h[:, :size])
        update = gate(of_z + from_h[:, 2 * size :])
        if reset_after:
            of_h = reset * from_h[:, size : 2 * size]
        else:
            of_h = F.linear(reset * h, weight_hh[size : 2 * size], added[size : 2 * size])
        new = act(of_o + of_h)
        return ((1 - update) * new + update * h,)

    gates = F.linear(x, weight_ih, input_bias)
    return _run(gates, (initial_h,), cell, direction, output_sequence)


@kernel("lstm")
def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, ...]:
    """Return the hidden states of all steps or the last one, the last h and the last c.

    Gates are input, forget, output, cell; the features of a bidirectional layer are those of the
    forward direction and then those of the reverse.
    """
    gate, act = _activation(recurrent_activation), _activation(activation)
    act_of_cell = _activation(cell_activation)

    def one_way(
        states: tuple[Tensor, ...],
        towards: str,
        of_x: Tensor,
        of_h: Tensor,
        added: Tensor | None,
        peep: Tensor | None,
    ) -> tuple[Tensor, ...]:
        peeps = x.new_zeros(3, of_h.shape[1]) if peep is None else peep.reshape(3, -1)

        def cell(gates: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h, c = states
            of_i, of_f, of_o, of_z = (gates + h @ of_h.T).chunk(4, -1)
            kept = gate(of_f + c * peeps[1]) * c
            c = kept + gate(of_i + c * peeps[0]) * act_of_cell(of_z)
            c = c if clip is None else c.clamp(-clip, clip)
            return gate(of_o + c * peeps[2]) * act(c), c

        return _run(F.linear(x, of_x, added), states, cell, towards, output_sequence)

    if direction != "bidirectional":
        states = (initial_h, initial_c)
        return one_way(states, direction, weight_ih, weight_hh, bias, peephole)
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("a bidirectional layer needs weight_ih_back and weight_hh_back")
    (h, h_back), (c, c_back) = initial_h.chunk(2, -1), initial_c.chunk(2, -1)
    forward = one_way((h, c), "forward", weight_ih, weight_hh, bias, peephole)
    steps, *last = one_way(
        (h_back, c_back), "reverse", weight_ih_back, weight_hh_back, bias_back, peephole_back
    )
    back = (steps.flip(0), *last)  # beside the forward steps of the same elements
    return tuple(torch.cat(pair, -1) for pair in zip(forward, back, strict=True))


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name.lower() not in _ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}")
    return _ACTIVATIONS[name.lower()]


def _run(
    gates: Tensor, states: tuple[Tensor, ...], cell: _Cell, direction: str, output_sequence: bool
) -> tuple[Tensor, ...]:
    """Return the hidden state of every step, or of the last one, and the last states.

    In reverse the last element comes first, and its step too: coremltools' tests have the outputs
    in the order of the steps.
    """
    if direction not in ("forward", "reverse"):
        raise ValueError(f"unknown direction {direction!r}")
    outputs = []
    for one in gates if direction == "forward" else gates.flip(0):
        states = cell(one, states)
        outputs.append(states[0])
    if not output_sequence:
        return states[0][None], *states
    return torch.stack(outputs), *states


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
    elem_shape: int | str | list[int | str] | None = None,
    dtype: str = "fp32",
) -> _List:
    """Return a list of ``init_length`` zeros, or of nothing where ``elem_shape`` has symbols."""
    named = elem_shape if isinstance(elem_shape, list) else [elem_shape]
    sizes = [size for size in named if isinstance(size, int)]
    types = {"fp16": torch.float16, "fp32": torch.float32, "bool": torch.bool}
    zeros = torch.zeros(sizes, dtype=types.get(dtype, torch.int32))
    return [zeros if len(sizes) == len(named) else None] * init_length


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
