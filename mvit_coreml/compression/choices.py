"""How a weight may be stored: bits and groups, and what each iOS version can read."""

from __future__ import annotations

from dataclasses import dataclass

from mvit_coreml.compression.palettized_weight import BIT_WIDTHS
from mvit_coreml.errors import InputError

# First version with 3-bit indices, and with a table for each group of output channels.
BLOCKWISE_IOS = 18


@dataclass(frozen=True)
class Choice:
    """A way to store a weight.

    Attributes:
        bits: of an index: 1, 2, 3, 4, 6 or 8; None leaves the weight as it is.
        group_size: output channels that share a lookup table; 0 for one table.

    Raises:
        InputError: Core ML has no such palette.
    """

    bits: int | None
    group_size: int = 0

    def __post_init__(self) -> None:
        if self.bits is not None and self.bits not in BIT_WIDTHS:
            widths = ", ".join(map(str, BIT_WIDTHS))
            raise InputError(f"{self.bits} bits: a palette has indices of {widths} bits")
        if self.group_size < 0 or (self.bits is None and self.group_size):
            raise InputError(
                f"group size {self.group_size}: use 0 for one lookup table, or the number of"
                " output channels that share one"
            )

    def __str__(self) -> str:
        if self.bits is None:
            return "uncompressed"
        groups = f" in groups of {self.group_size}" if self.group_size else ""
        return f"{self.bits} bit{'s' if self.bits > 1 else ''}{groups}"

    def check_target(self, ios: int) -> None:
        """Refuse what packages for an iOS version cannot hold.

        Raises:
            InputError: naming the version that can, and what this one can.
        """
        if ios >= BLOCKWISE_IOS:
            return
        remedy = f"need iOS {BLOCKWISE_IOS}; this package is for iOS {ios}: --ios {BLOCKWISE_IOS},"
        if self.bits is not None and self.bits not in bit_widths(ios):
            lower = max(bits for bits in bit_widths(ios) if bits < self.bits)
            upper = min(bits for bits in bit_widths(ios) if bits > self.bits)
            raise InputError(f"{self.bits} bits {remedy} or {lower} or {upper} bits")
        if self.group_size:
            raise InputError(f"groups of channels {remedy} or group_size = 0")

    def check_channels(self, channels: int) -> None:
        """Refuse a group size that does not divide the output channels.

        Raises:
            InputError: naming sizes nearby that do.
        """
        if not self.group_size or channels % self.group_size == 0:
            return
        divisors = [size for size in range(1, channels + 1) if channels % size == 0]
        below = max(size for size in divisors if size <= max(self.group_size, 1))
        above = min((size for size in divisors if size > self.group_size), default=below)
        nearby = " or ".join(map(str, dict.fromkeys((below, above))))
        raise InputError(
            f"a group size of {self.group_size} does not divide its {channels} output channels;"
            f" use {nearby}, or 0 for one lookup table"
        )


UNCOMPRESSED = Choice(None)


def bit_widths(ios: int) -> tuple[int, ...]:
    """Return the index widths that packages for an iOS version can hold, ascending."""
    return tuple(bits for bits in BIT_WIDTHS if bits != 3 or ios >= BLOCKWISE_IOS)
