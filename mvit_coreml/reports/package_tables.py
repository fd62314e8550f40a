"""Tables of what a package holds and what its figures depend on, as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvit_coreml.inspection.package_contents import FunctionFacts
from mvit_coreml.mil.program import ArrayInput, ImageInput, Output
from mvit_coreml.reports.contents import PackageFacts, Reproduction
from mvit_coreml.reports.tables import Pairs, Table
from mvit_coreml.reports.wording import byte_size, percent

_FITS = {
    "crop": "resized and centre-cropped (crop)",
    "stretch": "stretched to the input (stretch)",
    "pad": "fitted into the input and padded (pad)",
}


def package_facts(facts: PackageFacts) -> Pairs:
    """Return what a package is."""
    inspection, function = facts.inspection, facts.function
    ios = f"iOS {inspection.ios}" if inspection.ios else "unknown"
    found = [
        ("size", byte_size(inspection.size)),
        ("target", f"{ios} (specification {inspection.specification_version})"),
        ("precision", facts.precision),
        ("palettes", f"{facts.palettes} bits" if facts.palettes else "none"),
    ]
    if len(inspection.functions) > 1:
        others = ", ".join(other.name for other in inspection.functions)
        found.append(("function", f"{function.name} of {others}"))
    found += [("input", _input(feature)) for feature in function.inputs]
    if facts.fit is not None:
        found.append(("photos are", _FITS.get(facts.fit, facts.fit)))
    order = _color_order(function)
    if order is not None:
        found.append(("colour order", order))
    found += [("output", _output(output)) for output in function.outputs]
    if function.labels is not None:
        found.append(("classes", f"{len(function.labels):,}"))
    metadata = inspection.metadata
    found += [
        (name, value)
        for name, value in (
            ("author", metadata.author),
            ("licence", metadata.license),
            ("version", metadata.version),
        )
        if value
    ]
    return found


def sizes_table(facts: PackageFacts) -> Table:
    """Return the sizes of the package and of plain weights, and how they compare."""
    own = facts.sizes[0]
    rows = []
    for bar in facts.sizes:
        share = percent(own.size / bar.size) if bar is not own else ""
        rows.append((bar.label, byte_size(bar.size), share))
    return Table(
        header=("weights", "on disk", "this package takes"), rows=tuple(rows), right=(1, 2)
    )


def weights_table(facts: PackageFacts) -> Table:
    """Return how the weights are stored."""
    return Table(
        header=("stored as", "tensors", "elements", "on disk"),
        rows=tuple(
            (g.scheme, f"{g.tensors:,}", f"{g.elements:,}", byte_size(g.stored_bytes))
            for g in facts.inspection.weights
        ),
        right=(1, 2, 3),
    )


def operations_table(function: FunctionFacts) -> Table:
    """Return the census of a function's operations, those that only move values marked."""
    return Table(
        header=("operation", "count", ""),
        rows=tuple(
            (name, str(number), "layout" if name in function.layout_operations else "")
            for name, number in function.operations.items()
        ),
        right=(1,),
    )


def cautions_table(facts: PackageFacts) -> Table | None:
    """Return what to beware of."""
    cautions = facts.inspection.cautions
    if not cautions:
        return None
    return Table(
        header=("concerns", "what", "operations"),
        rows=tuple(
            (c.kind, c.message, ", ".join(c.operations[:3]) + _more(len(c.operations) - 3))
            for c in cautions
        ),
    )


def reproduction_facts(found: Reproduction) -> Pairs:
    """Return what the figures depend on."""
    facts: Pairs = [("computed with", _versions(found.versions))]
    if found.made_with:
        facts.append(("converted with", _versions(found.made_with)))
    if found.checkpoint:
        facts.append(("checkpoint", found.checkpoint))
    if found.revision:
        facts.append(("revision", found.revision))
    if found.weights_sha256:
        facts.append(("its weights, SHA-256", found.weights_sha256))
    return facts


def files_table(facts: PackageFacts) -> Table:
    """Return the files of a package with their digests."""
    return Table(
        header=("file", "size", "SHA-256"),
        rows=tuple(
            (name, f"{size:,}", facts.sha256.get(name, ""))
            for name, size in facts.inspection.files.items()
        ),
        right=(1,),
    )


def _input(feature: ImageInput | ArrayInput) -> str:
    if isinstance(feature, ImageInput):
        return f"{feature.name}: image, {feature.width}x{feature.height} pixels"
    return f"{feature.name}: {feature.data_type} {_shape(feature.shape)}"


def _output(output: Output) -> str:
    if output.kind != "array":
        return f"{output.name}: {output.kind}"
    return f"{output.name}: {output.data_type} {_shape(output.shape)}".rstrip()


def _color_order(function: FunctionFacts) -> str | None:
    for feature in function.inputs:
        if isinstance(feature, ImageInput):
            return feature.color_order.upper()
    return None


def _shape(shape: Sequence[Any]) -> str:
    return "x".join(map(str, shape))


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def _more(number: int) -> str:
    return f" and {number} more" if number > 0 else ""
