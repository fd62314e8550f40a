"""Layers that the three families share, and the patches that attention works across.

Parameter names and shapes are those of transformers, so its checkpoints load without renaming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.errors import InputError
from mvit_coreml.models.config import (
    ACTIVATIONS,
    AnyMobileViTConfig,
    ModelConfig,
    make_divisible,
)

Size = tuple[int, int]

# Five halvings must leave at least one pixel.
MIN_IMAGE_SIDE = 32

# Those that torch.nn.functional has under another name or not at all.
_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_10": lambda x: F.gelu(x).clamp(-10, 10),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "laplace": lambda x: 0.5 * (1 + torch.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "linear": lambda x: x,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "sqrtsoftplus": lambda x: F.softplus(x).sqrt(),
    "tanh": torch.tanh,
}
ACTIVATION_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    name: _FUNCTIONS.get(ours) or getattr(F, ours) for name, ours in ACTIVATIONS.items()
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
        conv: Callable[..., ConvLayer] = ConvLayer,
    ) -> None:
        super().__init__()
        self.use_residual = stride == 1 and in_channels == out_channels
        self.expand_1x1 = conv(in_channels, expanded_channels, activation=activation)
        self.conv_3x3 = conv(
            expanded_channels,
            expanded_channels,
            3,
            stride=stride,
            dilation=dilation,
            groups=expanded_channels,
            activation=activation,
        )
        self.reduce_1x1 = conv(expanded_channels, out_channels)

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
    config: AnyMobileViTConfig, in_channels: int, out_channels: int, stride: int, dilation: int = 1
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


# A map of N patches with P = patch height x patch width pixels each is regrouped so that attention
# runs across patches, separately for each of the P pixel positions within a patch.


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


def pad_to(x: Tensor, size: Size) -> Tensor:
    """Pad (B, C, h, w) with zeros at the bottom right up to ``size``, where it is smaller."""
    height, width = map_size(x)
    rows, columns = max(size[0] - height, 0), max(size[1] - width, 0)
    return F.pad(x, (0, columns, 0, rows)) if rows or columns else x


def map_size(x: Tensor) -> Size:
    """Return (H, W) of (B, C, H, W)."""
    height, width = static_shape(x)[-2:]
    return height, width


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
