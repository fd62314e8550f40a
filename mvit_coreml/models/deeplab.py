"""DeepLab segmentation heads.

DeepLabV3: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017,
arXiv:1706.05587 (both MobileViTs). DeepLabV3+: Chen et al., 2018, arXiv:1802.02611 (MobileNetV2,
without the decoder and with a single, undilated branch beside image pooling).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from mvit_coreml.models.config import AnyMobileViTConfig, MobileNetV2Config
from mvit_coreml.models.layers import ConvLayer


class ASPPPooling(nn.Module):
    """Image-level features of ASPP."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_1x1 = ConvLayer(in_channels, out_channels, activation="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, 1, 1)."""
        return self.conv_1x1(features.mean(dim=(-2, -1), keepdim=True))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and image-level branches."""

    def __init__(self, config: AnyMobileViTConfig, in_channels: int) -> None:
        super().__init__()
        channels = config.aspp_out_channels
        conv = partial(ConvLayer, in_channels, channels, activation="relu")
        dilated = (conv(3, dilation=rate) for rate in config.atrous_rates)
        self.convs = nn.ModuleList([conv(), *dilated, ASPPPooling(in_channels, channels)])
        self.project = ConvLayer(5 * channels, channels, activation="relu")
        self.dropout = nn.Dropout(config.aspp_dropout_prob)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, aspp_out_channels, H, W)."""
        *branches, pooled = [conv(features) for conv in self.convs]
        # Upsampling one pixel to the map's size repeats it.
        pyramid = torch.cat([*branches, pooled.expand_as(branches[0])], dim=1)
        return self.dropout(self.project(pyramid))


class DeepLabV3(nn.Module):
    """ASPP and a classifier per position."""

    def __init__(self, config: AnyMobileViTConfig, in_channels: int) -> None:
        super().__init__()
        self.aspp = ASPP(config, in_channels)
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)
        self.classifier = ConvLayer(
            config.aspp_out_channels, config.num_labels, bias=True, normalize=False
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits (B, num_labels, H, W)."""
        return self.classifier(self.dropout(self.aspp(features)))


class DeepLabV3Plus(nn.Module):
    """The MobileNetV2 head: image pooling beside one 1x1 branch."""

    channels = 256

    def __init__(self, config: MobileNetV2Config, in_channels: int) -> None:
        super().__init__()
        conv = partial(
            ConvLayer, out_channels=self.channels, activation="relu", norm_momentum=0.997
        )
        self.conv_pool = conv(in_channels)
        self.conv_aspp = conv(in_channels)
        self.conv_projection = conv(2 * self.channels)
        self.dropout = nn.Dropout2d(config.classifier_dropout_prob)
        self.classifier = ConvLayer(self.channels, config.num_labels, bias=True, normalize=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits (B, num_labels, H, W)."""
        local = self.conv_aspp(features)
        pooled = self.conv_pool(features.mean(dim=(-2, -1), keepdim=True))
        merged = self.conv_projection(torch.cat([pooled.expand_as(local), local], dim=1))
        return self.classifier(self.dropout(merged))
