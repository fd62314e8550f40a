"""Pictures of handwritten digits in red and blue ink, drawn anew from a seed whenever needed.

The digits are scikit-learn's (``load_digits``: 1797 scans of 8x8 pixels from UCI's optical
recognition data), enlarged, moved, turned and inked on varied backgrounds. The class is colour and
digit together, and the two inks are each other's mirror image in red and blue: a model that gets
its channels in the wrong order takes every red digit for a blue one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import InputError

Split = Literal["training", "held-out"]
Floats = NDArray[np.float32]

SIZE = 96
"""Side of a picture in pixels."""

COLORS = ("red", "blue")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_LABELS = tuple(f"{color} {digit}" for color in COLORS for digit in DIGITS)
"""Classes of the classifier: class c is digit c % 10 in colour c // 10."""

MASK_LABELS = ("background", *(f"{color} digit" for color in COLORS))
"""Classes of the segmenter."""

_HELD_OUT_PER_DIGIT = 50
_SPLIT_SEED = 20_211_005
_SPLITS: tuple[Split, ...] = ("training", "held-out")
# Pictures drawn at once: few enough for the arrays to stay in the processor's cache.
_CHUNK = 16

_CELLS = 8
# Empty cells around a scan, whose own outermost rows often hold ink.
_MARGIN = 1
_PIXELS_PER_CELL = 8
# Darkness of the enlarged scan from which ink begins, and at which it covers.
_INK_FROM, _INK_TO = 0.3, 0.5
# Share of a picture's side that a classifier's crop leaves; digits are placed inside.
_INSIDE = 64 / 72

_INK_HUES = (0.0, 2 / 3)
_HUE_SPREAD = 0.04


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Pictures with what they show.

    Attributes:
        images: (N, 96, 96, 3) uint8 RGB.
        masks: (N, 96, 96) uint8 indices into :data:`MASK_LABELS`.
        labels: (N,) int64 indices into :data:`CLASS_LABELS`.
        samples: (N,) int64 positions of the scans in ``load_digits``.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    labels: NDArray[np.int64]
    samples: NDArray[np.int64]


def draw(split: Split, count: int, seed: int = 0) -> Pictures:
    """Draw pictures; equal arguments give equal pictures.

    Every scan of the split is used once before any is used again, then in the other colour.

    Args:
        split: which scans to draw from; the two splits share none.
        count: number of pictures.
        seed: of everything but the split, from 0.

    Raises:
        InputError: an unknown split, a negative count or seed, or scikit-learn is missing.
    """
    if split not in _SPLITS:
        raise InputError(f"the split is {split!r}; it must be {' or '.join(_SPLITS)}")
    if count < 0 or seed < 0:
        raise InputError(f"count {count} and seed {seed} must not be negative")
    scans, digits = _load_scans()
    samples, colors = _schedule(split_samples(split), count, _generator(seed, split, 0))
    enlarged = _enlarge(scans)
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((count, SIZE, SIZE), np.uint8)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        rng = _generator(seed, split, 1 + start)
        images[part], ink = _paint(enlarged[samples[part]], colors[part], rng)
        masks[part] = np.where(ink > 0.5, 1 + colors[part, None, None], 0)
    labels = digits[samples] + len(DIGITS) * colors
    return Pictures(images=images, masks=masks, labels=labels, samples=samples)


def split_samples(split: Split) -> NDArray[np.int64]:
    """Return the positions in ``load_digits`` that a split draws from.

    Fifty scans of every digit are held out, chosen once and for all.
    """
    _, digits = _load_scans()
    rng = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    shuffled = [rng.permutation(np.flatnonzero(digits == digit)) for digit in range(len(DIGITS))]
    held_out = split == "held-out"
    chosen = [
        own[:_HELD_OUT_PER_DIGIT] if held_out else own[_HELD_OUT_PER_DIGIT:] for own in shuffled
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _generator(seed: int, split: Split, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, _SPLITS.index(split), stream]))


