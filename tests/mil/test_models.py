"""Whole networks, converted and saved, beside PyTorch.

Besides the project's own export: coremltools' plain conversions of transformers' and timm's
modules, and networks of other families, so that the runtime is not tuned to one kind of graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from standins import (
    IMAGENET,
    PUBLISHED,
    SMALL,
    VOC,
    XXS,
    enliven,
    pictures,
    reference,
)
from torch import Tensor, nn

from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.models.base import build_model
from mvit_coreml.models.config import (
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    ModelConfig,
    Task,
)
from mvit_coreml.models.folding import prepare_for_export

Convert = Callable[..., Path]
SEGMENTERS: tuple[ModelConfig, ...] = (
    MobileViTConfig(id2label=VOC, output_stride=16, **XXS),
    MobileViTV2Config(id2label=VOC, output_stride=16, width_multiplier=0.5),
    MobileNetV2Config(id2label=VOC, output_stride=8, depth_multiplier=0.35),
)
TIMM = ("mobilevit_xxs", "mobilevitv2_050", "mobilenetv2_050")
STRANGERS = ("mobilenetv3_small_050", "mobilenetv3_large_100", "efficientnet_b0")


class FirstOutput(nn.Module):
    """A model whose result is one tensor, for tracing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        result = self.model(x)
        return getattr(result, "logits", result)


def outputs(
    module: nn.Module, path: Path, x: Tensor, arithmetic: str = "program"
) -> tuple[np.ndarray, np.ndarray]:
    """What the saved package and PyTorch give for ``x``."""
    with torch.no_grad():
        expected = FirstOutput(module.eval())(x).numpy()
    runtime = Runtime(load_package(path), arithmetic=arithmetic)  # type: ignore[arg-type]
    return runtime.run({"x": x})["y"], expected


def worst(value: np.ndarray, expected: np.ndarray) -> float:
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / np.abs(expected).max())


def half_precision(module: nn.Module, x: Tensor) -> np.ndarray:
    """What PyTorch itself computes in fp16: the measure of what rounding costs a network."""
    with torch.no_grad():
        result = FirstOutput(module.half())(x.half()).float().numpy()
    module.float()
    return result


@pytest.mark.parametrize(
    ("config", "precision"),
    [
        (SMALL[2], "fp32"),
        (SMALL[2], "fp16"),
        # tests/validation/test_decoded_weights.py compares packages of all families with PyTorch.
        *(pytest.param(config, "fp16", marks=pytest.mark.slow) for config in SMALL[:2]),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_exported_model_runs_like_its_reference(
    convert: Convert, config: ModelConfig, precision: str, snr: Callable[..., float]
) -> None:
    labelled = dataclasses.replace(config, id2label=IMAGENET)
    check_export(convert, labelled, "image-classification", 64, precision, snr)


def check_export(
    convert: Convert,
    config: ModelConfig,
    task: Task,
    size: int,
    precision: str,
    snr: Callable[..., float],
) -> None:
    model = build_model(config, task)
    enliven(model, (size, size))
    x = pictures(1, (size, size), seed=3)
    opset = 16 if precision == "fp32" else 17
    exported = FirstOutput(prepare_for_export(model))
    value, expected = outputs(model, convert(exported, x, opset, precision), x)
    check_bound(exported, x, value, expected, precision, snr)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_architecture_runs_like_its_reference(
    convert: Convert, name: str, precision: str, snr: Callable[..., float]
) -> None:
    check_export(convert, *PUBLISHED[name], precision, snr)


def check_plain(
    convert: Convert,
    module: nn.Module,
    size: int,
    opset: int,
    precision: str,
    snr: Callable[..., float],
) -> None:
    x = pictures(1, (size, size), seed=3)
    path = convert(FirstOutput(module), x, opset, precision)
    value, expected = outputs(module, path, x)
    check_bound(module, x, value, expected, precision, snr)


def check_bound(
    module: nn.Module,
    x: Tensor,
    value: np.ndarray,
    expected: np.ndarray,
    precision: str,
    snr: Callable[..., float],
) -> None:
    """Hold fp32 to 1e-4 and fp16 to 45 dB, or to what torch's own fp16 reaches.

    Random segmenters amplify rounding: rounding nothing but their weights can cost more.
    """
    if precision == "fp32":
        assert worst(value, expected) <= 1e-4
        return
    found = snr(value, expected)
    assert found >= 45 or found >= snr(half_precision(module, x), expected) - 2


PLAIN = [(16, "fp32"), (15, "fp16"), (17, "fp16"), (18, "fp16")]


def test_plain_conversion_of_transformers_mobilevitv2_runs_like_it(
    convert: Convert, snr: Callable[..., float]
) -> None:
    config = MobileViTV2Config(id2label=IMAGENET, width_multiplier=0.5, image_size=64)
    model = reference(config, "image-classification", (64, 64))
    check_plain(convert, model, 64, 16, "fp32", snr)


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "precision"), PLAIN)
@pytest.mark.parametrize("config", [*SMALL, *SEGMENTERS], ids=lambda c: type(c).__name__)
def test_plain_conversion_of_transformers_runs_like_it(
    convert: Convert,
    config: ModelConfig,
    opset: int,
    precision: str,
    snr: Callable[..., float],
) -> None:
    task: Task = "semantic-segmentation" if config in SEGMENTERS else "image-classification"
    model = reference(config, task, (128, 128))
    check_plain(convert, model, 128, opset, precision, snr)


