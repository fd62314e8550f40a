"""The graph passes of a conversion.

coremltools' default pipeline validates the whole program after each of some ninety passes, most
of which cannot match anything that an exported model holds. This is the subset that does, in
coremltools' own order, and two passes of ours; the program is validated at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.kernels.convolution_and_pooling import pad_amounts

Pass = Callable[[Any], None]

# Attributes have a handful of elements; what is larger is a weight.
_SMALL = 16
_FP16_MAX = 65504.0
# Times that rounding goes over what a row's sum still lacks.
_REFINEMENTS = 3

Floats = NDArray[np.float64]


def simplify_program(
    program: Any,
    *,
    fp16: bool,
    keep_fp32: Collection[str] = frozenset(),
    share_constants: bool = True,
) -> None:
    """Run the passes on a freshly converted MIL program, in place, and validate it once.

    Args:
        program: a ``coremltools`` MIL program.
        fp16: compute in half precision.
        keep_fp32: operations that stay in single precision all the same, by the names that they
            have in a saved package.
        share_constants: let operations share equal small constants.
    """
    load_coremltools()
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision

    _run(program, _SIMPLIFY)
    if fp16:

        def goes_to_fp16(op: Any) -> bool:
            # Names in a package have only letters, digits and underscores.
            return re.sub(r"\W", "_", op.name, flags=re.ASCII) not in keep_fp32

        _round_weights(program, goes_to_fp16)
        FP16ComputePrecision(op_selector=goes_to_fp16)(program)
        _run(program, _AFTER_CASTS)
    _run(program, [one for one in _CLEAN_UP if share_constants or one != share_small_constants])
    program.validate()


def _run(program: Any, passes: Collection[str | Pass]) -> None:
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    for one in passes:
        run = PASS_REGISTRY[f"common::{one}"] if isinstance(one, str) else one
        run(program)


def _round_weights(program: Any, chosen: Callable[[Any], bool]) -> None:
    """Round the weights of the chosen operations before the cast to fp16 would.

    Weights that fp16 cannot hold stay: coremltools leaves their operations in fp32.
    """
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (its usual name)

    for function in program.functions.values():
        # Leaving a function's context infers all of its types again.
        with function:
            for op in list(function.operations):
                if op.op_type not in ("conv", "linear") or not chosen(op):
                    continue
                weight = op.weight.val
                if weight is None or np.abs(weight).max(initial=0.0) > _FP16_MAX:
                    continue
                rounded = mb.const(val=round_weight(weight), name=op.weight.name, before_op=op)
                op.set_inputs(no_check_var_types=True, type_inference=False, weight=rounded)


def round_rows(weights: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round every row to fp16, keeping its sum.

    Rounding each weight to its nearest neighbour leaves every filter with a small random gain on a
    constant input. Feature maps are mostly smooth and, after an activation, mostly of one sign, so
    that this gain is what survives the sum, while the rest of the rounding averages out. Where
    large weights cancel each other, as in the folded depthwise filters of MobileNetV2, it
    dominates. A few weights of each filter are therefore rounded to their other neighbour.

    Weights are moved from the nearest fp16 number to the next one on the other side, those first
    that this costs the least squared error for their share of the sum, until the sum is as near to
    the unrounded one as another move would leave it.

    Args:
        weights: (rows, columns) values within fp16's range.

    Returns:
        (rows, columns) values, each one of the two fp16 numbers around the weight.
    """
    rounded = weights.astype(np.float16)
    other, step, cost, missing = _moves(weights, rounded)
    order = np.argsort(cost, axis=1, kind="stable")
    returned = np.take_along_axis(np.where(np.isfinite(cost), step, 0.0), order, axis=1)
    returned = np.concatenate([np.zeros_like(missing), np.cumsum(returned, axis=1)], axis=1)
    moves = np.abs(np.abs(missing) - returned).argmin(axis=1)
    moved = np.zeros(weights.shape, bool)
    np.put_along_axis(moved, order, np.arange(weights.shape[1]) < moves[:, None], axis=1)
    rounded = np.where(moved & np.isfinite(cost), other, rounded)
    # What is left is less than a step of the last weight; a smaller one may still give it.
    for _ in range(_REFINEMENTS):
        other, step, cost, missing = _moves(weights, rounded)
        left = np.where(np.isfinite(cost), np.abs(np.abs(missing) - step), np.inf)
        best = left.argmin(axis=1)[:, None]
        helps = np.take_along_axis(left, best, axis=1) < np.abs(missing)
        chosen = np.where(
            helps,
            np.take_along_axis(other, best, axis=1),
            np.take_along_axis(rounded, best, axis=1),
        )
        np.put_along_axis(rounded, best, chosen, axis=1)
    return rounded


def _moves(
    weights: NDArray[np.float32], rounded: NDArray[np.float16]
) -> tuple[NDArray[np.float16], Floats, Floats, Floats]:
    """Say what moving each weight to its other neighbour means.

    Returns:
        The other neighbours, their distances, what a move costs in squared error for its distance
        (infinity where it does not bring the sum nearer), and (rows, 1) what the sums lack.
    """
    error = weights.astype(np.float64) - rounded
    missing = error.sum(axis=1, keepdims=True)
    direction = np.where(missing > 0, np.float16(np.inf), np.float16(-np.inf))
    other = np.nextafter(rounded, direction)
    step = np.abs(other.astype(np.float64) - rounded)
    # Only a weight that was rounded against the missing sum can give some of it back.
    movable = (error * np.sign(missing) > 0) & np.isfinite(other)
    return other, step, np.where(movable, step - 2 * np.abs(error), np.inf), missing


