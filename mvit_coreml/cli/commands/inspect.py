"""``mvit-coreml inspect``: what is in a package."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.tables import table

if TYPE_CHECKING:
    from mvit_coreml.inspection.input_arithmetic import BakedPreprocessing
    from mvit_coreml.inspection.package_contents import FunctionFacts, Inspection

_EXAMPLES = """\b
Examples:
  mvit-coreml inspect Classifier.mlpackage
  mvit-coreml inspect Classifier.mlpackage --json
"""
_FIRST_LABELS = 5
_LONGEST_VALUE = 100
_NAMED_OPERATIONS = 3


@click.command("inspect", epilog=_EXAMPLES)
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="List every uncompressed weight.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document, with everything.")
def command(package: Path, everything: bool, as_json: bool) -> None:
    """Say what is in a package of any tool.

    Inputs and outputs, the preprocessing it does itself, labels, operations, weights, metadata, and
    what to beware of. The package is not run. What it says about the Neural Engine was reported by
    others, not measured.
    """
    from mvit_coreml.inspection.package_contents import inspect_package

    inspection = inspect_package(package)
    if as_json:
        echo_json(_as_json(inspection))
    else:
        click.echo("\n".join(_lines(inspection, everything)))


def _as_json(inspection: Inspection) -> dict[str, Any]:
    data = dataclasses.asdict(inspection)
    data["path"] = str(inspection.path)
    data["size"] = inspection.size
    return data


def _lines(inspection: Inspection, everything: bool) -> Iterator[str]:
    yield f"{inspection.path}"
    yield f"  size        {_bytes(inspection.size)}"
    files = [(name, _bytes(size)) for name, size in inspection.files.items()]
    yield table(files, indent=14, right=(1,))
    target = f"iOS {inspection.ios}" if inspection.ios else "unknown"
    yield f"  target      {target} (specification {inspection.specification_version})"
    for function in inspection.functions:
        yield ""
        default = ", the default" if function.name == inspection.default_function else ""
        yield f"function {function.name} (operations of iOS {function.ios}{default})"
        yield from _function_lines(function)
    yield ""
    yield "weights"
    rows = [
        (
            group.scheme,
            f"{group.tensors} {'tensor' if group.tensors == 1 else 'tensors'}",
            f"{group.elements:,} elements",
            _bytes(group.stored_bytes),
        )
        for group in inspection.weights
    ]
    yield table(rows, indent=2, right=(1, 2, 3))
    yield from _plain_lines(inspection, everything)
    yield ""
    yield "metadata"
    yield table(list(_metadata(inspection)), indent=2)
    yield ""
    yield "beware" if inspection.cautions else "nothing to beware of was found"
    for caution in inspection.cautions:
        place = f" (function {caution.function})" if len(inspection.functions) > 1 else ""
        yield f"  {caution.kind}: {caution.message}{place if caution.function else ''}"
        if caution.operations:
            yield f"    {_named(caution.operations)}"


def _function_lines(function: FunctionFacts) -> Iterator[str]:
    from mvit_coreml.mil.program import ImageFeature

    for feature in function.inputs:
        if isinstance(feature, ImageFeature):
            what = f"image, {feature.height}x{feature.width} pixels, {feature.color_order.upper()}"
        else:
            what = f"{feature.data_type} {_shape(feature.shape)}"
        yield f"  input       {feature.name}: {what}"
    if function.preprocessing is not None:
        yield f"  baked       {_baked(function.preprocessing)}"
    for output in function.outputs:
        shape = _shape(output.shape) if output.kind == "array" else ""
        kind = output.data_type if output.kind == "array" else output.kind
        yield f"  output      {output.name}: {kind} {shape}".rstrip()
    if function.labels is not None:
        first = ", ".join(function.labels[:_FIRST_LABELS])
        more = ", …" if len(function.labels) > _FIRST_LABELS else ""
        yield f"  labels      {len(function.labels)}: {first}{more}"
        if function.repeated_labels:
            yield f"              more than once: {', '.join(function.repeated_labels)}"
    total = sum(function.operations.values())
    yield f"  operations  {total}: {_census(function.operations)}"
    layout = sum(function.layout_operations.values())
    yield f"  layout      {layout}: {_census(function.layout_operations) or 'none'}"
    yield f"  ranks       up to {function.largest_rank} ({function.largest_rank_at})"


def _plain_lines(inspection: Inspection, everything: bool) -> Iterator[str]:
    plain = inspection.plain_weights
    if not plain:
        return
    reasons: dict[str, list[int]] = {}
    for weight in plain:
        reasons.setdefault(weight.reason, []).append(weight.stored_bytes)
    yield f"  uncompressed: {len(plain)} tensors, {_bytes(sum(map(sum, reasons.values())))}"
    rows = [(reason, f"{len(sizes)}", _bytes(sum(sizes))) for reason, sizes in reasons.items()]
    yield table(rows, indent=4, right=(1, 2))
    if everything:
        yield table(
            [
                (
                    weight.name,
                    f"{weight.data_type} {_shape(weight.shape)}",
                    _bytes(weight.stored_bytes),
                    weight.reason,
                )
                for weight in plain
            ],
            indent=4,
            right=(2,),
        )


def _metadata(inspection: Inspection) -> Iterator[tuple[str, str]]:
    metadata = inspection.metadata
    fields = {
        "author": metadata.author,
        "license": metadata.license,
        "description": metadata.short_description,
        "version": metadata.version,
        **dict(sorted(metadata.user_defined.items())),
    }
    for name, value in fields.items():
        yield name, value if len(value) <= _LONGEST_VALUE else value[: _LONGEST_VALUE - 1] + "…"


def _baked(baked: BakedPreprocessing) -> str:
    if not baked.operations:
        return "nothing: the program takes pixel values 0 to 255"
    ranges = ", ".join(f"{low:.4g} to {high:.4g}" for low, high in dict.fromkeys(baked.ranges))
    order = "" if len(set(baked.ranges)) == 1 else f", in {baked.color_order.upper()} order"
    return f"scale {_numbers(baked.scale)}, bias {_numbers(baked.bias)}: values {ranges}{order}"


def _numbers(values: Sequence[float]) -> str:
    """Return a number, or one for each channel where they differ."""
    numbers = values[:1] if len(set(values)) == 1 else values
    return ", ".join(f"{value:.6g}" for value in numbers)


def _census(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _bytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size:,} bytes"


def _named(operations: Sequence[str]) -> str:
    more = len(operations) - _NAMED_OPERATIONS
    return ", ".join(operations[:_NAMED_OPERATIONS]) + (f" and {more} more" if more > 0 else "")
