"""Between feature maps and patches.

A map of N patches with P = patch height x patch width pixels each is regrouped so that attention
runs across patches, separately for each of the P pixel positions within a patch.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mvit_coreml.models.layers import static_shape

Size = tuple[int, int]


def space_to_depth(features: Tensor, patch: Size) -> Tensor:
    """Regroup (B, C, H, W) as (B, C, P, N); H and W are multiples of the patch size."""
    batch, channels, height, width = static_shape(features)
    rows, columns = height // patch[0], width // patch[1]
    area, count = patch[0] * patch[1], rows * columns
    if patch[0] == patch[1]:
        if patch[0] > 1:
            features = F.pixel_unshuffle(features, patch[0])  # (B, C * P, rows, columns)
        return features.reshape(batch, channels, area, count)
    # Core ML knows only square patches as one op and refuses a rank above 5: B and C share an axis.
    features = features.reshape(batch * channels, rows, patch[0], columns, patch[1])
    return features.permute(0, 2, 4, 1, 3).reshape(batch, channels, area, count)


def depth_to_space(patches: Tensor, patch: Size, size: Size) -> Tensor:
    """Undo :func:`space_to_depth`: (B, C, P, N) to (B, C, H, W) with (H, W) = ``size``."""
    batch, channels = static_shape(patches)[:2]
    rows, columns = size[0] // patch[0], size[1] // patch[1]
    if patch[0] == patch[1]:
        features = patches.reshape(batch, channels * patch[0] * patch[1], rows, columns)
        return F.pixel_shuffle(features, patch[0]) if patch[0] > 1 else features
    features = patches.reshape(batch * channels, patch[0], patch[1], rows, columns)
    return features.permute(0, 3, 1, 4, 2).reshape(batch, channels, *size)


def patches_to_batch(patches: Tensor) -> Tensor:
    """Regroup (B, C, P, N) as (B * P, C, 1, N), so that attention sees P as a batch."""
    batch, channels, area, count = static_shape(patches)
    if batch == 1:  # one reshape less, which the exported graph of a single image keeps
        return patches.reshape(channels, area, 1, count).transpose(0, 1)
    return patches.transpose(1, 2).reshape(batch * area, channels, 1, count)


def batch_to_patches(tokens: Tensor, batch: int) -> Tensor:
    """Undo :func:`patches_to_batch`: (B * P, C, 1, N) to (B, C, P, N)."""
    tokens_in_batch, channels, _, count = static_shape(tokens)
    area = tokens_in_batch // batch
    if batch == 1:
        return tokens.transpose(0, 1).reshape(1, channels, area, count)
    return tokens.reshape(batch, area, channels, count).transpose(1, 2)


def round_up(size: Size, patch: Size) -> Size:
    """Return the smallest multiple of the patch size that covers ``size``."""
    return (-(-size[0] // patch[0]) * patch[0], -(-size[1] // patch[1]) * patch[1])
