"""Which palettes a program gets: those of a plan, of equal bits, or calibrated on images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvit_coreml.compression.apply_plan import (
    apply_plan,
    program_ios,
    uniform_choices,
    uniform_reasons,
)
from mvit_coreml.compression.cache import default_cache
from mvit_coreml.compression.palettizable_weights import WeightInfo, program_weights
from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.compression.plan import PalettizationPlan, PlanValues, Scalar, make_plan
from mvit_coreml.compression.plan_file import read_plan, read_values

# What to make of the weights.
Palettes = tuple[PalettizationPlan, PlanValues]


def load_plan(path: str | Path) -> Palettes:
    """Read a plan with the values that it needs.

    Raises:
        InputError: a file is missing, damaged, or does not go with the other.
    """
    plan = read_plan(path)
    return plan, read_values(plan)


def uniform_plan(program: Any, bits: int, group_size: int, source_sha256: str) -> PalettizationPlan:
    """Plan the same bits for every weight of a program that is worth it.

    Args:
        program: an unpalettized MIL program.
        bits: of an index.
        group_size: output channels that share a table where it divides them; 0 for one table.
        source_sha256: of the checkpoint's weights.
    """
    weights = program_weights(program)
    infos = [info for info, _ in weights]
    return make_plan(
        [(info, op.outputs[0].val) for info, op in weights],
        grouped(uniform_choices(infos, bits), infos, group_size),
        ios=program_ios(program),
        source_sha256=source_sha256,
        asked=asked_for(bits, group_size),
        reasons=uniform_reasons(infos),
    )


def grouped(
    choices: Mapping[str, Choice], weights: list[WeightInfo], group_size: int
) -> dict[str, Choice]:
    """Let groups of output channels share a table, in the weights that they divide."""
    if not group_size:
        return dict(choices)
    channels = {info.name: info.channels for info in weights}
    return {
        name: Choice(choice.bits, group_size)
        if channels[name] % group_size == 0 and channels[name] > group_size
        else choice
        for name, choice in choices.items()
    }


def palettize(
    program: Any, plan: PalettizationPlan, values: PlanValues, *, verbose: bool = False
) -> None:
    """Palettize a program as a plan says, in place."""
    apply_plan(program, plan, values, cache=default_cache(), verbose=verbose)


def asked_for(bits: int, group_size: int) -> dict[str, Scalar]:
    """Return what a plan of equal bits was asked for."""
    asked: dict[str, Scalar] = {"bits": bits}
    if group_size:
        asked["group_size"] = group_size
    return asked
