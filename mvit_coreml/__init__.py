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
    from mvit_coreml.parity.differences import compare_packages
    from mvit_coreml.parity.evaluation import evaluate
    from mvit_coreml.parity.inspection import inspect_package
    from mvit_coreml.parity.opening import open_targets
    from mvit_coreml.parity.report.building import build_report
    from mvit_coreml.parity.report.contents import Report
    from mvit_coreml.parity.report.writing import write_report
    from mvit_coreml.parity.validation import ParityReport
    from mvit_coreml.pipeline.conversion import ConvertedPackage, convert
    from mvit_coreml.pipeline.options import ConvertOptions, PaletteOptions
    from mvit_coreml.pipeline.repalettizing import PalettizedPackage, palettize_package
    from mvit_coreml.pipeline.tradeoff import measure_tradeoff
    from mvit_coreml.pipeline.tradeoff_curve import Tradeoff
    from mvit_coreml.pipeline.tradeoff_files import write_tradeoff
    from mvit_coreml.pipeline.validation import validate

    __version__: str

# Public name to the module that defines it.
_MODULES = {
    "Checkpoint": "checkpoints.checkpoint",
    "ConvertOptions": "pipeline.options",
    "ConvertedPackage": "pipeline.conversion",
    "ImageProcessor": "imaging.processor",
    "MobileNetV2Config": "models.config",
    "MobileViTConfig": "models.config",
    "MobileViTV2Config": "models.config",
    "MvitCoremlError": "errors",
    "PaletteOptions": "pipeline.options",
    "PalettizedPackage": "pipeline.repalettizing",
    "ParityReport": "parity.validation",
    "Report": "parity.report.contents",
    "Tradeoff": "pipeline.tradeoff_curve",
    "build_model": "models.build",
    "build_report": "parity.report.building",
    "compare_packages": "parity.differences",
    "convert": "pipeline.conversion",
    "evaluate": "parity.evaluation",
    "inspect_package": "parity.inspection",
    "load_checkpoint": "checkpoints.load",
    "measure_tradeoff": "pipeline.tradeoff",
    "open_targets": "parity.opening",
    "palettize_package": "pipeline.repalettizing",
    "prepare_for_export": "models.export",
    "validate": "pipeline.validation",
    "write_report": "parity.report.writing",
    "write_tradeoff": "pipeline.tradeoff_files",
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
    "PaletteOptions",
    "PalettizedPackage",
    "ParityReport",
    "Report",
    "Tradeoff",
    "__version__",
    "build_model",
    "build_report",
    "compare_packages",
    "convert",
    "evaluate",
    "inspect_package",
    "load_checkpoint",
    "measure_tradeoff",
    "open_targets",
    "palettize_package",
    "prepare_for_export",
    "validate",
    "write_report",
    "write_tradeoff",
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
