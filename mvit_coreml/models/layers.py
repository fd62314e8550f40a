"""Layers that the three families share, and the losses of their heads.

Parameter names and shapes are those of transformers, so its checkpoints load without renaming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.errors import InputError
from mvit_coreml.models.config import (
    MobileViTConfig,
    MobileViTV2Config,
    ModelConfig,
    make_divisible,
)

# Five halvings must leave at least one pixel.
MIN_IMAGE_SIDE = 32

ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_10": lambda x: F.gelu(x).clamp(-10, 10),
    "gelu_accurate": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_python": F.gelu,
    "gelu_python_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "laplace": lambda x: 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "leaky_relu": F.leaky_relu,
    "linear": lambda x: x,
    "mish": F.mish,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "sqrtsoftplus": lambda x: F.softplus(x).sqrt(),
    "swish": F.silu,
    "tanh": torch.tanh,
}


class ConvLayer(nn.Module):
    """Convolution, batch normalisation and activation, each of the last two optional.

    Padding keeps the size of a stride-1 map. With ``tf_padding`` it follows TensorFlow's SAME
    rule instead, which depends on the input size and may be one pixel larger at the bottom right.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        activation: str | None = None,
        normalize: bool = True,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        tf_padding: bool = False,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=0 if tf_padding else (kernel_size - 1) // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self.normalization = (
            nn.BatchNorm2d(out_channels, eps=norm_eps, momentum=norm_momentum)
            if normalize
            else None
        )
        self.activation = ACTIVATION_FUNCTIONS[activation] if activation else None
        self.tf_padding = tf_padding

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        x = self._convolve_same(x) if self.tf_padding else self.convolution(x)
        if self.normalization is not None:
            x = self.normalization(x)
        if self.activation is not None:
            x = self.activation(x)
        return x

    def _convolve_same(self, x: Tensor) -> Tensor:
        conv = self.convolution
        (top, bottom), (left, right) = (
            _same_padding(size, conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis])
            for axis, size in enumerate(static_shape(x)[-2:])
        )
        if top == bottom and left == right:
            padding = (top, left)
        else:
            x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
        return F.conv2d(x, conv.weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    # transformers scales the undilated padding by the dilation, which for odd kernels at stride 1
    # is what TensorFlow does; the families never dilate a strided convolution.
    overlap = kernel - (size % stride or stride)
    before = max(overlap, 0) // 2
    return before * dilation, (max(overlap, 0) - before) * dilation


class InvertedResidual(nn.Module):
    """MobileNetV2 block: 1x1 expansion, 3x3 depthwise, 1x1 projection (arXiv:1801.04381, 3.3)."""

    def __init__(
        self,
        in_channels: int,
        expanded_channels: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int = 1,
        activation: str,
        norm_eps: float = 1e-5,
        norm_momentum: float = 0.1,
        tf_padding: bool = False,
    ) -> None:
        super().__init__()
        self.use_residual = stride == 1 and in_channels == out_channels
        self.expand_1x1 = ConvLayer(
            in_channels,
            expanded_channels,
            activation=activation,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            tf_padding=tf_padding,
        )
        self.conv_3x3 = ConvLayer(
            expanded_channels,
            expanded_channels,
            3,
            stride=stride,
            dilation=dilation,
            groups=expanded_channels,
            activation=activation,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            tf_padding=tf_padding,
        )
        self.reduce_1x1 = ConvLayer(
            expanded_channels,
            out_channels,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
            tf_padding=tf_padding,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        y = self.reduce_1x1(self.conv_3x3(self.expand_1x1(x)))
        return x + y if self.use_residual else y


class Stack(nn.Module):
    """Blocks in sequence, numbered under ``layer`` as transformers' checkpoints have them."""

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(blocks)

    def forward(self, x: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        """Run the blocks; append each one's output to ``outputs`` when it is a list."""
        for block in self.layer:
            x = block(x)
            if outputs is not None:
                outputs.append(x)
        return x


def inverted_residual(
    config: MobileViTConfig | MobileViTV2Config,
    in_channels: int,
    out_channels: int,
    *,
    stride: int = 1,
    dilation: int = 1,
) -> InvertedResidual:
    """Build the inverted residual block of both MobileViTs."""
    return InvertedResidual(
        in_channels,
        make_divisible(round(in_channels * config.expand_ratio), 8),
        out_channels,
        stride=stride,
        dilation=dilation,
        activation=config.hidden_act,
    )


def conv_stages(config: MobileViTConfig | MobileViTV2Config, dims: tuple[int, ...]) -> list[Stack]:
    """Build the two convolutional stages that open both MobileViT encoders.

    Args:
        config: the configuration.
        dims: channels of the stem and of the two stages.
    """
    stages = []
    for stage, blocks in enumerate(config.conv_stage_blocks):
        channels = [dims[stage]] + [dims[stage + 1]] * blocks
        stages.append(
            Stack(
                inverted_residual(config, *pair, stride=2 if stage and not index else 1)
                for index, pair in enumerate(pairwise(channels))
            )
        )
    return stages


def stage_dilations(output_stride: int) -> tuple[int, int, int]:
    """Return the dilations of the last three stages; what is not halved is dilated instead."""
    return {32: (1, 1, 1), 16: (1, 1, 2), 8: (1, 2, 4)}[output_stride]


def downsampling(
    config: MobileViTConfig | MobileViTV2Config, in_channels: int, out_channels: int, dilation: int
) -> InvertedResidual:
    """Build the block that opens a MobileViT stage: strided, or dilated as the stage before it."""
    return inverted_residual(
        config,
        in_channels,
        out_channels,
        stride=2 if dilation == 1 else 1,
        dilation=max(dilation // 2, 1),
    )


class PointwiseLinear(nn.Linear):
    """A linear layer over the channels of a channel-first sequence."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_features, 1, N) to (B, out_features, 1, N)."""
        # A matrix product takes a third of the time of the equal 1x1 convolution on a CPU.
        y = (self.weight @ x.squeeze(2)).unsqueeze(2)
        return y if self.bias is None else y + self.bias[:, None, None]


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a channel-first map."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, H, W) over C at every position."""
        return (
            normalize_channels(x, self.eps) * self.weight[:, None, None] + self.bias[:, None, None]
        )


def normalize_channels(x: Tensor, eps: float) -> Tensor:
    """Normalise (B, C, H, W) over C without an affine.

    ``F.layer_norm`` normalises trailing axes only; written out like this, the Core ML compiler
    recognises one normalisation over axis 1.
    """
    centred = x - x.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    return centred * torch.rsqrt(variance + eps)


def static_shape(x: Tensor) -> tuple[int, ...]:
    """Return the shape as Python ints, also while the model is traced.

    A traced size is a tensor; what is computed from it would end up in the exported graph.
    """
    return tuple(int(size) for size in x.shape)


def check_image(pixel_values: Tensor, config: ModelConfig) -> None:
    """Refuse an input that the model cannot process.

    Raises:
        InputError: not (B, num_channels, H, W), or smaller than 32 pixels on a side.
    """
    shape = static_shape(pixel_values)
    if len(shape) != 4 or shape[1] != config.num_channels:
        raise InputError(
            f"pixel_values has shape {shape}; "
            f"expected (batch, {config.num_channels}, height, width)"
        )
    if min(shape[2:]) < MIN_IMAGE_SIDE:
        raise InputError(
            f"image of {shape[2]}x{shape[3]} pixels is too small; "
            f"{config.model_type} needs at least {MIN_IMAGE_SIDE} on each side"
        )


def classification_loss(logits: Tensor, labels: Tensor, config: ModelConfig) -> Tensor:
    """Cross entropy, or the loss that ``config.problem_type`` names.

    Args:
        logits: (B, num_labels).
        labels: (B,) class indices, (B,) or (B, num_labels) targets of a regression, or
            (B, num_labels) floating-point targets for several labels at once.
        config: gives the number of classes and the kind of problem.
    """
    problem = config.problem_type
    if problem is None:
        if config.num_labels == 1:
            problem = "regression"
        elif labels.dtype in (torch.long, torch.int):
            problem = "single_label_classification"
        else:
            problem = "multi_label_classification"
    if problem == "regression":
        if config.num_labels == 1:
            return F.mse_loss(logits.squeeze(), labels.squeeze())
        return F.mse_loss(logits, labels)
    if problem == "single_label_classification":
        return F.cross_entropy(logits.view(-1, config.num_labels), labels.view(-1).long())
    return F.binary_cross_entropy_with_logits(logits, labels)


def segmentation_loss(logits: Tensor, labels: Tensor, config: ModelConfig) -> Tensor:
    """Cross entropy of the logits upsampled to the label map.

    Args:
        logits: (B, num_labels, h, w).
        labels: (B, H, W) class indices.
        config: its ``semantic_loss_ignore_index`` marks pixels to skip.

    Raises:
        InputError: the model has a single class.
    """
    if config.num_labels == 1:
        raise InputError("labels were given but the segmenter has one class; it needs two or more")
    size = (labels.shape[-2], labels.shape[-1])
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return F.cross_entropy(logits, labels, ignore_index=config.semantic_loss_ignore_index)
