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

from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.export.fp16_rounding import round_weight

Pass = Callable[[Any], None]

# Attributes have a handful of elements; what is larger is a weight.
_SMALL = 16
_FP16_MAX = 65504.0


def simplify_program(program: Any, *, fp16: bool, keep_fp32: Collection[str] = frozenset()) -> None:
    """Run the passes on a freshly converted MIL program, in place, and validate it once.

    Args:
        program: a ``coremltools`` MIL program.
        fp16: compute in half precision.
        keep_fp32: operations that stay in single precision all the same, by the names that they
            have in a saved package.
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
    _run(program, _CLEAN_UP)
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
            user.op_type == "conv" and user.x is padded and _is_unpadded(user)
            for user in padded.child_ops
        )
    )


def _is_unpadded(conv: Any) -> bool:
    if conv.pad_type.val == "valid":
        return True
    return conv.pad_type.val == "custom" and not any(conv.pad.val)


def _merge(pad: Any, block: Any) -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (its usual name)

    for conv in list(pad.outputs[0].child_ops):
        merged = mb.conv(
            x=pad.x,
            weight=conv.weight,
            bias=conv.bias,
            strides=conv.strides.val,
            pad_type="custom",
            pad=[int(amount) for amount in pad.pad.val[-4:]],
            dilations=conv.dilations.val,
            groups=conv.groups.val,
            name=conv.name,
            before_op=conv,
        )
        block.replace_uses_of_var_after_op(anchor_op=conv, old_var=conv.outputs[0], new_var=merged)
        block.remove_ops([conv])
    block.remove_ops([pad])


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
_AFTER_CASTS = ("add_int16_cast", "update_output_dtypes")
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
