"""``mvit-coreml xcode-report``: what Xcode's performance reports say, and what changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvit_coreml.cli import arguments as opt

_COMPILED = (".json", ".mlmodelc")


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.SectionArguments):
    """What the command is asked.

    Attributes:
        against: An older report: what got slower, and what moved to another device.
        package: The package that was measured: its estimated cost and lint beside the report.
        function: Function of it; its default one otherwise.
        everything: List every operation.
    """

    files: tuple[Path, ...] = opt.argument(nargs=-1, required=True, metavar="FILE...")
    against: Path | None = opt.option(metavar="BASE.csv")
    package: Path | None = opt.option(metavar="PACKAGE")
    function: str | None = opt.option(metavar="NAME")
    everything: bool = opt.option("--all")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Read Xcode's performance reports and compiled models.

    FILE is a CSV that Xcode's performance report exports, or a compiled model's metadata.json
    (or the .mlmodelc folder that holds it). No schema of the CSV is public: its columns are found
    by their names, in any order and case, and those of unknown meaning are kept and named.

    Nothing is measured here, and no report of a real Mac was there to try it with.

    Examples:
        mvit-coreml xcode-report Report.csv --package Classifier.mlpackage
        mvit-coreml xcode-report New.csv --against Old.csv --report changes.html
        mvit-coreml xcode-report Classifier.mlmodelc
    """
    arguments.check_report()
    from mvit_coreml.device.compiled_metadata import read_compiled_metadata
    from mvit_coreml.device.xcode_report import read_xcode_report
    from mvit_coreml.inspection.package_cost import estimate_cost
    from mvit_coreml.reports.xcode_sections import xcode_sections

    compiled = [file for file in arguments.files if file.suffix in _COMPILED]
    reports = [read_xcode_report(file) for file in arguments.files if file not in compiled]
    metadata = [read_compiled_metadata(file) for file in compiled]
    base = None if arguments.against is None else read_xcode_report(arguments.against)
    cost = None
    if arguments.package is not None:
        cost = estimate_cost(arguments.package).function(arguments.function)
    made = xcode_sections(reports, metadata, base=base, cost=cost, everything=arguments.everything)
    arguments.finish(made)
