"""Finding the package that keeps a promise, by measuring real ones.

Predictions order the candidates; whether one holds is decided by measuring it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mvit_coreml.errors import GateError, InputError

Candidate = TypeVar("Candidate")

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
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+|[0-9]+\.)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None or float(found[1]) * unit < 1:
        raise InputError(f"{text!r} is no size; write it like 1.2MB, 900kB, 1.5MiB or 1200000")
    return round(float(found[1]) * unit)


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
    """What was found out about a package; None where it was not asked for.

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
        found = []
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
                found.append(words.format(value))
        return found

    def holds(self, measured: Measured) -> bool:
        """Whether a package keeps all of it."""
        return self.fits(measured) and not self.shortfalls(measured)

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
class Probe(Generic[Candidate]):
    """A candidate that was measured."""

    candidate: Candidate
    measured: Measured


@dataclass(frozen=True)
class Found(Generic[Candidate]):
    """The candidate that keeps the promise.

    Attributes:
        candidate: itself.
        measured: what it was found to do.
        probes: all that were measured, in order.
    """

    candidate: Candidate
    measured: Measured
    probes: tuple[Probe[Candidate], ...] = field(repr=False)


def find_plan(
    candidates: Sequence[Candidate],
    measure: Callable[[Candidate], Measured],
    promise: Promise,
    *,
    predicted_sizes: Sequence[float] | None = None,
    describe: Callable[[Candidate], str] = str,
) -> Found[Candidate]:
    """Find the candidate that keeps a promise, as measured, with few measurements.

    With a promise about answers it is the smallest package that keeps it; with one about the size
    alone, the largest that does. The candidates are bisected, so their answers should get worse on
    the way to smaller ones; where they do not, a smaller one that would hold may be passed over,
    but what is returned always holds.

    Args:
        candidates: from the largest to the smallest, such as :func:`~.allocation.frontier`.
        measure: makes and measures the package of a candidate; called at most once for each.
        promise: what to keep.
        predicted_sizes: of the candidates' packages, which shortens the search for a size.
        describe: a candidate in words, for messages.

    Raises:
        InputError: there is no candidate.
        GateError: none keeps the promise; the message says what comes nearest.
    """
    if not candidates:
        raise InputError("there is no plan to choose from")
    cache: dict[int, Measured] = {}

    def probe(index: int) -> Measured:
        if index not in cache:
            cache[index] = measure(candidates[index])
        return cache[index]

    last = len(candidates) - 1
    if promise.asks_quality:
        index = _last_true(lambda i: not promise.shortfalls(probe(i)), last)
        if index < 0:
            short = ", ".join(promise.shortfalls(probe(0)))
            raise GateError(
                f"no plan has {promise}: the best ({describe(candidates[0])}) has {short}"
            )
        # Of those that hold, probing may have met one that is smaller still.
        index = min(
            (i for i, found in cache.items() if not promise.shortfalls(found)),
            key=lambda i: (cache[i].size, i),
        )
        if not promise.fits(cache[index]):
            raise GateError(
                f"no plan has {promise}: the smallest that answers well enough takes"
                f" {format_size(cache[index].size)} ({describe(candidates[index])})"
            )
    else:
        assert promise.target_size is not None
        start = None
        if predicted_sizes is not None:
            fitting = [i for i, size in enumerate(predicted_sizes) if size <= promise.target_size]
            start = fitting[0] if fitting else last
        index = last - _last_true(
            lambda i: promise.fits(probe(last - i)), last, None if start is None else last - start
        )
        if index > last:
            smallest = probe(last)
            raise GateError(
                f"no plan is under {format_size(promise.target_size)}; the smallest,"
                f" {format_size(smallest.size)}, uses {describe(candidates[last])}"
            )
    probes = tuple(Probe(candidates[i], found) for i, found in cache.items())
    return Found(candidates[index], cache[index], probes)


def _last_true(holds: Callable[[int], bool], last: int, guess: int | None = None) -> int:
    """Return the last index from 0 to ``last`` that holds, if those that hold come first.

    Args:
        holds: whether an index does.
        last: largest index.
        guess: where to begin; the search then spreads out from there.

    Returns:
        An index that holds while the next does not; -1 if 0 does not hold.
    """
    low, high = -1, last + 1  # what holds, and what does not
    if guess is not None:
        stride = 1
        if holds(guess):
            low = guess
            while low < high - 1:
                index = min(low + stride, high - 1)
                if not holds(index):
                    high = index
                    break
                low, stride = index, 2 * stride
        else:
            high = guess
            while low < high - 1:
                index = max(high - stride, low + 1)
                if holds(index):
                    low = index
                    break
                high, stride = index, 2 * stride
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
