"""What a package is promised to keep (size, SNR, agreement, accuracy), and the search for it.

Predictions order the candidates; whether one holds is decided by measuring it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mvit_coreml.errors import GateError, InputError

Candidate = TypeVar("Candidate")
Result = TypeVar("Result")

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


@dataclass(frozen=True)
class Measured:
    """What a package was measured to do; None where it was not asked for.

    Attributes:
        size: sum of the sizes of its files, in bytes.
        snr: signal-to-noise ratio of its raw scores against the reference, in dB.
        agreement: part of the images on which it agrees with the reference, 0 to 1.
        drop: loss of accuracy against the reference on labelled images, in percentage points.
    """

    size: int
    snr: float | None = None
    agreement: float | None = None
    drop: float | None = None


@dataclass(frozen=True, kw_only=True)
class Promise:
    """What a package must keep, each as measured; None asks for nothing.

    Attributes:
        target_size: bytes that it may take.
        min_snr: dB that it must reach.
        min_agreement: part of the images, 0 to 1, on which it must agree.
        max_drop: percentage points of accuracy that it may lose.

    Raises:
        InputError: nothing is asked for, or a bound makes no sense.
    """

    target_size: int | None = None
    min_snr: float | None = None
    min_agreement: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if not self.asks_quality and self.target_size is None:
            raise InputError("nothing is promised; give a size, an SNR, an agreement or a drop")
        if self.target_size is not None and self.target_size < 1:
            raise InputError(f"a target size of {self.target_size} bytes: it must be positive")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise InputError(f"an agreement of {self.min_agreement:g}: it must be from 0 to 1")

    @property
    def asks_quality(self) -> bool:
        """Whether it asks for more than a size."""
        return any(x is not None for x in (self.min_snr, self.min_agreement, self.max_drop))

    def fits(self, measured: Measured) -> bool:
        """Whether a package is small enough."""
        return self.target_size is None or measured.size <= self.target_size

    def shortfalls(self, measured: Measured) -> list[str]:
        """Return where a package's answers fall short, in words; empty if nowhere.

        Raises:
            InputError: something promised was not measured.
        """
        shortfalls = []
        rows: tuple[tuple[float | None, float | None, int, str], ...] = (
            (self.min_snr, measured.snr, 1, "{:.1f} dB"),
            (self.min_agreement, measured.agreement, 1, "{:.1%} agreement"),
            (self.max_drop, measured.drop, -1, "{:.2f} points of loss"),
        )
        for bound, value, sign, words in rows:
            if bound is None:
                continue
            if value is None:
                way_out = "give labelled images" if sign < 0 else "the model answers no classes"
                raise InputError(
                    f"{words.format(bound)} is promised, but cannot be measured: {way_out}"
                )
            # Not written the other way round, so that NaN falls short.
            if not sign * value >= sign * bound:
                shortfalls.append(words.format(value))
        return shortfalls

    def __str__(self) -> str:
        words = []
        if self.target_size is not None:
            words.append(f"at most {format_size(self.target_size)}")
        if self.min_snr is not None:
            words.append(f"at least {self.min_snr:g} dB")
        if self.min_agreement is not None:
            words.append(f"at least {self.min_agreement:.1%} agreement")
        if self.max_drop is not None:
            words.append(f"at most {self.max_drop:g} points of loss")
        return ", ".join(words)


@dataclass(frozen=True)
class Trial(Generic[Result]):
    """What came of a candidate.

    Attributes:
        measured: what its package was found to do.
        result: what the candidate led to.
    """

    measured: Measured
    result: Result


def find_smallest(
    candidates: Sequence[Candidate],
    attempt: Callable[[Candidate], Trial[Result]],
    promise: Promise,
    *,
    describe: Callable[[Candidate], str] = str,
) -> Trial[Result]:
    """Find the smallest package that keeps a promise about answers, with few measurements.

    The candidates are bisected, so their answers should get worse on the way to smaller ones; where
    they do not, a smaller one that would hold may be passed over, but what is returned always
    holds.

    Args:
        candidates: from the largest to the smallest, such as those of
            :func:`~.allocation.mixed_bits.frontier`.
        attempt: makes and measures the package of a candidate; called at most once for each.
        promise: what to keep.
        describe: a candidate in words, for messages.

    Raises:
        InputError: there is no candidate.
        GateError: none keeps the promise; the message says what comes nearest.
    """
    if not candidates:
        raise InputError("there is no plan to choose from")
    trials: dict[int, Trial[Result]] = {}

    def holds(index: int) -> bool:
        trials[index] = attempt(candidates[index])
        return not promise.shortfalls(trials[index].measured)

    best, beyond = -1, len(candidates)  # what holds, and what does not
    while beyond - best > 1:
        middle = (best + beyond) // 2
        if holds(middle):
            best = middle
        else:
            beyond = middle
    if best < 0:
        short = ", ".join(promise.shortfalls(trials[0].measured))
        raise GateError(f"no plan has {promise}: the best ({describe(candidates[0])}) has {short}")
    # Of those that hold, the search may have met one that is smaller still.
    smallest = min(
        (i for i, trial in trials.items() if not promise.shortfalls(trial.measured)),
        key=lambda i: (trials[i].measured.size, i),
    )
    if not promise.fits(trials[smallest].measured):
        raise GateError(
            f"no plan has {promise}: the smallest that answers well enough takes"
            f" {format_size(trials[smallest].measured.size)} ({describe(candidates[smallest])})"
        )
    return trials[smallest]
