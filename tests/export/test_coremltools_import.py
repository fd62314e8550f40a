"""coremltools after an import by this package: as fast as can be, and whole for everybody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from packages import small_checkpoint

FRAMEWORKS = ("sklearn", "torchvision", "transformers")
# What a process prints that converts, uses coremltools' k-means, and looks at its flags.
CONVERT = """
import sys
from mvit_coreml import ConvertOptions, convert, load_checkpoint
checkpoint = load_checkpoint(sys.argv[1])
convert(checkpoint, ConvertOptions(bits=None), sys.argv[2] + "/x.mlpackage", check=False)
print(*(name for name in ("sklearn", "torchvision", "transformers") if name in sys.modules))
"""
FLAGS = """
import coremltools, sys
import coremltools.optimize.torch
for name, module in sorted(sys.modules.items()):
    if name.startswith("coremltools"):
        names = {*dir(module), "_HAS_HF", "_HAS_SKLEARN", "_HAS_TORCH_VISION", "_SKLEARN_VERSION"}
        for flag in sorted(names):
            if "_HAS_" in flag or flag == "_SKLEARN_VERSION":
                print(name, flag, getattr(module, flag, "missing"))
"""
KMEANS = """
import coremltools
from coremltools.optimize.coreml import (
    OpPalettizerConfig, OptimizationConfig, palettize_weights
)
package = coremltools.models.MLModel(sys.argv[2] + "/x.mlpackage", skip_model_load=True)
configuration = OptimizationConfig(OpPalettizerConfig(mode="kmeans", nbits=4))
palettized = palettize_weights(package, configuration)
print("constexpr_lut_to_dense" in str(palettized._mil_program))
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What that process prints: the frameworks loaded, the success of k-means, the flags."""
    folder = tmp_path_factory.mktemp("conversion")
    small_checkpoint("mobilenet_v2").save_pretrained(folder / "source")
    return run(CONVERT + KMEANS + FLAGS, folder / "source", folder)


def run(script: str, *arguments: object) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()


def test_a_conversion_loads_no_framework_that_it_does_not_use(printed: list[str]) -> None:
    assert printed[0] == ""


def test_the_flags_of_coremltools_are_what_they_would_have_been(printed: list[str]) -> None:
    expected = run(FLAGS)
    assert "coremltools._deps _HAS_HF True" in expected
    assert printed[2:] == expected


def test_k_means_of_coremltools_works_afterwards(printed: list[str]) -> None:
    pytest.importorskip("sklearn")
    assert printed[1] == "True"


def test_frameworks_that_others_import_meanwhile_are_not_kept_from_them(tmp_path: Path) -> None:
    """Only import statements of coremltools itself are refused."""
    (tmp_path / "torchaudio.py").write_text("import sklearn\n")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from mvit_coreml.export.coremltools_import import load_coremltools;"
        "load_coremltools(); print('sklearn' in sys.modules, 'torchaudio' in sys.modules)"
    )
    pytest.importorskip("sklearn")
    assert run(script, tmp_path) == ["True True"]
