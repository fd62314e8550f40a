"""Where the error of a package enters: every operation against the same one without rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mvit_coreml.evaluation.metrics import MAX_DB, ClosenessMeter
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.program import Operation, Package, Reference
from mvit_coreml.validation.answer_comparison import LayerError


def layer_errors(
    target: PackageTarget, expected: Package, images: Sequence[Any]
) -> list[LayerError]:
    """Return the error of every operation that both packages have, in order of execution.

    Args:
        target: the package, with its rounding and its palettes.
        expected: the same package without palettes; run without rounding.
        images: a few; more change the figures little.
    """
    exact = Runtime(expected, target.function.name, arithmetic="fp32")
    steps = [step for step in target.function.operations if not step.is_constant]
    names = [step.name for step in steps if step.op_type != "classify"]
    shared = set(exact.operations)
    names = [name for name in names if name in shared]
    meters = {name: ClosenessMeter() for name in names}
    for image in images:
        pixels = target.preparation(image).pixels
        found = target.run_pixels(pixels, outputs=[], intermediates=names)
        truth = exact.run({target.image.name: pixels}, outputs=[], intermediates=names)
        for name in names:
            for value, reference in zip(_parts(found[name]), _parts(truth[name]), strict=True):
                meters[name].add(value, reference)
    ratios = {name: meter.result().snr for name, meter in meters.items()}
    return [
        LayerError(
            operation=step.name,
            op_type=step.op_type,
            snr=ratios[step.name],
            drop=_worst_input(step, steps, ratios) - ratios[step.name],
        )
        for step in steps
        if step.name in ratios
    ]


def _parts(value: Any) -> list[Any]:
    return [np.asarray(part) for part in (value if isinstance(value, tuple) else (value,))]


def _worst_input(step: Operation, steps: Sequence[Operation], ratios: dict[str, float]) -> float:
    owners = {output.name: other.name for other in steps for output in other.outputs}
    sources = [
        owners.get(argument.name, "")
        for arguments in step.inputs.values()
        for argument in arguments
        if isinstance(argument, Reference)
    ]
    return min((ratios[name] for name in sources if name in ratios), default=MAX_DB)
