"""The HTML report: one file that needs nothing else."""

from __future__ import annotations

from mvit_coreml.reports import sections
from mvit_coreml.reports.contents import Report
from mvit_coreml.reports.images import images_section
from mvit_coreml.reports.markup import Html, breakable, element, join
from mvit_coreml.reports.style import STYLE
from mvit_coreml.reports.wording import count, verdict

# The file asks for nothing, not even when a label slips through as markup.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def as_html(report: Report) -> str:
    """Return a report as a page: the verdict first, what it rests on below."""
    found = verdict(report)
    body = element(
        "main",
        element("p", "mvit-coreml report", class_="kicker"),
        element("h1", breakable(report.title)),
        element("p", subject(report), class_="subject"),
        sections.verdict_section(report),
        sections.notes_section(report),
        sections.differences_section(report),
        images_section(report),
        sections.evaluation_section(report),
        sections.closeness_section(report),
        sections.layers_section(report),
        sections.package_section(report),
        sections.size_section(report),
        sections.operations_section(report),
        sections.reproduction_section(report),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{found.status}: {report.title}"),
        element("style", Html(STYLE)),
    )
    document = element("html", head, element("body", body), lang="en")
    return str(join(Html("<!DOCTYPE html>\n"), document, Html("\n")))


def subject(report: Report) -> str:
    """Say what was compared with what."""
    parity = report.parity
    if parity is None:
        found = report.evaluation
        return f"{count(found.images, 'image')} of {found.dataset}" if found is not None else ""
    images = count(parity.images, "synthetic picture" if parity.synthetic else "photo")
    engine = "Core ML" if parity.engine == "coreml" else f"{parity.engine} runtime"
    return f"against {parity.source} in PyTorch · {images} · {engine}"
