"""Times by Core ML, as sections of a report; each figure stands under the machine it is of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mvit_coreml.device.benchmark import Benchmark, PlannedOperation, UnitBenchmark
from mvit_coreml.reports.sections import Section, SectionReport
from mvit_coreml.reports.text_tables import TextTable

_ROWS = 20


def benchmark_report(benchmarks: Sequence[Benchmark], *, everything: bool = False) -> SectionReport:
    """Return benchmarks as a report.

    Args:
        benchmarks: of one or more packages, by one machine.
        everything: list every operation off the Neural Engine.
    """
    rows = None if everything else _ROWS
    document = [
        {
            **vars(one),
            "units": [
                {**vars(unit), "neural_engine_share": unit.neural_engine_share}
                for unit in one.units
            ],
        }
        for one in benchmarks
    ]
    return SectionReport(
        title="benchmark",
        subject=f"measured on {benchmarks[0].machine}",
        sections=tuple(section for one in benchmarks for section in _package(one, rows)),
        document={"benchmarks": document},
    )


def _package(one: Benchmark, rows: int | None) -> Iterator[Section]:
    warm = "after one that is not counted" if one.warmup else "the first included"
    lines = (
        f"{one.iterations} predictions of noise for each choice of units, {warm}; times in ms",
        f"function {one.function}; measured on {one.machine}",
        "memory is the most that this process has taken so far, of all units and packages before",
    )
    yield Section(heading=f"{one.package}", table=_times(one.units), lines=lines)
    for unit in one.units:
        left = unit.off_neural_engine
        if unit.units == "all" or unit.units == "cpu-ne":
            heading = f"compute plan of {unit.units}: Core ML's prediction, no measurement"
            yield Section(heading=heading, facts=_plan_facts(unit), table=_left(left, rows))


def _times(units: Sequence[UnitBenchmark]) -> TextTable:
    rows = []
    for unit in units:
        spread = unit.prediction
        memory = unit.process_memory
        rows.append(
            (
                unit.units,
                *(f"{value:.3f}" for value in (spread.median, spread.p95, spread.minimum)),
                f"{spread.std:.3f}",
                f"{unit.first_load:.1f}",
                f"{unit.next_load:.1f}",
                "" if memory is None else f"{memory / 1e6:,.0f} MB",
                _percent(unit.neural_engine_share),
            )
        )
    columns = (
        "units",
        ">median",
        ">p95",
        ">min",
        ">std",
        ">first load",
        ">next load",
        ">memory",
        ">cost planned on the Neural Engine",
    )
    return TextTable(columns, rows)


def _plan_facts(unit: UnitBenchmark) -> list[tuple[str, str]]:
    return [
        ("operations", str(len(unit.operations))),
        ("planned off the Neural Engine", str(len(unit.off_neural_engine))),
        ("estimated cost on the Neural Engine", _percent(unit.neural_engine_share) or "not said"),
    ]


def _left(operations: Sequence[PlannedOperation], rows: int | None) -> TextTable | None:
    if not operations:
        return None
    shown = [
        (
            one.name,
            one.op_type,
            one.device,
            _percent(one.share),
            "" if one.place is None else str(one.place),
            ", ".join(one.rules),
        )
        for one in operations[:rows]
    ]
    more = len(operations) - len(shown)
    rest = f"and {more} more; --all lists them" if more else ""
    columns = ("operation", "type", "device", ">estimated cost", ">place", "lint")
    return TextTable(columns, shown, rest=rest)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"
