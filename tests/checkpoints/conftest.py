"""Random models of transformers and timm: the independent references for loading."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

TINY_V1 = {
    "hidden_sizes": [16, 24, 32],
    "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32],
    "image_size": 64,
}


def enliven(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every weight and statistic a value of its own, so that no two can be confused."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if "running_var" in name or (tensor.ndim == 1 and "weight" in name):
            tensor.copy_(1 + 0.2 * noise.tanh())
        elif tensor.ndim > 1:
            tensor.copy_(noise * tensor[0].numel() ** -0.5)
        else:
            tensor.copy_(0.1 * noise)
    return model.eval()


@pytest.fixture(scope="session")
def build_hf() -> Callable[..., Any]:
    """Return a builder of transformers models: (class name, config fields) → model."""

    def build(name: str, **fields: Any) -> Any:
        cls = getattr(transformers, name)
        defaults: dict[str, Any] = {"num_labels": 7}
        if name.startswith("MobileViTFor") or name == "MobileViTModel":
            defaults |= TINY_V1
        elif name.startswith("MobileViTV2"):
            defaults |= {"width_multiplier": 0.25, "image_size": 64}
        else:
            defaults |= {"depth_multiplier": 0.25, "image_size": 64}
        return enliven(cls(cls.config_class(**defaults | fields)))

    return build


@pytest.fixture
def save_hf(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of Hugging Face folders: (model, options) → folder."""

    def save(model: Any, *, processor: bool = True, **config_changes: Any) -> Path:
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        if processor:
            data = {"image_processor_type": "MobileViTImageProcessor", "do_resize": True}
            data |= {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
            data |= {"do_flip_channel_order": True, "do_rescale": True, "do_center_crop": True}
            (folder / "preprocessor_config.json").write_text(json.dumps(data))
        if config_changes:
            config = json.loads((folder / "config.json").read_text())
            for key, value in config_changes.items():
                config.pop(key, None) if value is None else config.update({key: value})
            (folder / "config.json").write_text(json.dumps(config))
        return folder

    return save


@pytest.fixture
def edit_weights() -> Callable[[Path, Callable[[dict[str, Tensor]], Any]], None]:
    """Return a function that changes the weights of a folder in place."""
    from safetensors.torch import load_file

    def edit(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
        path = folder / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return edit


@pytest.fixture(scope="session")
def image() -> Callable[..., Tensor]:
    """Return a maker of reproducible (1, 3, size, size) inputs."""

    def make(size: int = 64) -> Tensor:
        return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))

    return make


@pytest.fixture(scope="session")
def rebuilt() -> Callable[..., Any]:
    """Return a builder of a transformers model from a checkpoint that was loaded."""

    def build(checkpoint: Any) -> Any:
        from mvit_coreml.models.config import architecture_name

        cls = getattr(transformers, architecture_name(checkpoint.config, checkpoint.task))
        model = cls(cls.config_class(**checkpoint.config.to_dict()))
        model.load_state_dict(checkpoint.weights, strict=True)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def assert_close() -> Callable[[Tensor, Tensor, float], None]:
    """Return a check that two outputs agree relative to the largest expected value."""

    def check(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
        assert actual.shape == expected.shape
        assert (actual - expected).abs().max() <= tolerance * expected.abs().max()

    return check


@pytest.fixture(scope="session")
def random_timm() -> Callable[..., Any]:
    """Return a builder of timm models with random weights."""
    import timm

    def build(name: str, **options: Any) -> Any:
        return enliven(timm.create_model(name, pretrained=False, **options))

    return build


@pytest.fixture
def save_timm(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of timm hub folders, as timm itself writes them."""
    from timm.models._hub import save_for_hf

    def save(model: Any, changes: Mapping[str, Any] | None = None) -> Path:
        folder = tmp_path / "timm-model"
        save_for_hf(model, folder, safe_serialization=True)
        if changes:
            config = json.loads((folder / "config.json").read_text())
            (folder / "config.json").write_text(json.dumps(config | dict(changes)))
        return folder

    return save
