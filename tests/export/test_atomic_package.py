"""Packages on disk: all or nothing, and readable by others."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from packages import converted, read_tree, small_checkpoint

from mvit_coreml import ConvertOptions, convert
from mvit_coreml.errors import InputError, MvitCoremlError
from mvit_coreml.export import atomic_package as writer
from mvit_coreml.export.torch_to_mil import writing

OPTIONS = ConvertOptions(bits=None)


@pytest.fixture
def existing(tmp_path):
    """A package that is there already."""
    path = tmp_path / "x.mlpackage"
    shutil.copytree(converted("mobilenet_v2", output="logits")[1].path, path)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.mlmodel", "must end in .mlpackage"),
        ("model", "must end in .mlpackage"),
        ("missing/x.mlpackage", "folder .*missing does not exist; create it"),
        ("/proc/x.mlpackage", "/proc/x.mlpackage: "),
    ],
)
def test_a_destination_that_cannot_be_is_refused_in_one_line(name, message, tmp_path):
    with pytest.raises(MvitCoremlError, match=message) as caught:
        convert(small_checkpoint("mobilenet_v2"), OPTIONS, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="does not exist"):
        writer.check_destination(tmp_path / "file" / "x.mlpackage", force=False)


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    # Permission bits mean nothing to the superuser, whom tests often run as.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="is not writable; choose another"):
        writer.check_destination(tmp_path / "x.mlpackage", force=False)


def test_an_existing_package_is_kept_without_force(existing):
    before = read_tree(existing)
    with pytest.raises(InputError, match="exists already; use --force"):
        convert(small_checkpoint("mobilenet_v2"), OPTIONS, existing)
    assert read_tree(existing) == before


def test_force_replaces_a_package(existing):
    convert(small_checkpoint("mobilenet_v2"), OPTIONS, existing, force=True)
    assert read_tree(existing) == converted("mobilenet_v2")[1].files()
    assert list(existing.parent.iterdir()) == [existing]


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_force_never_replaces_what_is_no_package(kind, tmp_path):
    path = tmp_path / "x.mlpackage"
    if kind == "folder":
        path.mkdir()
        (path / "thesis.txt").write_text("words")
    elif kind == "file":
        path.write_text("words")
    else:
        path.symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="is no package; it is not replaced"):
        convert(small_checkpoint("mobilenet_v2"), OPTIONS, path, force=True)
    assert path.is_symlink() or path.exists()


@pytest.mark.parametrize("exchanges", [True, False])
def test_publishing_over_a_package_leaves_the_new_one_alone(exchanges, tmp_path, monkeypatch):
    if not exchanges:
        monkeypatch.setattr(writer, "_exchange", lambda first, second: False)
    old, new = tmp_path / "x.mlpackage", tmp_path / "staging" / "main.mlpackage"
    for folder, text in ((old, "old"), (new, "new")):
        folder.mkdir(parents=True)
        (folder / "Manifest.json").write_text(text)
    writer.publish(new, old)
    assert read_tree(old) == {"Manifest.json": b"new"}


def test_the_old_package_comes_back_when_the_new_one_cannot_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_exchange", lambda first, second: False)
    old = tmp_path / "x.mlpackage"
    old.mkdir()
    (old / "Manifest.json").write_text("old")
    with pytest.raises(OSError, match="missing"):
        writer.publish(tmp_path / "missing.mlpackage", old)
    assert read_tree(old) == {"Manifest.json": b"old"}


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="has no atomic exchange")
def test_the_exchange_swaps_two_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not writer._exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("the file system cannot exchange")
    assert (tmp_path / "a" / "b").exists()
    assert (tmp_path / "b" / "a").exists()
    assert not writer._exchange(tmp_path / "a", tmp_path / "missing")


def test_the_manifest_names_what_is_there():
    _, package = converted("mobilenet_v2")
    manifest = json.loads(package.files()["Manifest.json"])
    assert manifest["fileFormatVersion"] == "1.0.0"
    entries = manifest["itemInfoEntries"]
    root = entries[manifest["rootModelIdentifier"]]
    assert root["path"] == "com.apple.CoreML/model.mlmodel"
    assert {entry["path"] for entry in entries.values()} == {
        "com.apple.CoreML/model.mlmodel",
        "com.apple.CoreML/weights",
    }
    for identifier, entry in entries.items():
        assert re.fullmatch(r"[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}", identifier)
        assert (package.path / "Data" / entry["path"]).exists()
        assert entry["author"] == "com.apple.CoreML"


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    previous = os.umask(0o022)
    try:
        convert(small_checkpoint("mobilenet_v2"), OPTIONS, tmp_path / "x.mlpackage")
    finally:
        os.umask(previous)
    for path in (tmp_path / "x.mlpackage").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o755 if path.is_dir() else 0o644), path


def test_the_size_is_that_of_all_files():
    result, package = converted("mobilenet_v2")
    assert result.size == sum(len(content) for content in package.files().values())


@pytest.mark.parametrize("function", ["write_bytes", "write_text", "unlink", "rename"])
def test_a_full_disk_is_one_line_and_leaves_nothing(function, tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, function, fail)
    with pytest.raises(
        MvitCoremlError, match=r"x\.mlpackage: cannot be written: No space left on device; free"
    ) as caught:
        convert(small_checkpoint("mobilenet_v2"), OPTIONS, tmp_path / "x.mlpackage")
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_staging_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "mkdtemp", fail)
    with pytest.raises(MvitCoremlError, match="Read-only file system"):
        convert(small_checkpoint("mobilenet_v2"), OPTIONS, tmp_path / "x.mlpackage")


def test_other_errors_than_a_full_disk_are_in_their_own_words(tmp_path):
    with (
        pytest.raises(MvitCoremlError) as caught,
        writer.staging_folder(tmp_path / "x.mlpackage") as folder,
    ):
        (folder / "missing" / "file").write_text("")
    assert str(caught.value).startswith(
        f"{tmp_path / 'x.mlpackage'}: cannot be written: No such file or directory ("
    )
    assert "space" not in str(caught.value)


def test_a_bug_is_no_disk_error():
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"), writing():
        torch.cat([torch.zeros(1, 2), torch.zeros(1, 3)])


@pytest.mark.parametrize(
    "words",
    [
        "[MIL FileWriter]: Unknown error occurred while writing data to the file.",
        "Failed to create data directory at path: /x",
    ],
)
def test_what_the_writers_of_coremltools_say_is_a_disk_error(words):
    with pytest.raises(OSError, match=re.escape(words.rstrip("."))) as caught, writing():
        raise RuntimeError(words)
    assert caught.value.errno == errno.EIO


LIMITED = """
import resource, sys
from pathlib import Path
from mvit_coreml import ConvertOptions, MvitCoremlError, convert, load_checkpoint
source, target, force = sys.argv[1], Path(sys.argv[2]), "force" in sys.argv
checkpoint = load_checkpoint(source)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    convert(checkpoint, ConvertOptions(bits=None), target, force=force)
except MvitCoremlError as error:
    print(error)
