"""Networks of timm and torchvision that have nothing to do with this project's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
import torchvision
from standins import enliven
from timm.utils.model import reparameterize_model
from torch import Tensor, nn


class _Detector(nn.Module):
    """The part of torchvision's SSDlite before its boxes are decoded: class scores and offsets."""

    def __init__(self) -> None:
        super().__init__()
        model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=21
        )
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map (1, 3, H, W) to (1, boxes, 21) scores and (1, boxes, 4) offsets."""
        found = self.head(list(self.backbone(x).values()))
        return {"scores": found["cls_logits"], "boxes": found["bbox_regression"]}


def _timm(name: str, *, fuse: bool = False, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = timm.create_model(name, pretrained=False, **options)
        _enliven(model, 128)
        return reparameterize_model(model) if fuse else model

    return build


def _torchvision(build: Callable[[], nn.Module], size: int) -> Callable[[], nn.Module]:
    def lively() -> nn.Module:
        model = build()
        _enliven(model, size)
        return model

    return lively


def _enliven(model: nn.Module, size: int) -> None:
    """Give a network weights under which images lead to clearly different outputs."""
    for name, parameter in model.named_parameters():
        # Blocks that are all but left out when training begins.
        if name.rsplit(".", 1)[-1] in ("gamma", "layer_scale"):
            nn.init.constant_(parameter, 0.5)
        elif name.endswith("pos_embed"):
            nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    enliven(model, (size, size))


def _segmenter(name: str) -> Callable[[], nn.Module]:
    build = getattr(torchvision.models.segmentation, name)
    return lambda: build(weights=None, weights_backbone=None, num_classes=21)


# name: builds a network with lively random weights, size of its input in pixels, its task.
ZOO: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    "MobileNetV3-Large": (_timm("mobilenetv3_large_100"), 128, "classes"),
    "MobileNetV4-Conv-S": (_timm("mobilenetv4_conv_small"), 128, "classes"),
    "EfficientNet-Lite0": (_timm("efficientnet_lite0"), 128, "classes"),
    "MobileOne-S0, fused": (_timm("mobileone_s0", fuse=True), 128, "classes"),
    "RepVGG-A0, fused": (_timm("repvgg_a0", fuse=True), 128, "classes"),
    "FastViT-T8, fused": (_timm("fastvit_t8", fuse=True), 128, "classes"),
    "ConvNeXt-Atto": (_timm("convnext_atto"), 128, "classes"),
    "ViT-Tiny/16": (_timm("vit_tiny_patch16_224", img_size=128), 128, "classes"),
    "ResNet-18": (_timm("resnet18"), 128, "classes"),
    "RegNetY-200MF": (_timm("regnety_002"), 128, "classes"),
    "GhostNet-1.0": (_timm("ghostnet_100"), 128, "classes"),
    "LR-ASPP MobileNetV3": (
        _torchvision(_segmenter("lraspp_mobilenet_v3_large"), 128),
        128,
        "map",
    ),
    "DeepLabV3 MobileNetV3": (
        _torchvision(_segmenter("deeplabv3_mobilenet_v3_large"), 128),
        128,
        "map",
    ),
    "SSDlite MobileNetV3": (_torchvision(_Detector, 160), 160, "boxes"),
}
