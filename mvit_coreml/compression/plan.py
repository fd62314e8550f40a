"""A palettization plan: how each weight of one model is to be stored.

A plan fits one set of weights, which it names by their SHA-256; it can be read, edited, kept in a
repository and applied again (:mod:`mvit_coreml.compression.plan_file`). Tables that k-means cannot
find again from the weights alone are its :class:`PlanValues`, kept in a file of their own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from numpy.typing import NDArray

from mvit_coreml.compression.palettizable_weights import WeightInfo, weight_sha256
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, PalettizedWeight
from mvit_coreml.errors import InputError, errors_at

# Where the table of a weight comes from: k-means over its elements, or fitting to images, which is
# stored with the plan.
ValueSource = Literal["kmeans", "tuned"]

# Of the constants that are not palettized, such as biases.
ConstantSource = Literal["original", "tuned"]

Scalar = str | int | float | bool


@dataclass(frozen=True)
class PlannedWeight:
    """What a plan says about one weight.

    Attributes:
        name: of the constant in the unpalettized program.
        shape: of the weight.
        choice: bits and groups.
        sha256: of its elements before palettizing, by
            :func:`~.palettizable_weights.weight_sha256`.
        values: where its tables come from; ``kmeans`` where there are none.
        reason: why it stays uncompressed; empty for others.
        snr: of its layer's outputs with the fitted values, in dB, see
            :func:`~.calibration.layer_fidelity.layer_snrs`; ``None`` for others.
    """

    name: str
    shape: tuple[int, ...]
    choice: Choice
    sha256: str
    values: ValueSource = "kmeans"
    reason: str = ""
    snr: float | None = None


@dataclass(frozen=True)
class PalettizationPlan:
    """How each weight of one model is to be stored.

    Attributes:
        ios: deployment target that it was made for.
        source_sha256: of the checkpoint's weights.
        weights: in program order; weights that are not listed stay as they are.
        asked: what it was made to meet, name to value: ``bits``, ``target_size``, …
        measured: what its package was found to do, name to value: ``size``, ``snr``, …
        constants: whether the constants that are not palettized get tuned values.
        values_sha256: of the file with its :class:`PlanValues`; empty if it needs none.
        origin: what messages call it: its file.
    """

    ios: int
    source_sha256: str
    weights: tuple[PlannedWeight, ...]
    asked: Mapping[str, Scalar] = field(default_factory=dict)
    measured: Mapping[str, Scalar] = field(default_factory=dict)
    constants: ConstantSource = "original"
    values_sha256: str = ""
    origin: str = field(default="plan", compare=False)

    @property
    def choices(self) -> dict[str, Choice]:
        """Name of each listed weight to its choice."""
        return {weight.name: weight.choice for weight in self.weights}

    @property
    def needs_values(self) -> bool:
        """Whether tables, indices or other constants were fitted, which are :class:`PlanValues`."""
        return self.constants == "tuned" or any(w.values != "kmeans" for w in self.weights)

    @property
    def bit_widths(self) -> tuple[int, ...]:
        """Bits of its palettes, ascending, each once."""
        widths = {weight.choice.bits for weight in self.weights}
        return tuple(sorted(bits for bits in widths if bits is not None))

    @property
    def layer_snrs(self) -> tuple[float | None, ...]:
        """What the fitting measured of each weight that still has its fitted values, in dB."""
        fitted = self.constants == "tuned"
        return tuple(
            w.snr if fitted and (w.values == "tuned" or w.choice.bits is None) else None
            for w in self.weights
        )

    def with_measured(self, **measured: Scalar) -> PalettizationPlan:
        """Return the plan with these results instead of its own."""
        return replace(self, measured=measured)

    def place(self, weight: PlannedWeight) -> str:
        """Name one of its weights for a message."""
        return f"{self.origin}: weight {weight.name!r}"

    def error(self, weight: PlannedWeight, message: str) -> InputError:
        """Return the error for what is wrong with one of its weights."""
        return InputError(f"{self.place(weight)}: {message}")

    def check_target(self, ios: int) -> None:
        """Refuse choices that packages for an iOS version cannot hold.

        Raises:
            InputError: naming the weight and the way out.
        """
        for weight in self.weights:
            with errors_at(self.place(weight)):
                weight.choice.check_target(ios)

    def check_weights(self, weights: Iterable[tuple[WeightInfo, NDArray[Any]]], ios: int) -> None:
        """Refuse a plan that does not fit a program's weights.

        Args:
            weights: of the program, each with its elements.
            ios: the program's deployment target.

        Raises:
            InputError: a weight is unknown, its shape or elements are others, its group size does
                not divide its channels, or the target cannot hold its bits.
        """
        self.check_target(ios)
        held = {info.name: (info, values) for info, values in weights}
        for weight in self.weights:
            if weight.name not in held:
                raise self.error(weight, f"the model has no such weight{_hint(weight, held)}")
            info, values = held[weight.name]
            if weight.shape != info.shape:
                raise self.error(
                    weight,
                    f"its shape is {list(info.shape)} in the model but {list(weight.shape)} in the"
                    " plan: the plan was made for another model",
                )
            if weight.choice.group_size:
                with errors_at(self.place(weight)):
                    weight.choice.check_channels(info.channels)
            if weight.sha256 != weight_sha256(values):
                raise self.error(
                    weight,
                    "the plan was made for other weights (its sha256 differs); make a new plan"
                    " for this checkpoint and these options",
                )


@dataclass(frozen=True, eq=False)
class PlanValues:
    """What a plan needs beside the weights themselves.

    Attributes:
        palettes: weight name to tuned tables and indices.
        constants: name of another constant (a bias, an affine parameter) to its tuned elements.
    """

    palettes: Mapping[str, PalettizedWeight] = field(default_factory=dict)
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def make_plan(
    weights: Sequence[tuple[WeightInfo, NDArray[Any]]],
    choices: Mapping[str, Choice],
    *,
    ios: int,
    source_sha256: str,
    asked: Mapping[str, Scalar] | None = None,
    values: PlanValues | None = None,
    reasons: Mapping[str, str] | None = None,
    snrs: Mapping[str, float] | None = None,
) -> PalettizationPlan:
    """Write down the choices for a program's weights as a plan.

    Args:
        weights: of the program, each with its elements before palettizing.
        choices: name to choice; a weight without one stays uncompressed.
        ios: deployment target.
        source_sha256: of the checkpoint's weights.
        asked: what the choices were made to meet.
        values: tables and constants that the plan will be applied with.
        reasons: why weights stay uncompressed, by name.
        snrs: of the layers' outputs with ``values``, by name of the weight.

    Raises:
        InputError: a choice does not fit its weight or the target, or ``values`` do not fit.
    """
    values = values or PlanValues()
    planned = []
    for info, elements in weights:
        source: ValueSource = "tuned" if info.name in values.palettes else "kmeans"
        choice = choices.get(info.name, UNCOMPRESSED)
        reason = (reasons or {}).get(info.name, "") if choice == UNCOMPRESSED else ""
        digest, snr = weight_sha256(elements), (snrs or {}).get(info.name)
        planned.append(PlannedWeight(info.name, info.shape, choice, digest, source, reason, snr))
    plan = PalettizationPlan(
        ios=ios,
        source_sha256=source_sha256,
        weights=tuple(planned),
        asked=dict(asked or {}),
        constants="tuned" if values.constants else "original",
    )
    unknown = sorted({*choices, *values.palettes} - {info.name for info, _ in weights})
    if unknown:
        raise InputError(f"{plan.origin}: the model has no weight {unknown[0]!r}")
    plan.check_weights(weights, ios)
    check_values(plan, values)
    return plan


def check_values(plan: PalettizationPlan, values: PlanValues) -> None:
    """Refuse values that are not those of a plan.

    Values of weights that the plan takes from k-means are ignored, so that ``values`` and ``bits``
    of a weight can be edited by hand.

    Raises:
        InputError: values are missing, or their bits, groups or shapes are not the plan's.
    """
    for weight in plan.weights:
        if weight.values == "kmeans":
            continue
        if weight.choice.bits is None:
            raise plan.error(weight, 'values = "tuned" goes with bits, but bits is "none"')
        palette = values.palettes.get(weight.name)
        if palette is None:
            raise plan.error(weight, 'its tuned values are missing; set values = "kmeans"')
        stored = Choice(palette.bits, palette.group_size if palette.groups > 1 else 0)
        if stored != weight.choice:
            raise plan.error(
                weight,
                f"its tuned values have {stored}, the plan says {weight.choice}; restore that, or"
                ' set values = "kmeans"',
            )
        if palette.indices.shape != weight.shape:
            raise plan.error(weight, f"its tuned values have shape {palette.indices.shape}")
    if plan.constants == "tuned" and not values.constants:
        raise InputError(
            f'{plan.origin}: the tuned constants are missing; set constants = "original"'
        )


def _hint(weight: PlannedWeight, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(weight.name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
