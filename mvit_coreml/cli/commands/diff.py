"""``mvit-coreml diff``: what differs between two packages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import shape_in_words, shorten, table

if TYPE_CHECKING:
    from mvit_coreml.inspection.diff import Change, PackageDifferences, WeightChange

_DIFFERENT = 1
_SHOWN = 20
_LONGEST_VALUE = 60


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.JsonArguments):
    first: Path = opt.argument()
    second: Path = opt.argument()
    everything: bool = opt.option("--all", help=f"List more than {_SHOWN} a section.")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Say what differs between two packages of any tool.

    Interface, operations and their attributes, decoded weights (the signal-to-noise ratio of the
    second's against the first's, worst first) and metadata. Internal names and the layout of the
    files do not count.

    Exits with 0 if the packages are equal, 1 if they differ and 2 if one cannot be read.

    Examples:
        mvit-coreml diff Old.mlpackage New.mlpackage
        mvit-coreml diff Classifier-fp16.mlpackage Classifier-6bit.mlpackage --all
        mvit-coreml diff A.mlpackage B.mlpackage --json
    """
    from mvit_coreml.inspection.diff import compare_packages

    differences = compare_packages(arguments.first, arguments.second)
    arguments.show(
        {**vars(differences), "equal": differences.equal},
        _lines(differences, arguments.everything),
    )
    click.get_current_context().exit(0 if differences.equal else _DIFFERENT)


def _lines(differences: PackageDifferences, everything: bool) -> Iterator[str]:
    from mvit_coreml.inspection.diff import Section

    sizes = [f"{size / 1e6:.2f} MB" for size in differences.sizes]
    paths = [str(differences.first), str(differences.second)]
    yield table(list(zip(("first", "second"), paths, sizes, strict=True)))
    if differences.equal:
        yield "equal in interface, graph, weights and metadata"
        return
    several = len({change.function for change in differences.changes} - {""}) > 1
    for section in get_args(Section)[:-1]:
        yield from _section(section, differences.section(section), everything, several)
    yield from _weight_lines(differences, everything)
    section = get_args(Section)[-1]
    yield from _section(section, differences.section(section), everything, several)


def _section(
    name: str, changes: tuple[Change, ...], everything: bool, several: bool
) -> Iterator[str]:
    yield ""
    yield name if changes else f"{name}: equal"
    rows = []
    for change in changes if everything else changes[:_SHOWN]:
        what = f"{change.function}: {change.what}" if several and change.function else change.what
        values = [_value(change.first), _value(change.second)]
        counted = change.first is None and change.second is None
        rows.append((what, *(("", "", "") if counted else (values[0], "->", values[1]))))
    if rows:
        yield table(rows, indent=2)
    yield from _more(len(changes), everything)


def _weight_lines(differences: PackageDifferences, everything: bool) -> Iterator[str]:
    changes = differences.weights
    yield ""
    total = differences.compared_weights
    yield f"weights: {len(changes)} of {total} differ" if changes else f"weights: {total} equal"
    if changes:
        header = ("SNR", "largest error", "of", "stored", "shape", "operation")
        rows = [_weight(change) for change in (changes if everything else changes[:_SHOWN])]
        yield table([header, *rows], indent=2, right=(0, 1, 2))
    yield from _more(len(changes), everything)


def _weight(change: WeightChange) -> tuple[str, ...]:
    shapes = [shape_in_words(shape) for shape in (change.first_shape, change.shape)]
    schemes = (change.first_scheme, change.second_scheme)
    snr, error = "", ""
    if change.snr is not None and change.max_error is not None:
        snr = "exact" if change.max_error == 0 else f"{change.snr:.1f} dB"
        error = f"{change.max_error:.3g}"
    return (
        snr,
        error,
        f"{change.max_first:.3g}",
        " -> ".join(dict.fromkeys(schemes)),
        " -> ".join(dict.fromkeys(shapes)),
        f"{change.operation}.{change.parameter}",
    )


def _value(value: Any) -> str:
    return shorten("none" if value is None else str(value) or "empty", _LONGEST_VALUE)


def _more(count: int, everything: bool) -> Iterator[str]:
    if count > _SHOWN and not everything:
        yield f"  and {count - _SHOWN} more; --all lists them"
