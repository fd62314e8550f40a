"""Finds in a function what the rules of :mod:`~mvit_coreml.inspection.lint_rules` are about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mvit_coreml.inspection.input_arithmetic import read_baked_preprocessing
from mvit_coreml.inspection.lint_rules import RULES, LintRule
from mvit_coreml.inspection.value_shapes import ValueShapes
from mvit_coreml.mil.program import Argument, Function, Operation
from mvit_coreml.mil.value_types import TensorType

_ROW_BYTES = 64  # a last axis takes a multiple of these
_LARGE_PADDING = 64 * 1024  # bytes of padding that are worth a line
_LARGEST_FACTOR = 2
_ENLARGING = (
    "upsample_bilinear",
    "upsample_nearest_neighbor",
    "resize_bilinear",
    "resize_nearest_neighbor",
    "resize",
)


@dataclass(frozen=True, kw_only=True)
class LintFinding:
    """One place that a rule is about.

    Attributes:
        operation: name of the operation, or of the input or output.
        op_type: its type; empty for inputs and outputs.
        shape: of its first result.
        detail: the numbers in question.
    """

    operation: str
    op_type: str
    shape: tuple[int, ...]
    detail: str


@dataclass(frozen=True, kw_only=True)
class RuleFindings:
    """A rule and all places of a function that it is about.

    Attributes:
        rule: the rule.
        findings: in order of execution.
    """

    rule: LintRule
    findings: tuple[LintFinding, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Lint:
    """A function with what the rules ask of it."""

    function: Function
    shapes: ValueShapes

    @property
    def steps(self) -> Iterator[Operation]:
        return (one for one in self.function.walk() if not one.is_constant)

    def place(self, operation: Operation, detail: str) -> LintFinding:
        return LintFinding(
            operation=operation.name,
            op_type=operation.op_type,
            shape=self.shapes.output(operation),
            detail=detail,
        )

    def attribute(self, operation: Operation, name: str, default: Any) -> Any:
        argument = operation.inputs.get(name, (None,))[0]
        constants = self.shapes.constants
        if argument is None or not constants.is_constant(argument):
            return default
        return constants.attribute(argument)


def lint_function(function: Function, shapes: ValueShapes) -> tuple[RuleFindings, ...]:
    """Look for everything that the rules are about.

    Args:
        function: of a package.
        shapes: of its values.

    Returns:
        The rules that found something, in their order.
    """
    lint = _Lint(function=function, shapes=shapes)
    places = ((RULES[name], tuple(check(lint))) for name, check in _CHECKS.items())
    return tuple(RuleFindings(rule=rule, findings=some) for rule, some in places if some)


def padded_bytes(value_type: TensorType) -> int:
    """Bytes of a value whose last axis takes a multiple of 64 bytes.

    Source: Deploying Transformers on the Apple Neural Engine, machinelearning.apple.com.
    """
    shape = value_type.sizes
    row = (shape[-1] * value_type.data_type.bits + 7) // 8
    return math.prod(shape[:-1]) * -(-row // _ROW_BYTES) * _ROW_BYTES


def _last_axis(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        for value_type in lint.shapes.outputs(step):
            if not value_type.shape or value_type.shape[-1] == 1:
                continue
            own, padded = value_type.stored_bytes or 0, padded_bytes(value_type)
            if padded - own >= _LARGE_PADDING:
                detail = f"{own:,} bytes become {padded:,}, x{padded / own:.3g}"
                yield lint.place(step, detail)
                break


def _singleton(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        for value_type in lint.shapes.outputs(step):
            shape = value_type.shape
            # (B, C, 1, 1) is what global pooling gives: there is no other way to write it.
            if len(shape) >= 3 and shape[-1] == 1 and shape[-2] != 1:
                own, padded = value_type.stored_bytes or 0, padded_bytes(value_type)
                yield lint.place(step, f"{own:,} bytes become {padded:,}")
                break


def _rank(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        rank = max((len(one.shape) for one in lint.shapes.outputs(step)), default=0)
        if rank > 4:
            yield lint.place(step, f"rank {rank}")


def _gather(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        if step.op_type.startswith(("gather", "scatter")):
            yield lint.place(step, step.op_type)


def _fp32(lint: _Lint) -> Iterator[LintFinding]:
    """Operations in fp32, but for casts and what the image input does to its pixels."""
    baked = read_baked_preprocessing(lint.function, lint.shapes.constants)
    passed = () if baked is None else baked.operations
    half = 0
    single = []
    for step in lint.steps:
        if step.op_type in ("cast", "classify") or step.name in passed:
            continue
        names = {one.data_type.name for one in lint.shapes.outputs(step)}
        half += "fp16" in names
        if "fp32" in names:
            single.append(step)
    if single and not half:
        yield lint.place(single[0], f"and all others: {len(single)} operations, the whole program")
        return
    for step in single:
        yield lint.place(step, "fp32 in an fp16 program")


def _dilated(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        dilations = lint.attribute(step, "dilations", [1])
        if step.op_type.startswith("conv") and max(dilations, default=1) > 1:
            yield lint.place(step, f"dilations {_by(dilations)}")


def _palettized_stride(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        strides = lint.attribute(step, "strides", [1])
        if step.op_type != "conv" or max(strides, default=1) <= _LARGEST_FACTOR:
            continue
        if "constexpr_lut_to_dense" in _compressions(lint, step.inputs["weight"][0]):
            yield lint.place(step, f"strides {_by(strides)}, palettized")


def _compressions(lint: _Lint, argument: Argument) -> list[str]:
    """Operations that a constant is decompressed by, the last one first."""
    constants = lint.shapes.constants
    origin = constants.origin(argument) if constants.is_constant(argument) else None
    if origin is None or origin.op_type == "const":
        return []
    inner = [one for name in sorted(origin.inputs) for one in origin.inputs[name]]
    return [origin.op_type, *(op for one in inner for op in _compressions(lint, one))]


def _upsampling(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        if step.op_type not in _ENLARGING:
            continue
        before, after = lint.shapes.input(step, "x"), lint.shapes.output(step)
        pairs = zip(before, after, strict=False)
        factor = max((new / old for old, new in pairs if old), default=1)
        if factor > _LARGEST_FACTOR:
            yield lint.place(step, f"x{factor:.3g} from {_by(before)}")


def _spatial_softmax(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        shape = lint.shapes.output(step)
        if step.op_type != "softmax" or len(shape) < 3:
            continue
        axis = int(lint.attribute(step, "axis", -1)) % len(shape)
        if axis != 1 and shape[axis] > 1:
            yield lint.place(step, f"over axis {axis}, {shape[axis]} values")


def _integer_output(lint: _Lint) -> Iterator[LintFinding]:
    makers = lint.function.producers
    for name, output in zip(lint.function.results, lint.function.outputs, strict=False):
        value_type = lint.shapes.types.get(name)
        if output.kind != "array" or value_type is None or value_type.data_type.is_float:
            continue
        maker = makers.get(name)
        yield LintFinding(
            operation=output.name,
            op_type="" if maker is None else maker.op_type,
            shape=value_type.sizes,
            detail=f"{value_type.data_type.name}, {value_type.stored_bytes or 0:,} bytes",
        )


def _grouped_tables(lint: _Lint) -> Iterator[LintFinding]:
    for weight in lint.shapes.constants.weights():
        tables = _tables(lint, weight.argument)
        if tables > 1:
            user = weight.users[0][0]
            channels = weight.type.sizes[0] / tables
            yield lint.place(user, f"{tables} tables, {channels:.3g} channels each")


def _tables(lint: _Lint, argument: Argument) -> int:
    """Number of tables of a palette, 0 of what is none."""
    constants = lint.shapes.constants
    origin = constants.origin(argument)
    if origin is None or origin.op_type != "constexpr_lut_to_dense":
        return 0
    # From iOS 18 on (blocks along each axis, entries, length of a vector), before a vector.
    shape = constants.type_of(origin.inputs["lut"][0]).sizes
    return math.prod(shape[:-2]) if len(shape) > 2 else 1


def _decompression(lint: _Lint) -> Iterator[LintFinding]:
    for weight in lint.shapes.constants.weights():
        if weight.is_compressed:
            plain = weight.type.stored_bytes or 0
            detail = f"{weight.scheme}: {weight.stored_bytes:,} bytes become {plain:,}"
            yield lint.place(weight.users[0][0], detail)


def _asymmetric(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        pad = lint.attribute(step, "pad", [])
        custom = lint.attribute(step, "pad_type", "valid") == "custom"
        strided = max(lint.attribute(step, "strides", [1]), default=1) > 1
        if step.op_type == "conv" and custom and strided and pad[::2] != pad[1::2]:
            yield lint.place(step, f"pad {pad}")


def _int16(lint: _Lint) -> Iterator[LintFinding]:
    for step in lint.steps:
        names = [one.data_type.name for one in lint.shapes.outputs(step)]
        if "int16" in names or "uint16" in names:
            yield lint.place(step, names[0])


def _flexible(lint: _Lint) -> Iterator[LintFinding]:
    for feature in lint.function.inputs:
        if feature.sizes:
            detail = f"{len(feature.sizes)} sizes or ranges of sizes"
            yield LintFinding(
                operation=feature.name, op_type="", shape=feature.shape, detail=detail
            )


def _by(sizes: Any) -> str:
    return "x".join(map(str, sizes))


_CHECKS: dict[str, Callable[[_Lint], Iterator[LintFinding]]] = {
    "last-axis-padding": _last_axis,
    "singleton-last-axis": _singleton,
    "rank": _rank,
    "gather": _gather,
    "fp32": _fp32,
    "dilated-conv": _dilated,
    "palettized-stride": _palettized_stride,
    "upsampling": _upsampling,
    "spatial-softmax": _spatial_softmax,
    "integer-output": _integer_output,
    "grouped-tables": _grouped_tables,
    "load-time-decompression": _decompression,
    "asymmetric-padding": _asymmetric,
    "int16": _int16,
    "flexible-input": _flexible,
}
