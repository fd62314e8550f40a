"""What a function computes in: multiply-accumulates and bytes moved, by type. Nothing is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from mvit_coreml.inspection.operation_cost import operation_cost
from mvit_coreml.inspection.value_shapes import ValueShapes
from mvit_coreml.mil.program import Function, Operation, Reference
from mvit_coreml.mil.stored_weights import Constants, find_weight_scheme
from mvit_coreml.mil.value_types import TensorType

# Operations that multiply and accumulate, with the parameters of both factors.
_FACTORS = {"conv": ("x", "weight"), "linear": ("x", "weight"), "matmul": ("x", "y")}
_ACTIVATIONS = ("clip", "leaky_relu", "relu", "relu6", "sigmoid", "silu", "tanh")
_INT8_WEIGHT = "8-bit linear"


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one operation multiplies.

    Attributes:
        name: of the operation.
        op_type: ``conv``, ``linear`` or ``matmul``.
        macs: multiply-accumulates for one image.
        int8: whether both of its factors are 8-bit integers.
        reason: why it computes in floating point; empty for others.
    """

    name: str
    op_type: str
    macs: int
    int8: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ComputeTypes:
    """What a function computes in.

    Attributes:
        layers: all operations that multiply and accumulate, in program order.
        moved_bytes: element type to the bytes of activations that operations read and write for one
            image, a pair of ``quantize`` and ``dequantize`` counting as part of its neighbours.
    """

    layers: tuple[LayerCost, ...] = field(repr=False)
    moved_bytes: Mapping[str, int]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def int8_macs(self) -> int:
        """Those in 8-bit integers."""
        return sum(layer.macs for layer in self.layers if layer.int8)

    @property
    def int8_share(self) -> float:
        """Part of the multiply-accumulates that is in 8-bit integers, 0 to 1."""
        return self.int8_macs / self.macs if self.macs else 0.0

    @property
    def in_floating_point(self) -> tuple[LayerCost, ...]:
        """Layers that are not, the largest first."""
        rest = [layer for layer in self.layers if not layer.int8]
        return tuple(sorted(rest, key=lambda layer: -layer.macs))


def compute_types(function: Function) -> ComputeTypes:
    """Say what a function computes in.

    A layer computes in 8-bit integers as far as the program tells: its input is read back from 8
    bits and its weight is stored as 8-bit numbers with a scale for each channel. Which chip does so
    is another question.

    Args:
        function: of a package of any tool.
    """
    constants, producers = Constants(function), function.producers
    sizes = {value.name: value.type for value in function.arguments}
    sizes |= {value.name: value.type for step in function.steps for value in step.outputs}
    sizes |= {
        output.name: output.type
        for operation in function.operations
        if operation.is_constant
        for output in operation.outputs
    }
    known = {n: t for n, t in sizes.items() if isinstance(t, TensorType) and t.count is not None}
    shapes = ValueShapes(types=known, counted_at="", flexible=(), unknown=(), constants=constants)
    layers = tuple(
        _layer(step, shapes, producers) for step in function.steps if step.op_type in _FACTORS
    )
    return ComputeTypes(layers=layers, moved_bytes=_moved(function, constants, sizes))


def _layer(step: Operation, shapes: ValueShapes, producers: Mapping[str, Operation]) -> LayerCost:
    reason, constants = "", shapes.constants
    for parameter in _FACTORS[step.op_type]:
        (argument,) = step.inputs[parameter]
        if constants.is_constant(argument):
            scheme = find_weight_scheme(constants, argument)
            if scheme != _INT8_WEIGHT:
                reason = reason or f"its weight is stored as {scheme}"
        else:
            assert isinstance(argument, Reference)
            maker = producers.get(argument.name)
            if maker is None or maker.op_type != "dequantize":
                reason = reason or "its input is not rounded to 8 bits"
    return LayerCost(
        name=step.name,
        op_type=step.op_type,
        # Sizes that the program leaves open count nothing: it is not run for them here.
        macs=operation_cost(step, shapes, {}).macs if shapes.outputs(step) else 0,
        int8=not reason,
        reason=reason,
    )


def _moved(function: Function, constants: Constants, sizes: Mapping[str, object]) -> dict[str, int]:
    """Return the bytes of activations that operations read and write, by element type."""
    readers = Counter(name for step in function.steps for name in step.value_names)
    makers = function.producers
    origin = {
        step.outputs[0].name: str(getattr(step.inputs["input"][0], "name", ""))
        for step in function.steps
        if step.op_type in ("quantize", "dequantize")
    }
    # A value that is only read in its rounded form is only written so.
    only_rounded = {
        origin[step.outputs[0].name]: step.outputs[0].name
        for step in function.steps
        if step.op_type == "quantize" and readers[origin[step.outputs[0].name]] == 1
    }
    # Between a convolution and its activation, which are one unit, nothing is moved.
    inside = {
        name
        for step in function.steps
        if step.op_type in _ACTIVATIONS
        for name in step.value_names
        if readers[name] == 1 and name in makers and makers[name].op_type in _FACTORS
    }
    written: Counter[str] = Counter()
    for step in function.steps:
        if step.op_type in ("quantize", "dequantize"):
            continue
        read = [origin.get(name, name) for name in step.value_names if not constants.has(name)]
        made = [only_rounded.get(output.name, output.name) for output in step.outputs]
        for name in (*read, *made):
            kind = sizes.get(name) if name not in inside else None
            if isinstance(kind, TensorType) and kind.count is not None:
                written[kind.data_type.name] += kind.count * kind.data_type.bits // 8
    return {name: size for name, size in sorted(written.items()) if size}
