"""Where a program computes in 8 bits: which layers do, and which values are rounded for them.

A pair of ``quantize`` and ``dequantize`` tells Core ML's compilers that the operations behind it
may compute with 8-bit inputs. A convolution and its activation are one unit: what is rounded is the
input of the next layer, behind the activation, as ``coremltools.optimize.torch`` places it. Which
operations take rounded inputs follows ``coremltools.optimize.coreml.linear_quantize_activations``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from mvit_coreml.mil.program import Function, Operation, Reference
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.mil.value_types import TensorType

# Layers whose stored weight becomes 8-bit numbers.
LAYERS = ("conv", "linear")
# What passes 8-bit numbers on, where an 8-bit layer comes after it.
_PASSING = ("add", "avg_pool", "concat", "max_pool")
# What reads a value that is rounded anyway in its rounded form, which is then all that is written.
# Multiplications, softmax and normalizations read the value itself: rounding around them is
# reported wrong on the Neural Engine, or of no use; activations stay next to their convolution.
READERS = (*LAYERS, *_PASSING, "reduce_mean")
# Inputs and output have one range: no number changes but for its place.
_ONE_RANGE = ("concat", "max_pool")


@dataclass(frozen=True)
class QuantizedValue:
    """A value that is rounded to 8 bits before what computes with it.

    Attributes:
        name: of the value.
        dtype: ``fp16`` or ``fp32``, its element type.
        shares_range_with: name of the first value that has the same scale and zero point; its own
            if there is none.
    """

    name: str
    dtype: str
    shares_range_with: str


@dataclass(frozen=True)
class Int8Layer:
    """A layer that computes with 8-bit inputs and weights.

    Attributes:
        operation: it itself.
        source: name of its input.
        weight: name of its weight.
        axis: of the weight, on which the output channels lie.
    """

    operation: Operation
    source: str
    weight: str
    axis: int = 0


@dataclass(frozen=True)
class PairPlacement:
    """Where one function computes in 8 bits.

    Attributes:
        values: that are rounded, in program order.
        layers: that compute in 8 bits, in program order.
    """

    values: tuple[QuantizedValue, ...]
    layers: tuple[Int8Layer, ...]


def place_quantization(function: Function, skipped: frozenset[str] = frozenset()) -> PairPlacement:
    """Decide where a function that computes in floating point would compute in 8 bits.

    Args:
        function: of any tool's package, without compressed weights.
        skipped: names of weights whose layers stay in floating point.
    """
    constants = Constants(function)
    layers = tuple(
        layer
        for layer in (_layer(step, constants) for step in function.steps)
        if layer is not None and layer.weight not in skipped
    )
    rounded = _rounded_values(function, constants, layers)
    first = _ranges(function, rounded)
    types = {value.name: value.type for step in function.steps for value in step.outputs}
    types |= {argument.name: argument.type for argument in function.arguments}
    values = []
    for name, value_type in types.items():
        if name in rounded and isinstance(value_type, TensorType):
            values.append(QuantizedValue(name, value_type.data_type.name, first[name]))
    order = {output.name: n for n, step in enumerate(function.steps) for output in step.outputs}
    return PairPlacement(tuple(sorted(values, key=lambda value: order.get(value.name, -1))), layers)


def live_inputs(operation: Operation, constants: Constants) -> tuple[str, ...]:
    """Return the names of what an operation computes on: its inputs that are not stored."""
    named = [
        argument.name
        for parameter, arguments in sorted(operation.inputs.items())
        if parameter in ("x", "y", "values")
        for argument in arguments
        if isinstance(argument, Reference)
    ]
    return tuple(name for name in named if not constants.has(name))


def _layer(step: Operation, constants: Constants) -> Int8Layer | None:
    """Return a convolution or linear layer whose weight is a plain stored constant."""
    if step.op_type not in LAYERS:
        return None
    (source,), (weight,) = step.inputs["x"], step.inputs["weight"]
    if not isinstance(source, Reference) or constants.has(source.name):
        return None
    if not isinstance(weight, Reference) or not constants.has(weight.name):
        return None
    origin = constants.origin(weight)
    if origin is None or origin.op_type != "const":
        return None
    kind = constants.type_of(weight)
    if not isinstance(kind, TensorType) or kind.data_type.name not in ("fp16", "fp32"):
        return None
    return Int8Layer(step, source.name, weight.name)


def _rounded_values(
    function: Function, constants: Constants, layers: tuple[Int8Layer, ...]
) -> set[str]:
    """Return the values that 8-bit layers read, and those that lead to these in 8 bits."""
    rounded = {layer.source for layer in layers}
    for step in reversed(function.steps):
        if step.op_type not in _PASSING or step.outputs[0].name not in rounded:
            continue
        sources = live_inputs(step, constants)
        # A constant that is added is part of a layer in all but form.
        if step.op_type != "add" or len(sources) == 2:
            rounded.update(sources)
    return rounded


def _ranges(function: Function, rounded: set[str]) -> dict[str, str]:
    """Return the first of the values that have one range with each, by name."""
    partners: dict[str, set[str]] = defaultdict(set)
    for step in function.steps:
        if step.op_type in _ONE_RANGE and step.outputs[0].name in rounded:
            output = step.outputs[0].name
            for argument in (*step.inputs.get("x", ()), *step.inputs.get("values", ())):
                if isinstance(argument, Reference) and argument.name in rounded:
                    partners[output].add(argument.name)
                    partners[argument.name].add(output)
    first: dict[str, str] = {}
    ordered = [argument.name for argument in function.arguments]
    ordered += [output.name for step in function.steps for output in step.outputs]
    for name in ordered:
        if name not in rounded or name in first:
            continue
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one not in first:
                first[one] = name
                waiting += sorted(partners[one])
    return first
