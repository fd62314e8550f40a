"""``mvit-coreml cost``: what a package costs to run, estimated, and what devices are said to dislike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import shape_in_words, shorten, table

if TYPE_CHECKING:
    from mvit_coreml.inspection.device_lint import RuleFindings
    from mvit_coreml.inspection.operation_cost import OperationCost
    from mvit_coreml.inspection.package_cost import FunctionCost, PackageCost

_TYPES = 10
_PLACES = 3
_LONGEST_NAME = 48


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.JsonArguments):
    """What the command is asked.

    Attributes:
        function: Function of packages that have several; their default one otherwise.
        everything: List every operation and every finding.
    """

    packages: tuple[Path, ...] = opt.argument(nargs=-1, required=True, metavar="PACKAGE...")
    function: str | None = opt.option(metavar="NAME")
    everything: bool = opt.option("--all")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Estimate what packages of any tool cost to run, on any machine.

    Multiply-accumulates, bytes of weights (as they are stored) and of activations, the most that is
    alive at once, operations that only move values about, and a roofline by chip class; then a lint:
    what is said to run badly on the Neural Engine, with what it is said to cost and who says so.
    Several packages are laid side by side.

    Everything is an estimate from the program's shapes. Nothing was run on Apple hardware, and no
    latency is claimed.

    Examples:
        mvit-coreml cost Classifier.mlpackage
        mvit-coreml cost Ours.mlpackage Theirs.mlpackage
        mvit-coreml cost Classifier.mlpackage --all --json
    """
    from mvit_coreml.inspection.package_cost import estimate_cost

    costs = [estimate_cost(path) for path in arguments.packages]
    functions = [cost.function(arguments.function) for cost in costs]
    document = {"estimate": costs[0].estimate, "packages": costs}
    if len(costs) == 1:
        lines = _one(costs[0], functions[0], arguments.everything)
    else:
        lines = _side_by_side(costs, functions)
    arguments.show(document, lines)


def _one(cost: PackageCost, function: FunctionCost, everything: bool) -> Iterator[str]:
    yield from _heading([cost])
    rows = [(name, show(cost, function)) for name, show in _FIGURES.items()]
    yield table(rows, indent=2)
    yield from (f"  note: {note}" for note in function.notes)
    yield ""
    yield "operations by type"
    yield table(list(_by_type(function)), indent=2, right=(1, 2, 3, 4, 5))
    if everything:
        yield ""
        yield "operations in order"
        yield table(list(_in_order(function.operations)), indent=2, right=(2, 3, 4))
    yield ""
    yield from _roofline(cost, function)
    yield ""
    yield from _lint(function.lint, everything)


def _side_by_side(costs: Sequence[PackageCost], functions: Sequence[FunctionCost]) -> Iterator[str]:
    yield from _heading(costs)
    pairs = list(zip(costs, functions, strict=True))
    header = ("", *(f"({number})" for number in range(1, len(costs) + 1)))
    rows = [(name, *(show(*pair) for pair in pairs)) for name, show in _FIGURES.items()]
    yield table([header, *rows], indent=2)
    for number, function in enumerate(functions, 1):
        yield from (f"  note ({number}): {note}" for note in function.notes)
    yield ""
    counts = [{one.rule.name: len(one.findings) for one in each.lint} for each in functions]
    named = dict.fromkeys(name for each in counts for name in each)
    yield "lint: findings by rule" if named else "lint: nothing was found"
    rows = [(name, *(str(each.get(name, 0)) for each in counts)) for name in named]
    total = ("all", *(str(sum(each.values())) for each in counts))
    if rows:
        columns = range(1, len(costs) + 1)
        yield table([header, *rows, total], indent=2, right=tuple(columns))
        yield "  mvit-coreml cost PACKAGE of one says where, what it costs, and who says so"


def _heading(costs: Sequence[PackageCost]) -> Iterator[str]:
    for number, cost in enumerate(costs, 1):
        yield f"{cost.path}" if len(costs) == 1 else f"({number}) {cost.path}"
    yield f"  {costs[0].estimate}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _million(macs: int) -> str:
    return f"{macs / 1e6:,.1f} M"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0.0 %"


