"""Varied synthetic pictures for when no photos are at hand: the same ones every time.

Natural images have most of their energy in low frequencies; white noise has none there and says
little about a vision model. These are textures with a 1/f spectrum, gradients, shapes and extremes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def synthetic_pictures(count: int, size: tuple[int, int], seed: int = 0) -> list[Picture]:
    """Return ``count`` pictures.

    Args:
        count: how many; kinds take turns.
        size: (height, width) in pixels.
        seed: of the generator; equal seeds give equal pictures on every machine.

    Returns:
        (H, W, 3) uint8 RGB arrays.
    """
    kinds = (_texture, _shapes, _texture, _gradient, _texture, _extreme)
    pictures = []
    for index in range(count):
        generator = np.random.Generator(np.random.PCG64([seed, index]))
        values = kinds[index % len(kinds)](generator, size, index)
        pictures.append(np.clip(np.rint(values * 255), 0, 255).astype(np.uint8))
    return pictures


def _texture(generator: np.random.Generator, size: tuple[int, int], index: int) -> NDArray[Any]:
    """Noise with a 1/f amplitude spectrum, its channels partly correlated."""
    height, width = size
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequencies[0, 0] = 1.0
    planes = []
    for _ in range(4):
        spectrum = np.fft.rfft2(generator.standard_normal(size)) / frequencies
        spectrum[0, 0] = 0.0
        plane = np.fft.irfft2(spectrum, s=size)
        planes.append(plane / (plane.std() + 1e-12))
    color = generator.uniform(0.25, 0.75, 3)
    picture = np.stack([planes[0] + 0.5 * plane for plane in planes[1:]], axis=-1)
    return color + 0.17 * picture


def _gradient(generator: np.random.Generator, size: tuple[int, int], index: int) -> NDArray[Any]:
    """A ramp between two colours in a random direction."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    angle = generator.uniform(0, 2 * np.pi)
    ramp = np.cos(angle) * rows / size[0] + np.sin(angle) * columns / size[1]
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-12)
    first, second = generator.uniform(0, 1, (2, 3))
    return first + ramp[..., None] * (second - first)


def _shapes(generator: np.random.Generator, size: tuple[int, int], index: int) -> NDArray[Any]:
    """Coloured discs and boxes on a texture."""
    picture = _texture(generator, size, index)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    for shape in range(6):
        y, x = generator.uniform(0, size[0]), generator.uniform(0, size[1])
        radius = generator.uniform(0.08, 0.3) * min(size)
        if shape % 2:
            inside = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        else:
            inside = (abs(rows - y) < radius) & (abs(columns - x) < radius)
        picture[inside] = generator.uniform(0, 1, 3)
    return picture


def _extreme(generator: np.random.Generator, size: tuple[int, int], index: int) -> NDArray[Any]:
    """All black, all white, saturated halves, or a checkerboard."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    kind = index // 6 % 4
    picture = np.zeros((*size, 3))
    if kind == 0:
        picture[columns < size[1] // 2] = (1.0, 0.0, 0.0)
        picture[columns >= size[1] // 2] = (0.0, 0.0, 1.0)
    elif kind == 1:
        picture[(rows // 8 + columns // 8) % 2 == 0] = 1.0
    elif kind == 2:
        picture[:] = 1.0
    return picture