def round_weight(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Round a convolution's or linear layer's weight, output channel by output channel.

    Args:
        weight: (out, …) weight.

    Returns:
        The same shape in float32, its values those of fp16.
    """
    rows = weight.reshape(weight.shape[0], -1).astype(np.float32)
    return round_rows(rows).astype(np.float32).reshape(weight.shape)


def share_small_constants(program: Any) -> None:
    """Let operations share equal strides, paddings, axes and the like.

    coremltools writes every attribute of every operation as a constant of its own, which makes up
    half of a program's size without its weights. It merges large constants itself.
    """
    for function in program.functions.values():
        with function:
            _share_in_block(function)


def _share_in_block(block: Any) -> None:
    first: dict[tuple[str, bytes], Any] = {}
    for op in list(block.operations):
        if op.op_type != "const" or np.size(op.val.val) > _SMALL:
            continue
        value = np.asarray(op.val.val)
        key = (f"{op.outputs[0].dtype} {value.shape}", value.tobytes())
        constant = op.outputs[0]
        shared = first.setdefault(key, constant)
        uses = [
            (user, [name for name, var in user.inputs.items() if var is constant])
            for user in list(constant.child_ops)
        ]
        # A part of a list, which no name stands for, stays.
        replaceable = all(names for _, names in uses) and constant not in block.outputs
        if shared is constant or not replaceable:
            continue
        for user, names in uses:
            user.set_inputs(
                no_check_var_types=True, type_inference=False, **dict.fromkeys(names, shared)
            )
        block.remove_ops([op])


def merge_padding_into_conv(program: Any) -> None:
    """Give a convolution the zero padding of the ``pad`` operation before it.

    TensorFlow's SAME padding is asymmetric for strided convolutions. PyTorch has to pad in a step
    of its own, which copies the largest feature maps; a Core ML convolution takes any padding.
    Where it is just that of SAME it is called so, as coremltools' conversion of TensorFlow does.
    """
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (its usual name)
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    # What a pass builds inherits where in the source the original came from.
    scope = ScopeInfo(source=ScopeSource.COREMLTOOLS_GRAPH_PASS, data=["merge_padding_into_conv"])
    for function in program.functions.values():
        with mb.scope(scope), function:
            for op in list(function.operations):
                if op.op_type == "pad" and _is_mergeable(op, function):
                    _merge(op, function)


def _is_mergeable(pad: Any, block: Any) -> bool:
    """Whether nothing but convolutions without padding reads zero-padded rows and columns."""
    amounts, padded = pad.pad.val, pad.outputs[0]
    return bool(
        pad.mode.val == "constant"
        and float(pad.constant_val.val) == 0.0
        and amounts is not None
        and len(amounts) >= 4
        and not any(amounts[:-4])
        and padded not in block.outputs
        and all(
            user.op_type == "conv"
            and user.x is padded
            and user.pad_type.val in ("valid", "custom")
            and not any(user.pad.val)
            for user in padded.child_ops
        )
    )


def _merge(pad: Any, block: Any) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (its usual name)

    for conv in list(pad.outputs[0].child_ops):
        merged = mb.conv(
            x=pad.x,
            weight=conv.weight,
            bias=conv.bias,
            strides=conv.strides.val,
            **_padding(pad, conv),
            dilations=conv.dilations.val,
            groups=conv.groups.val,
            name=conv.name,
            before_op=conv,
        )
        block.replace_uses_of_var_after_op(anchor_op=conv, old_var=conv.outputs[0], new_var=merged)
        block.remove_ops([conv])
    block.remove_ops([pad])


def _padding(pad: Any, conv: Any) -> dict[str, Any]:
    """Return the parameters of a convolution that pads its own input as ``pad`` did.

    ``same`` means what coremltools' frontend for TensorFlow, its tests and the portable runtime
    mean by it: the odd one out at the end. An asymmetric ``custom`` padding was reported to give a
    wrong last pixel on a device (coremltools 2515).
    """
    amounts = [int(amount) for amount in pad.pad.val[-4:]]
    sizes = [
        (size, kernel) for size, kernel in zip(pad.x.shape[2:], conv.weight.shape[2:], strict=True)
    ]
    if all(isinstance(size, (int, np.integer)) for size, _ in sizes):
        same = pad_amounts(
            "same",
            None,
            [int(size) for size, _ in sizes],
            [int(kernel) for _, kernel in sizes],
            [int(stride) for stride in conv.strides.val],
            [int(dilation) for dilation in conv.dilations.val],
        )
        if amounts == [amount for pair in same for amount in pair]:
            return {"pad_type": "same"}
    return {"pad_type": "custom", "pad": amounts}


# Passes of coremltools by their names in its registry, without "common::", and our own.
_SIMPLIFY: tuple[str | Pass, ...] = (
    "lower_complex_dialect_ops",
    "update_output_dtypes",
    "cast_optimization",
    "const_elimination",
    "sanitize_input_output_names",
    "divide_to_multiply",
    "noop_elimination",
    "fuse_linear_bias",
    "fuse_gelu_tanh_approximation",
    "fuse_gelu_exact",
    "fuse_squeeze_expand_dims",
    merge_padding_into_conv,
    "fuse_layernorm_or_instancenorm",
    "merge_consecutive_reshapes",
    "fuse_transpose_matmul",
    "remove_redundant_ops",
    "dedup_op_and_var_names",
)
_AFTER_CASTS = ("update_output_dtypes",)
_CLEAN_UP: tuple[str | Pass, ...] = (
    "const_elimination",
    "cast_optimization",
    "dead_code_elimination",
    "const_deduplication",
    share_small_constants,
    "noop_elimination",
    "dedup_op_and_var_names",
    "topological_reorder",
    "dead_code_elimination",
)
