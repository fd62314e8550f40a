"""An exact, folded, inference-only copy of a model: what is converted to Core ML.

Every rewrite keeps the function and only changes how it is computed: batch norms and the affines
of normalisations go into the convolutions beside them, query, key and value become one 1x1
convolution, image pooling is added instead of being upsampled and concatenated. Linear layers
inside the transformer become 1x1 convolutions, the layout the Neural Engine prefers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.models.base import Model, SemanticSegmenter
from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig, MobileViTV2Config
from mvit_coreml.models.deeplab import ASPP, DeepLabV3Plus
from mvit_coreml.models.layers import (
    ChannelNorm,
    ConvLayer,
    Stack,
    map_size,
    normalize_channels,
    pad_to,
    static_shape,
)

if TYPE_CHECKING:
    from mvit_coreml.models import mobilevit

ModelT = TypeVar("ModelT", bound=Model[Any])


def prepare_for_export(model: ModelT) -> ModelT:
    """Return a copy of ``model`` that computes the same outputs with fewer operations.

    The copy is in eval mode, has no gradients, and cannot be saved as a checkpoint. The argument
    is not changed.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(folded.config, MobileViTConfig):
        _fold_mobilevit(folded)
    elif isinstance(folded.config, MobileViTV2Config):
        _fold_mobilevitv2(folded)
    for module in list(folded.modules()):
        if isinstance(module, ConvLayer):
            _fold_batch_norm(module)
    for module in list(folded.modules()):
        for name, child in module.named_children():
            if isinstance(child, ASPP):
                setattr(module, name, FoldedASPP(child))
            elif isinstance(child, DeepLabV3Plus):
                setattr(module, name, FoldedDeepLabV3Plus(child))
            elif isinstance(child, nn.Dropout | nn.Dropout2d):
                setattr(module, name, nn.Identity())
    if isinstance(folded, SemanticSegmenter) and isinstance(folded.config, MobileNetV2Config):
        folded.backbone.register_module("conv_1x1", None)  # feeds nothing in a segmenter
    return folded


