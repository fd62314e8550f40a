"""A package's plan: written beside it, leads to the same bytes again, and can be edited.

Package and plan appear together or not at all, and nothing is replaced unasked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from packages import read_tree, small_checkpoint

from mvit_coreml import ConvertOptions, convert
from mvit_coreml.errors import InputError, MvitCoremlError
from mvit_coreml.export import atomic_package
from mvit_coreml.inspection.package_contents import inspect_package

FAMILY = "mobilenet_v2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    package = convert(small_checkpoint(FAMILY), ConvertOptions(), folder / "first.mlpackage")
    assert package.plan == folder / "first.plan.toml"
    return folder


def test_a_plan_leads_to_the_same_bytes(folder: Path) -> None:
    options = ConvertOptions(plan=folder / "first.plan.toml")
    package = convert(small_checkpoint(FAMILY), options, folder / "again.mlpackage", check=False)
    assert read_tree(package.path) == read_tree(folder / "first.mlpackage")


def test_a_plan_says_what_was_asked_and_what_was_measured(folder: Path) -> None:
    text = (folder / "first.plan.toml").read_text()
    assert "bits = 6" in text
    size = sum(len(content) for content in read_tree(folder / "first.mlpackage").values())
    assert f"size = {size}" in text
    assert "snr = " in text


def test_an_edited_plan_is_carried_out(folder: Path) -> None:
    edited = folder / "edited.toml"
    edited.write_text((folder / "first.plan.toml").read_text().replace("bits = 6,", "bits = 4,"))
    package = convert(
        small_checkpoint(FAMILY), ConvertOptions(plan=edited), folder / "edited.mlpackage"
    )
    weights = inspect_package(package.path).weights
    assert {group.bits for group in weights if group.bits < 16} == {4}
    assert package.size < sum(len(c) for c in read_tree(folder / "first.mlpackage").values())


def test_a_plan_of_other_weights_is_refused(folder: Path) -> None:
    other = small_checkpoint("mobilevitv2")
    with pytest.raises(InputError, match="the model has no such weight") as caught:
        convert(
            other,
            ConvertOptions(plan=folder / "first.plan.toml"),
            folder / "other.mlpackage",
            check=False,
        )
    assert "\n" not in str(caught.value)
    assert not (folder / "other.mlpackage").exists()


@pytest.mark.parametrize("options", [{"bits": 3}, {"bits": 4, "group_size": 8}])
def test_newer_targets_hold_three_bits_and_groups(folder: Path, options: dict[str, int]) -> None:
    path = folder / f"{len(options)}.mlpackage"
    package = convert(small_checkpoint(FAMILY), ConvertOptions(ios=18, **options), path)
    assert package.parity is not None
    assert package.parity.differences == ()
    assert np.isfinite(package.parity.scores.snr)


def test_an_existing_plan_is_kept_without_force(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan.toml"
    plan.write_text("mine")
    for bits in (6, None):
        with pytest.raises(InputError, match=r"x\.plan\.toml: exists already.*use --force"):
            convert(small_checkpoint(FAMILY), ConvertOptions(bits=bits), tmp_path / "x.mlpackage")
    assert read_tree(tmp_path) == {"x.plan.toml": b"mine"}


def test_existing_values_are_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "x.plan.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"x\.plan\.safetensors: exists already"):
        convert(small_checkpoint(FAMILY), ConvertOptions(), tmp_path / "x.mlpackage")
    assert read_tree(tmp_path) == {"x.plan.safetensors": b"mine"}


def test_a_plan_that_lies_where_it_belongs_stays_as_it_is(folder: Path, tmp_path: Path) -> None:
    plan = tmp_path / "first.plan.toml"
    plan.write_text("# mine\n" + (folder / "first.plan.toml").read_text())
    before = plan.read_bytes()
    package = convert(
        small_checkpoint(FAMILY), ConvertOptions(plan=plan), tmp_path / "first.mlpackage"
    )
    assert package.plan == plan
    assert plan.read_bytes() == before
    assert read_tree(package.path) == read_tree(folder / "first.mlpackage")


def test_the_plan_of_a_replaced_package_goes_with_it(folder: Path, tmp_path: Path) -> None:
    existing = a_package_with_its_plan(folder, tmp_path)
    (tmp_path / "first.plan.safetensors").write_text("old values")
    package = convert(small_checkpoint(FAMILY), ConvertOptions(bits=None), existing, force=True)
    assert package.plan is None
    assert list(tmp_path.iterdir()) == [existing]


def test_values_that_the_new_plan_does_not_need_go(folder: Path, tmp_path: Path) -> None:
    existing = a_package_with_its_plan(folder, tmp_path)
    (tmp_path / "first.plan.safetensors").write_text("old values")
    convert(small_checkpoint(FAMILY), ConvertOptions(bits=4), existing, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"first.mlpackage", "first.plan.toml"}
    assert "bits = 4" in (tmp_path / "first.plan.toml").read_text()


@pytest.mark.parametrize("bits", [4, None])
def test_package_and_plan_stay_as_they_were_if_one_cannot_be_put_in_place(
    bits: int | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    existing = a_package_with_its_plan(folder, tmp_path)
    (tmp_path / "first.plan.safetensors").write_text("old values")
    before = read_tree(tmp_path)

    def fail(package: Path, destination: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(atomic_package, "publish", fail)
    with pytest.raises(MvitCoremlError, match="cannot be written: Input/output error"):
        convert(small_checkpoint(FAMILY), ConvertOptions(bits=bits), existing, force=True)
    assert read_tree(tmp_path) == before


def test_a_plan_that_cannot_be_written_leaves_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvit_coreml.compression import plan_file

    def fail(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan_file, "write_atomically", fail)
    with pytest.raises(MvitCoremlError, match="No space left on device"):
        convert(small_checkpoint(FAMILY), ConvertOptions(), tmp_path / "x.mlpackage", check=False)
    assert list(tmp_path.iterdir()) == []


def a_package_with_its_plan(folder: Path, target: Path) -> Path:
    shutil.copytree(folder / "first.mlpackage", target / "first.mlpackage")
    shutil.copy(folder / "first.plan.toml", target)
    return target / "first.mlpackage"
