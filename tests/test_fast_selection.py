"""What `make test-fast` runs is some of every folder, and nothing that is gone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from file_order import LONGEST

ROOT = Path(__file__).resolve().parents[1]
SELECTED = (Path(__file__).with_name("fast.txt")).read_text(encoding="utf-8").splitlines()
FOLDERS = sorted(path.parent.name for path in (ROOT / "mvit_coreml").glob("*/__init__.py"))


@pytest.mark.parametrize("folder", [*FOLDERS, "golden", "swift"])
def test_every_folder_is_touched(folder: str) -> None:
    assert [line for line in SELECTED if f"{line}/".startswith(f"tests/{folder}/")]


def test_every_selected_test_exists() -> None:
    assert len(set(SELECTED)) == len(SELECTED)
    for line in SELECTED:
        path, _, name = line.partition("::")
        assert (ROOT / path).exists(), line
        if name:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            assert name.partition("[")[0] in functions, line


def test_files_that_start_first_exist() -> None:
    assert [path for path in LONGEST if not (ROOT / path).is_file()] == []
