"""``mvit-coreml inspect``: what is in a package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import shape_in_words, shorten, table

if TYPE_CHECKING:
    from mvit_coreml.inspection.input_arithmetic import BakedPreprocessing
    from mvit_coreml.inspection.package_contents import FunctionFacts, Inspection

_FIRST_LABELS = 5
_LONGEST_VALUE = 100


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.JsonArguments):
    """What the command is asked.

    Attributes:
        everything: List every uncompressed weight.
    """

    package: Path = opt.argument()
    everything: bool = opt.option("--all")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Say what is in a package of any tool.

    Inputs and outputs, the preprocessing it does itself, labels, operations, what they compute in,
    weights, metadata, and what to beware of. The package is not run. What it says about the Neural
    Engine was reported by others, not measured.

    Examples:
        mvit-coreml inspect Classifier.mlpackage
        mvit-coreml inspect Classifier.mlpackage --json
    """
    from mvit_coreml.inspection.package_contents import inspect_package

    inspection = inspect_package(arguments.package)
    arguments.show(
        {**vars(inspection), "size": inspection.size}, _lines(inspection, arguments.everything)
    )


def _lines(inspection: Inspection, everything: bool) -> Iterator[str]:
    from mvit_coreml.reports.text_tables import some
    from mvit_coreml.reports.wording import byte_size, count

    target = f"iOS {inspection.ios}" if inspection.ios else "unknown"
    files = [(name, byte_size(size)) for name, size in inspection.files.items()]
    facts = [("size", byte_size(inspection.size))]
    facts += [("", line) for line in table(files, right=(1,)).splitlines()]
    facts.append(("target", f"{target} (specification {inspection.specification_version})"))
    yield f"{inspection.path}"
    yield table(facts, indent=2)
    for function in inspection.functions:
        yield ""
        default = ", the default" if function.name == inspection.default_function else ""
        yield f"function {function.name} (operations of iOS {function.ios}{default})"
        yield table(list(_function_rows(function)), indent=2)
    yield ""
    yield "weights"
    rows = [
        (
            group.scheme,
            count(group.tensors, "tensor"),
            f"{group.elements:,} elements",
            byte_size(group.stored_bytes),
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
            yield f"    {some(caution.operations)}"


def _function_rows(function: FunctionFacts) -> Iterator[tuple[str, str]]:
    from mvit_coreml.mil.program import ImageFeature
    from mvit_coreml.reports.text_tables import feature_words

    for feature in function.inputs:
        order = f", {feature.color_order.upper()}" if isinstance(feature, ImageFeature) else ""
        yield "input", f"{feature.name}: {feature_words(feature)}{order}"
    if function.preprocessing is not None:
        yield "baked", _baked(function.preprocessing)
    for output in function.outputs:
        yield "output", f"{output.name}: {feature_words(output)}"
    if function.labels is not None:
        first = ", ".join(function.labels[:_FIRST_LABELS])
        more = ", …" if len(function.labels) > _FIRST_LABELS else ""
        yield "labels", f"{len(function.labels)}: {first}{more}"
        if function.repeated_labels:
            yield "", f"more than once: {', '.join(function.repeated_labels)}"
    total = sum(function.operations.values())
    yield "operations", f"{total}: {_census(function.operations)}"
    layout = sum(function.layout_operations.values())
    yield "layout", f"{layout}: {_census(function.layout_operations) or 'none'}"
    yield from _compute_rows(function)
    yield "ranks", f"up to {function.largest_rank} ({function.largest_rank_at})"


def _compute_rows(function: FunctionFacts) -> Iterator[tuple[str, str]]:
    """Say what part of the products is in 8 bits, and which layers are not."""
    from mvit_coreml.reports.text_tables import some
    from mvit_coreml.reports.wording import byte_size

    compute = function.compute
    if not compute.layers:
        return
    millions = f"{compute.macs / 1e6:.1f} million MACs"
    yield "computes", f"{millions}, {100 * compute.int8_share:.1f}% of them in 8-bit integers"
    if compute.int8_macs:
        rest = [f"{layer.name} ({layer.reason})" for layer in compute.in_floating_point]
        if rest:
            yield "", f"in floating point: {some(rest)}"
    moved = (f"{byte_size(size)} {name}" for name, size in compute.moved_bytes.items())
    yield "moves", f"activations, read and written: {', '.join(moved)}"


def _plain_lines(inspection: Inspection, everything: bool) -> Iterator[str]:
    from mvit_coreml.reports.wording import byte_size

    plain = inspection.plain_weights
    if not plain:
        return
    reasons: dict[str, list[int]] = {}
    for weight in plain:
        reasons.setdefault(weight.reason, []).append(weight.stored_bytes)
    yield f"  uncompressed: {len(plain)} tensors, {byte_size(sum(map(sum, reasons.values())))}"
    rows = [(reason, f"{len(sizes)}", byte_size(sum(sizes))) for reason, sizes in reasons.items()]
    yield table(rows, indent=4, right=(1, 2))
    if everything:
        weights = [
            (
                weight.name,
                f"{weight.data_type} {shape_in_words(weight.shape)}",
                byte_size(weight.stored_bytes),
                weight.reason,
            )
            for weight in plain
        ]
        yield table(weights, indent=4, right=(2,))


def _metadata(inspection: Inspection) -> Iterator[tuple[str, str]]:
    metadata = inspection.metadata
    fields = vars(metadata) | dict(sorted(metadata.user_defined.items()))
    for name, value in fields.items():
        if name != "user_defined":
            yield name.removeprefix("short_"), shorten(value, _LONGEST_VALUE)


def _baked(baked: BakedPreprocessing) -> str:
    from mvit_coreml.inspection.input_arithmetic import channel_numbers

    if not baked.operations:
        return "nothing: the program takes pixel values 0 to 255"
    ranges = ", ".join(f"{low:.4g} to {high:.4g}" for low, high in dict.fromkeys(baked.ranges))
    order = "" if len(set(baked.ranges)) == 1 else f", in {baked.color_order.upper()} order"
    scale, bias = channel_numbers(baked.scale), channel_numbers(baked.bias)
    return f"scale {scale}, bias {bias}: values {ranges}{order}"


def _census(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