def _load_scans() -> tuple[Floats, NDArray[np.int64]]:
    """Return (1797, 8, 8) darkness from 0 to 1, and the (1797,) digits."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(
            "drawing the demo's pictures needs scikit-learn: pip install scikit-learn"
        ) from None
    data: Any = load_digits()
    return (data.images / 16).astype(np.float32), data.target.astype(np.int64)


def _schedule(
    samples: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the scan and the colour of every picture."""
    passes = -(-count // len(samples))
    orders = [rng.permutation(len(samples)) for _ in range(passes)]
    if not orders:
        return samples[:0], samples[:0]
    colors = np.concatenate([(order + index) % len(COLORS) for index, order in enumerate(orders)])
    return samples[np.concatenate(orders)[:count]], colors[:count]


def _enlarge(scans: Floats) -> Floats:
    """Enlarge (N, 8, 8) smoothly to (N, 80, 80), a margin included."""
    cells = _CELLS + 2 * _MARGIN
    padded = np.pad(scans, ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    positions = (np.arange(cells * _PIXELS_PER_CELL) + 0.5) / _PIXELS_PER_CELL - 0.5
    weights = _cubic(positions[:, None] - np.arange(cells)).astype(np.float32)  # (80, 10)
    return (weights @ padded @ weights.T).astype(np.float32)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution kernel with a = -1/2 (Keys, 1981)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _paint(
    enlarged: Floats, colors: NDArray[np.int64], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], Floats]:
    """Return (n, 96, 96, 3) uint8 pictures and how far ink covers each pixel, (n, 96, 96)."""
    # The canvas is (n, 3, 96, 96) until the end, as NumPy is slow along an axis of three.
    canvas = _background(len(enlarged), rng)
    for _ in range(3):
        _add_shape(canvas, rng, radius=(0.08, 0.35), saturation=(0.1, 0.45), value=(0.1, 1.0))
    # Strong colours too, the inks' among them, but in spots too small for a digit.
    for _ in range(4):
        _add_shape(canvas, rng, radius=(0.015, 0.04), saturation=(0.7, 1.0), value=(0.6, 1.0))
    ink = _ink(enlarged, rng)
    hues = np.take(_INK_HUES, colors) + rng.uniform(-_HUE_SPREAD, _HUE_SPREAD, len(colors))
    _blend(canvas, ink, _rgb(hues, *_uniform(rng, len(colors), (0.8, 1.0), (0.6, 1.0))))
    canvas += np.float32(0.012) * rng.standard_normal(canvas.shape, np.float32)
    pixels = np.rint(canvas.clip(0, 1) * 255).astype(np.uint8)
    return np.moveaxis(pixels, 1, -1), ink


def _background(count: int, rng: np.random.Generator) -> Floats:
    """Return (count, 3, 96, 96): two pale colours mixed by a gradient and a texture."""
    ends = [
        _rgb(*_uniform(rng, count, (0, 1), (0, 0.35), (0.1, 1.0)))[..., None, None]
        for _ in range(2)
    ]
    x, y = _grid()
    slope, angle, roughness, relief = _columns(
        rng, count, (0, 1.2), (0, 2 * np.pi), (0, 0.3), (0, 0.12)
    )
    mix = 0.5 + slope * (np.cos(angle) * x + np.sin(angle) * y) + roughness * _texture(count, rng)
    canvas: Floats = ends[0] + (ends[1] - ends[0]) * mix.clip(0, 1)[:, None]
    canvas += (relief * _texture(count, rng))[:, None]
    return canvas.clip(0, 1)


def _texture(count: int, rng: np.random.Generator) -> Floats:
    """Return (count, 96, 96) noise whose amplitude falls as 1/f, with standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE))
    frequency[0, 0] = np.inf
    noise = rng.standard_normal((count, SIZE, SIZE), np.float32)
    rough = np.fft.irfft2(np.fft.rfft2(noise) / frequency.astype(np.float32))
    return (rough / rough.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def _add_shape(
    canvas: Floats,
    rng: np.random.Generator,
    *,
    radius: tuple[float, float],
    saturation: tuple[float, float],
    value: tuple[float, float],
) -> None:
    """Draw an ellipse or a rectangle, anywhere and at any angle, into every picture."""
    count = len(canvas)
    x, y = _grid()
    a, b, left, top, angle = _columns(
        rng, count, radius, radius, (-0.5, 0.5), (-0.5, 0.5), (0, np.pi)
    )
    round_ = rng.random((count, 1, 1)) < 0.5
    along = np.abs(np.cos(angle) * (x - left) + np.sin(angle) * (y - top)) / a
    across = np.abs(np.cos(angle) * (y - top) - np.sin(angle) * (x - left)) / b
    distance = np.where(round_, np.hypot(along, across), np.maximum(along, across)) - 1
    # An edge about one pixel wide.
    cover = (0.5 - distance * SIZE * np.minimum(a, b)).clip(0, 1)
    _blend(canvas, cover, _rgb(*_uniform(rng, count, (0, 1), saturation, value)))


def _ink(enlarged: Floats, rng: np.random.Generator) -> Floats:
    """Place (n, 80, 80) scans on (n, 96, 96) pictures; 1 where ink covers, 0 where there is none.

    A scan measures 62 to 86 % of the picture and lies inside the part that a classifier's centre
    crop leaves, before it is turned about its middle by up to 12 degrees either way.
    """
    count, resolution = len(enlarged), enlarged.shape[1]
    side, angle, shift_x, shift_y = _columns(
        rng, count, (0.62, 0.86), (-np.pi / 15, np.pi / 15), (-1, 1), (-1, 1)
    )
    room = (_INSIDE - side) / 2
    x, y = _grid()
    right_of, below = x - shift_x * room, y - shift_y * room
    pixels_per_side = _CELLS * _PIXELS_PER_CELL / side
    middle = (resolution - 1) / 2
    column = (np.cos(angle) * right_of + np.sin(angle) * below) * pixels_per_side + middle
    row = (np.cos(angle) * below - np.sin(angle) * right_of) * pixels_per_side + middle
    # The margin is empty, so what lies outside the scan may repeat its border.
    column, row = (axis.clip(0, resolution - 1.001) for axis in (column, row))
    left, top = column.astype(np.intp), row.astype(np.intp)
    right, down = column - left, row - top
    corner = (np.arange(count)[:, None, None] * resolution + top) * resolution + left
    flat = enlarged.reshape(-1)
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    corner += resolution
    lower = flat[corner] * (1 - right) + flat[corner + 1] * right
    darkness = upper * (1 - down) + lower * down
    return ((darkness - _INK_FROM) / (_INK_TO - _INK_FROM)).clip(0, 1).astype(np.float32)


def _blend(canvas: Floats, cover: Floats, colors: Floats) -> None:
    canvas += (colors[..., None, None] - canvas) * cover[:, None]


def _grid() -> tuple[Floats, Floats]:
    """Return x (1, 1, 96) and y (1, 96, 1) of the pixels' centres, from -1/2 to 1/2."""
    centers = ((np.arange(SIZE) + 0.5) / SIZE - 0.5).astype(np.float32)
    return centers[None, None, :], centers[None, :, None]


def _columns(
    rng: np.random.Generator, count: int, *ranges: tuple[float, float]
) -> tuple[Floats, ...]:
    """Draw a number for each picture and range, each (count, 1, 1)."""
    return tuple(drawn[:, None, None] for drawn in _uniform(rng, count, *ranges))


def _uniform(
    rng: np.random.Generator, count: int, *ranges: tuple[float, float]
) -> tuple[Floats, ...]:
    return tuple(rng.uniform(low, high, count).astype(np.float32) for low, high in ranges)


def _rgb(hue: NDArray[Any], saturation: Floats, value: Floats) -> Floats:
    """Turn (n,) hue, saturation and value, from 0 to 1, into (n, 3) RGB."""
    sector = (np.array([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6
    distance = np.minimum(sector, 4 - sector).clip(0, 1)
    return (value[:, None] * (1 - saturation[:, None] * distance)).astype(np.float32)
