"""A package's plan: written beside it, leads to the same bytes again, and can be edited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from packages import read_tree, small_checkpoint

from mvit_coreml import ConvertOptions, convert
from mvit_coreml.errors import InputError
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
