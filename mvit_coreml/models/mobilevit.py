"""MobileViT: convolutions for what is local, attention across patches for what is not.

Mehta and Rastegari, "MobileViT: Light-weight, General-purpose, and Mobile-friendly Vision
Transformer", 2021, arXiv:2110.02178.

Everything stays channel-first. Attention works on (B * P, C, 1, N): P pixel positions within a
patch and N patches, so splitting the heads needs no transpose.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.models.base import Backbone, ImageClassifier, SemanticSegmenter
from mvit_coreml.models.config import AnyMobileViTConfig, MobileViTConfig
from mvit_coreml.models.deeplab import DeepLabV3
from mvit_coreml.models.layers import (
    ACTIVATION_FUNCTIONS,
    ChannelNorm,
    ConvLayer,
    PointwiseLinear,
    Stack,
    batch_to_patches,
    check_image,
    depth_to_space,
    inverted_residual,
    patches_to_batch,
    round_up,
    space_to_depth,
    static_shape,
)

MobileViTConfigT = TypeVar("MobileViTConfigT", bound=AnyMobileViTConfig)


class Stage(NamedTuple):
    """A stage of attention, which an inverted residual opens.

    Attributes:
        in_channels: of its input.
        out_channels: of its output.
        stride: of the inverted residual.
        dilation: of the inverted residual.
        dim: channels of attention.
        num_layers: number of transformer layers.
    """

    in_channels: int
    out_channels: int
    stride: int
    dilation: int
    dim: int
    num_layers: int


class SelfAttention(nn.Module):
    """Multi-head self-attention across patches."""

    def __init__(self, config: MobileViTConfig, dim: int) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query = PointwiseLinear(dim, dim, bias=config.qkv_bias)
        self.key = PointwiseLinear(dim, dim, bias=config.qkv_bias)
        self.value = PointwiseLinear(dim, dim, bias=config.qkv_bias)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, N) to (B, C, 1, N)."""
        batch, channels, _, count = static_shape(x)
        head_dim = channels // self.num_heads
        query, key, value = (
            project(x).reshape(batch, self.num_heads, head_dim, count)
            for project in (self.query, self.key, self.value)
        )
        scores = query.transpose(-1, -2) @ key / math.sqrt(head_dim)  # (B, heads, N, N)
        attention = self.dropout(scores.softmax(dim=-1))
        context = value @ attention.transpose(-1, -2)  # (B, heads, head_dim, N)
        return context.reshape(batch, channels, 1, count)


