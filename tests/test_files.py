"""Files appear whole or not at all, and values as JSON can hold them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mvit_coreml.files import json_value, write_atomically

pytestmark = pytest.mark.fast


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.txt", b"")
    finally:
        os.umask(previous)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_moved_into_place_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@dataclass
class Facts:
    path: Path
    ratios: tuple[float, ...]
    counts: dict[int, np.int64]


def test_values_become_those_of_json_and_paths_their_last_part_unless_they_stay_here() -> None:
    facts = Facts(Path("/home/me/a.txt"), (1.5, float("inf"), float("nan")), {3: np.int64(7)})
    values = {"path": "a.txt", "ratios": [1.5, None, None], "counts": {"3": 7}}
    assert json_value(facts) == values
    assert json_value([facts], whole_paths=True) == [values | {"path": "/home/me/a.txt"}]
    assert json_value(np.array([[1.0, np.nan]])) == [[1.0, None]]
