"""Views are crops of the pictures in turn, enlarged, half of them mirrored."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mvit_coreml.compression.calibration.random_views import random_views


def noise(count: int, height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).float()


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("size", [(32, 32), (20, 48)])
def test_as_many_views_as_asked_for_have_the_size_of_pictures(
    count: int, size: tuple[int, int]
) -> None:
    found = random_views(noise(3, *size), count, seed=0)
    assert found.shape == (count, 3, *size)
    assert found.dtype is torch.float32
    assert torch.equal(found, found.round())
    assert float(found.min()) >= 0
    assert float(found.max()) <= 255


def test_no_views_of_no_pictures_asked_for() -> None:
    assert random_views(noise(3, 8, 9), 0, seed=0).shape == (0, 3, 8, 9)


def test_pictures_take_turns() -> None:
    colours = torch.tensor([10.0, 90.0, 200.0])
    plain = colours[:, None, None, None].expand(3, 3, 16, 16)
    found = random_views(plain, 8, seed=3)
    wanted = [10, 90, 200, 10, 90, 200, 10, 90]
    assert [sorted(set(view.flatten().tolist())) for view in found] == [[each] for each in wanted]


def test_crops_keep_at_least_a_third_of_the_area_and_half_are_mirrored() -> None:
    width = 200
    ramp = torch.linspace(0, 255, width).expand(1, 3, width, width)
    both = torch.stack([ramp[0], ramp[0].mT])
    found = random_views(both, 400, seed=0)
    across, down = found[0::2, 0, 0, :], found[1::2, 0, :, 0]
    mirrored = across[:, 0] > across[:, -1]
    assert 70 < int(mirrored.sum()) < 130
    assert bool((down[:, 0] < down[:, -1]).all())
    for lines in (across, down):
        part = (lines.amax(1) - lines.amin(1)) / 255
        assert float(part.min()) > 0.35**0.5 - 0.02
        assert float(part.min()) < 0.65
        assert float(part.max()) > 0.97
    # Crops lie all over the picture.
    assert float(down[:, 0].max()) > 60
    assert float(down[:, -1].min()) < 195


def test_the_seed_alone_decides() -> None:
    pixels = noise(4, 24, 24)
    first, again, other = (random_views(pixels, 6, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
