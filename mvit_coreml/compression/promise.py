"""What a package is promised to keep: size, SNR, answers, accuracy; and whether it does.

There always is a promise about the answers. Without photos it is in decibels, as synthetic pictures
cannot tell how many answers change.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from mvit_coreml.errors import InputError

if TYPE_CHECKING:
    from mvit_coreml.evaluation.agreement import AgreementEstimate

Verdict = Literal["kept", "undecided", "broken"]

# What is promised where nothing is asked for. The decibels are of synthetic pictures: at this bound
# the least forgiving trained checkpoint at hand keeps 97 % of its answers on photos.
DEFAULT_AGREEMENT = 0.97
DEFAULT_MIOU = 0.9
DEFAULT_SNR = 22.0
DEFAULT_MAP_SNR = 32.0

# 1 MB is 10^6 bytes; the binary units say so in their names.
_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}


def parse_size(text: str) -> int:
    """Read a size such as ``1.2MB``, ``900 kB``, ``1.5 MiB`` or ``1200000``; return bytes.

    Raises:
        InputError: it is no such size, or not positive.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+|[0-9]+\.)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None or float(match[1]) * unit < 1:
        raise InputError(f"{text!r} is no size; write it like 1.2MB, 900kB, 1.5MiB or 1200000")
    return round(float(match[1]) * unit)


