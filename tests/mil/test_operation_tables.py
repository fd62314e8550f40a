"""The tables of operations in the documentation are those of the registry."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_tables_are_current(ct: Any) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "runtime_operations.py"))
    page = (ROOT / "docs" / "runtime.md").read_text(encoding="utf-8")
    (written,) = script["TABLES"].findall(page)
    assert written == script["operation_tables"](), "run: python scripts/runtime_operations.py"
