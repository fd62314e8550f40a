"""What packages cost to run, as sections of a report: figures, operations, roofline, lint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mvit_coreml.inspection.device_lint import RuleFindings
from mvit_coreml.inspection.package_cost import FunctionCost, PackageCost
from mvit_coreml.reports.cost_tables import (
    FIGURES,
    cost_facts,
    megabytes,
    operations_in_order,
    roofline_table,
    shape_words,
    types_table,
)
from mvit_coreml.reports.sections import Section, SectionReport
from mvit_coreml.reports.text_tables import TextTable

_PLACES = 3
_LINT = "lint (as reported by others, measured by nobody here)"


def cost_report(
    costs: Sequence[PackageCost], function: str | None = None, *, everything: bool = False
) -> SectionReport:
    """Return one package's cost, or several side by side, as a report.

    Args:
        costs: of one or more packages.
        function: name of the function; the default one otherwise.
        everything: list every operation and finding of the one package.

    Raises:
        PackageError: a package has no such function.
    """
    functions = [cost.function(function) for cost in costs]
    alone = len(costs) == 1
    sections = (
        tuple(_of_one(costs[0], functions[0], everything)) if alone else _compared(costs, functions)
    )
    return SectionReport(
        title=str(costs[0].path) if alone else "cost of packages, side by side",
        subject=costs[0].estimate,
        sections=sections,
        document={"estimate": costs[0].estimate, "packages": costs},
    )


def _of_one(cost: PackageCost, function: FunctionCost, everything: bool) -> Iterator[Section]:
    facts = [("size on disk", megabytes(cost.size)), *cost_facts(function)]
    notes = tuple(f"note: {note}" for note in function.notes)
    yield Section(heading="cost", facts=facts, lines=notes)
    yield Section(heading="operations by type", table=types_table(function))
    if everything:
        yield Section(heading="operations in order", table=operations_in_order(function.operations))
    yield Section(
        heading="roofline by chip class (of announced figures; no latency)",
        table=roofline_table(function),
        lines=tuple(f"assumed: {assumption}" for assumption in cost.assumptions),
    )
    if not function.lint:
        yield Section(heading=_LINT, lines=("nothing was found",))
    for one in function.lint:
        yield _rule(one, everything)


def _rule(one: RuleFindings, everything: bool) -> Section:
    rule = one.rule
    places = one.findings if everything else one.findings[:_PLACES]
    more = len(one.findings) - len(places)
    rows = [(place.operation, shape_words(place), place.detail) for place in places]
    rest = f"and {more} more; --all lists them" if more else ""
    return Section(
        heading=f"lint: {rule.name}: {len(one.findings)} {rule.looks_for}",
        facts=[
            ("said to cost", rule.costs),
            ("way out", rule.way_out),
            ("source", rule.source),
        ],
        table=TextTable(("operation", "shape", "what"), rows, rest=rest),
    )


def _compared(
    costs: Sequence[PackageCost], functions: Sequence[FunctionCost]
) -> tuple[Section, ...]:
    numbers = [f"({number})" for number in range(1, len(costs) + 1)]
    named = [(number, str(cost.path)) for number, cost in zip(numbers, costs, strict=True)]
    rows = [("size on disk", *(megabytes(cost.size) for cost in costs))]
    rows += [(name, *(show(one) for one in functions)) for name, show in FIGURES.items()]
    notes = [
        f"note {number}: {note}"
        for number, one in zip(numbers, functions, strict=True)
        for note in one.notes
    ]
    counts = [{one.rule.name: len(one.findings) for one in each.lint} for each in functions]
    rules = dict.fromkeys(name for each in counts for name in each)
    lint_rows = [(name, *(str(each.get(name, 0)) for each in counts)) for name in rules]
    lint_rows.append(("all", *(str(sum(each.values())) for each in counts)))
    right = [f">{number}" for number in numbers]
    return (
        Section(heading="packages", facts=named),
        Section(heading="cost", table=TextTable(("", *numbers), rows), lines=tuple(notes)),
        Section(
            heading=f"{_LINT}: findings by rule",
            table=TextTable(("", *right), lint_rows),
            lines=("cost of one package says where, what it is said to cost, and who says so",),
        ),
    )
