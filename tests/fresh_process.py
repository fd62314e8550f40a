"""A process of its own, which imports one part after another and converts: run once for all.

What is loaded already cannot be seen to be loaded by what comes next, and a process that imports
torch and coremltools takes seconds: the parts come in the order in which they need more.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from packages import session_folder, small_checkpoint

from mvit_coreml import ConvertOptions

SEGMENTER = "semantic-segmentation"
# Family, task and options of what is converted, by the package's name.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "classifier": ("mobilevit", "image-classification", {"bits": None}),
    # Of several sizes, with palettes.
    "palettes": (
        "mobilenet_v2",
        SEGMENTER,
        {"bits": 4, "kmeans_only": True, "ios": 18, "image_sizes": ((64, 64), (96, 64))},
    ),
}
# What coremltools believes to be installed.
FLAGS = """
import coremltools, json, sys
import coremltools.optimize.torch
flags = []
for name, module in sorted(sys.modules.items()):
    if name.startswith("coremltools"):
        names = {*dir(module), "_HAS_HF", "_HAS_SKLEARN", "_HAS_TORCH_VISION", "_SKLEARN_VERSION"}
        for flag in sorted(names):
            if "_HAS_" in flag or flag == "_SKLEARN_VERSION":
                flags.append(f"{name} {flag} {getattr(module, flag, 'missing')}")
"""
_SCRIPT = (
    """
import pickle, sys
from pathlib import Path
folder, kept = Path(sys.argv[1]), {}

from mvit_coreml.mil.kernels import find_kernel
assert find_kernel("softmax", 17) and not find_kernel("unheard_of", 17)
kept["kernels"] = [name for name in sys.modules if name.startswith("mvit_coreml.mil.kernels.")]

from mvit_coreml import load_checkpoint
load_checkpoint(folder / "source")
kept["after_loading"] = sorted({"transformers", "timm", "coremltools"} & set(sys.modules))

from mvit_coreml.mil.package_reader import model_messages
messages = model_messages()
kept["after_messages"] = sorted({"coremltools"} & set(sys.modules))

from mvit_coreml.reports.report import build_report
from mvit_coreml.reports.write_report import write_report
kept["after_reports"] = sorted({"matplotlib"} & set(sys.modules))

from mvit_coreml import convert
for name, (checkpoint, options) in pickle.loads((folder / "cases").read_bytes()).items():
    convert(checkpoint, options, folder / f"{name}.mlpackage", check=False)
kept["after_converting"] = sorted({"sklearn", "torchvision", "transformers"} & set(sys.modules))

import coremltools
model = messages.Model(specificationVersion=7)
again = coremltools.proto.Model_pb2.Model.FromString(model.SerializeToString())
kept["messages"] = [again.specificationVersion, type(again) is type(model)]

from coremltools.optimize.coreml import (
    OpPalettizerConfig, OptimizationConfig, palettize_weights
)
package = coremltools.models.MLModel(str(folder / "classifier.mlpackage"), skip_model_load=True)
configuration = OptimizationConfig(OpPalettizerConfig(mode="kmeans", nbits=4))
palettized = palettize_weights(package, configuration)
kept["kmeans"] = "constexpr_lut_to_dense" in str(palettized._mil_program)
"""
    + FLAGS
    + """
(folder / "kept.json").write_text(json.dumps(kept | {"flags": flags}))
"""
)


@dataclass(frozen=True, kw_only=True)
class FreshProcess:
    """What the process left.

    Attributes:
        folder: with a package for each of :data:`CASES`.
        kernels: modules that were loaded for one operation.
        after_loading: of libraries that a checkpoint is not loaded with, those that were.
        after_messages: the same of the package's messages.
        after_reports: the same of the modules that write reports.
        after_converting: of frameworks that coremltools would import, those that were.
        messages: a version that went from our message class to coremltools', which may import it
            later, and whether both are one class.
        kmeans: whether coremltools' k-means palettized.
        flags: those of :data:`FLAGS`.
    """

    folder: Path
    kernels: list[str]
    after_loading: list[str]
    after_messages: list[str]
    after_reports: list[str]
    after_converting: list[str]
    messages: list[Any]
    kmeans: bool
    flags: list[str]


def fresh_process(tmp_path_factory: pytest.TempPathFactory) -> FreshProcess:
    """Return the process of this test session; the first worker that asks runs it."""
    shared = session_folder(tmp_path_factory)
    folder = shared / "fresh-process"
    with FileLock(shared / "fresh-process.lock"):
        if not (folder / "kept.json").is_file():
            folder.mkdir(exist_ok=True)
            _run(folder)
    return FreshProcess(folder=folder, **json.loads((folder / "kept.json").read_text()))


def _run(folder: Path) -> None:
    asked = {
        name: (small_checkpoint(family, task), ConvertOptions(**options))
        for name, (family, task, options) in CASES.items()
    }
    (folder / "cases").write_bytes(pickle.dumps(asked))
    small_checkpoint("mobilevit").save_pretrained(folder / "source")
    # With hashes, and so sets, of its own.
    seed = str(int(os.environ.get("PYTHONHASHSEED", "random") == "1") + 1)
    subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder)],
        env=os.environ | {"PYTHONHASHSEED": seed},
        check=True,
    )
