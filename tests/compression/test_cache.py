"""The cache keeps results, stays within bounds, and never gets in the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mvit_coreml.compression import cache as module
from mvit_coreml.compression.cache import Cache, cache_folder, cache_key, default_cache

pytestmark = pytest.mark.fast

KEY = cache_key("test", 1, "a")
ARRAYS = {"lut": np.arange(6, dtype=np.float16).reshape(2, 3), "scale": np.float32([1.5])}


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert Cache(folder).load(KEY) is None
    Cache(folder).store(KEY, ARRAYS)
    loaded = Cache(folder).load(KEY)
    assert loaded is not None
    assert set(loaded) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype
    assert Cache(folder).load(cache_key("test", 1, "b")) is None
    assert len(list(folder.iterdir())) == 1


def test_keys_depend_on_every_part() -> None:
    array = np.arange(6, dtype=np.float16)
    keys = [
        cache_key(*parts)  # type: ignore[arg-type]
        for parts in (
            ("k", 1, array),
            ("k", 2, array),
            ("l", 1, array),
            ("k", 1, array + 1),
            ("k", 1, array.astype(np.float32)),
            ("k", 1, array.reshape(2, 3)),
            ("k", 1, array, None),
            ("k", 1, array, 0),
            ("k", 1, array, 0.0),
            ("k", 1, array, ""),
            ("k", 1, "ab", "c"),
            ("k", 1, "a", "bc"),
            ("k", 1),
        )
    ]
    assert len(set(keys)) == len(keys)
    assert cache_key("k", 1, array.reshape(3, 2).T) == cache_key(
        "k", 1, array.reshape(3, 2).T.copy()
    )


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_entry_is_forgotten(place: int, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store(KEY, ARRAYS)
    (entry,) = tmp_path.iterdir()
    content = bytearray(entry.read_bytes())
    content[place] ^= 1
    entry.write_bytes(content)
    assert cache.load(KEY) is None
    assert not entry.exists()
    cache.store(KEY, ARRAYS)
    entry.write_bytes(entry.read_bytes()[:50])
    assert cache.load(KEY) is None


def test_a_folder_that_cannot_be_used_is_no_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "below", Path(os.devnull)):
        cache = Cache(folder)
        cache.store(KEY, ARRAYS)
        assert cache.load(KEY) is None
        cache.trim()
    assert file.read_text() == ""


def test_a_read_only_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    cache.store(KEY, ARRAYS)

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("write_bytes", "unlink", "replace", "mkdir"):
        monkeypatch.setattr(Path, name, refuse)
    monkeypatch.setattr(module.os, "utime", refuse)
    assert cache.load(KEY) is not None
    cache.store(cache_key("other", 1), ARRAYS)
    Cache(tmp_path, limit=0).trim()
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 1


def test_the_entries_not_used_for_longest_go_first(tmp_path: Path) -> None:
    keys = [cache_key("test", 1, index) for index in range(5)]
    cache = Cache(tmp_path)
    for age, key in enumerate(keys):
        cache.store(key, ARRAYS)
        os.utime(tmp_path / f"{key}.cached", (1000 + age, 1000 + age))
    size = (tmp_path / f"{keys[0]}.cached").stat().st_size
    assert cache.load(keys[0]) is not None  # now the one used last
    Cache(tmp_path, limit=3 * size).trim()
    assert [cache.load(key) is not None for key in keys] == [True, False, False, True, True]
    Cache(tmp_path, limit=3 * size).trim()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    Cache(tmp_path).store(KEY, ARRAYS)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MVIT_COREML_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="the folder does not follow HOME")
def test_the_folder_is_where_the_system_keeps_caches(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    assert cache_folder() == base / "mvit-coreml"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert cache_folder() == home / "xdg" / "mvit-coreml"


def test_the_user_can_move_the_cache_or_turn_it_off(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVIT_COREML_CACHE", str(home / "mine"))
    assert cache_folder() == home / "mine"
    default_cache().store(KEY, ARRAYS)
    assert default_cache().load(KEY) is not None
    assert (home / "mine").is_dir()
    monkeypatch.setenv("MVIT_COREML_CACHE", "")
    assert cache_folder() is None
    default_cache().store(KEY, ARRAYS)
    assert default_cache().load(KEY) is None
    default_cache().trim()


def test_a_user_without_a_home_has_no_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert cache_folder() is None
