"""Models with random weights that behave like trained ones, and pictures to feed them.

Default initialisation lets activations vanish, and comparing vanishing numbers proves nothing.
These weights are Kaiming-normal with batch-norm statistics taken from a forward pass. Scales are
small beside shifts, which keeps rounding errors from being amplified through the depth.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvit_coreml.models.config import (
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    ModelConfig,
    Task,
)

XXS = {
    "hidden_sizes": (64, 80, 96),
    "neck_hidden_sizes": (16, 16, 24, 48, 64, 80, 320),
    "expand_ratio": 2.0,
}
XS = {"hidden_sizes": (96, 120, 144), "neck_hidden_sizes": (16, 32, 48, 64, 80, 96, 384)}
VOC = {index: f"class {index}" for index in range(21)}
IMAGENET = {index: f"class {index}" for index in range(1000)}
IMAGENET_1001 = {index: f"class {index}" for index in range(1001)}

# name: (configuration, task, input size), as published.
PUBLISHED: dict[str, tuple[ModelConfig, Task, int]] = {
    **{
        f"mobilevit-{name}": (
            MobileViTConfig(id2label=IMAGENET, **fields),
            "image-classification",
            256,
        )
        for name, fields in (("xx-small", XXS), ("x-small", XS), ("small", {}))
    },
    **{
        f"deeplabv3-mobilevit-{name}": (
            MobileViTConfig(id2label=VOC, output_stride=16, image_size=512, **fields),
            "semantic-segmentation",
            512,
        )
        for name, fields in (("xx-small", XXS), ("x-small", XS), ("small", {}))
    },
    **{
        f"mobilevitv2-{width}": (
            MobileViTV2Config(id2label=IMAGENET, width_multiplier=width),
            "image-classification",
            256,
        )
        for width in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    },
    "mobilevitv2-1.0-voc-deeplabv3": (
        MobileViTV2Config(id2label=VOC, output_stride=16, image_size=512),
        "semantic-segmentation",
        512,
    ),
    **{
        f"mobilenet_v2_{width}_{size}": (
            MobileNetV2Config(id2label=IMAGENET_1001, depth_multiplier=width, image_size=size),
            "image-classification",
            size,
        )
        for width, size in ((1.4, 224), (1.0, 224), (0.75, 160), (0.35, 96))
    },
    "deeplabv3_mobilenet_v2_1.0_513": (
        MobileNetV2Config(id2label=VOC, output_stride=8, image_size=513),
        "semantic-segmentation",
        513,
    ),
}


# One quick configuration of each family.
SMALL: tuple[ModelConfig, ...] = (
    MobileViTConfig(**XXS),
    MobileViTV2Config(width_multiplier=0.5),
    MobileNetV2Config(depth_multiplier=0.35),
)


def pictures(count: int, size: tuple[int, int], seed: int = 0, channels: int = 3) -> Tensor:
    """Return (count, channels, *size) textures in [0, 1] with a natural, 1/f-like spectrum."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, channels, *size)
    for side in (1, 2, 4, 8, 16, 32, 64):
        noise = torch.randn(count, channels, side, side, generator=generator)
        total += F.interpolate(noise, size=size, mode="bicubic", align_corners=False) / side**0.5
    low, high = total.amin((1, 2, 3), keepdim=True), total.amax((1, 2, 3), keepdim=True)
    return (total - low) / (high - low)


def enliven(model: nn.Module, size: tuple[int, int], seed: int = 0, channels: int = 3) -> None:
    """Give ``model`` weights under which images lead to clearly different outputs."""
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.4, 0.8, generator=generator)
            nn.init.normal_(module.bias, 0.8, 0.3, generator=generator)
    momenta = [norm.momentum for norm in norms]
    training = [m for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)]
    rates = [dropout.p for dropout in training]
    for norm in norms:
        norm.momentum = 1.0
    for dropout in training:
        dropout.p = 0.0
    model.train()
    with torch.no_grad():
        model(pictures(16, (min(size[0], 128), min(size[1], 128)), seed, channels))
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for dropout, rate in zip(training, rates, strict=True):
        dropout.p = rate


def reference(config: ModelConfig, task: Task, size: tuple[int, int], seed: int = 0) -> Any:
    """Return transformers' own model for a configuration, enlivened."""
    import transformers

    name = transformers_name(config, task)
    config_class = getattr(transformers, f"{config.architecture_prefix}Config")
    fields = config.to_dict()
    fields.pop("model_type")
    fields["id2label"] = dict(config.id2label)
    model = getattr(transformers, name)(config_class(**fields))
    enliven(model, size, seed, config.num_channels)
    return model


def transformers_name(config: ModelConfig, task: Task) -> str:
    suffixes = {
        "backbone": "Model",
        "image-classification": "ForImageClassification",
        "semantic-segmentation": "ForSemanticSegmentation",
    }
    return config.architecture_prefix + suffixes[task]


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute expected value."""
    assert value.shape == expected.shape
    assert torch.isfinite(expected).all()
    assert expected.abs().max() > 1e-3, "the reference output vanishes"
    return float((value - expected).abs().max() / expected.abs().max())
