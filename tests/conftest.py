"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with trained checkpoints and labelled images, named by ``MVIT_TEST_DATA``."""
    folder = os.environ.get("MVIT_TEST_DATA")
    if not folder:
        pytest.skip("MVIT_TEST_DATA is not set")
    path = Path(folder)
    assert path.is_dir(), f"MVIT_TEST_DATA names {path}, which is no folder"
    return path
