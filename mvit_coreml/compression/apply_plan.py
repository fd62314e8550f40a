"""Palettizing the weights of a program, with Core ML's own operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.compression.cache import Cache
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettizable_weights import WeightInfo, program_weights
from mvit_coreml.compression.palettized_weight import (
    BLOCKWISE_IOS,
    Choice,
    PalettizedWeight,
    pack_indices,
)
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, check_values
from mvit_coreml.errors import InputError
from mvit_coreml.export.coremltools_import import load_coremltools, quiet

Bits = Literal[4, 6, 8]

# At most this many elements gain little: a table and its padding cost what the indices save.
WEIGHT_THRESHOLD = 2048

# Of the name that a palettized weight has in the program.
PALETTIZED_SUFFIX = "_palettized"

# Opset version of a program to the iOS version of its deployment target.
_IOS_OF_OPSET = {6: 15, 7: 16, 8: 17, 9: 18, 10: 26}


def uniform_choices(weights: Sequence[WeightInfo], bits: int | None) -> dict[str, Choice]:
    """Choose the same bits for every weight of more than :data:`WEIGHT_THRESHOLD` elements."""
    if bits is None:
        return {}
    return {info.name: Choice(bits) for info in weights if info.elements > WEIGHT_THRESHOLD}


def uniform_reasons(weights: Sequence[WeightInfo]) -> dict[str, str]:
    """Say why :func:`uniform_choices` leaves weights uncompressed, by name."""
    small = [info.name for info in weights if info.elements <= WEIGHT_THRESHOLD]
    return dict.fromkeys(small, f"{WEIGHT_THRESHOLD} elements or fewer")


def apply_plan(
    program: Any,
    plan: PalettizationPlan,
    values: PlanValues | None = None,
    *,
    cache: Cache | None = None,
    workers: int | None = None,
    verbose: bool = False,
) -> dict[str, PalettizedWeight]:
    """Palettize a program as a plan says, in place.

    The same plan and program lead to the same program, byte for byte once it is saved.

    Args:
        program: an unpalettized ``coremltools`` MIL program; with several functions the plan holds
            for each.
        plan: the plan.
        values: its values, see :func:`~.plan_file.read_values`.
        cache: for the tables of k-means; the result does not depend on it.
        workers: threads of k-means; None takes one for each core.
        verbose: let coremltools print.

    Returns:
        What each palettized weight became, by name, in program order.

    Raises:
        InputError: the plan or its values do not fit the program; it is unchanged then.
    """
    values = values or PlanValues()
    weights = program_weights(program)
    plan.check_weights([(info, op.outputs[0].val) for info, op in weights], program_ios(program))
    check_values(plan, values)
    constants = values.constants if plan.constants == "tuned" else {}
    _check_constants(program, plan, constants)
    palettes = _palettes(plan, values, weights, cache, workers)
    _replace(program, palettes, constants, verbose)
    return palettes


def program_ios(program: Any) -> int:
    """Return the iOS version of a program's deployment target."""
    function = next(iter(program.functions.values()))
    return _IOS_OF_OPSET[int(function.opset_version.value)]


def _palettes(
    plan: PalettizationPlan,
    values: PlanValues,
    weights: list[tuple[WeightInfo, Any]],
    cache: Cache | None,
    workers: int | None,
) -> dict[str, PalettizedWeight]:
    """Find the tables and indices of every weight that the plan compresses, in program order."""
    planned = {weight.name: weight for weight in plan.weights if weight.choice.bits is not None}
    jobs: dict[str, ClusterJob] = {}
    palettes: dict[str, PalettizedWeight] = {}
    for info, op in weights:
        weight = planned.get(info.name)
        if weight is None:
            continue
        elements = op.outputs[0].val
        if weight.values == "kmeans":
            jobs[info.name] = ClusterJob(elements, weight.choice, info.axis)
            continue
        palette = palettes[info.name] = values.palettes[info.name]
        if palette.groups > 1 and palette.axis != info.axis:
            raise plan.error(weight, f"its groups must run along axis {info.axis}")
        if palette.lut.dtype != elements.dtype:
            raise plan.error(
                weight,
                f"its tuned tables are {palette.lut.dtype} where {elements.dtype} is needed; make"
                " the plan again for these options",
            )
    palettes |= cluster_weights(jobs, cache=cache, workers=workers)
    return {info.name: palettes[info.name] for info, _ in weights if info.name in palettes}


def _check_constants(
    program: Any, plan: PalettizationPlan, constants: Mapping[str, NDArray[Any]]
) -> None:
    originals = {
        op.outputs[0].name: op.outputs[0].val
        for function in program.functions.values()
        for op in function.operations
        if is_float_array(op)
    }
    for name, value in constants.items():
        if name not in originals:
            raise InputError(
                f"{plan.origin}: the model has no constant {name!r}, which the plan tunes; make"
                " the plan again for these options"
            )
        original = originals[name]
        if np.shape(original) != value.shape or original.dtype != value.dtype:
            raise InputError(
                f"{plan.origin}: constant {name!r} is tuned as {value.dtype}{list(value.shape)} but"
                f" is {original.dtype}{list(np.shape(original))} in the model; make the plan again"
                " for these options"
            )


def is_float_array(op: Any) -> bool:
    """Whether an operation is a constant that may be replaced.

    A value that stands in the arguments of an operation, such as class labels, is read as a
    constant of its own, whose name may be that of another.
    """
    value = op.outputs[0].val if op.op_type == "const" else None
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _replace(
    program: Any,
    palettes: Mapping[str, PalettizedWeight],
    constants: Mapping[str, NDArray[Any]],
    verbose: bool,
) -> None:
    """Put palettes, as ``constexpr_lut_to_dense`` operations, and constants in their places."""
    load_coremltools()
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

    ios = program_ios(program)
    # As graph passes do it: what they build inherits where in the source the original came from.
    scope = ScopeInfo(source=ScopeSource.COREMLTOOLS_GRAPH_PASS, data=["palettize_weights"])
    with quiet(not verbose), mb.scope(scope):
        for function in program.functions.values():
            with function:
                for op in list(function.operations):
                    name = op.outputs[0].name if is_float_array(op) else ""
                    if name in palettes:
                        new = _lut_to_dense(op, name + PALETTIZED_SUFFIX, palettes[name], ios)
                    elif name in constants:
                        new = mb.const(val=constants[name], name=name, before_op=op)
                    else:
                        continue
                    function.replace_uses_of_var_after_op(
                        anchor_op=op, old_var=op.outputs[0], new_var=new, no_check_var_types=True
                    )
                    function.remove_ops([op])


def _lut_to_dense(op: Any, name: str, palette: PalettizedWeight, ios: int) -> Any:
    """Build the operation that takes the place of a constant, before it."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    if ios < BLOCKWISE_IOS:
        return mb.constexpr_lut_to_dense(
            indices=pack_indices(palette.indices, palette.bits),
            lut=palette.lut[0],
            shape=np.array(palette.indices.shape, dtype=np.uint32),
            name=name,
            before_op=op,
        )
    stored = types.nptype_from_builtin(types.string_to_builtin(f"uint{palette.bits}"))
    # (…, groups on the axis, …, entries, length of a vector)
    shape = [1] * palette.indices.ndim + [2**palette.bits, 1]
    shape[palette.axis] = palette.groups
    return mb.constexpr_lut_to_dense(
        indices=palette.indices.astype(stored),
        lut=palette.lut.reshape(shape),
        name=name,
        before_op=op,
    )
