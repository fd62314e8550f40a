"""The figures of what a package costs to run, as tables and lists of text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mvit_coreml.inspection.device_lint import LintFinding, RuleFindings
from mvit_coreml.inspection.operation_cost import OperationCost
from mvit_coreml.inspection.package_cost import FunctionCost
from mvit_coreml.reports.text_tables import Facts, TextTable

_TYPES = 10


def cost_facts(function: FunctionCost) -> Facts:
    """Return the figures of a function."""
    return [(name, show(function)) for name, show in FIGURES.items()]


def lint_table(lint: Sequence[RuleFindings]) -> TextTable:
    """Return the rules that found something, a row each."""
    rows = [(one.rule.name, str(len(one.findings)), one.rule.costs, _places(one)) for one in lint]
    rest = "mvit-coreml cost says who says so, and the way out." if rows else ""
    return TextTable(("rule", ">found", "said to cost", "where"), rows, rest=rest)


def _places(one: RuleFindings) -> str:
    more = len(one.findings) - 1
    first = one.findings[0]
    where = f"{first.operation}: {first.detail}"
    return where + (f", and {more} more" if more else "")


def megabytes(size: int) -> str:
    """Return bytes in MB of 10⁶ bytes."""
    return f"{size / 1e6:,.2f} MB"


def _million(macs: int) -> str:
    return f"{macs / 1e6:,.1f} M"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0.0 %"


def _layout(function: FunctionCost) -> str:
    count = len(function.operations)
    share = _share(function.layout_operations, count)
    traffic = function.moved_bytes - sum(one.weight_bytes for one in function.operations)
    moved = _share(function.layout_bytes, traffic)
    return f"{function.layout_operations} of {count} ({share}), {moved} of activation traffic"


FIGURES: dict[str, Callable[[FunctionCost], str]] = {
    "counted at": lambda one: one.counted_at,
    "MACs": lambda one: _million(one.macs),
    "weights as stored": lambda one: megabytes(one.weight_bytes),
    "activations written": lambda one: megabytes(one.activation_bytes),
    "moved by all operations": lambda one: megabytes(one.moved_bytes),
    "peak of live activations": lambda one: (
        f"{megabytes(one.peak_bytes)}, at {one.peak_at or 'the start'}"
    ),
    "layout operations": _layout,
    "arithmetic intensity": lambda one: (
        f"{one.intensity[0]:.1f} to {one.intensity[1]:.1f} FLOP a byte"
    ),
}


def types_table(function: FunctionCost) -> TextTable:
    """Return MACs and bytes by type of operation, the types with most MACs first."""
    groups: dict[str, list[OperationCost]] = {}
    for one in function.operations:
        groups.setdefault(one.op_type, []).append(one)

    def weight(item: tuple[str, list[OperationCost]]) -> tuple[int, int]:
        return -sum(one.macs for one in item[1]), -sum(one.written_bytes for one in item[1])

    ordered = sorted(groups.items(), key=weight)
    shown, rest = ordered[:_TYPES], [one for _, members in ordered[_TYPES:] for one in members]
    if rest:
        shown.append((f"{len(ordered) - _TYPES} others", rest))
    rows = []
    for name, members in shown:
        macs = sum(one.macs for one in members)
        stored, written = (
            sum(one.weight_bytes for one in members),
            sum(one.written_bytes for one in members),
        )
        share = _share(macs, function.macs)
        sizes = (megabytes(stored), megabytes(written))
        rows.append((name, str(len(members)), _million(macs), share, *sizes))
    columns = ("type", ">count", ">MACs", ">share", ">weights", ">activations")
    return TextTable(columns, rows)


def operations_in_order(operations: Sequence[OperationCost]) -> TextTable:
    """Return every operation in order of execution."""
    rows = [
        (
            one.name,
            one.op_type,
            f"{one.macs:,}",
            f"{one.weight_bytes:,}",
            f"{one.written_bytes:,}",
            shape_words(one),
        )
        for one in operations
    ]
    columns = ("operation", "type", ">MACs", ">weight bytes", ">activation bytes", "shape")
    return TextTable(columns, rows)


def shape_words(one: LintFinding | OperationCost) -> str:
    """Return the shape of an operation's first result, such as ``1x3x256x256``."""
    return "x".join(map(str, one.shape)) or "scalar"


def roofline_table(function: FunctionCost) -> TextTable:
    """Return where a function stands under the roof of every chip class."""
    rows = []
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
    columns = (
        "chip",
        ">fp16 TOPS",
        ">GB/s",
        ">ridge, FLOP a byte",
        ">of the peak memory allows",
        ">MACs below the ridge",
    )
    return TextTable(columns, rows)
