"""``mvit-coreml cost``: what packages cost to run, estimated, and what devices are bad at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvit_coreml.cli import arguments as opt


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.SectionArguments):
    """What the command is asked.

    Attributes:
        function: Function of packages that have several; their default one otherwise.
        everything: List every operation and every finding.
    """

    packages: tuple[Path, ...] = opt.argument(nargs=-1, required=True, metavar="PACKAGE...")
    function: str | None = opt.option(metavar="NAME")
    everything: bool = opt.option("--all")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Estimate what packages of any tool cost to run, on any machine.

    Multiply-accumulates, bytes of weights (as they are stored) and of activations, the most that
    is alive at once, operations that only move values about, and a roofline by chip class; then a
    lint: what is said to run badly on the Neural Engine, what it is said to cost, and who says so.
    Several packages are laid side by side.

    Everything is an estimate from the program's shapes. Nothing was run on Apple hardware, and no
    latency is claimed.

    Examples:
        mvit-coreml cost Classifier.mlpackage
        mvit-coreml cost Ours.mlpackage Theirs.mlpackage
        mvit-coreml cost Classifier.mlpackage --all --report cost.html
    """
    arguments.check_report()
    from mvit_coreml.inspection.package_cost import estimate_cost
    from mvit_coreml.reports.cost_sections import cost_report

    costs = [estimate_cost(path) for path in arguments.packages]
    arguments.finish(cost_report(costs, arguments.function, everything=arguments.everything))
