"""Small torch models with an image input, converted by coremltools alone, and pictures for them."""

from __future__ import annotations

import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction
from mvit_coreml.export.coremltools_import import load_coremltools, quiet
from mvit_coreml.mil.package_reader import load_package

SIZE = (12, 10)
SCALE, BIAS = 1 / 127.5, -1.0
_FOLDER = tempfile.TemporaryDirectory(prefix="functions-")


class Small(nn.Module):
    """A layer of every kind, with and without bias; from what the package receives to scores."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 12, (3, 1), padding=(2, 0), dilation=(2, 1), groups=2)
        self.expand = nn.Conv2d(12, 16, 1, bias=False)
        self.head = nn.Linear(16, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, H, W) from 0 to 255 to (N, classes)."""
        x = torch.nn.functional.silu(self.stem(pixels * SCALE + BIAS))
        x = torch.nn.functional.silu(self.depthwise(x))
        x = torch.nn.functional.silu(self.grouped(x))
        x = torch.nn.functional.relu(self.expand(x)).mean((2, 3))
        return self.head(x)


class SmallMap(nn.Module):
    """A map of scores, without and with enlargement to the size of the input."""

    def __init__(self, enlarge: bool = True) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.head = nn.Conv2d(6, 4, 1)
        self.enlarge = enlarge

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, H, W) from 0 to 255 to (N, 4, H, W), or half as large."""
        x = self.head(torch.nn.functional.silu(self.stem(pixels * SCALE + BIAS)))
        if self.enlarge:
            x = nn.functional.interpolate(x, SIZE, mode="bilinear", align_corners=False)
        return x


class Pooled(nn.Module):
    """A convolution whose map is averaged, each position with the weight it is given."""

    def __init__(self, places: Tensor, bias: bool = True) -> None:
        super().__init__()
        self.only = nn.Conv2d(3, 4, 1, bias=bias)
        self.register_buffer("places", places)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, H, W) from 0 to 255 to (N, 4)."""
        return (self.only(pixels / 255) * self.places).mean((2, 3))


class SharedParameters(nn.Module):
    """A convolution used twice, and two whose bias is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.left, self.right = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.right.bias = self.left.bias

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, H, W) from 0 to 255 to (N, 6)."""
        x = torch.nn.functional.silu(self.stem(pixels * SCALE + BIAS))
        x = torch.nn.functional.silu(self.twice(x))
        x = torch.nn.functional.silu(self.twice(x))
        return self.right(torch.nn.functional.silu(self.left(x))).mean((2, 3))


class Products(nn.Module):
    """Weights whose output channels do not lie on the first axis; each of few distinct values.

    Each group of output channels, whose size is in ``GROUP_SIZES``, holds four values of its own.
    """

    GROUP_SIZES: ClassVar = {"up_weight": 2, "right": 5, "left": 3}
    AXES: ClassVar = {"up_weight": 1, "right": 2, "left": 1}

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 8, 2, stride=2)
        self.right = nn.Parameter(torch.zeros(1, 6, 20))
        self.left = nn.Parameter(torch.zeros(1, 12, 20))

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (N, 3, H, W) from 0 to 255 to (N, 20)."""
        x = torch.nn.functional.silu(self.stem(pixels * SCALE + BIAS))
        products = torch.relu(x.flatten(2).transpose(1, 2) @ self.right)
        products = (self.left @ products.transpose(1, 2)).mean(2)
        return torch.cat([products, self.up(x).mean((2, 3))], 1)


def lively(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give a module weights that keep signals alive, and biases that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 10
            parameter.copy_(drawn * (2.5 / fan_in) ** 0.5)
    return module.eval()


@cache
def small(classes: int = 5) -> nn.Module:
    """Return the small classifier."""
    return lively(Small(classes))


@cache
def small_map(enlarge: bool = True) -> nn.Module:
    """Return the small segmenter."""
    return lively(SmallMap(enlarge))


@cache
def shared_parameters() -> nn.Module:
    """Return the model whose layers share parameters."""
    return lively(SharedParameters())


@cache
def few_valued_products() -> nn.Module:
    """Return the model whose output channels lie on other axes than the first."""
    module = lively(Products())
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            stored = name.replace(".", "_")
            if stored not in Products.AXES:
                continue
            axis = Products.AXES[stored]
            groups = parameter.shape[axis] // Products.GROUP_SIZES[stored]
            parts = [
                rng.choice(rng.standard_normal(4), part.shape)
                for part in np.split(parameter.numpy(), groups, axis)
            ]
            parameter.copy_(torch.from_numpy(np.concatenate(parts, axis)))
    return module


def package_of(module: nn.Module, output: str = "logits", precision: str = "fp32") -> Path:
    """Convert a module, whose input becomes an image, by coremltools' plain route."""
    ct = load_coremltools()
    with torch.no_grad(), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        model = ct.convert(
            torch.jit.trace(module, torch.zeros(1, 3, *SIZE), check_trace=False),
            inputs=[ct.ImageType("image", (1, 3, *SIZE))],
            outputs=[ct.TensorType(output)],
            minimum_deployment_target=ct.target.iOS18,
            compute_precision={"fp16": ct.precision.FLOAT16, "fp32": ct.precision.FLOAT32}[
                precision
            ],
            skip_model_load=True,
        )
    path = Path(_FOLDER.name) / f"{len(list(Path(_FOLDER.name).iterdir()))}.mlpackage"
    model.save(str(path))
    return path


@cache
def function_of(
    module: nn.Module, output: str = "logits", precision: str = "fp32"
) -> DifferentiableFunction:
    """Return a converted module as a function of its constants."""
    return DifferentiableFunction(load_package(package_of(module, output, precision)))


def parameter_names(function: DifferentiableFunction, module: nn.Module) -> dict[str, str]:
    """Return the name of each parameter of a module among a function's constants."""
    return {
        name: next(
            stored
            for stored in function.constants
            if stored.removesuffix("_to_fp16") == name.replace(".", "_")
        )
        for name, _ in module.named_parameters()
    }


def pictures(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> list[np.ndarray]:
    """Return (H, W, 3) uint8 pictures that differ in colour, brightness, and coarse shape."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = rng.uniform(0, 255, 3) + 60 * rng.standard_normal((4, 4, 3))
        rows, columns = (np.arange(extent) * 4 // extent for extent in size)
        fine = coarse[rows][:, columns] + 20 * rng.standard_normal((*size, 3))
        found.append(fine.clip(0, 255).astype(np.uint8))
    return found
