"""Xcode's performance reports and compiled models, as sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mvit_coreml.device.compiled_metadata import CompiledMetadata
from mvit_coreml.device.report_comparison import OperationChange, ReportChanges, compare_reports
from mvit_coreml.device.xcode_report import NEURAL_ENGINE, ReportedOperation, XcodeReport
from mvit_coreml.inspection.operation_cost import OperationCost
from mvit_coreml.inspection.package_cost import FunctionCost
from mvit_coreml.reports.cost_tables import cost_facts
from mvit_coreml.reports.sections import Section, SectionReport
from mvit_coreml.reports.text_tables import TextTable

_ROWS = 20
_SUBJECT = "figures of Xcode's report, times of operations its estimates; nothing was measured here"


def xcode_sections(
    reports: Sequence[XcodeReport],
    compiled: Sequence[CompiledMetadata] = (),
    *,
    base: XcodeReport | None = None,
    cost: FunctionCost | None = None,
    everything: bool = False,
) -> SectionReport:
    """Return performance reports and compiled models as one report.

    Args:
        reports: as read.
        compiled: metadata of compiled models.
        base: an older report, which each is compared with.
        cost: of the package that was measured, laid beside.
        everything: list more than the first rows.
    """
    rows = None if everything else _ROWS
    changes = [compare_reports(base, report) for report in reports] if base is not None else []
    sections = [section for report in reports for section in _report(report, cost, rows)]
    if base is not None:
        for report, change in zip(reports, changes, strict=True):
            sections += _changes(f"{report.path} against {base.path}", change, rows)
    sections += [section for one in compiled for section in _compiled(one, cost)]
    if cost is not None:
        facts = cost_facts(cost)
        sections.append(Section(heading="the package, estimated (no latency)", facts=facts))
    return SectionReport(
        title="Xcode's performance report",
        subject=_SUBJECT,
        sections=tuple(sections),
        document={
            "reports": reports,
            "against": None if base is None else base.path,
            "changes": changes,
            "compiled": compiled,
            "cost": cost,
        },
    )


def _report(report: XcodeReport, cost: FunctionCost | None, rows: int | None) -> Iterator[Section]:
    facts = [*report.facts.items()]
    if report.operations:
        facts.append(("operations", str(len(report.operations))))
        facts.append(("sum of estimated times", _time(report.total_time)))
    lines = tuple(f"note: {note}" for note in report.notes)
    table = _times_table(report) if report.times else None
    yield Section(heading=f"{report.path}", facts=facts, table=table, lines=lines)
    if not report.operations:
        return
    yield Section(heading="by device", table=_by_device(report))
    explained = _rules(cost)
    costs = {} if cost is None else {one.name: one for one in cost.operations}
    ordered = sorted(report.operations, key=lambda one: -(one.time or 0))
    yield Section(heading="slowest operations", table=_operations(ordered, costs, explained, rows))
    left = [one for one in ordered if one.device not in ("", NEURAL_ENGINE)]
    if left:
        heading = "operations off the Neural Engine"
        yield Section(heading=heading, table=_operations(left, costs, explained, rows))
    if cost is not None:
        yield Section(heading="beside the package", facts=_matched(report, costs))


def _matched(report: XcodeReport, costs: Mapping[str, OperationCost]) -> list[tuple[str, str]]:
    known = sum(one.name in costs for one in report.operations)
    return [("operations found in the package by name", f"{known} of {len(report.operations)}")]


def _rules(cost: FunctionCost | None) -> dict[str, str]:
    """Map operations to the lint rules that are about them."""
    rules: dict[str, list[str]] = {}
    for one in cost.lint if cost is not None else ():
        for place in one.findings:
            rules.setdefault(place.operation, []).append(one.rule.name)
    return {name: ", ".join(names) for name, names in rules.items()}


def _operations(
    operations: Sequence[ReportedOperation],
    costs: Mapping[str, OperationCost],
    explained: Mapping[str, str],
    rows: int | None,
) -> TextTable:
    shown = [
        (
            one.name,
            one.op_type,
            one.device,
            _time(one.time),
            f"{costs[one.name].macs:,}" if one.name in costs else "",
            explained.get(one.name, ""),
        )
        for one in operations[:rows]
    ]
    columns = ("operation", "type", "device", ">estimated", ">MACs", "lint")
    return TextTable(columns, shown, rest=_rest(len(operations) - len(shown)))


def _by_device(report: XcodeReport) -> TextTable:
    groups: dict[str, list[ReportedOperation]] = {}
    for one in report.operations:
        groups.setdefault(one.device or "not said", []).append(one)
    total = report.total_time
    rows = []
    for name, members in sorted(groups.items(), key=lambda item: -len(item[1])):
        time = sum(one.time or 0.0 for one in members)
        share = f"{100 * time / total:.1f} %" if total else ""
        rows.append((name, str(len(members)), _time(time), share))
    return TextTable(("device", ">operations", ">estimated", ">share"), rows)


def _times_table(report: XcodeReport) -> TextTable:
    rows = [
        (one.label, *(_ms(value) for value in (one.prediction, one.load, one.compilation)))
        for one in report.times
    ]
    return TextTable(("", ">prediction", ">load", ">compilation"), rows)


def _changes(heading: str, changes: ReportChanges, rows: int | None) -> Iterator[Section]:
    before, now = changes.total
    facts = [
        ("operations in both", str(changes.compared)),
        ("sum of estimated times", f"{_time(before)} -> {_time(now)}"),
        ("slower", str(len(changes.slower))),
        ("faster", str(len(changes.faster))),
        ("moved to another device", str(len(changes.moved))),
        ("only in the newer", _names(changes.added)),
        ("only in the older", _names(changes.removed)),
    ]
    yield Section(heading=heading, facts=facts)
    for title, some in (("got slower", changes.slower), ("moved device", changes.moved)):
        if some:
            yield Section(heading=title, table=_change_table(some, rows))


def _change_table(changes: Sequence[OperationChange], rows: int | None) -> TextTable:
    shown = [
        (
            change.name,
            change.op_type,
            " -> ".join(dict.fromkeys(device or "not said" for device in change.devices)),
            " -> ".join(map(_time, change.times)),
            f"{change.slower:+.1f} µs",
        )
        for change in changes[:rows]
    ]
    columns = ("operation", "type", "device", ">estimated", ">difference")
    return TextTable(columns, shown, rest=_rest(len(changes) - len(shown)))


def _compiled(one: CompiledMetadata, cost: FunctionCost | None) -> Iterator[Section]:
    features = [(f"input {name}", kind) for name, kind in one.inputs.items()]
    features += [(f"output {name}", kind) for name, kind in one.outputs.items()]
    yield Section(heading=f"{one.path}", facts=[*one.facts.items(), *features])
    if not one.operations:
        return
    own: dict[str, int] = {}
    for each in cost.operations if cost is not None else ():
        own[each.op_type] = own.get(each.op_type, 0) + 1
    names = dict.fromkeys([*one.operations, *own])
    beside = cost is not None
    rows = [
        (name, str(one.operations.get(name, 0)), *([str(own.get(name, 0))] if beside else []))
        for name in names
    ]
    columns = ("type", ">compiled", *([">package"] if beside else []))
    yield Section(heading="operations by type", table=TextTable(columns, rows))


def _time(time: float | None) -> str:
    return "" if time is None else f"{time:,.1f} µs"


def _ms(time: float | None) -> str:
    return "" if time is None else f"{time:,.3f} ms"


def _rest(more: int) -> str:
    return f"and {more} more; --all lists them" if more else ""


def _names(names: Sequence[str]) -> str:
    return (
        "none"
        if not names
        else f"{len(names)}: {', '.join(names[:3])}" + (", …" if len(names) > 3 else "")
    )
