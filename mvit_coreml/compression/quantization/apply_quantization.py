"""Quantizing a program as a plan says, with Core ML's own operations."""

from __future__ import annotations

from typing import Any

import numpy as np

from mvit_coreml.compression.apply_plan import is_float_array, program_ios
from mvit_coreml.compression.palettizable_weights import program_weights
from mvit_coreml.compression.palettized_weight import BLOCKWISE_IOS
from mvit_coreml.compression.quantization.grid import UNSIGNED_ZERO, Grid, QuantizedWeight
from mvit_coreml.compression.quantization.placement import READERS
from mvit_coreml.compression.quantization.quantization_plan import Quantization, check_quantization
from mvit_coreml.export.coremltools_import import load_coremltools, quiet

# Of the names that 8-bit weights, and both sides of a pair, have in the program.
QUANTIZED_SUFFIX = "_quantized"
DEQUANTIZED_SUFFIX = "_dequantized"


def apply_quantization(program: Any, quantization: Quantization, *, verbose: bool = False) -> None:
    """Quantize a program with one function as a plan says, in place.

    The same plan and program lead to the same program, byte for byte once it is saved.

    Args:
        program: a ``coremltools`` MIL program that computes in floating point.
        quantization: the plan and its values.
        verbose: let coremltools print.

    Raises:
        InputError: the plan or its values do not fit the program; it is unchanged then.
    """
    # This gives the program's values the names that plans know them by.
    program_weights(program)
    (function,) = program.functions.values()
    constants = {op.outputs[0].name: op for op in function.operations if is_float_array(op)}
    variables = {
        variable.name: variable
        for op in function.operations
        if op.op_type != "const"
        for variable in op.outputs
    }
    variables |= {variable.name: variable for variable in function.inputs.values()}
    plan, values = quantization.plan, quantization.values
    weights = {name: op.outputs[0].val for name, op in constants.items()}
    ios = program_ios(program)
    check_quantization(plan, values, weights, list(variables), ios)
    load_coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    # As graph passes do it: what they build inherits where in the source the original came from.
    scope = ScopeInfo(source=ScopeSource.COREMLTOOLS_GRAPH_PASS, data=["quantize"])
    with quiet(not verbose), mb.scope(scope), function:
        for layer in plan.layers:
            op, name = constants[layer.weight], layer.weight + QUANTIZED_SUFFIX
            _put(function, op, _dequantized_weight(op, name, values.weights[layer.weight], ios))
        for name, array in values.constants.items():
            op = constants[name]
            _put(function, op, mb.const(val=array, name=name, before_op=op))
        for one in plan.activations:
            _insert_pair(variables[one.name], one.grid)


def _put(function: Any, op: Any, variable: Any) -> None:
    """Put a variable in the place of a constant's."""
    function.replace_uses_of_var_after_op(
        anchor_op=op, old_var=op.outputs[0], new_var=variable, no_check_var_types=True
    )
    function.remove_ops([op])


def _dequantized_weight(op: Any, name: str, weight: QuantizedWeight, ios: int) -> Any:
    """Build the operation that takes the place of a weight, before it."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813

    if ios >= BLOCKWISE_IOS:
        return mb.constexpr_blockwise_shift_scale(
            data=weight.levels, scale=weight.scale_along_axis(), name=name, before_op=op
        )
    # Signed levels are reported wrong on the GPU and the Neural Engine in this form
    # (coremltools 2675, 2677).
    unsigned = (weight.levels.astype(np.int16) + UNSIGNED_ZERO).astype(np.uint8)
    return mb.constexpr_affine_dequantize(
        quantized_data=unsigned,
        zero_point=np.uint8(UNSIGNED_ZERO),
        scale=weight.scale,
        axis=np.int32(weight.axis),
        name=name,
        before_op=op,
    )


def _insert_pair(variable: Any, grid: Grid) -> None:
    """Round a variable for those of its readers that compute in 8 bits, once for all of them."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    readers = [op for op in variable.child_ops if op.op_type in READERS]
    first = min(readers, key=list(readers[0].enclosing_block.operations).index)
    element = types.nptype_from_builtin(variable.dtype)
    levels = np.dtype(grid.dtype).type
    parameters: dict[str, Any] = {"scale": element(grid.scale)}
    # Left out where it is 0: only then is computing reported to be fastest.
    if grid.zero_point:
        parameters["zero_point"] = levels(grid.zero_point)
    shared = {
        key: mb.const(val=value, name=f"{variable.name}_{key}", before_op=first)
        for key, value in parameters.items()
    }
    quantized = mb.quantize(
        input=variable,
        **shared,
        output_dtype=grid.dtype,
        name=variable.name + QUANTIZED_SUFFIX,
        before_op=first,
    )
    dequantized = mb.dequantize(
        input=quantized, **shared, name=variable.name + DEQUANTIZED_SUFFIX, before_op=first
    )
    for reader in readers:
        changed: dict[str, Any] = {}
        for name, value in reader.inputs.items():
            if value is variable:
                changed[name] = dequantized
            elif isinstance(value, list | tuple):
                changed[name] = [dequantized if one is variable else one for one in value]
        reader.set_inputs(no_check_var_types=True, type_inference=False, **changed)
