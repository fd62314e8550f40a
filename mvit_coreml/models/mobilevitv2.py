"""MobileViTV2: MobileViT with attention of linear cost.

Mehta and Rastegari, "Separable Self-attention for Mobile Vision Transformers", 2022,
arXiv:2206.02680.

Attention works on (B, C, P, N): P pixel positions within a patch, N patches.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.errors import InputError
from mvit_coreml.models.base import ImageClassifier, SemanticSegmenter
from mvit_coreml.models.config import MobileViTV2Config
from mvit_coreml.models.deeplab import DeepLabV3
from mvit_coreml.models.layers import (
    ConvLayer,
    Stack,
    depth_to_space,
    inverted_residual,
    map_size,
    pad_to,
    round_up,
    space_to_depth,
)
from mvit_coreml.models.mobilevit import MobileViTBackbone, Stage


class LinearSelfAttention(nn.Module):
    """Separable self-attention: every position attends to one context vector (paper, 3.2)."""

    def __init__(self, config: MobileViTV2Config, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv_proj = ConvLayer(dim, 1 + 2 * dim, bias=True, normalize=False)
        self.dropout = nn.Dropout(config.attn_dropout)
        self.out_proj = ConvLayer(dim, dim, bias=True, normalize=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, P, N) to (B, C, P, N)."""
        query, key, value = self.qkv_proj(x).split([1, self.dim, self.dim], dim=1)
        scores = self.dropout(query.softmax(dim=-1))  # (B, 1, P, N)
        context = (key * scores).sum(dim=-1, keepdim=True)  # (B, C, P, 1)
        return self.out_proj(F.relu(value) * context)


class FeedForward(nn.Module):
    """Two 1x1 convolutions."""

    def __init__(self, config: MobileViTV2Config, dim: int) -> None:
        super().__init__()
        hidden = config.ffn_dim(dim)
        self.conv1 = ConvLayer(
            dim, hidden, bias=True, normalize=False, activation=config.hidden_act
        )
        self.conv2 = ConvLayer(hidden, dim, bias=True, normalize=False)
        self.dropout = nn.Dropout(config.ffn_dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, P, N) to (B, C, P, N)."""
        return self.dropout(self.conv2(self.dropout(self.conv1(x))))


class SeparableTransformerLayer(nn.Module):
    """Pre-norm separable attention and feed-forward network."""

    def __init__(self, config: MobileViTV2Config, dim: int) -> None:
        super().__init__()
        self.layernorm_before: nn.Module = nn.GroupNorm(1, dim, eps=config.layer_norm_eps)
        self.attention = LinearSelfAttention(config, dim)
        self.layernorm_after: nn.Module = nn.GroupNorm(1, dim, eps=config.layer_norm_eps)
        self.ffn = FeedForward(config, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, P, N) to (B, C, P, N)."""
        x = x + self.attention(self.layernorm_before(x))
        return x + self.ffn(self.layernorm_after(x))


class Projection(ConvLayer):
    """1x1 convolution after attention; a map that was cut to whole patches is zero outside."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """Map (B, dim, h, w) to (B, out_channels, *size)."""
        return super().forward(pad_to(x, size))


class MobileViTV2Block(nn.Module):
    """Depthwise local convolution and a transformer across patches (paper, 3.3)."""

    def __init__(self, config: MobileViTV2Config, stage: Stage) -> None:
        super().__init__()
        in_channels, out_channels, dim = stage.in_channels, stage.out_channels, stage.dim
        self.patch = config.patch_hw
        self.patch_grid = config.patch_grid
        self.downsampling_layer = inverted_residual(
            config, in_channels, out_channels, stage.stride, stage.dilation
        )
        self.conv_kxk = ConvLayer(
            out_channels,
            out_channels,
            config.conv_kernel_size,
            groups=out_channels,
            activation=config.hidden_act,
        )
        self.conv_1x1 = ConvLayer(out_channels, dim, normalize=False)
        self.transformer = Stack(
            SeparableTransformerLayer(config, dim) for _ in range(stage.num_layers)
        )
        self.layernorm: nn.Module = nn.GroupNorm(1, dim, eps=config.layer_norm_eps)
        self.conv_projection: nn.Module = Projection(dim, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        x = self.downsampling_layer(x)
        if self.patch_grid == "interpolate":
            x = self.resize_to_patches(x)
        x = self.conv_1x1(self.conv_kxk(x))
        return self.conv_projection(self.attend(self.cut_to_patches(x)), map_size(x))

    def resize_to_patches(self, x: Tensor) -> Tensor:
        """Enlarge (B, C, H, W) to a multiple of the patch size."""
        grid = round_up(map_size(x), self.patch)
        if grid == map_size(x):
            return x
        return F.interpolate(x, size=grid, mode="bilinear", align_corners=True)

    def cut_to_patches(self, x: Tensor) -> Tensor:
        """Cut (B, C, H, W) to a multiple of the patch size, at the bottom right."""
        size = map_size(x)
        height, width = (side // p * p for side, p in zip(size, self.patch, strict=True))
        if not height or not width:
            raise InputError(
                f"image is too small: a feature map of {size[0]}x{size[1]} holds no patch of "
                f"{self.patch[0]}x{self.patch[1]}"
            )
        return x if (height, width) == size else x[:, :, :height, :width]

    def attend(self, x: Tensor) -> Tensor:
        """Run the transformer across the patches of (B, dim, H, W)."""
        patches = self.layernorm(self.transformer(space_to_depth(x, self.patch)))
        return depth_to_space(patches, self.patch, map_size(x))


class MobileViTV2Model(MobileViTBackbone[MobileViTV2Config]):
    """The MobileViTV2 backbone, which has no last convolution."""

    block_class = MobileViTV2Block


class MobileViTV2ForImageClassification(ImageClassifier[MobileViTV2Config]):
    """MobileViTV2 with a linear classifier, which the original gives no dropout."""

    backbone_class = MobileViTV2Model

    def __init__(self, config: MobileViTV2Config) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(0.0)


class MobileViTV2ForSemanticSegmentation(SemanticSegmenter[MobileViTV2Config]):
    """MobileViTV2 with a DeepLabV3 head."""

    backbone_class, head_class = MobileViTV2Model, DeepLabV3
