"""The sections of the HTML report that show figures: each is ``None`` without its data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvit_coreml.evaluation.accuracy import Accuracy
from mvit_coreml.evaluation.metrics import MAX_DB
from mvit_coreml.reports import evaluation_tables, package_tables, plots, tables
from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.markup import Html, breakable, element, join
from mvit_coreml.reports.wording import count, percent, verdict

_KINDS = {"PASSED": "good", "FAILED": "bad"}
_SIGNS = {"PASSED": "✓ ", "FAILED": "✗ "}


def verdict_section(report: Report) -> Html:
    """Return the verdict, the few numbers that matter, and the gates."""
    found = verdict(report)
    tiles = [
        element("div", element("b", value), element("span", name), class_="tile")
        for value, name in tables.key_figures(report)
    ]
    return join(
        element(
            "div",
            element("div", _SIGNS.get(found.status, ""), found.status, class_="status"),
            element("p", found.meaning),
            class_=f"verdict {_KINDS.get(found.status, 'neutral')}",
        ),
        element("div", *tiles, class_="tiles") if tiles else None,
        as_table(tables.gates_table(report.parity), "gates") if report.parity is not None else None,
    )


def notes_section(report: Report) -> Html | None:
    """Return what whoever reads this should know."""
    if not report.all_notes:
        return None
    return section("Notes", element("ul", *(element("li", note) for note in report.all_notes)))


def package_section(report: Report) -> Html | None:
    """Return what is in the package."""
    facts = report.package
    if facts is None:
        return None
    return section("Package", facts_list(package_tables.package_facts(facts), "two-columns"))


def size_section(report: Report) -> Html | None:
    """Return the size of the package beside those of plain weights."""
    facts = report.package
    if facts is None:
        return None
    return section(
        "Size",
        element(
            "figure",
            plots.size_chart(facts.sizes, plots.WIDE, "sizes-wide"),
            plots.size_chart(facts.sizes, plots.NARROW, "sizes-narrow"),
            element(
                "figcaption",
                "The plain sizes are computed from this package's own weights: 2 or 4 bytes for "
                "each element, everything else as it is.",
            ),
        ),
        element(
            "div",
            as_table(package_tables.sizes_table(facts)),
            as_table(package_tables.weights_table(facts)),
            class_="columns",
        ),
    )


def closeness_section(report: Report) -> Html | None:
    """Return how close the package's numbers are, with a plot of scores if there are any."""
    parity = report.parity
    if parity is None:
        return None
    pairs = parity.recording.score_pairs if parity.recording is not None else ()
    facts = facts_list(tables.agreement_facts(parity)) if parity.agreement else None
    worst = join(
        element("h3", "Images that fared worst"), as_table(tables.worst_table(parity), "names")
    )
    if len(pairs) > 1:
        plot = element(
            "figure",
            plots.score_scatter(pairs, plots.NARROW, "scores"),
            element(
                "figcaption",
                f"{count(len(pairs), 'score')}, drawn evenly from all images; on the line both "
                "answer the same.",
            ),
            class_="square",
        )
        body = element("div", plot, element("div", facts, worst), class_="plotted")
    else:
        body = join(facts, worst)
    return section("Closeness to PyTorch", as_table(tables.closeness_table(parity), "names"), body)


def layers_section(report: Report) -> Html | None:
    """Return where the error enters."""
    parity = report.parity
    if parity is None or not parity.layers:
        return None
    marked = tables.marked_layers(parity)
    exact = sum(layer.snr >= MAX_DB for layer in parity.layers)
    if exact == len(parity.layers):
        return section("Error by operation", element("p", "Every operation is exact."))
    return section(
        "Error by operation",
        element(
            "figure",
            plots.layer_plot(parity.layers, marked, plots.WIDE, "layers-wide"),
            plots.layer_plot(parity.layers, marked, plots.NARROW, "layers-narrow"),
            element(
                "figcaption",
                f"{count(len(parity.layers), 'operation')} against the same one without rounding "
                "and palettes; higher is better"
                + (f"; {exact} without any error are left out" if exact else "")
                + ". Numbers mark the largest drops.",
            ),
        ),
        as_table(tables.layers_table(parity), "numbered") if marked else None,
    )


def differences_section(report: Report) -> Html | None:
    """Return what the package stores otherwise than its checkpoint converts to."""
    found = tables.differences_table(report.parity) if report.parity is not None else None
    return (
        None
        if found is None
        else section("Differences from a fresh conversion", as_table(found, "prose"))
    )


