"""What is installed: a wheel with all that the package needs and nothing else, of one version."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What no user needs, though it lies beside the code.
NEVER = ("__pycache__", ".pytest_cache", ".DS_Store")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "mvit_coreml", source / "mvit_coreml")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "-q", "-w", str(folder)], cwd=source, capture_output=True, text=True
    )
    if "No module named" in done.stderr or "BackendUnavailable" in done.stderr:
        pytest.skip("the environment has no setuptools to build with")
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "mvit_coreml").rglob("*")
        if file.is_file() and not set(file.parts) & set(NEVER)
    }
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_version_stands_in_one_place(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    text = wheel.read(metadata).decode()
    assert f"\nVersion: {PROJECT['version']}\n" in text
    code = [file.read_text(encoding="utf-8") for file in (ROOT / "mvit_coreml").rglob("*.py")]
    assert not any(re.search(r"^__version__ *=", one, re.MULTILINE) for one in code)
    # Who cites it names the same.
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.+)$", cited, re.MULTILINE) == [PROJECT["version"]]
    assert re.findall(r"^license: (.+)$", cited, re.MULTILINE) == [PROJECT["license"]]


def test_the_command_is_installed_with_it(wheel: zipfile.ZipFile) -> None:
    (points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "mvit-coreml = mvit_coreml.cli:main" in wheel.read(points).decode()