class Attention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: MobileViTConfig, dim: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config, dim)
        self.output = nn.ModuleDict({"dense": PointwiseLinear(dim, dim)})
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, N) to (B, C, 1, N)."""
        return self.dropout(self.output["dense"](self.attention(x)))


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward network."""

    def __init__(self, config: MobileViTConfig, dim: int) -> None:
        super().__init__()
        ffn_dim = int(dim * config.mlp_ratio)
        self.layernorm_before = ChannelNorm(dim, eps=config.layer_norm_eps)
        self.attention = Attention(config, dim)
        self.layernorm_after = ChannelNorm(dim, eps=config.layer_norm_eps)
        self.intermediate = nn.ModuleDict({"dense": PointwiseLinear(dim, ffn_dim)})
        self.activation = ACTIVATION_FUNCTIONS[config.hidden_act]
        self.output = nn.ModuleDict({"dense": PointwiseLinear(ffn_dim, dim)})
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, N) to (B, C, 1, N)."""
        x = x + self.attention(self.layernorm_before(x))
        y = self.activation(self.intermediate["dense"](self.layernorm_after(x)))
        return x + self.dropout(self.output["dense"](y))


class MobileViTBlock(nn.Module):
    """Local convolutions, a transformer across patches, and fusion with the input (paper, 3.1)."""

    def __init__(self, config: MobileViTConfig, stage: Stage) -> None:
        super().__init__()
        in_channels, out_channels, dim = stage.in_channels, stage.out_channels, stage.dim
        act, kernel = config.hidden_act, config.conv_kernel_size
        self.patch = config.patch_hw
        self.downsampling_layer = inverted_residual(
            config, in_channels, out_channels, stage.stride, stage.dilation
        )
        self.conv_kxk = ConvLayer(out_channels, out_channels, kernel, activation=act)
        self.conv_1x1 = ConvLayer(out_channels, dim, normalize=False)
        self.transformer = Stack(TransformerLayer(config, dim) for _ in range(stage.num_layers))
        self.layernorm: nn.Module = ChannelNorm(dim, eps=config.layer_norm_eps)
        self.conv_projection = ConvLayer(dim, out_channels, activation=act)
        self.fusion = ConvLayer(2 * out_channels, out_channels, kernel, activation=act)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        x = self.downsampling_layer(x)
        y = self.conv_projection(self.attend(self.conv_1x1(self.conv_kxk(x))))
        return self.fusion(torch.cat([x, y], dim=1))

    def attend(self, x: Tensor) -> Tensor:
        """Run the transformer across the patches of (B, dim, H, W)."""
        batch, _, height, width = static_shape(x)
        grid = round_up((height, width), self.patch)
        if grid != (height, width):
            x = F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
        tokens = patches_to_batch(space_to_depth(x, self.patch))
        tokens = self.layernorm(self.transformer(tokens))
        x = depth_to_space(batch_to_patches(tokens, batch), self.patch, grid)
        if grid != (height, width):
            x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        return x


def build_encoder(config: AnyMobileViTConfig, block_class: type[nn.Module]) -> Stack:
    """Build two stages of inverted residuals and three of attention.

    Args:
        config: the configuration of either generation.
        block_class: a stage of attention, made from the configuration and a :class:`Stage`.
    """
    dims = config.layer_dims
    stages: list[nn.Module] = []
    for stage, count in enumerate(config.conv_stage_blocks):
        channels = [dims[stage]] + [dims[stage + 1]] * count
        stages.append(
            Stack(
                inverted_residual(config, *pair, stride=2 if stage and not index else 1)
                for index, pair in enumerate(pairwise(channels))
            )
        )
    # (stride, dilation): what is not halved is dilated from the next stage on.
    steps = {
        32: ((2, 1), (2, 1), (2, 1)),
        16: ((2, 1), (2, 1), (1, 1)),
        8: ((2, 1), (1, 1), (1, 2)),
    }[config.output_stride]
    attention = zip(steps, config.attn_unit_dims, config.n_attn_blocks, strict=True)
    for stage, (step, *sizes) in enumerate(attention, start=2):
        stages.append(block_class(config, Stage(dims[stage], dims[stage + 1], *step, *sizes)))
    return Stack(stages)


class MobileViTBackbone(Backbone[MobileViTConfigT]):
    """The stem and the five stages of both generations.

    Args:
        config: the configuration.
        expand_output: also compute the pooled output.
    """

    block_class: ClassVar[type[nn.Module]]

    def __init__(self, config: MobileViTConfigT, expand_output: bool = True) -> None:
        super().__init__(config, expand_output)
        *_, self.encoder_dim = config.layer_dims
        self.feature_dim = self.encoder_dim
        self.conv_stem = ConvLayer(
            config.num_channels, config.layer_dims[0], 3, stride=2, activation=config.hidden_act
        )
        self.encoder = build_encoder(config, self.block_class)
        self.num_hidden_states = len(self.encoder.layer)

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that reads the image."""
        return self.conv_stem.convolution

    def forward_features(
        self, pixel_values: Tensor, hidden_states: list[Tensor] | None = None
    ) -> Tensor:
        """Map (B, num_channels, H, W) to (B, encoder_dim, H / stride, W / stride)."""
        check_image(pixel_values, self.config)
        return self.encoder(self.conv_stem(pixel_values), hidden_states)


class MobileViTModel(MobileViTBackbone[MobileViTConfig]):
    """The MobileViT backbone.

    Args:
        config: the configuration.
        expand_output: apply the last 1x1 convolution and pool its output.
    """

    block_class = MobileViTBlock

    def __init__(self, config: MobileViTConfig, expand_output: bool = True) -> None:
        super().__init__(config, expand_output)
        self.conv_1x1_exp: ConvLayer | None = None
        if expand_output:
            self.feature_dim = config.neck_hidden_sizes[-1]
            self.conv_1x1_exp = ConvLayer(
                self.encoder_dim, self.feature_dim, activation=config.hidden_act
            )

    def expand(self, features: Tensor) -> Tensor:
        """Apply the last 1x1 convolution."""
        return features if self.conv_1x1_exp is None else self.conv_1x1_exp(features)


class MobileViTForImageClassification(ImageClassifier[MobileViTConfig]):
    """MobileViT with a linear classifier."""

    backbone_class = MobileViTModel


class MobileViTForSemanticSegmentation(SemanticSegmenter[MobileViTConfig]):
    """MobileViT with a DeepLabV3 head."""

    backbone_class, head_class = MobileViTModel, DeepLabV3
