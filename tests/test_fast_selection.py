"""What `make test-fast` runs is some of every folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from file_order import LONGEST, is_fast

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = sorted(path.parent.name for path in (ROOT / "mvit_coreml").glob("*/__init__.py"))

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("folder", [*FOLDERS, "golden", "swift"])
def test_every_folder_is_touched(folder: str) -> None:
    assert any(map(is_fast, (ROOT / "tests" / folder).glob("test_*.py")))


def test_files_that_start_first_exist() -> None:
    assert [path for path in LONGEST if not (ROOT / path).is_file()] == []