def operations_section(report: Report) -> Html | None:
    """Return the census of operations, and what to beware of."""
    facts = report.package
    if facts is None:
        return None
    function = facts.function
    total = count(sum(function.operations.values()), "operation")
    layout = sum(function.layout_operations.values())
    moving = ", ".join(f"{number} {name}" for name, number in function.layout_operations.items())
    cautions = package_tables.cautions_table(facts)
    return section(
        "Operations",
        element(
            "p",
            f"{total} of {count(len(function.operations), 'type')}. Only moving values: "
            + (f"{layout} ({moving})" if moving else "none")
            + f". Tensors have up to {function.largest_rank} axes.",
        ),
        element(
            "details",
            element("summary", "Every type of operation"),
            as_table(package_tables.operations_table(function)),
        ),
        element("h3", "Beware"),
        element("p", "Nothing to beware of was found.", class_="quiet")
        if cautions is None
        else as_table(cautions, "prose"),
    )


def evaluation_section(report: Report) -> Html | None:
    """Return accuracy on labelled images, and confusions among few classes."""
    evaluation = report.evaluation
    if evaluation is None:
        return None
    # A diagonal alone says less than what is confused.
    confusing = (place for place, found in enumerate(evaluation.accuracies) if _confuses(found))
    unfolded = next(confusing, 0)
    return section(
        "Accuracy on labelled images",
        as_table(evaluation_tables.evaluation_table(evaluation), "names"),
        element("p", "95 % intervals in brackets.", class_="quiet"),
        facts_list(evaluation_tables.evaluation_facts(evaluation)),
        *(
            _confusions(report, accuracy, shown=place == unfolded)
            for place, accuracy in enumerate(evaluation.accuracies)
        ),
    )


def reproduction_section(report: Report) -> Html | None:
    """Return how to get the same figures again."""
    found = report.reproduction
    if found is None:
        return None
    return section(
        "How to reproduce",
        element("pre", found.command) if found.command else None,
        facts_list(package_tables.reproduction_facts(found)),
        as_table(package_tables.files_table(report.package), "digests")
        if report.package is not None
        else None,
    )


def section(title: str, *children: object) -> Html:
    """Return a section with its heading."""
    return element("section", element("h2", title), *children)


def facts_list(pairs: tables.Pairs, kind: str | None = None) -> Html:
    """Return names with their values."""
    entries = (element("div", element("dt", name), element("dd", value)) for name, value in pairs)
    return element("dl", *entries, class_=kind)


def as_table(table: tables.Table, kind: str | None = None) -> Html:
    """Return a table, which scrolls by itself where the page is too narrow."""

    def cells(tag: str, texts: Sequence[str]) -> list[Html]:
        return [
            element(tag, breakable(text), class_="number" if place in table.right else None)
            for place, text in enumerate(texts)
        ]

    marks = table.marks or ("",) * len(table.rows)
    rows = [
        element("tr", *cells("td", row), class_=mark or None)
        for row, mark in zip(table.rows, marks, strict=True)
    ]
    return join(
        element(
            "div",
            element(
                "table",
                element("thead", element("tr", *cells("th", table.header))),
                element("tbody", *rows),
                class_=kind,
            ),
            class_="scroll",
        ),
        element("p", table.rest, class_="rest") if table.rest else None,
    )


def _confuses(accuracy: Accuracy) -> bool:
    return bool(accuracy.confused_pairs(1))


def _confusions(report: Report, accuracy: Accuracy, shown: bool) -> Html | None:
    classes = evaluation_tables.confusion_classes(accuracy)
    confused = evaluation_tables.confused_table(report, accuracy)
    if confused is None and not classes:
        return None
    counts = accuracy.confusion.counts[np.ix_(classes, classes)]
    rows = []
    for place, index in enumerate(classes):
        total = max(1, int(accuracy.confusion.counts[index].sum()))
        rows.append(
            element(
                "tr",
                _class_name(report, index, scope="row"),
                *(_confusion_cell(int(number), total) for number in counts[place]),
            )
        )
    header = element(
        "tr", element("th", "is ↓ taken for →"), *(_class_name(report, index) for index in classes)
    )
    matrix = element(
        "div",
        element(
            "div",
            element("table", element("thead", header), element("tbody", *rows), class_="confusion"),
            class_="scroll",
        ),
        element("p", "Per cent of the class in the row.", class_="quiet"),
    )
    return element(
        "details",
        element("summary", f"Confusions of {accuracy.target}"),
        element(
            "div",
            matrix if classes else None,
            None if confused is None else element("div", as_table(confused)),
            class_="beside",
        ),
        open=shown,
    )


def _class_name(report: Report, index: int, scope: str = "col") -> Html:
    name = report.label(index)
    return element("th", element("span", name), scope=scope, title=name)


def _confusion_cell(number: int, total: int) -> Html:
    share = number / total
    style = f"background: rgba(var(--heat), {0.75 * share:.3f})" if number else None
    text = f"{100 * share:.0f}" if number else ""
    text = "<1" if text == "0" else text
    return element("td", text, style=style, title=f"{number} of {total}, {percent(share)}")
