"""MIL operations with torch as the arithmetic, one module for each kind, loaded on demand.

A kernel is a plain function. Its positional parameters are the tensors of the operation, its
keyword-only parameters the attributes as Python values, both named as in MIL. Semantics follow
the documentation of coremltools' operation definitions (``converters/mil/mil/ops/defs``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Literal, TypeVar

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# exact: every output element is an input element or small integer; fp16 stays fp16.
# native: torch's fp16 kernel computes in fp32 and rounds once.
# widened: inputs are widened to fp32, the result is rounded to the declared type.
Rounding = Literal["exact", "native", "widened"]

# What kernels raise when values or attributes do not fit each other, or are of another kind.
KERNEL_ERRORS = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
_FIRST_OPSET = 15
# The operations of each module, so that a program loads only the modules that it needs.
OPERATIONS = {
    "convolution_and_pooling": "avg_pool conv conv_transpose l2_pool max_pool",
    "decompression": "constexpr_affine_dequantize constexpr_blockwise_shift_scale constexpr_cast "
    "constexpr_lut_to_dense constexpr_lut_to_sparse constexpr_sparse_blockwise_shift_scale "
    "constexpr_sparse_to_dense",
    "elementwise": "abs acos add asin atan atanh cast ceil clamped_relu clip cos cosh dequantize "
    "elu equal erf exp exp2 floor floor_div gelu greater greater_equal identity inverse "
    "leaky_relu less less_equal linear_activation log logical_and logical_not logical_or "
    "logical_xor maximum minimum mod mul not_equal pow prelu quantize real_div relu relu6 round "
    "rsqrt scaled_tanh select sigmoid sigmoid_hard sign silu sin sinh softmax softplus "
    "softplus_parametric softsign sqrt square sub tan tanh threshold thresholded_relu",
    "indexing": "gather gather_along_axis gather_nd scatter scatter_along_axis scatter_nd "
    "slice_by_index slice_by_size slice_update",
    "interpolation": "affine crop_resize resample resize resize_bilinear resize_nearest_neighbor "
    "upsample_bilinear upsample_nearest_neighbor",
    "linear_and_normalization": "batch_norm einsum instance_norm l2_norm layer_norm linear "
    "local_response_norm matmul scaled_dot_product_attention",
    "recurrence_and_control_flow": "cond gru list_gather list_length list_read list_scatter "
    "list_write lstm make_list read_state rnn while_loop write_state",
    "reduction": "argsort classify cumsum non_maximum_suppression reduce_argmax reduce_argmin "
    "reduce_l1_norm reduce_l2_norm reduce_log_sum reduce_log_sum_exp reduce_max reduce_mean "
    "reduce_min reduce_prod reduce_sum reduce_sum_square topk",
    "shaping": "band_part batch_to_space concat crop depth_to_space expand_dims fill fill_like "
    "flatten2d non_zero one_hot pad pixel_shuffle pixel_unshuffle random_bernoulli "
    "random_categorical random_normal random_uniform range_1d reshape reshape_like reverse "
    "reverse_sequence shape sliding_windows space_to_batch space_to_depth split squeeze stack "
    "tile transpose",
}
_MODULES = {
    op_type: module for module, op_types in OPERATIONS.items() for op_type in op_types.split()
}


@dataclass(frozen=True)
class Kernel:
    """The implementation of an operation.

    Attributes:
        function: called with the tensors in order and the attributes by name.
        tensors: names of the positional parameters.
        required: parameters without a default.
        rounding: how fp16 is handled, see ``Rounding``.
        first_opset: oldest opset (iOS version) with these semantics.
        variadic: those of the tensors that are a tuple of tensors.
        attributes: names of the keyword-only parameters.
    """

    function: Callable[..., Any]
    tensors: tuple[str, ...]
    required: frozenset[str]
    rounding: Rounding
    first_opset: int = _FIRST_OPSET
    variadic: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()


_KERNELS: dict[str, list[Kernel]] = {}


def kernel(
    op_type: str,
    rounding: Rounding = "widened",
    since: int = _FIRST_OPSET,
    attributes_of: Callable[..., Any] | None = None,
) -> Callable[[FunctionT], FunctionT]:
    """Register a function as the implementation of ``op_type`` from opset ``since`` on.

    What it takes as ``**`` are the attributes that it shares with ``attributes_of``.
    """

    def register(function: FunctionT) -> FunctionT:
        parameters = [*inspect.signature(function).parameters.values()]
        if attributes_of is not None:
            shared = inspect.signature(attributes_of).parameters.values()
            parameters[-1:] = [p for p in shared if p.kind is p.KEYWORD_ONLY]
        tensors = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        _KERNELS.setdefault(op_type, []).append(
            Kernel(
                function=function,
                tensors=tuple(p.name for p in tensors),
                variadic=frozenset(p.name for p in tensors if p.annotation.startswith("tuple[")),
                attributes=frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
                required=frozenset(p.name for p in parameters if p.default is p.empty),
                rounding=rounding,
                first_opset=since,
            )
        )
        return function

    return register


def register_all(
    functions: Mapping[str, Callable[..., Any]],
    tensors: tuple[str, ...] = ("x",),
    rounding: Rounding = "widened",
) -> None:
    """Register functions of tensors alone, such as torch's own, which tell no parameter names."""
    for op_type, function in functions.items():
        _KERNELS[op_type] = [Kernel(function, tensors, frozenset(tensors), rounding)]


@cache
def find_kernel(op_type: str, opset: int) -> Kernel | None:
    """Return the newest implementation that an opset may use, None for an unknown operation."""
    if op_type not in _MODULES:
        return None
    import_module(f"{__name__}.{_MODULES[op_type]}")
    fitting = [k for k in _KERNELS[op_type] if k.first_opset <= opset]
    return max(fitting, key=lambda k: k.first_opset, default=None)


def as_python(value: Any) -> Any:
    """Return an array or tensor as Python numbers, texts or nested lists of them, as attributes."""
    return value.tolist() if hasattr(value, "tolist") else value
