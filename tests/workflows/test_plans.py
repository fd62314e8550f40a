"""A package's plan: written beside it, leads to the same bytes again, and can be edited.

Package and plan appear together or not at all, and nothing is replaced unasked.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packages import image, read_tree, small_checkpoint

from mvit_coreml import ConvertOptions, convert
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError, InputError, MvitCoremlError
from mvit_coreml.export import atomic_package
from mvit_coreml.inspection.package_contents import inspect_package

pytestmark = pytest.mark.usefixtures("conversions_shared")

FAMILY = "mobilenet_v2"
# Palettes of k-means alone are quickly found, and what they keep of a random network is no matter.
ANY = Promise(min_snr=-100)
SIX = ConvertOptions(bits=6, kmeans_only=True, promise=ANY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    package = convert(small_checkpoint(FAMILY), SIX, folder / "first.mlpackage")
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
    chosen: dict[str, Any] = {"ios": 18, **options}
    package = convert(small_checkpoint(FAMILY), replace(SIX, **chosen), path)
    assert package.parity is not None
    assert package.parity.differences == ()
    assert np.isfinite(package.parity.scores.snr)


def test_an_existing_plan_is_kept_without_force(tmp_path: Path) -> None:
    plan = tmp_path / "x.plan.toml"
    plan.write_text("mine")
    for bits in (6, None):
        options = ConvertOptions(bits=bits, kmeans_only=bits is not None)
        with pytest.raises(InputError, match=r"x\.plan\.toml: exists already.*use --force"):
            convert(small_checkpoint(FAMILY), options, tmp_path / "x.mlpackage")
    assert read_tree(tmp_path) == {"x.plan.toml": b"mine"}


def test_existing_values_are_kept_without_force(tmp_path: Path) -> None:
    (tmp_path / "x.plan.safetensors").write_text("mine")
    with pytest.raises(InputError, match=r"x\.plan\.safetensors: exists already"):
        convert(small_checkpoint(FAMILY), SIX, tmp_path / "x.mlpackage")
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
    convert(small_checkpoint(FAMILY), replace(SIX, bits=4), existing, force=True)
    assert {path.name for path in tmp_path.iterdir()} == {"first.mlpackage", "first.plan.toml"}
    assert "bits = 4" in (tmp_path / "first.plan.toml").read_text()


@pytest.mark.parametrize("bits", [4, None])
def test_package_and_plan_stay_as_they_were_if_one_cannot_be_put_in_place(
    bits: int | None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    existing = a_package_with_its_plan(folder, tmp_path)
    (tmp_path / "first.plan.safetensors").write_text("old values")
    before = read_tree(tmp_path)

    def fail(package: Path, destination: Path, *, replace: bool) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(atomic_package, "publish", fail)
    options = replace(SIX, bits=bits, kmeans_only=bits is not None)
    with pytest.raises(MvitCoremlError, match="cannot be written: Input/output error"):
        convert(small_checkpoint(FAMILY), options, existing, force=True)
    assert read_tree(tmp_path) == before


def test_a_plan_that_cannot_be_written_leaves_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mvit_coreml import files

    def fail(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_atomically", fail)
    with pytest.raises(MvitCoremlError, match="No space left on device"):
        convert(small_checkpoint(FAMILY), SIX, tmp_path / "x.mlpackage", check=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of one bit, whose package was accepted under a promise that it keeps."""
    path = tmp_path_factory.mktemp("poor") / "poor.mlpackage"
    options = replace(SIX, bits=1, promise=Promise(min_snr=-60, target_size=10_000_000))
    plan = convert(small_checkpoint(FAMILY), options, path).plan
    assert plan is not None
    assert "asked.min_snr = -60" in plan.read_text()
    return plan


def test_a_plan_is_judged_by_what_its_package_was_accepted_under(
    poor: Path, tmp_path: Path
) -> None:
    """And no longer than that by the promise of packages that nothing was asked of."""
    package = convert(small_checkpoint(FAMILY), ConvertOptions(plan=poor), tmp_path / "x.mlpackage")
    assert package.parity is not None
    assert package.parity.promise == Promise(min_snr=-60)
    assert package.parity.answers_alike
    silent = tmp_path / "silent.toml"
    lines = poor.read_text().splitlines(keepends=True)
    silent.write_text("".join(line for line in lines if not line.startswith("asked.")))
    with pytest.raises(GateError, match=r"where at least 22 dB is promised"):
        convert(small_checkpoint(FAMILY), ConvertOptions(plan=silent), tmp_path / "y.mlpackage")


def test_another_promise_than_the_plans_counts_and_is_written_down(
    poor: Path, tmp_path: Path
) -> None:
    stricter = ConvertOptions(plan=poor, promise=Promise(min_snr=50))
    with pytest.raises(GateError, match=r"not written, as it keeps .* at least 50 dB is promised"):
        convert(small_checkpoint(FAMILY), stricter, tmp_path / "x.mlpackage")
    assert list(tmp_path.iterdir()) == []
    smaller = ConvertOptions(plan=poor, promise=Promise(target_size=1000))
    with pytest.raises(GateError, match=r"takes .* kB, where at most 1\.00 kB is promised"):
        convert(small_checkpoint(FAMILY), smaller, tmp_path / "x.mlpackage")
    looser = ConvertOptions(plan=poor, promise=Promise(min_snr=-80))
    plan = convert(small_checkpoint(FAMILY), looser, tmp_path / "x.mlpackage").plan
    assert plan is not None
    text = plan.read_text()
    assert "asked.min_snr = -80" in text
    assert "asked.bits = 1" in text
    assert "target_size" not in text


def test_what_photos_alone_can_tell_is_asked_of_a_plan_with_photos(
    poor: Path, tmp_path: Path
) -> None:
    photographed = tmp_path / "photographed.toml"
    text = poor.read_text().replace("asked.min_snr = -60", "asked.min_agreement = 0.0")
    photographed.write_text(text.replace("asked.target_size", "asked.was"))
    options = ConvertOptions(plan=photographed)
    photos = [image(seed=seed) for seed in range(4)]
    package = convert(small_checkpoint(FAMILY), options, tmp_path / "x.mlpackage", images=photos)
    assert package.parity is not None
    assert package.parity.promise == Promise(min_agreement=0.0)
    with pytest.raises(GateError, match=r"give photos \(--images\) to judge it by what its plan"):
        convert(small_checkpoint(FAMILY), options, tmp_path / "y.mlpackage")


def a_package_with_its_plan(folder: Path, target: Path) -> Path:
    shutil.copytree(folder / "first.mlpackage", target / "first.mlpackage")
    shutil.copy(folder / "first.plan.toml", target)
    return target / "first.mlpackage"
