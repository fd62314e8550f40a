"""Fixtures shared by all tests, the order of the files, and when garbage is looked for."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_order import LONGEST, is_fast

ROOT = Path(__file__).resolve().parents[1]
# Torch, coremltools, transformers and the tests are a million objects that stay. Python would
# search them again and again, a quarter of the time that tests take: they are set aside.
gc.disable()
_ALLOCATIONS = (10_000, 10, 10)
_collect = gc.collect


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files without fast tests unread where only those are asked for: imports take long."""
    if not config.option.markexpr.startswith("fast") or collection_path.suffix != ".py":
        return None
    return not is_fast(collection_path) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the files that take longest to the front; all else keeps its order."""
    ranks = {ROOT / path: rank for rank, path in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_collection_finish() -> None:
    """Look for garbage from now on, but not for all of it after every conversion.

    coremltools would, which takes a good part of a small conversion.
    """
    gc.collect = lambda generation=2: 0
    gc.set_threshold(*_ALLOCATIONS)
    gc.enable()


def pytest_unconfigure() -> None:
    """Have everything freed at the end, which extension modules check."""
    gc.collect = _collect
    gc.unfreeze()


@pytest.fixture(scope="module", autouse=True)
def _what_stays_is_set_aside() -> None:
    """Leave to the collector what a file of tests makes, and nothing that was there before."""
    _collect()
    gc.freeze()


@pytest.fixture(scope="module")
def conversions_shared() -> Iterator[None]:
    """Let each checkpoint be traced and converted once, not for every test.

    For files whose tests are about what becomes of the package after that.
    """
    from package_cache import plain_package, plain_package_to_read

    from mvit_coreml.workflows import convert, measure_tradeoff, validate

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate, "build_plain_package", plain_package_to_read)
        for module in (convert, measure_tradeoff):
            patch.setattr(module, "build_plain_package", plain_package)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with trained checkpoints and labelled images, named by ``MVIT_TEST_DATA``."""
    folder = os.environ.get("MVIT_TEST_DATA")
    if not folder:
        pytest.skip(
            "needs trained checkpoints and photos, and MVIT_TEST_DATA names no folder of them"
        )
    path = Path(folder)
    assert path.is_dir(), f"MVIT_TEST_DATA names {path}, which is no folder"
    return path
