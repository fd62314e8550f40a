"""The Markdown report, for a comment on a pull request; it has no pictures."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from mvit_coreml.reports import evaluation_tables, package_tables, tables
from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.html import subject
from mvit_coreml.reports.wording import count, verdict

_SPECIAL = re.compile(r"([\\`*_{}\[\]#|~$@!])")
_SIGNS = {"PASSED": "✅ ", "FAILED": "❌ "}


def as_markdown(report: Report) -> str:
    """Return a report as GitHub-flavoured Markdown."""
    return "\n\n".join(_blocks(report)) + "\n"


def escape(text: str) -> str:
    """Return text of one line that Markdown shows as it is, in a table's cell too."""
    line = " ".join(text.split())
    return _SPECIAL.sub(r"\\\1", html.escape(line, quote=False))


def _blocks(report: Report) -> Iterator[str]:
    found, parity, facts = verdict(report), report.parity, report.package
    yield f"# {escape(report.title)}"
    if subject(report):
        yield escape(subject(report))
    yield f"**{_SIGNS.get(found.status, '')}{found.status}**: {escape(found.meaning)}"
    if parity is not None:
        yield as_table(tables.gates_table(parity))
    if report.all_notes:
        yield "## Notes"
        yield "\n".join(f"- {escape(note)}" for note in report.all_notes)
    if parity is not None:
        differences = tables.differences_table(parity)
        if differences is not None:
            yield "## Differences from a fresh conversion"
            yield as_table(differences)
        if parity.recording is not None and parity.recording.samples:
            samples = parity.recording.samples
            yield "## Images"
            yield f"{len(samples)} of {count(parity.images, 'image')}, the worst first."
            yield as_table(tables.samples_table(report, samples))
    yield from _evaluation(report)
    if parity is not None:
        yield "## Closeness to PyTorch"
        yield as_table(tables.closeness_table(parity))
        if parity.agreement:
            yield _facts(tables.agreement_facts(parity))
        if parity.layers:
            yield "## Error by operation"
            yield f"The largest drops of {count(len(parity.layers), 'operation')}."
            yield as_table(tables.layers_table(parity))
    if facts is not None:
        yield "## Package"
        yield _facts(package_tables.package_facts(facts))
        yield "## Size"
        yield as_table(package_tables.sizes_table(facts))
        yield as_table(package_tables.weights_table(facts))
        yield "## Operations"
        yield as_table(package_tables.operations_table(facts.function))
        cautions = package_tables.cautions_table(facts)
        yield "### Beware"
        yield "Nothing to beware of was found." if cautions is None else as_table(cautions)
    yield from _reproduction(report)


def _evaluation(report: Report) -> Iterator[str]:
    evaluation = report.evaluation
    if evaluation is None:
        return
    yield "## Accuracy on labelled images"
    yield as_table(evaluation_tables.evaluation_table(evaluation))
    yield _facts(evaluation_tables.evaluation_facts(evaluation))
    for accuracy in evaluation.accuracies:
        confused = evaluation_tables.confused_table(report, accuracy)
        if confused is not None:
            yield f"### Confused most by {escape(accuracy.target)}"
            yield as_table(confused)


def _reproduction(report: Report) -> Iterator[str]:
    found = report.reproduction
    if found is None:
        return
    yield "## How to reproduce"
    if found.command:
        # Indented code needs no fence that the command could close.
        yield "\n".join(f"    {line}" for line in found.command.splitlines())
    yield _facts(package_tables.reproduction_facts(found))
    if report.package is not None:
        yield as_table(package_tables.files_table(report.package))


def _facts(pairs: tables.Pairs) -> str:
    return "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in pairs)


def as_table(table: tables.Table) -> str:
    """Return a table with columns of numbers to the right."""
    rules = ["--:" if place in table.right else "---" for place in range(len(table.header))]
    rows = [table.header, tuple(rules), *table.rows]
    lines = [_row(row, escaped=place == 1) for place, row in enumerate(rows)]
    return "\n".join(lines) + (f"\n\n{escape(table.rest)}" if table.rest else "")


def _row(cells: tuple[str, ...], *, escaped: bool) -> str:
    texts = cells if escaped else tuple(escape(cell) for cell in cells)
    return f"| {' | '.join(texts)} |"