def test_plain_conversion_of_a_stranger_runs_like_it(
    convert: Convert, snr: Callable[..., float]
) -> None:
    model = timm.create_model(STRANGERS[0], num_classes=10)
    enliven(model, (64, 64))
    check_plain(convert, model, 64, 16, "fp32", snr)


@pytest.mark.slow
@pytest.mark.parametrize(("opset", "precision"), PLAIN)
@pytest.mark.parametrize("name", [*TIMM, *STRANGERS, "tf_efficientnet_b0"])
def test_plain_conversion_of_timm_runs_like_it(
    convert: Convert, name: str, opset: int, precision: str, snr: Callable[..., float]
) -> None:
    model = timm.create_model(name, num_classes=10)
    enliven(model, (128, 128))
    check_plain(convert, model, 128, opset, precision, snr)


class Ordinary(nn.Module):
    """Operations that the networks above lack but conversions of their relatives have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches = nn.Conv2d(3, 8, 3, padding=1)
        self.group_norm = nn.GroupNorm(2, 8)
        self.instance_norm = nn.InstanceNorm2d(8, affine=True)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.register_buffer("order", torch.tensor([2, 0, 5, 1]))

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, 16, 16) to a vector."""
        x = nn.functional.hardswish(self.group_norm(self.patches(x)))
        columns = nn.functional.unfold(x, 2, stride=2)
        x = nn.functional.fold(columns.softmax(1), (16, 16), 2, stride=2)
        x = self.instance_norm(x) + nn.functional.max_pool2d(x, 3, 1, 1)
        x = nn.functional.mish(self.up(x))
        x = nn.functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)
        x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        x = nn.functional.interpolate(x, (20, 12), mode="bilinear", align_corners=True)
        x = x[:, self.order][:, :, 1:-1, ::2].flip(1)
        x = torch.where(x > 0, x.clamp(max=0.9), torch.exp(x) - 1)
        x = torch.cat([x.amax(-1), x.amin(-1), x.std(-1)], 1)
        x = torch.einsum("bij,bkj->bik", x, x / (1 + x.norm(dim=-1, keepdim=True)))
        x = torch.stack([x.sum(1), x.tanh().cumsum(1).mean(1)], 2).flatten(1)
        return nn.functional.pad(x, (1, 2), value=0.5)


@pytest.mark.parametrize(("opset", "precision"), PLAIN)
def test_ordinary_operations_of_torch_run_like_it(
    convert: Convert, opset: int, precision: str, snr: Callable[..., float]
) -> None:
    check_plain(convert, Ordinary().eval(), 16, opset, precision, snr)