def format_size(size: float) -> str:
    """Write a size in bytes with three digits: ``1.02 MB``, ``900 kB``."""
    for unit in ("GB", "MB", "kB"):
        scaled = size / _UNITS[unit.lower()]
        if scaled >= 0.9995:
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{size:.0f} bytes"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a package was measured to do; None where it was not measured.

    Attributes:
        size: sum of the sizes of its files, in bytes.
        snr: signal-to-noise ratio against the reference in dB, the signal being how the raw scores
            differ between images.
        agreement: share of answers that are the reference's, on photos.
        miou: mean intersection over union of a segmenter's maps with the reference's.
        drop: loss of accuracy against the reference on labelled images, in percentage points.
    """

    size: int | None = None
    snr: float | None = None
    agreement: AgreementEstimate | None = None
    miou: float | None = None
    drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a package must keep, each as measured; None asks for nothing.

    Attributes:
        target_size: bytes that it may take.
        min_snr: dB that it must reach.
        min_agreement: part of the images, 0 to 1, on which it must agree.
        min_miou: mean intersection over union, 0 to 1, of a segmenter's maps with the reference's.
        max_drop: percentage points of accuracy that it may lose.

    Raises:
        InputError: nothing is asked for, or a bound makes no sense.
    """

    target_size: int | None = None
    min_snr: float | None = None
    min_agreement: float | None = None
    min_miou: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if not self.asks_quality and self.target_size is None:
            raise InputError("nothing is promised; give a size, an SNR, an agreement or a drop")
        if self.target_size is not None and self.target_size < 1:
            raise InputError(f"a target size of {self.target_size} bytes: it must be positive")
        for name, bound in (("an SNR", self.min_snr), ("a drop", self.max_drop)):
            if bound is not None and not math.isfinite(bound):
                raise InputError(f"{name} of {bound:g}: it must be a number")
        for share in (self.min_agreement, self.min_miou):
            if share is not None and not 0 <= share <= 1:
                raise InputError(f"an agreement of {share:g}: it must be from 0 to 1")

    @property
    def asks_quality(self) -> bool:
        """Whether it asks for more than a size."""
        asked = (self.min_snr, self.min_agreement, self.min_miou, self.max_drop)
        return any(x is not None for x in asked)

    def verdict(self, measured: Measured) -> Verdict:
        """Say whether a package keeps what is promised of its answers.

        ``undecided`` are answers on too few photos: the share that is expected on others is
        enough, but not with 95 % certainty.

        Raises:
            InputError: something promised was not measured.
        """
        verdicts: list[Verdict] = []
        bounds: tuple[tuple[float | None, float | None, int], ...] = (
            (self.min_snr, measured.snr, 1),
            (self.min_miou, measured.miou, 1),
            (self.max_drop, measured.drop, -1),
        )
        for bound, value, sign in bounds:
            if bound is None:
                continue
            if value is None:
                way_out = "give labelled images" if sign < 0 else "it has no classes to compare"
                raise InputError(f"{self} is promised, but cannot be measured: {way_out}")
            # Not written the other way round, so that NaN falls short.
            verdicts.append("kept" if sign * value >= sign * bound else "broken")
        if self.min_agreement is not None:
            if measured.agreement is None:
                raise InputError(
                    f"{self} is promised, but cannot be measured: that takes photos (--images) and"
                    " a model that answers classes; without them promise an SNR (--min-snr)"
                )
            verdicts.append(agreement_verdict(measured.agreement, self.min_agreement))
        return _worst(verdicts)

    def is_likely(self, measured: Measured) -> bool:
        """Whether it is kept for certain, or what few photos lead to expect is well above it."""
        verdict = self.verdict(measured)
        return verdict == "kept" or (verdict == "undecided" and self.noise_factor(measured) >= 1)

    def noise_factor(self, measured: Measured) -> float:
        """Return by how much a package's noise may grow, or must shrink, to just keep this.

        Noise is a power: decibels say it, the share of answers that flip grows with its root.
        """
        factors = [_LARGEST_FACTOR]
        if self.min_snr is not None and measured.snr is not None:
            factors.append(10 ** ((measured.snr - self.min_snr) / 10))
        flipped = []
        if self.min_agreement is not None and measured.agreement is not None:
            # What is certain, or halfway to it if the photos are too few to tell.
            estimate = measured.agreement
            sure = max(estimate.lower_bound, 2 * estimate.expected - 1)
            flipped.append((1 - self.min_agreement, 1 - sure))
        if self.min_miou is not None and measured.miou is not None:
            flipped.append((1 - self.min_miou, 1 - measured.miou))
        if self.max_drop is not None and measured.drop is not None:
            flipped.append((self.max_drop, measured.drop))
        factors += [(max(may, 1e-4) / max(does, 1e-4)) ** 2 for may, does in flipped]
        return max(min(factors), 1 / _LARGEST_FACTOR)

    def of_answers(self) -> Promise:
        """Return what is promised besides the size."""
        return replace(self, target_size=None)

    def __str__(self) -> str:
        words = []
        if self.target_size is not None:
            words.append(f"at most {format_size(self.target_size)}")
        if self.min_snr is not None:
            words.append(f"at least {self.min_snr:g} dB")
        if self.min_agreement is not None:
            words.append(f"at least {100 * self.min_agreement:.4g}% of the answers")
        if self.min_miou is not None:
            words.append(f"an mIoU of at least {self.min_miou:g}")
        if self.max_drop is not None:
            words.append(f"at most {self.max_drop:g} points of loss")
        return ", ".join(words)


# No step of a search is larger than this, in noise.
_LARGEST_FACTOR = 100.0


def default_promise(*, photos: bool, answers: Literal["class", "map", "features"]) -> Promise:
    """Return what is promised of a package where nothing is asked for.

    Args:
        photos: it is judged on photos rather than on synthetic pictures.
        answers: what the model gives: a class, a map of classes, or features.
    """
    if not photos or answers == "features":
        # The small regions of a map go first, and count as much as large ones in its mean IoU.
        return Promise(min_snr=DEFAULT_MAP_SNR if answers == "map" else DEFAULT_SNR)
    if answers == "map":
        return Promise(min_agreement=DEFAULT_AGREEMENT, min_miou=DEFAULT_MIOU)
    return Promise(min_agreement=DEFAULT_AGREEMENT)


def agreement_verdict(estimate: AgreementEstimate, share: float) -> Verdict:
    """Say whether a share of the answers is kept on other photos of the kind."""
    if estimate.lower_bound >= share:
        return "kept"
    # One photo more or less must not refuse a package that may well keep it on others.
    return "broken" if estimate.high < share else "undecided"


def _worst(verdicts: list[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("broken", "undecided", "kept")
    return next(verdict for verdict in order if verdict in (*verdicts, "kept"))
