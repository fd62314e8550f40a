"""MobileViT, MobileViTV2 and MobileNetV2 from PyTorch to Core ML, proved to answer alike.

Everything that a script needs is importable from here. Names are loaded when they are first used,
so that ``import mvit_coreml`` itself takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvit_coreml.checkpoints.checkpoint import Checkpoint
    from mvit_coreml.checkpoints.load import load_checkpoint
    from mvit_coreml.errors import MvitCoremlError
    from mvit_coreml.imaging.processor import ImageProcessor
    from mvit_coreml.models.build import build_model
    from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig, MobileViTV2Config
    from mvit_coreml.models.export import prepare_for_export
    from mvit_coreml.pipeline import ConvertedPackage, ConvertOptions, convert

    __version__: str

# Public name to the module that defines it.
_MODULES = {
    "Checkpoint": "checkpoints.checkpoint",
    "ConvertOptions": "pipeline",
    "ConvertedPackage": "pipeline",
    "ImageProcessor": "imaging.processor",
    "MobileNetV2Config": "models.config",
    "MobileViTConfig": "models.config",
    "MobileViTV2Config": "models.config",
    "MvitCoremlError": "errors",
    "build_model": "models.build",
    "convert": "pipeline",
    "load_checkpoint": "checkpoints.load",
    "prepare_for_export": "models.export",
}

__all__ = [
    "Checkpoint",
    "ConvertOptions",
    "ConvertedPackage",
    "ImageProcessor",
    "MobileNetV2Config",
    "MobileViTConfig",
    "MobileViTV2Config",
    "MvitCoremlError",
    "__version__",
    "build_model",
    "convert",
    "load_checkpoint",
    "prepare_for_export",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("mvit-coreml")
    elif name in _MODULES:
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
