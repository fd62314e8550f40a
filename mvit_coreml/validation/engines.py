"""What Core ML answers, beside what the portable runtime answers for the same package."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from mvit_coreml.evaluation.metrics import Closeness, ClosenessMeter
from mvit_coreml.evaluation.targets import PackageTarget


def compare_engines(
    target: PackageTarget, portable: PackageTarget, images: Sequence[Any]
) -> dict[str, Closeness]:
    """Return how close two engines' answers are, by output; the portable one is the reference.

    Args:
        target: the package, run by Core ML.
        portable: the same package, run by the portable runtime.
        images: paths, Pillow images or arrays.
    """
    meters = {role.role: ClosenessMeter() for role in target.roles}
    with closing(target.answer(images)) as found, closing(portable.answer(images)) as expected:
        for answer, truth in zip(found, expected, strict=True):
            for role, meter in meters.items():
                meter.add(answer.outputs[role], truth.outputs[role])
    return {role: meter.result() for role, meter in meters.items()}
