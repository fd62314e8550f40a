"""The compiled search for partitions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numba
import pytest

from mvit_coreml.compression import optimal_partition as partition


def test_functions_compile_where_no_folder_for_the_cache_is_writable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def njit(**options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    # Only for this module: numba uses its own njit while it compiles.
    monkeypatch.setattr(partition, "numba", SimpleNamespace(njit=njit))

    def double(number: int) -> int:
        return number * 2

    compiled: Any = partition._compiled(double)
    assert compiled(21) == 42
    assert compiled.nopython_signatures