def _layout(cost: PackageCost, function: FunctionCost) -> str:
    count = len(function.operations)
    share = _share(function.layout_operations, count)
    moved = function.moved_bytes - sum(one.weight_bytes for one in function.operations)
    bytes_share = _share(function.layout_bytes, moved)
    return f"{function.layout_operations} of {count} ({share}), {bytes_share} of activation traffic"


_FIGURES: dict[str, Callable[[PackageCost, FunctionCost], str]] = {
    "counted at": lambda cost, one: one.counted_at,
    "size on disk": lambda cost, one: _megabytes(cost.size),
    "MACs": lambda cost, one: _million(one.macs),
    "weights": lambda cost, one: f"{_megabytes(one.weight_bytes)} as stored",
    "activations": lambda cost, one: f"{_megabytes(one.activation_bytes)} written",
    "moved": lambda cost, one: f"{_megabytes(one.moved_bytes)} if every operation reads and writes",
    "peak": lambda cost, one: f"{_megabytes(one.peak_bytes)} alive, at {one.peak_at or 'the start'}",
    "layout": _layout,
    "intensity": lambda cost, one: f"{one.intensity[0]:.1f} to {one.intensity[1]:.1f} FLOP a byte",
}


def _by_type(function: FunctionCost) -> Iterator[tuple[str, ...]]:
    groups: dict[str, list[OperationCost]] = {}
    for one in function.operations:
        groups.setdefault(one.op_type, []).append(one)
    yield "type", "count", "MACs", "share", "weights", "activations"

    def weight(item: tuple[str, list[OperationCost]]) -> tuple[int, int]:
        return -sum(one.macs for one in item[1]), -sum(one.written_bytes for one in item[1])

    ordered = sorted(groups.items(), key=weight)
    rest = [one for _, members in ordered[_TYPES:] for one in members]
    shown = ordered[:_TYPES]
    if rest:
        shown.append((f"{len(ordered) - _TYPES} others", rest))
    for name, members in shown:
        macs = sum(one.macs for one in members)
        yield (
            name,
            str(len(members)),
            _million(macs),
            _share(macs, function.macs),
            _megabytes(sum(one.weight_bytes for one in members)),
            _megabytes(sum(one.written_bytes for one in members)),
        )


def _in_order(operations: Sequence[OperationCost]) -> Iterator[tuple[str, ...]]:
    yield "operation", "type", "MACs", "weights", "activations", "shape"
    for one in operations:
        yield (
            shorten(one.name, _LONGEST_NAME),
            one.op_type,
            f"{one.macs:,}",
            f"{one.weight_bytes:,}",
            f"{one.written_bytes:,}",
            shape_in_words(one.shape),
        )


def _roofline(cost: PackageCost, function: FunctionCost) -> Iterator[str]:
    yield "roofline by chip class (of announced figures; no latency)"
    rows = [("chip", "fp16 TOPS", "GB/s", "ridge", "peak that memory allows", "MACs below ridge")]
    for roof in function.roofs:
        low, high = (100 * share for share in roof.peak_share)
        rows.append(
            (
                roof.chip,
                f"{roof.teraops:g}",
                f"{roof.bandwidth:g}",
                f"{roof.ridge:.0f}",
                f"{low:.1f} to {high:.1f} %",
                f"{100 * roof.memory_bound_macs:.1f} %",
            )
        )
    yield table(rows, indent=2, right=(1, 2, 3, 4, 5))
    yield from (f"  assumed: {assumption}" for assumption in cost.assumptions)


def _lint(found: Sequence[RuleFindings], everything: bool) -> Iterator[str]:
    yield "lint (as reported by others, measured by nobody here)" if found else "lint: nothing found"
    for one in found:
        rule = one.rule
        yield f"  {rule.name}: {len(one.findings)} {rule.looks_for}"
        yield f"    said to cost: {rule.costs}"
        yield f"    way out: {rule.way_out}"
        yield f"    source: {rule.source}"
        places = one.findings if everything else one.findings[:_PLACES]
        rows = [
            (shorten(place.operation, _LONGEST_NAME), shape_in_words(place.shape), place.detail)
            for place in places
        ]
        yield table(rows, indent=4)
        if len(one.findings) > len(places):
            yield f"    and {len(one.findings) - len(places)} more; --all lists them"
