"""The bounds that a package must meet, and what to try when it does not.

The defaults lie below what sound packages of the trained MobileViT and MobileNetV2 checkpoints
reach: 36 to 61 dB in half precision, 36 dB with 8-bit palettes, 5 to 22 dB with 6, -2 to 8 dB
with 4: a poor package is reported as poor, not refused. Faults
smaller than the noise of palettization are not theirs to find; the structural comparison is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mvit_coreml.errors import InputError

# Gate to the unit it is printed in.
GATES = {
    "snr": " dB",
    "consistency": "",
    "top1_agreement": "",
    "pixel_agreement": "",
    "structure": " differences",
}

# (precision, bits) to the lowest signal-to-noise ratio of the scores, in dB, and the lowest share
# of photos or pixels on which the most likely class is the reference's.
_DEFAULTS: dict[tuple[str, int | None], tuple[float, float]] = {
    ("fp32", None): (80.0, 0.995),
    ("fp16", None): (30.0, 0.97),
    ("any", 8): (10.0, 0.90),
    ("any", 6): (0.0, 0.50),
    ("any", 4): (-10.0, 0.0),
    ("any", 3): (-15.0, 0.0),
    ("any", 2): (-20.0, 0.0),
    ("any", 1): (-30.0, 0.0),
}
# Share of the probabilities or classes that must follow from the package's own scores, whatever its
# weights; half precision may round two scores to a tie.
_CONSISTENCY = 0.995
# Below these a package that is not broken is still reported as degraded.
QUALITY_AGREEMENT = 0.97
QUALITY_SNR = 12.0


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One bound and what was measured.

    Attributes:
        name: one of :data:`GATES`.
        value: what was measured.
        bound: the least it may be; for ``structure`` the most.
        passed: whether it holds.
        advice: what to try when it does not.
    """

    name: str
    value: float
    bound: float
    passed: bool
    advice: str

    def __str__(self) -> str:
        unit = GATES[self.name]
        counted = unit.removesuffix("s") if self.value == 1 else unit
        sign = "at most" if self.name == "structure" else "at least"
        return f"{self.name} is {self.value:.4g}{counted}, must be {sign} {self.bound:.4g}{unit}"


def default_bounds(precision: str, bits: int | None) -> dict[str, float]:
    """Return the default bounds for a compute precision and a number of palette bits."""
    key = (precision, None) if bits is None else ("any", bits)
    ratio, agreement = _DEFAULTS[key]
    return {
        "snr": ratio,
        "consistency": _CONSISTENCY,
        "top1_agreement": agreement,
        "pixel_agreement": agreement,
        "structure": 0,
    }


def judge(
    measured: Mapping[str, float],
    precision: str,
    bits: int | None,
    overrides: Mapping[str, float] | None = None,
) -> tuple[Gate, ...]:
    """Hold what was measured against the bounds.

    Args:
        measured: value by gate; a gate that was not measured is not judged.
        precision: ``fp16`` or ``fp32``.
        bits: of the palettes, ``None`` without.
        overrides: bounds instead of the defaults.

    Raises:
        InputError: an unknown gate.
    """
    unknown = set(overrides or ()) - set(GATES)
    if unknown:
        raise InputError(f"unknown gate {sorted(unknown)[0]!r}; there are {', '.join(GATES)}")
    bounds = default_bounds(precision, bits) | dict(overrides or {})
    gates = []
    for name, value in measured.items():
        bound = bounds[name]
        passed = value <= bound if name == "structure" else value >= bound
        gates.append(
            Gate(
                name=name,
                value=value,
                bound=bound,
                passed=passed,
                advice="" if passed else _advice(name, precision, bits),
            )
        )
    return tuple(gates)


def _advice(gate: str, precision: str, bits: int | None) -> str:
    if gate == "consistency":
        return "the outputs do not follow from the package's own scores; convert it again"
    if gate == "structure":
        return "the package is not what this checkpoint converts to; convert it again"
    if bits is not None:
        return f"try --bits {8 if bits < 8 else 'none'}"
    if precision == "fp16":
        return "try --precision mixed, or fp32"
    return "the package does not compute what the checkpoint does; convert it again"
