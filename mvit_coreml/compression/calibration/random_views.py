"""Further pictures made of calibration pictures: crops of random size, mirrored or not."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Part of the area that a crop keeps at least.
_SMALLEST = 0.35


def random_views(pixels: Tensor, count: int, seed: int) -> Tensor:
    """Return crops of pictures in turn, enlarged to the pictures' size; half of them mirrored.

    Args:
        pixels: (N, 3, height, width) from 0 to 255.
        count: how many to make.
        seed: of the draws.

    Returns:
        (count, 3, height, width), whole numbers from 0 to 255 as of an image.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = pixels.shape[2:]

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    views = []
    for index in range(count):
        picture = pixels[index % len(pixels)]
        side = uniform(_SMALLEST, 1.0) ** 0.5
        rows, columns = round(side * height), round(side * width)
        top, left = round(uniform(0, height - rows)), round(uniform(0, width - columns))
        part = picture[None, :, top : top + rows, left : left + columns]
        if uniform(0, 1) < 0.5:
            part = part.flip(3)
        view = F.interpolate(part, (height, width), mode="bilinear", antialias=True)
        views.append(view.round().clamp(0, 255))
    return torch.cat(views) if views else pixels[:0]