"""


def test_a_limit_that_the_weights_exceed_is_one_line_and_keeps_the_old_package(existing):
    """coremltools writes weights in C++, which reports a full disk in its own way."""
    pytest.importorskip("resource")
    folder = existing.parent
    source, temporary = folder / "source", folder / "tmp"
    small_checkpoint("mobilenet_v2").save_pretrained(source)
    temporary.mkdir()
    before = read_tree(existing)
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(source), str(existing), "force"],
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(
        r".*x\.mlpackage: cannot be written: .*FileWriter.* \(is there enough space\?\)\n",
        result.stdout,
    )
    assert result.stderr == ""
    assert read_tree(existing) == before
    assert list(temporary.iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"source", "tmp", "x.mlpackage"}


def test_a_package_that_came_meanwhile_is_not_replaced_without_force(existing, tmp_path):
    before = read_tree(existing)
    made = tmp_path / "made"
    shutil.copytree(existing, made)
    (made / "Manifest.json").write_text("{}")
    plan = tmp_path / "made.toml"
    plan.write_text("new")
    place = tmp_path / "x.plan.toml"
    place.write_text("old")
    with pytest.raises(InputError, match=r"another process has put something there meanwhile"):
        writer.publish_with({place: plan}, made, existing, replace=False)
    assert read_tree(existing) == before
    assert place.read_text() == "old"
    writer.publish_with({place: made.with_name("x.plan.toml")}, made, existing, replace=True)
    assert (existing / "Manifest.json").read_text() == "{}"


def test_what_a_killed_process_left_goes_and_what_a_living_one_holds_stays(tmp_path):
    destination = tmp_path / "x.mlpackage"
    killed, other = tmp_path / ".x.mlpackage.killed", tmp_path / ".x.mlpackage.other"
    for folder in (killed, other):
        folder.mkdir()
    (killed / ".lock").touch()
    # A folder of the same name that is nobody's staging.
    (other / "notes.txt").touch()
    with writer.staging_folder(destination) as held:
        assert not killed.exists()
        with writer.staging_folder(destination):
            assert held.is_dir()
    assert [entry.name for entry in tmp_path.iterdir()] == [other.name]
