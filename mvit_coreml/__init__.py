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
    from mvit_coreml.evaluation.accuracy import evaluate
    from mvit_coreml.inspection.diff import compare_packages
    from mvit_coreml.inspection.package_contents import inspect_package
    from mvit_coreml.models.build import build_model
    from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig, MobileViTV2Config
    from mvit_coreml.models.folding import prepare_for_export
    from mvit_coreml.preprocessing.image_processor import ImageProcessor
    from mvit_coreml.reports.build_report import build_report
    from mvit_coreml.reports.contents import Report
    from mvit_coreml.reports.write import write_report
    from mvit_coreml.validation.answer_comparison import ParityReport
    from mvit_coreml.validation.open_targets import open_targets
    from mvit_coreml.workflows.convert import ConvertedPackage, convert
    from mvit_coreml.workflows.options import ConvertOptions, PaletteOptions
    from mvit_coreml.workflows.palettize import PalettizedPackage, palettize_package
    from mvit_coreml.workflows.tradeoff.curve import Tradeoff
    from mvit_coreml.workflows.tradeoff.files import write_tradeoff
    from mvit_coreml.workflows.tradeoff.tradeoff import measure_tradeoff
    from mvit_coreml.workflows.validate import validate

    __version__: str

# Public name to the module that defines it.
_MODULES = {
    "Checkpoint": "checkpoints.checkpoint",
    "ConvertOptions": "workflows.options",
    "ConvertedPackage": "workflows.convert",
    "ImageProcessor": "preprocessing.image_processor",
    "MobileNetV2Config": "models.config",
    "MobileViTConfig": "models.config",
    "MobileViTV2Config": "models.config",
    "MvitCoremlError": "errors",
    "PaletteOptions": "workflows.options",
    "PalettizedPackage": "workflows.palettize",
    "ParityReport": "validation.answer_comparison",
    "Report": "reports.contents",
    "Tradeoff": "workflows.tradeoff.curve",
    "build_model": "models.build",
    "build_report": "reports.build_report",
    "compare_packages": "inspection.diff",
    "convert": "workflows.convert",
    "evaluate": "evaluation.accuracy",
    "inspect_package": "inspection.package_contents",
    "load_checkpoint": "checkpoints.load",
    "measure_tradeoff": "workflows.tradeoff.tradeoff",
    "open_targets": "validation.open_targets",
    "palettize_package": "workflows.palettize",
    "prepare_for_export": "models.folding",
    "validate": "workflows.validate",
    "write_report": "reports.write",
    "write_tradeoff": "workflows.tradeoff.files",
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
