"""Varied synthetic pictures for when no photos are at hand: the same ones every time.

Natural images have most of their energy in low frequencies; white noise has none there and says
little about a vision model. These are textures with a 1/f spectrum, gradients, shapes and extremes
to validate on, and occluding leaves of many sizes besides to fit palettes to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Kind = Callable[[np.random.Generator, tuple[int, int], int], NDArray[Any]]

# Radii of leaves relative to the shorter side, whose density falls with their third power, and
# their most in a picture.
_SMALLEST_LEAF, _LARGEST_LEAF = 0.025, 0.4
_MOST_LEAVES = 300


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
    return _pictures(kinds, count, size, seed)


def calibration_pictures(count: int, size: tuple[int, int], seed: int = 1) -> list[Picture]:
    """Return pictures to fit palettes to where there are no photos.

    Half of them are dead leaves (Lee, Mumford and Huang, 2001): opaque shapes of all sizes that
    hide each other, as things in the world do, which have the edges, the flat parts and the scale
    invariance of photos. The others are textures and shapes.

    Args:
        count: how many; kinds take turns.
        size: (height, width) in pixels.
        seed: of the generator.

    Returns:
        (H, W, 3) uint8 RGB arrays.
    """
    return _pictures((_shapes, _leaves, _texture, _leaves), count, size, seed)


def _pictures(kinds: Sequence[Kind], count: int, size: tuple[int, int], seed: int) -> list[Picture]:
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


def _leaves(generator: np.random.Generator, size: tuple[int, int], index: int) -> NDArray[Any]:
    """Opaque discs, boxes and wedges of all sizes that hide each other, before a texture."""
    height, width = size
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    picture = _texture(generator, size, index)
    free = np.ones(size, bool)
    ground = picture.mean((0, 1))
    smallest, largest = _SMALLEST_LEAF * min(size), _LARGEST_LEAF * min(size)
    for _ in range(_MOST_LEAVES):
        # By inversion of the distribution function of a density with the third power.
        share = generator.uniform()
        radius = (smallest**-2 + share * (largest**-2 - smallest**-2)) ** -0.5
        y = generator.uniform(-radius / 2, height + radius / 2)
        x = generator.uniform(-radius / 2, width + radius / 2)
        box = (
            slice(max(0, int(y - 1.5 * radius)), max(0, int(y + 1.5 * radius) + 2)),
            slice(max(0, int(x - 1.5 * radius)), max(0, int(x + 1.5 * radius) + 2)),
        )
        if not free[box].any():
            continue
        angle, flatness = generator.uniform(0, np.pi), generator.uniform(0.4, 1.0)
        down, right = rows[box] - y, columns[box] - x
        along = np.cos(angle) * down + np.sin(angle) * right
        across = (np.cos(angle) * right - np.sin(angle) * down) / flatness
        visible = _leaf(generator, along, across, radius) & free[box]
        picture[box][visible] = _surface(generator, ground, along, across, radius)[visible]
        free[box] &= ~visible
    return picture


def _leaf(
    generator: np.random.Generator, along: NDArray[Any], across: NDArray[Any], radius: float
) -> NDArray[np.bool_]:
    """Return where a leaf is."""
    shape = generator.integers(3)
    if shape == 0:
        inside = along**2 + across**2 < radius**2
    elif shape == 1:
        inside = np.maximum(abs(along), abs(across)) < 0.85 * radius
    else:
        inside = (along > -0.6 * radius) & (abs(across) < 0.6 * (radius - along))
    return np.asarray(inside)


def _surface(
    generator: np.random.Generator,
    ground: NDArray[Any],
    along: NDArray[Any],
    across: NDArray[Any],
    radius: float,
) -> NDArray[Any]:
    """Return a leaf's colours: a shaded one near the picture's or any, plain, striped or rough."""
    color = generator.uniform(0, 1, 3)
    if generator.uniform() < 0.7:
        color = (ground + color) / 2 + generator.normal(0, 0.15, 3)
    slope = generator.normal(0, 0.125, 2) / radius
    surface = color + (slope[0] * along + slope[1] * across)[..., None]
    finish = generator.uniform()
    if finish < 0.35:
        waves = np.sin(generator.uniform(0.15, 1.6) * along + generator.uniform(0, 6))
        tint = generator.uniform(0.03, 0.25) * generator.uniform(0.3, 1, 3)
        surface = surface + tint * waves[..., None]
    elif finish < 0.7:
        grain = generator.standard_normal(along.shape)
        tint = generator.uniform(0.02, 0.2) * generator.uniform(0.5, 1, 3)
        surface = surface + tint * grain[..., None]
    return surface