class Normalization(nn.Module):
    """A normalisation whose affine went into the layer that follows.

    Args:
        normalize: computes it from a tensor and the epsilon.
        eps: added to the variance.
    """

    def __init__(self, normalize: Callable[[Tensor, float], Tensor], eps: float) -> None:
        super().__init__()
        self.normalize, self.eps = normalize, eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise over the axes of the function."""
        return self.normalize(x, self.eps)


def normalize_map(x: Tensor, eps: float) -> Tensor:
    """Normalise (B, C, P, N) over C, P and N together without an affine."""
    return F.layer_norm(x, static_shape(x)[1:], eps=eps)


class FoldedTransformerLayer(nn.Module):
    """A MobileViT transformer layer made of four 1x1 convolutions."""

    def __init__(self, layer: mobilevit.TransformerLayer) -> None:
        super().__init__()
        attention = layer.attention.attention
        self.num_heads = attention.num_heads
        self.norm_before = Normalization(normalize_channels, layer.layernorm_before.eps)
        self.norm_after = Normalization(normalize_channels, layer.layernorm_after.eps)
        self.qkv = _merged_qkv(attention)
        _fold_affine(layer.layernorm_before, self.qkv)
        self.proj = _pointwise_conv(layer.attention.output["dense"])
        self.fc1 = _pointwise_conv(layer.intermediate["dense"])
        _fold_affine(layer.layernorm_after, self.fc1)
        self.activation = layer.activation
        self.fc2 = _pointwise_conv(layer.output["dense"])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, 1, N) to (B, C, 1, N)."""
        x = x + self.proj(self._attend(self.qkv(self.norm_before(x))))
        return x + self.fc2(self.activation(self.fc1(self.norm_after(x))))

    def _attend(self, qkv: Tensor) -> Tensor:
        batch, channels, _, count = static_shape(qkv)  # channels: see _merged_qkv
        heads = self.num_heads
        dim = channels // (3 * heads)
        qkv = qkv.reshape(batch * heads, 3 * dim, count)
        query, key, value = torch.split(qkv, dim, dim=1)  # (B * heads, dim, N)
        # Keys along axis 1, which the Neural Engine is said to take a softmax over best.
        attention = (key.transpose(-1, -2) @ query).softmax(dim=1)  # (B * heads, keys, queries)
        return (value @ attention).reshape(batch, channels // 3, 1, count)


class FoldedProjection(nn.Module):
    """The last 1x1 convolution of a MobileViTV2 block after folding.

    Attributes:
        remainder: (1, C, 1, 1) output where the map had no whole patch: the folded normalisation
            shifted only the positions that it normalised.
    """

    def __init__(self, convolution: nn.Conv2d, remainder: Tensor) -> None:
        super().__init__()
        self.convolution = convolution
        remainder = remainder.to(convolution.weight.dtype)
        self.register_buffer("remainder", remainder[None, :, None, None])

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (B, dim, h, w) to (B, out_channels, *size)."""
        x = self.convolution(x)
        height, width = map_size(x)
        if height >= size[0] and width >= size[1]:
            return x
        remainder = cast(Tensor, self.remainder)
        return pad_to(x - remainder, size) + remainder


class FoldedASPP(nn.Module):
    """ASPP whose image-level branch is added to the projection, not upsampled beside the others."""

    def __init__(self, aspp: ASPP) -> None:
        super().__init__()
        *branches, self.pool = aspp.convs
        self.convs = nn.ModuleList(branches)
        pooled_channels = aspp.project.convolution.in_channels // len(aspp.convs)
        self.project, self.project_pool = _split_input(aspp.project, -pooled_channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, aspp_out_channels, H, W)."""
        pyramid = torch.cat([conv(features) for conv in self.convs], dim=1)
        return F.relu(self.project(pyramid) + self.project_pool(self.pool(features)))


class FoldedDeepLabV3Plus(nn.Module):
    """The MobileNetV2 head without its concatenation."""

    def __init__(self, head: DeepLabV3Plus) -> None:
        super().__init__()
        self.conv_pool, self.conv_aspp = head.conv_pool, head.conv_aspp
        self.project_pool, self.project = _split_input(head.conv_projection, head.channels)
        self.classifier = head.classifier

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to logits (B, num_labels, H, W)."""
        pooled = self.conv_pool(features.mean(dim=(-2, -1), keepdim=True))
        merged = self.project(self.conv_aspp(features)) + self.project_pool(pooled)
        return self.classifier(F.relu(merged))


def _fold_mobilevit(model: Model[Any]) -> None:
    from mvit_coreml.models.mobilevit import MobileViTBlock, TransformerLayer

    for block in list(model.modules()):
        if not isinstance(block, MobileViTBlock):
            continue
        norm = cast(ChannelNorm, block.layernorm)
        _fold_affine(norm, block.conv_projection.convolution)
        block.layernorm = Normalization(normalize_channels, norm.eps)
        layers = (cast(TransformerLayer, layer) for layer in block.transformer.layer)
        block.transformer = Stack(FoldedTransformerLayer(layer) for layer in layers)


def _fold_mobilevitv2(model: Model[Any]) -> None:
    from mvit_coreml.models.mobilevitv2 import MobileViTV2Block, SeparableTransformerLayer

    for module in list(model.modules()):
        if isinstance(module, SeparableTransformerLayer):
            before, after = module.layernorm_before, module.layernorm_after
            assert isinstance(before, nn.GroupNorm)
            assert isinstance(after, nn.GroupNorm)
            _fold_affine(before, module.attention.qkv_proj.convolution)
            _fold_affine(after, module.ffn.conv1.convolution)
            module.layernorm_before = Normalization(normalize_map, before.eps)
            module.layernorm_after = Normalization(normalize_map, after.eps)
        elif isinstance(module, MobileViTV2Block):
            norm, projection = module.layernorm, module.conv_projection
            assert isinstance(norm, nn.GroupNorm)
            assert isinstance(projection, ConvLayer)
            _fold_batch_norm(projection)
            unshifted = _bias(projection.convolution).clone()
            _fold_affine(norm, projection.convolution)
            module.layernorm = Normalization(normalize_map, norm.eps)
            module.conv_projection = FoldedProjection(projection.convolution, unshifted)


def _fold_batch_norm(layer: ConvLayer) -> None:
    norm, conv = layer.normalization, layer.convolution
    if norm is None:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * scale
    _set(conv, conv.weight.double() * scale[:, None, None, None], _bias(conv) * scale + shift)
    layer.normalization = None


def _fold_affine(norm: nn.LayerNorm | nn.GroupNorm, conv: nn.Conv2d) -> None:
    """Move the scale and shift of a normalisation into the 1x1 convolution that follows."""
    weight = conv.weight.double()
    shift = weight[:, :, 0, 0] @ norm.bias.double()
    _set(conv, weight * norm.weight.double()[None, :, None, None], _bias(conv) + shift)


def _merged_qkv(attention: mobilevit.SelfAttention) -> nn.Conv2d:
    """Query, key and value as one 1x1 convolution, the attention's scale in the query.

    Its output channels are ordered by head, then query, key and value, then channel of the head,
    so that splitting them needs no heads in an axis of their own.
    """
    heads = attention.num_heads
    scale = 1 / math.sqrt(attention.query.out_features // heads)
    parts = [_pointwise_conv(part) for part in (attention.query, attention.key, attention.value)]
    weights = [part.weight.double() for part in parts]
    biases = [_bias(part) for part in parts]
    weights[0], biases[0] = weights[0] * scale, biases[0] * scale
    dtype = attention.query.weight.dtype

    def by_head(tensors: list[Tensor]) -> Tensor:
        # (heads, channels of one, …) each
        parted = [one.reshape(heads, -1, *one.shape[1:]) for one in tensors]
        stacked = torch.stack(parted, dim=1)
        return stacked.flatten(0, 2).to(dtype)

    return _conv_1x1(by_head(weights), by_head(biases))


def _pointwise_conv(linear: nn.Module) -> nn.Conv2d:
    assert isinstance(linear, nn.Linear)
    return _conv_1x1(linear.weight[:, :, None, None], linear.bias)


def _split_input(layer: ConvLayer, at: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Split a 1x1 convolution over its input channels; the sum of both equals the original."""
    conv = layer.convolution
    return _conv_1x1(conv.weight[:, :at], conv.bias), _conv_1x1(conv.weight[:, at:], None)


def _conv_1x1(weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=bias is not None)
    conv.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias, requires_grad=False)
    return conv


def _bias(conv: nn.Conv2d) -> Tensor:
    """The bias in float64, zero where there is none."""
    if conv.bias is None:
        return conv.weight.new_zeros(conv.out_channels, dtype=torch.float64)
    return conv.bias.double()


def _set(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)
