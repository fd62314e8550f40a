"""The bounds that a package is held against: whether it is sound, and whether it keeps its promise.

Two questions that are never mixed. *Sound*: does the file compute what is stored in it? That does
not depend on the number of bits. *Faithful*: how many of the checkpoint's answers does it keep?
That is what a promise is about (:mod:`mvit_coreml.compression.promise`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvit_coreml.compression.promise import Promise, Verdict, agreement_verdict
from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.evaluation.agreement import AgreementEstimate

# Gates of a sound package, to the unit that each is printed in.
SOUND = {"decoded_weights": " dB", "consistency": "", "structure": " differences"}
# Gates of a faithful one; their bounds are a promise's.
FAITHFUL = {
    "snr": " dB",
    "top1_agreement": "",
    "label_agreement": "",
    "pixel_agreement": "",
    "miou": "",
}
GATES = SOUND | FAITHFUL

# What PyTorch computes with the package's own weights differs from it by the rounding of values
# alone: 43 to 62 dB in half precision, 110 dB and more in single, whatever the bits.
_ROUNDING = {"fp32": 80.0, "fp16": 35.0}
# Share of the probabilities or classes that must follow from the package's own scores, whatever its
# weights; half precision may round two scores to a tie.
_CONSISTENCY = 0.995
# Of those of a faithful one, the field of a promise that each is held against.
PROMISED = {
    "snr": "min_snr",
    "top1_agreement": "min_agreement",
    "label_agreement": "min_agreement",
    "pixel_agreement": "min_agreement",
    "miou": "min_miou",
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One bound and what was measured.

    Attributes:
        name: one of :data:`GATES`, or a tolerance of a recipe.
        value: what was measured.
        bound: the least it may be; for ``structure`` the most.
        verdict: whether it holds; ``undecided`` are too few photos to tell.
        advice: what to try when it does not.
    """

    name: str
    value: float
    bound: float
    verdict: Verdict
    advice: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing shows that it does not hold."""
        return self.verdict != "broken"

    def __str__(self) -> str:
        unit = GATES[self.name]
        counted = unit.removesuffix("s") if self.value == 1 else unit
        sign = "at most" if self.name == "structure" else "at least"
        return f"{self.name} is {self.value:.4g}{counted}, must be {sign} {self.bound:.4g}{unit}"


def judge(
    measured: Mapping[str, float],
    precision: str,
    promise: Promise,
    *,
    agreement: AgreementEstimate | None = None,
    overrides: Mapping[str, float] | None = None,
) -> tuple[Gate, ...]:
    """Hold what was measured against the bounds.

    Args:
        measured: value by gate; what was not measured, or is not promised, is not judged.
        precision: ``fp16`` or ``fp32``.
        promise: what is promised of the answers.
        agreement: how sure the share of equal answers is.
        overrides: bounds instead of the defaults and the promise.

    Raises:
        InputError: an unknown gate, or a promise that needs photos.
    """
    unknown = set(overrides or ()) - set(GATES)
    if unknown:
        raise InputError(f"unknown gate {sorted(unknown)[0]!r}; there are {', '.join(GATES)}")
    bounds: dict[str, float | None] = {
        "decoded_weights": _ROUNDING["fp16" if precision == "mixed" else precision],
        "consistency": _CONSISTENCY,
        "structure": 0.0,
        **{name: getattr(promise, field) for name, field in PROMISED.items()},
        **(overrides or {}),
    }
    if promise.min_agreement is not None and not any(
        PROMISED.get(name) == "min_agreement" for name in measured
    ):
        raise InputError(
            f"{promise} are promised, but that takes photos (--images) and a model that answers"
            " classes; without them promise an SNR (--min-snr)"
        )
    gates = []
    for name, value in measured.items():
        bound = bounds[name]
        if bound is None:
            continue
        holds = value <= bound if name == "structure" else value >= bound
        verdict: Verdict = "kept" if holds else "broken"
        if agreement is not None and name.endswith("_agreement"):
            verdict = agreement_verdict(agreement, bound)
        advice = _advice(name, precision) if verdict == "broken" else ""
        gates.append(Gate(name=name, value=value, bound=bound, verdict=verdict, advice=advice))
    return tuple(gates)


def _advice(gate: str, precision: str) -> str:
    if gate == "consistency":
        return "the outputs do not follow from the package's own scores; convert it again"
    if gate == "structure":
        return "the package is not what this checkpoint converts to; convert it again"
    if gate == "decoded_weights":
        if precision == "fp16":
            return "the file does not compute what is stored in it; try --precision mixed, or fp32"
        return "the file does not compute what is stored in it; convert it again"
    return ""
