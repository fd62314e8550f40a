"""coremltools after an import by this package: as fast as can be, and whole for everybody else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fresh_process import FLAGS, FreshProcess, fresh_process


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FreshProcess:
    return fresh_process(tmp_path_factory)


def run(script: str, *arguments: object) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return process.stdout.splitlines()


def test_a_conversion_loads_no_framework_that_it_does_not_use(fresh: FreshProcess) -> None:
    assert fresh.after_converting == []


def test_the_flags_of_coremltools_are_what_they_would_have_been(
    fresh: FreshProcess,
) -> None:
    expected = run(FLAGS + "print(*flags, sep='\\n')")
    assert "coremltools._deps _HAS_HF True" in expected
    assert fresh.flags == expected


def test_k_means_of_coremltools_works_afterwards(fresh: FreshProcess) -> None:
    pytest.importorskip("sklearn")
    assert fresh.kmeans


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
