"""Patches against torch's unfold and fold, bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mvit_coreml.models.layers import (
    batch_to_patches,
    depth_to_space,
    patches_to_batch,
    space_to_depth,
)

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("patch", [(1, 1), (2, 2), (4, 4), (2, 3), (3, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_patches_are_those_of_unfold(patch: tuple[int, int], batch: int) -> None:
    size = (patch[0] * 4, patch[1] * 5)
    x = torch.randn(batch, 6, *size)
    expected = F.unfold(x, patch, stride=patch).reshape(batch, 6, patch[0] * patch[1], 20)
    patches = space_to_depth(x, patch)
    assert torch.equal(patches, expected)
    folded = F.fold(expected.reshape(batch, -1, 20), size, patch, stride=patch)
    assert torch.equal(depth_to_space(patches, patch, size), folded)


@pytest.mark.parametrize("batch", [1, 3])
def test_attention_sees_each_pixel_position_as_its_own_image(batch: int) -> None:
    patches = torch.randn(batch, 6, 4, 20)
    tokens = patches_to_batch(patches)
    for image in range(batch):
        for position in range(4):
            assert torch.equal(tokens[image * 4 + position, :, 0], patches[image, :, position])
    assert torch.equal(batch_to_patches(tokens, batch), patches)
