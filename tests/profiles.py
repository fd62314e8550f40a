"""Colour profiles built by hand, and the arithmetic that they stand for."""

from __future__ import annotations

import struct

import numpy as np

# Primaries adapted to D50, one column each, of Display P3 (Apple's profile) and of sRGB (IEC
# 61966-2-1, ICC's profile).
DISPLAY_P3 = np.array(
    [[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
)
SRGB = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
GAMMA = 2.2


def rgb_profile(primaries: np.ndarray, name: str, gamma: float = GAMMA) -> bytes:
    """Return an ICC version 2 profile of three primaries and a gamma."""
    text = name.encode("ascii") + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {b"desc": description, b"wtpt": _xyz((0.9642, 1.0, 0.8249)), b"cprt": b"text\0\0\0\0-\0"}
    for index, channel in enumerate((b"r", b"g", b"b")):
        tags[channel + b"XYZ"] = _xyz(primaries[:, index])
        tags[channel + b"TRC"] = curve
    return _profile(b"RGB ", tags)


def gray_profile(gamma: float) -> bytes:
    """Return an ICC version 2 profile of gray with a gamma."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"gray\0" + bytes(78)
    white = _xyz((0.9642, 1.0, 0.8249))
    return _profile(b"GRAY", {b"desc": description, b"wtpt": white, b"kTRC": curve})


def p3_to_srgb(color: tuple[int, int, int]) -> list[int]:
    """Convert one colour by hand: linear P3 to XYZ to linear sRGB, clipped."""
    linear = (np.array(color) / 255) ** GAMMA
    red_green_blue = np.clip(np.linalg.inv(SRGB) @ DISPLAY_P3 @ linear, 0, 1)
    low = red_green_blue * 12.92
    high = 1.055 * red_green_blue ** (1 / 2.4) - 0.055
    return np.rint(255 * np.where(red_green_blue <= 0.0031308, low, high)).astype(int).tolist()


def _xyz(values: object) -> bytes:
    numbers = [round(float(value) * 65536) for value in values]  # type: ignore[attr-defined]
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *numbers)


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for signature, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += signature + struct.pack(">II", offset + len(body), len(content))
        body += padded
    header = struct.pack(">I4sI", offset + len(body), b"\0" * 4, 0x02400000)
    header += b"mntr" + space + b"XYZ " + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp"
    header += bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
