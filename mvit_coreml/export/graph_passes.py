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

MERGE_PADDING = "mvit::merge_padding_into_conv"
SHARE_CONSTANTS = "mvit::share_small_constants"

_SIMPLIFY = (
    "common::lower_complex_dialect_ops",
    "common::update_output_dtypes",
    "common::cast_optimization",
    "common::const_elimination",
    "common::sanitize_input_output_names",
    "common::divide_to_multiply",
    "common::noop_elimination",
    "common::fuse_linear_bias",
    "common::fuse_gelu_tanh_approximation",
    "common::fuse_gelu_exact",
    "common::fuse_squeeze_expand_dims",
    MERGE_PADDING,
    "common::fuse_layernorm_or_instancenorm",
    "common::merge_consecutive_reshapes",
    "common::fuse_transpose_matmul",
    "common::remove_redundant_ops",
    "common::dedup_op_and_var_names",
)
_TO_FP16 = (
    "common::add_int16_cast",
    "common::update_output_dtypes",
)
_CLEAN_UP = (
    "common::const_elimination",
    "common::cast_optimization",
    "common::dead_code_elimination",
    "common::const_deduplication",
    SHARE_CONSTANTS,
    "common::noop_elimination",
    "common::dedup_op_and_var_names",
    "common::topological_reorder",
    "common::dead_code_elimination",
)


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
    _register_passes()
    from coremltools.converters.mil.mil.passes.defs.quantization import FP16ComputePrecision
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY

    for name in _SIMPLIFY:
        PASS_REGISTRY[name](program)
    if fp16:

        def goes_to_fp16(op: Any) -> bool:
            # Names in a package have only letters, digits and underscores.
            return re.sub(r"\W", "_", op.name, flags=re.ASCII) not in keep_fp32

        _round_weights(program, goes_to_fp16)
        FP16ComputePrecision(op_selector=goes_to_fp16)(program)
    for name in (*(_TO_FP16 if fp16 else ()), *_CLEAN_UP):
        PASS_REGISTRY[name](program)
    program.validate()


def _round_weights(program: Any, chosen: Callable[[Any], bool]) -> None:
    """Round the weights of the chosen operations before the cast to fp16 would.

    Weights that fp16 cannot hold stay: coremltools leaves their operations in fp32.
    """
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (its usual name)

    for function in program.functions.values():
        for op in list(function.operations):
            if op.op_type not in ("conv", "linear") or not chosen(op):
                continue
            weight = op.weight.val
            if weight is None or np.abs(weight).max(initial=0.0) > _FP16_MAX:
                continue
            with function:
                rounded = mb.const(val=round_weight(weight), name=op.weight.name, before_op=op)
            op.set_inputs(no_check_var_types=True, type_inference=False, weight=rounded)


def _register_passes() -> None:
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813  (its usual name)
    from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
    from coremltools.converters.mil.mil.passes.helper import block_context_manager
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY, register_pass

    if MERGE_PADDING in PASS_REGISTRY:
        return

    @register_pass(namespace="mvit")
    class share_small_constants(AbstractGraphPass):  # noqa: N801  (names the pass)
        """Let operations share equal strides, paddings, axes and the like.

        coremltools writes every attribute of every operation as a constant of its own, which
        makes up half of a program's size without its weights. It merges large constants itself.
        """

        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                self._apply_block(function)

        @block_context_manager  # type: ignore[untyped-decorator]
        def _apply_block(self, block: Any) -> None:
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
                        no_check_var_types=True,
                        type_inference=False,
                        **dict.fromkeys(names, shared),
                    )
                block.remove_ops([op])

    @register_pass(namespace="mvit")
    class merge_padding_into_conv(AbstractGraphPass):  # noqa: N801  (names the pass)
        """Give a convolution the zero padding of the ``pad`` op before it.

        TensorFlow's SAME padding is asymmetric for strided convolutions. PyTorch has to pad in a
        step of its own, which copies the largest feature maps; a Core ML convolution takes any
        padding.
        """

        def apply(self, prog: Any) -> None:
            for function in prog.functions.values():
                self._apply_block(function)

        @block_context_manager  # type: ignore[untyped-decorator]
        def _apply_block(self, block: Any) -> None:
            for op in list(block.operations):
                if op.op_type == "pad":
                    self._merge(block, op)

        @staticmethod
        def _merge(block: Any, pad: Any) -> None:
            amounts = pad.pad.val
            padded = pad.outputs[0]
            mergeable = (
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
            if not mergeable:
                return
            for conv in list(padded.child_ops):
                merged = mb.conv(
                    x=pad.x,
                    weight=conv.weight,
                    bias=conv.bias,
                    strides=conv.strides.val,
                    pad_type="custom",
                    pad=[int(amount) for amount in amounts[-4:]],
                    dilations=conv.dilations.val,
                    groups=conv.groups.val,
                    name=conv.name,
                    before_op=conv,
                )
                block.replace_uses_of_var_after_op(
                    anchor_op=conv, old_var=conv.outputs[0], new_var=merged
                )
                block.remove_ops([conv])
            block.remove_ops([pad])


def _is_unpadded(conv: Any) -> bool:
    if conv.pad_type.val == "valid":
        return True
    return conv.pad_type.val == "custom" and not any(conv.pad.val)
