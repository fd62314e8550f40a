"""MobileNetV2: inverted residuals and linear bottlenecks.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, arXiv:1801.04381.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from mvit_coreml.models.base import Backbone, ImageClassifier, SemanticSegmenter
from mvit_coreml.models.config import MobileNetV2Config
from mvit_coreml.models.deeplab import DeepLabV3Plus
from mvit_coreml.models.layers import ConvLayer, InvertedResidual, check_image

# Paper, table 2; the first stage is part of the stem.
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
BATCH_NORM_MOMENTUM = 0.997  # as transformers has it


def _conv_layer(config: MobileNetV2Config) -> partial[ConvLayer]:
    """Bind what all of the family's convolutions share."""
    return partial(
        ConvLayer,
        norm_eps=config.layer_norm_eps,
        norm_momentum=BATCH_NORM_MOMENTUM,
        tf_padding=config.tf_padding,
    )


class Stem(nn.Module):
    """The first 3x3 convolution and the first block, which shares its expansion with it."""

    def __init__(self, config: MobileNetV2Config) -> None:
        super().__init__()
        conv, act = _conv_layer(config), config.hidden_act
        dim = config.stem_dim
        self.first_conv = conv(config.num_channels, dim, 3, stride=2, activation=act)
        self.expand_1x1 = (
            None if config.first_layer_is_expansion else conv(dim, dim, activation=act)
        )
        self.conv_3x3 = conv(dim, dim, 3, groups=dim, activation=act)
        self.reduce_1x1 = conv(dim, config.scaled(config.stage_channels[0]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, num_channels, H, W) to (B, C, H / 2, W / 2)."""
        x = self.first_conv(x)
        if self.expand_1x1 is not None:
            x = self.expand_1x1(x)
        return self.reduce_1x1(self.conv_3x3(x))


class MobileNetV2Model(Backbone[MobileNetV2Config]):
    """The MobileNetV2 backbone.

    Args:
        config: the configuration.
        expand_output: also compute the pooled output.
    """

    def __init__(self, config: MobileNetV2Config, expand_output: bool = True) -> None:
        super().__init__(config, expand_output)
        conv = _conv_layer(config)
        self.conv_stem = Stem(config)
        self.layer = nn.ModuleList()
        channels = config.scaled(config.stage_channels[0])
        reached_stride, dilation = 2, 1  # the stem halves the image once
        for out_channels, stride in _blocks(config):
            # Once the output stride is reached, further strides dilate the blocks after them.
            dilated = reached_stride == config.output_stride
            self.layer.append(
                InvertedResidual(
                    channels,
                    config.expanded(channels),
                    out_channels,
                    stride=1 if dilated else stride,
                    dilation=dilation if dilated else 1,
                    activation=config.hidden_act,
                    conv=conv,
                )
            )
            if dilated:
                dilation *= stride
            else:
                reached_stride *= stride
            channels = out_channels
        self.conv_1x1: ConvLayer | None = conv(
            channels, config.output_dim, activation=config.hidden_act
        )
        self.encoder_dim, self.feature_dim = channels, config.output_dim
        self.num_hidden_states = len(self.layer)  # one a block after the stem

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that reads the image."""
        return self.conv_stem.first_conv.convolution

    def forward_features(
        self, pixel_values: Tensor, hidden_states: list[Tensor] | None = None
    ) -> Tensor:
        """Map (B, num_channels, H, W) to (B, encoder_dim, H / stride, W / stride)."""
        check_image(pixel_values, self.config)
        x = self.conv_stem(pixel_values)
        for block in self.layer:
            x = block(x)
            if hidden_states is not None:
                hidden_states.append(x)
        return x

    def expand(self, features: Tensor) -> Tensor:
        """Apply the last 1x1 convolution."""
        return features if self.conv_1x1 is None else self.conv_1x1(features)


def _blocks(config: MobileNetV2Config) -> list[tuple[int, int]]:
    """Return (output channels, stride) of every block after the stem, which holds the first."""
    stages = zip(config.stage_channels, STAGE_STRIDES, config.stage_depths, strict=True)
    blocks = [
        (config.scaled(channels), stride if index == 0 else 1)
        for channels, stride, depth in stages
        for index in range(depth)
    ]
    return blocks[1:]


class MobileNetV2ForImageClassification(ImageClassifier[MobileNetV2Config]):
    """MobileNetV2 with a linear classifier."""

    backbone_class = MobileNetV2Model


class MobileNetV2ForSemanticSegmentation(SemanticSegmenter[MobileNetV2Config]):
    """MobileNetV2 with a DeepLabV3+ style head.

    The backbone's last 1x1 convolution is in the checkpoints but feeds nothing; it is kept for
    loading and saving and never computed.
    """

    backbone_class, head_class = MobileNetV2Model, DeepLabV3Plus
