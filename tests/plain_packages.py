"""Packages as users of coremltools make them: by a plain script, without this project."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from standins import pictures
from torch import Tensor, nn

from mvit_coreml.export.coremltools_import import load_coremltools, quiet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Side of the input of :class:`SmallNetwork`, in pixels, and its number of classes.
SIDE, CLASSES = 32, 10


class Plain(nn.Module):
    """A network behind ImageNet's normalization, with its results as a tuple.

    Args:
        model: the network.
        softmax: whether the first result is to be probabilities.
    """

    def __init__(self, model: nn.Module, softmax: bool = False) -> None:
        super().__init__()
        self.model, self.softmax = model, softmax
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, x: Tensor) -> Any:
        """Map (1, 3, H, W) from 0 to 1 to one result or a tuple of them."""
        result = self.model((x - self.mean) / self.std)
        if isinstance(result, dict):
            result = tuple(result.values())
        if isinstance(result, list | tuple):
            return result[0] if len(result) == 1 else tuple(result)
        return result.softmax(1) if self.softmax else result


class SmallNetwork(nn.Module):
    """Convolutions, a block of attention and linear layers: quick, and of no family known here.

    Args:
        boxes: whether it has a second result of other units, four numbers.
        channels: of the image, 3 or 1.
    """

    def __init__(self, boxes: bool = False, channels: int = 3) -> None:
        super().__init__()
        self.boxes = boxes
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 32, 3, 2, 1),
            nn.BatchNorm2d(32),
            nn.Hardswish(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        )
        self.norm = nn.LayerNorm(64)
        self.qkv, self.projection = nn.Linear(64, 192), nn.Linear(64, 64)
        self.head, self.box_head = nn.Linear(64, CLASSES), nn.Linear(64, 4)
        generator = torch.Generator().manual_seed(0)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Any:
        """Map (1, channels, 32, 32) to (1, 10) scores, and (1, 4) boxes."""
        tokens = self.norm(self.stem(x).flatten(2).transpose(1, 2))
        query, key, value = (
            self.qkv(tokens).reshape(1, 64, 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.projection(seen.transpose(1, 2).reshape(1, 64, 64))
        pooled = tokens.mean(1)
        return (self.head(pooled), 100 * self.box_head(pooled)) if self.boxes else self.head(pooled)


class Restyled(nn.Module):
    """A picture to a picture, as style transfer has it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3, padding=1), nn.ReLU()
        )
        self.last = nn.Conv2d(24, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map (1, 3, H, W) from 0 to 1 to values from 0 to 255."""
        return self.last(self.layers(x)).sigmoid() * 255


def write_photos(folder: Path, count: int, size: tuple[int, int] = (40, 56)) -> list[Path]:
    """Write pictures with a natural spectrum, and return their files in order."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:03}.png" for index in range(count)]
    for file, picture in zip(files, pictures(count, size, seed=5), strict=True):
        pixels = (picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(file)
    return files


@contextlib.contextmanager
def numpy_casts() -> Iterator[None]:
    """Let coremltools' conversion of torch work with NumPy 2.4.

    Its integer cast calls ``int()`` on arrays of one element, which that refuses.
    """
    load_coremltools()
    from coremltools.converters.mil.frontend.torch import ops

    original = ops._cast

    def cast(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        value = context[node.inputs[0]]
        if isinstance(value.val, np.ndarray) and value.val.size == 1:
            from coremltools.converters.mil.mil import Builder

            constant = Builder.const(val=dtype(value.val.item()), name=node.name)
            context.add(constant, node.name)
        else:
            original(context, node, dtype, dtype_name)

    ops._cast = cast
    try:
        yield
    finally:
        ops._cast = original


def convert_plainly(
    module: nn.Module,
    size: int,
    path: Path,
    *,
    ios: int = 17,
    precision: str = "fp16",
    labels: Sequence[str] | None = None,
    outputs: Sequence[str] = (),
    image: str | None = "RGB",
    image_output: bool = False,
    arrays: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """Convert as a user of coremltools would, with its default passes and names.

    Args:
        module: takes (1, channels, size, size) from 0 to 1.
        size: of the input in pixels.
        path: of the package.
        ios: deployment target.
        precision: ``fp16`` or ``fp32``.
        labels: make it a classifier with these.
        outputs: names of the results; coremltools' own by default.
        image: colour layout of the image, ``RGB``, ``BGR`` or ``GRAYSCALE``; an array if ``None``.
        image_output: let the result be an image.
        arrays: names and shapes of further inputs.
    """
    ct = load_coremltools()
    shape = (1, 1 if image == "GRAYSCALE" else 3, size, size)
    options: dict[str, Any] = {"inputs": [ct.TensorType("image", shape=shape)]}
    if image is not None:
        layout = getattr(ct.colorlayout, image)
        kind = ct.ImageType("image", shape=shape, scale=1 / 255, color_layout=layout)
        options["inputs"] = [kind]
    further = (arrays or {}).items()
    options["inputs"] += [ct.TensorType(name, shape=one) for name, one in further]
    if image_output:
        options["outputs"] = [ct.ImageType("picture", color_layout=ct.colorlayout.RGB)]
    if labels is not None:
        options["classifier_config"] = ct.ClassifierConfig(list(labels))
    if outputs:
        options["outputs"] = [ct.TensorType(name) for name in outputs]
    examples = tuple(torch.rand(one) for one in (shape, *(arrays or {}).values()))
    with quiet(), torch.no_grad(), numpy_casts():
        traced = torch.jit.trace(module.eval(), examples, check_trace=False)
        model = ct.convert(
            traced,
            minimum_deployment_target=getattr(ct.target, f"iOS{ios}"),
            compute_precision=getattr(ct.precision, f"FLOAT{precision[2:]}"),
            skip_model_load=True,
            **options,
        )
        model.save(str(path))
    return path


def compress_plainly(package: Path, kind: str, path: Path) -> Path:
    """Compress a package as a user of coremltools would.

    Args:
        package: to compress.
        kind: ``4-bit palettes`` or ``8-bit linear``.
        path: of the result.
    """
    ct = load_coremltools()
    with quiet():
        import coremltools.optimize.coreml as cto

        model = ct.models.MLModel(str(package), skip_model_load=True)
        if kind == "4-bit palettes":
            config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="kmeans", nbits=4))
            model = cto.palettize_weights(model, config)
        else:
            linear = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
            model = cto.linear_quantize_weights(model, cto.OptimizationConfig(linear))
        model.save(str(path))
    return path


def decompress_plainly(package: Path, path: Path) -> Path:
    """Decompress a package's weights as a user of coremltools would."""
    ct = load_coremltools()
    with quiet():
        import coremltools.optimize.coreml as cto

        model = ct.models.MLModel(str(package), skip_model_load=True)
        cto.decompress_weights(model).save(str(path))
    return path
