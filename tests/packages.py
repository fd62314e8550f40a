"""Small checkpoints, the packages they convert to, and independent readers of saved packages."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from package_cache import converted_package
from PIL import Image
from standins import enliven

from mvit_coreml import Checkpoint, ConvertedPackage, ConvertOptions, build_model
from mvit_coreml.checkpoints.checkpoint import Provenance
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig, MobileViTV2Config
from mvit_coreml.preprocessing.image_processor import ImageProcessor

# The classes of the small classifiers; two stand twice, as in ImageNet.
LABELS = ("background", "tench", "crane", "maillot", "ox", "crane", "maillot")
LAYOUT_OPS = frozenset(
    {
        "reshape",
        "transpose",
        "split",
        "concat",
        "slice_by_index",
        "slice_by_size",
        "expand_dims",
        "squeeze",
    }
)
NORM_OPS = frozenset({"layer_norm", "instance_norm", "batch_norm", "l2_norm"})

_SMALL_CONFIGS: dict[str, Any] = {
    "mobilevit": lambda **more: MobileViTConfig(
        hidden_sizes=(16, 24, 32),
        neck_hidden_sizes=(8, 8, 8, 16, 16, 16, 32),
        image_size=64,
        **more,
    ),
    "mobilevitv2": lambda **more: MobileViTV2Config(width_multiplier=0.25, image_size=64, **more),
    "mobilenet_v2": lambda **more: MobileNetV2Config(depth_multiplier=0.25, image_size=64, **more),
}


def make_checkpoint(
    config: Any, task: str, size: int, processor: ImageProcessor | None = None, name: str = "small"
) -> Checkpoint:
    """Return a checkpoint of a lively random model."""
    model = build_model(config, task)
    enliven(model, (size, size))
    if processor is None:
        preset = (
            ImageProcessor.for_mobilenet_v2
            if config.model_type == "mobilenet_v2"
            else ImageProcessor.for_mobilevit
        )
        processor = preset(image_size=size)
    return Checkpoint(
        config=config,
        task=task,
        weights=model.state_dict(),
        image_processor=processor,
        provenance=Provenance(
            name=name, format="huggingface", revision=None, sha256="5" * 64, files=()
        ),
    )


@cache
def small_checkpoint(
    family: str, task: str = "image-classification", size: int = 64, **changes: Any
) -> Checkpoint:
    """Return a family's smallest useful model of ``size`` pixels."""
    fields: dict[str, Any] = {"id2label": dict(enumerate(LABELS))} | changes
    if task == "semantic-segmentation":
        fields = {"output_stride": 16} | fields
    config = _SMALL_CONFIGS[family](**fields)
    return make_checkpoint(config, task, size, name=f"owner/{family}")


@cache
def converted(
    family: str, task: str = "image-classification", **options: Any
) -> tuple[ConvertedPackage, SavedPackage]:
    """Convert a small checkpoint once for all tests.

    Weights are not palettized by default, and with a number of bits by k-means alone.
    """
    alone = isinstance(options.get("bits"), int)
    chosen = ConvertOptions(**{"bits": None, "kmeans_only": alone} | options)
    package = converted_package(small_checkpoint(family, task), chosen)
    return package, SavedPackage(package.path)


class SavedPackage:
    """A package as it is on disk, read with coremltools alone.

    Attributes:
        path: the package.
        spec: its specification, a protobuf message.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = load_coremltools().models.MLModel(str(path), skip_model_load=True).get_spec()

    @property
    def size(self) -> int:
        """Sum of the sizes of all files, in bytes."""
        return sum(len(content) for content in self.files().values())

    def files(self) -> dict[str, bytes]:
        """Path inside the package to content."""
        return read_tree(self.path)

    def census(self, function: str = "main") -> dict[str, int]:
        """Operation to how often it occurs, the most frequent first; constants are left out."""
        return dict(Counter(op.type for op in self._operations(function)).most_common())

    def ranks(self, function: str = "main") -> set[int]:
        """Ranks of all intermediate tensors."""
        return {
            output.type.tensorType.rank
            for op in self._operations(function)
            for output in op.outputs
            if output.type.WhichOneof("type") == "tensorType"
        }

    def program(self, function: str = "main") -> list[Any]:
        """Operations of a function with their weights, in order, constants left out."""
        load_coremltools()
        from coremltools.converters.mil.frontend.milproto.load import load

        weights = self.path / "Data/com.apple.CoreML/weights"
        program = load(self.spec, self.spec.specificationVersion, str(weights))
        return [op for op in program.functions[function].operations if op.op_type != "const"]

    @property
    def user_defined(self) -> dict[str, str]:
        """The metadata's keys and values."""
        return dict(self.spec.description.metadata.userDefined)

    def interface(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Output to its type and shape, as the specification declares them."""
        return {feature.name: _type(feature) for feature in self.spec.description.output}

    def _operations(self, function: str) -> Iterator[Any]:
        body = self.spec.mlProgram.functions[function]
        for op in body.block_specializations[body.opset].operations:
            if op.type != "const":
                yield op


def _type(feature: Any) -> tuple[str, tuple[int, ...]]:
    kind = feature.type.WhichOneof("Type")
    if kind != "multiArrayType":
        return kind.removesuffix("Type"), ()
    array = feature.type.multiArrayType
    return array.ArrayDataType.Name(array.dataType).lower(), tuple(array.shape)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, by its path inside it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this test session that all its workers share."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


def noise(size: tuple[int, int], spread: float = 60) -> Image.Image:
    """Return a gray RGB picture of a width and height, of noise that is the same every time."""
    values = np.random.default_rng(0).normal(128, spread, size[::-1]).clip(0, 255)
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def image(size: tuple[int, int] = (64, 64), seed: int = 0) -> np.ndarray:
    """Return an (H, W, 3) uint8 RGB image whose three channels differ."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
