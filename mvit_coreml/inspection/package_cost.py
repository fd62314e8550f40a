"""What a package costs to run, estimated from its program: work, memory, and a device lint."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mvit_coreml.errors import PackageError
from mvit_coreml.export.atomic_package import package_size
from mvit_coreml.inspection.device_lint import RuleFindings, lint_function
from mvit_coreml.inspection.operation_cost import OperationCost, operation_cost, value_bytes
from mvit_coreml.inspection.package_contents import LAYOUT_OPS
from mvit_coreml.inspection.roofline import ASSUMPTIONS, Roof, roofline
from mvit_coreml.inspection.value_shapes import ValueShapes, find_value_shapes, unknown_in_words
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Function, Package
from mvit_coreml.mil.stored_weights import Weight

ESTIMATE = (
    "estimate from the program's shapes: nothing was run on Apple hardware, and no latency follows"
)


@dataclass(frozen=True, kw_only=True)
class FunctionCost:
    """What one function costs to run once.

    Attributes:
        name: of the function.
        counted_at: size of the inputs that was counted, in one line.
        notes: what else to know of the numbers.
        macs: multiply-accumulates.
        weight_bytes: of all weights as they are stored; what is shared counts once.
        activation_bytes: of all results of operations.
        moved_bytes: that all operations read and write, each by itself, weights included.
        peak_bytes: the most that is alive at once of inputs and results, weights left out.
        peak_at: the operation at which it is.
        layout_operations: how many operations only move values about.
        layout_bytes: what those read and write.
        intensity: (low, high) floating-point operations a byte, see
            :data:`~mvit_coreml.inspection.roofline.ASSUMPTIONS`.
        operations: in order of execution; those of loops and conditions once each.
        roofs: by chip class.
        lint: what was found, by rule.
    """

    name: str
    counted_at: str
    notes: tuple[str, ...]
    macs: int
    weight_bytes: int
    activation_bytes: int
    moved_bytes: int
    peak_bytes: int
    peak_at: str
    layout_operations: int
    layout_bytes: int
    intensity: tuple[float, float]
    operations: tuple[OperationCost, ...] = field(repr=False)
    roofs: tuple[Roof, ...] = field(repr=False)
    lint: tuple[RuleFindings, ...]


@dataclass(frozen=True, kw_only=True)
class PackageCost:
    """What a package costs to run: an estimate.

    Attributes:
        path: of the package.
        size: bytes of its files.
        default_function: the one that runs when none is asked for.
        functions: in order of name.
        estimate: what kind of numbers these are.
        assumptions: of the roofline.
    """

    path: Path
    size: int
    default_function: str
    functions: tuple[FunctionCost, ...]
    estimate: str = ESTIMATE
    assumptions: tuple[str, ...] = ASSUMPTIONS

    def function(self, name: str | None = None) -> FunctionCost:
        """Return a function's cost by its name, or the default one's.

        Raises:
            PackageError: there is no such function.
        """
        chosen = self.default_function if name is None else name
        for one in self.functions:
            if one.name == chosen:
                return one
        known = ", ".join(one.name for one in self.functions)
        raise PackageError(f"{self.path} has no function {chosen!r}; it has: {known}")


def estimate_cost(path: str | Path) -> PackageCost:
    """Estimate what a package of any tool costs to run, and lint it.

    The package is not run, unless it takes several sizes: then once, on zeros, for its shapes.

    Args:
        path: an .mlpackage folder.

    Raises:
        PackageError: it cannot be read.
    """
    package = load_package(path)
    return PackageCost(
        path=package.path,
        size=package_size(package.path),
        default_function=package.default_function,
        functions=tuple(function_cost(package, one) for one in package.functions.values()),
    )


def function_cost(package: Package, function: Function) -> FunctionCost:
    """Estimate what one function costs to run, and lint it; see :func:`estimate_cost`."""
    shapes = find_value_shapes(package, function)
    stored = shapes.constants.weights()
    users: dict[str, list[Weight]] = {}
    for weight in stored:
        for operation, _ in weight.users:
            users.setdefault(operation.name, []).append(weight)
    operations = tuple(
        operation_cost(operation, shapes, users)
        for operation in function.walk()
        if not operation.is_constant
    )
    parts = {part: size for weight in stored for part, size in weight.parts.items()}
    macs, weight_bytes = sum(one.macs for one in operations), sum(parts.values())
    moved = sum(one.moved_bytes for one in operations)
    peak, peak_at = _peak(function, shapes)
    outside = sum(_bytes(shapes, function.results)) + sum(
        _bytes(shapes, (value.name for value in function.arguments))
    )
    intensity = (_ratio(2 * macs, moved), _ratio(2 * macs, weight_bytes + outside))
    layout = [one for one in operations if one.op_type in LAYOUT_OPS]
    return FunctionCost(
        name=function.name,
        counted_at=shapes.counted_at,
        notes=tuple(_notes(function, shapes)),
        macs=macs,
        weight_bytes=weight_bytes,
        activation_bytes=sum(one.written_bytes for one in operations),
        moved_bytes=moved,
        peak_bytes=peak,
        peak_at=peak_at,
        layout_operations=len(layout),
        layout_bytes=sum(one.read_bytes + one.written_bytes for one in layout),
        intensity=intensity,
        operations=operations,
        roofs=tuple(roofline(operations, intensity)),
        lint=lint_function(function, shapes),
    )


def _ratio(operations: int, size: int) -> float:
    return operations / size if size else 0.0


def _bytes(shapes: ValueShapes, names: Iterable[str]) -> list[int]:
    return [value_bytes(shapes.types[name]) for name in names if name in shapes.types]


def _notes(function: Function, shapes: ValueShapes) -> list[str]:
    notes = []
    if shapes.unknown:
        notes.append(unknown_in_words(shapes.unknown))
    if any(step.blocks for step in function.steps):
        notes.append("what loops and conditions hold counts once, however often it runs")
    return notes


def _peak(function: Function, shapes: ValueShapes) -> tuple[int, str]:
    """Return the most bytes alive at once, and the operation at which they are.

    Every value lives from the operation that computes it to the last that reads it, inputs from
    the start and results to the end. Reshapes copy.
    """
    steps = function.steps
    last = {name: index for index, step in enumerate(steps) for name in step.value_names}
    last |= dict.fromkeys(function.results, len(steps))
    alive = {value.name for value in (*function.arguments, *function.states)}
    held = sum(_bytes(shapes, alive))
    peak, place = held, ""
    for index, step in enumerate(steps):
        new = [output.name for output in step.outputs]
        held += sum(_bytes(shapes, new))
        alive.update(new)
        if held > peak:
            peak, place = held, step.name
        done = [name for name in (*step.value_names, *new) if last.get(name, index) <= index]
        ended = alive & set(done)
        held -= sum(_bytes(shapes, ended))
        alive -= ended
    return peak, place
