"""``mvit-coreml benchmark``: times by Core ML, on a Mac or an iPhone connected to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.errors import InputError

_UNITS = ("all", "cpu-ne", "cpu-gpu", "cpu")


def _read_units(ctx: Any, param: Any, value: str) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in value.split(","))
    for part in chosen:
        if part not in _UNITS:
            raise click.BadParameter(f"{part!r} is none of {', '.join(_UNITS)}")
    return tuple(dict.fromkeys(chosen))


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.SectionArguments):
    """What the command is asked.

    Attributes:
        units: Compute units to allow, one run each, with commas between.
        iterations: Predictions that are timed for each.
        warmup: Predict once before, which is not counted.
        device: A connected device instead of this Mac: iphone, ipad, or its name.
        development_team: Apple's identifier of the team that signs coremltools' app for it.
        function: Function of packages that have several; their default one otherwise.
        everything: List every operation that is planned off the Neural Engine.
    """

    packages: tuple[Path, ...] = opt.argument(nargs=-1, required=True, metavar="PACKAGE...")
    units: tuple[Any, ...] = opt.option(
        default=",".join(_UNITS), callback=_read_units, metavar="UNITS"
    )
    iterations: int = opt.option(type=click.IntRange(min=1), default=100)
    warmup: bool = opt.option("--warmup/--no-warmup", default=True)
    device: str | None = opt.option(metavar="NAME")
    development_team: str | None = opt.option(metavar="ID")
    function: str | None = opt.option(metavar="NAME")
    everything: bool = opt.option("--all")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Time packages with Core ML, on a Mac or on a device connected to it.

    The first load and the one after it, predictions (median, 95th percentile, least, standard
    deviation) by compute units, memory, and Core ML's compute plan: the share of the estimated
    cost on the Neural Engine, and which operations it puts elsewhere, with the rule of `cost` that
    explains them. The plan is a prediction, no measurement. Every figure carries the machine, its
    system and the versions.

    Needs macOS: elsewhere `cost`, `predict` and `evaluate` work. It was never run on a Mac yet.

    Examples:
        mvit-coreml benchmark Classifier.mlpackage
        mvit-coreml benchmark A.mlpackage B.mlpackage --units all,cpu --report times.html
        mvit-coreml benchmark Classifier.mlpackage --device iphone --development-team ABCDE12345
    """
    arguments.check_report()
    from mvit_coreml.device.machine import load_tools, require_mac

    if (arguments.device is None) != (arguments.development_team is None):
        raise InputError("--device and --development-team, which signs its app, go together")
    require_mac()
    from mvit_coreml.device.benchmark import BenchmarkOptions, benchmark_packages
    from mvit_coreml.reports.benchmark_sections import benchmark_report

    options = BenchmarkOptions(**opt.values_for(BenchmarkOptions, arguments))
    benchmarks = benchmark_packages(arguments.packages, options, load_tools())
    arguments.finish(benchmark_report(benchmarks, everything=arguments.everything))
