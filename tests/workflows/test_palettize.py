"""Existing packages given palettes: the packages that conversion makes, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from fitting import fitted_checkpoint, measure_once, write_images
from packages import SavedPackage, converted, read_tree, small_checkpoint

from mvit_coreml import (
    ConvertOptions,
    PaletteOptions,
    ValidateOptions,
    convert,
    palettize_package,
    validate,
)
from mvit_coreml.compression.calibration import tuner
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError, InputError, MvitCoremlError
from mvit_coreml.export.atomic_package import finish_package
from mvit_coreml.export.torch_to_mil import read_program, save_again
from mvit_coreml.inspection.package_contents import inspect_package
from mvit_coreml.mil.digest import program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.workflows import build_package
from mvit_coreml.workflows import fit_palettes as palette_fitting
from mvit_coreml.workflows.compress_package import CompressedPackage

pytestmark = pytest.mark.usefixtures("conversions_shared")

COUNT = 20
# Palettes of k-means alone are quickly found, and what they keep of a random network is no matter.
ANY = Promise(min_snr=-100)


def alone(bits: int, **more: Any) -> PaletteOptions:
    """Palettes of k-means alone, whatever they keep."""
    return PaletteOptions(bits=bits, kmeans_only=True, **{"promise": ANY} | more)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_images(tmp_path_factory.mktemp("images"), COUNT)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.mlpackage"
    return convert(fitted_checkpoint(), ConvertOptions(bits=None), path, check=False).path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, images: list[Path]) -> Path:
    """A package that convert tuned, with its plan and values beside it."""
    path = tmp_path_factory.mktemp("tuned") / "tuned.mlpackage"
    options = ConvertOptions(bits=4, tune_minutes=0.02, promise=ANY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuner, "_VIEWS", 60)
        return convert(fitted_checkpoint(), options, path, images=images).path


@pytest.mark.parametrize(
    ("family", "task", "made", "palettes"),
    [
        ("mobilenet_v2", "image-classification", {}, {"bits": 6}),
        ("mobilenet_v2", "semantic-segmentation", {}, {"bits": 2}),
        ("mobilevit", "image-classification", {"ios": 18}, {"bits": 3, "group_size": 8}),
        ("mobilevitv2", "image-classification", {"precision": "fp32"}, {"bits": 4}),
    ],
)
def test_the_package_is_the_one_that_conversion_makes(
    family: str, task: str, made: dict[str, Any], palettes: dict[str, Any], tmp_path: Path
) -> None:
    plain, _ = converted(family, task, **made)
    wanted, _ = converted(family, task, **made, **palettes)
    found = palettize_package(plain.path, alone(**palettes), tmp_path / "x.mlpackage")
    assert program_digest(load_package(found.path)) == program_digest(load_package(wanted.path))
    assert read_tree(found.path) == read_tree(wanted.path)
    assert (found.size, found.original_size) == (wanted.size, plain.size)
    assert found.parity is not None
    assert found.parity.passed
    assert found.parity.sound
    assert found.parity.differences == ()


def test_a_plan_with_values_leads_to_the_same_bytes_both_ways(
    plain: Path, tuned: Path, tmp_path: Path
) -> None:
    plan = tuned.with_suffix(".plan.toml")
    assert "tuned" in plan.read_text()
    again = convert(
        fitted_checkpoint(), ConvertOptions(plan=plan), tmp_path / "again.mlpackage", check=False
    )
    assert read_tree(again.path) == read_tree(tuned)
    found = palettize_package(
        plain, PaletteOptions(plan=plan), tmp_path / "found.mlpackage", check=False
    )
    assert program_digest(load_package(found.path)) == program_digest(load_package(tuned))
    assert read_tree(found.path) == read_tree(tuned)
    # The plan written beside it can be carried out in its turn.
    third = palettize_package(
        plain, PaletteOptions(plan=found.plan), tmp_path / "third.mlpackage", check=False
    )
    assert read_tree(third.path) == read_tree(tuned)


def test_the_result_validates_against_the_checkpoint(
    plain: Path, tuned: Path, images: list[Path], tmp_path: Path
) -> None:
    """Part by part, with the digest and the bits that the metadata states."""
    plan = PaletteOptions(plan=tuned.with_suffix(".plan.toml"))
    found = palettize_package(
        plain, plan, tmp_path / "x.mlpackage", images=images[:2], against=fitted_checkpoint()
    )
    assert found.parity is not None
    assert found.parity.source == "owner/mobilenet_v2"
    assert (found.parity.differences, found.parity.images) == ((), 2)
    assert SavedPackage(found.path).user_defined["mvit_coreml.bits"] == "4"


def test_without_a_checkpoint_the_package_itself_is_compared_with(
    plain: Path, tmp_path: Path
) -> None:
    found = palettize_package(plain, alone(4), tmp_path / "x.mlpackage").parity
    truth = validate(
        tmp_path / "x.mlpackage",
        fitted_checkpoint(),
        options=ValidateOptions(structure=False),
    )
    assert found is not None
    assert found.source == "plain.mlpackage"
    # What half precision does is in one of them alone; palettes do more than that.
    assert found.scores.snr == pytest.approx(truth.scores.snr, abs=1)


def test_it_is_judged_on_images_that_no_palette_was_fitted_to(
    plain: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_once(monkeypatch)
    splits = []
    split = palette_fitting.split_images

    def recorded(count: int, held_out: int) -> tuple[list[int], list[int]]:
        splits.append(split(count, held_out))
        return splits[-1]

    monkeypatch.setattr(palette_fitting, "split_images", recorded)
    target = 200_000
    found = palettize_package(
        plain,
        PaletteOptions(bits="auto", promise=Promise(target_size=target)),
        tmp_path / "x.mlpackage",
        images=images,
    )
    ((fitted, _),) = splits
    report = found.parity
    assert report is not None
    assert not report.synthetic
    # Some of the others are those that the bits were shared out by.
    assert 4 <= report.images < COUNT - len(fitted)
    judged = {result.image for result in report.worst}
    assert not judged & {images[index].name for index in fitted}
    # And the size promised is that of the files.
    size = sum(len(content) for content in read_tree(found.path).values())
    assert 0.95 * target < size <= target
    assert inspect_package(found.path).size == size


def test_a_promised_snr_is_that_of_the_saved_package(
    plain: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_once(monkeypatch)
    options = PaletteOptions(bits="auto", promise=Promise(min_snr=12))
    found = palettize_package(plain, options, tmp_path / "x.mlpackage", images=images)
    held_out = {result.image for result in found.parity.worst} if found.parity else set()
    report = validate(
        found.path,
        fitted_checkpoint(),
        [file for file in images if file.name in held_out],
        ValidateOptions(structure=False),
    )
    assert report.promised_snr >= 12
    assert found.size < found.original_size
    assert "min_snr = 12" in found.plan.read_text()


def refused(package: Path, tmp_path: Path, **options: Any) -> str:
    """Return the line that says why a package cannot be palettized; nothing may be left."""
    folder = tmp_path / "out"
    folder.mkdir()
    against = options.pop("against", None)
    with pytest.raises(InputError) as caught:
        palettize_package(
            package, PaletteOptions(**options), folder / "x.mlpackage", against=against
        )
    assert list(folder.iterdir()) == []
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_palettized_package_is_refused(tmp_path: Path) -> None:
    package, _ = converted("mobilenet_v2", bits=6)
    assert "compressed already" in refused(package.path, tmp_path)


def test_a_package_with_several_functions_is_refused(tmp_path: Path) -> None:
    package, _ = converted("mobilenet_v2", ios=18, image_sizes=((64, 64), (96, 64)))
    assert "has 2 functions" in refused(package.path, tmp_path)


def test_a_package_of_another_tool_gets_the_same_palettes_but_knows_no_checkpoint(
    plain: Path, tmp_path: Path
) -> None:
    foreign = altered(plain, tmp_path, _anonymous)
    assert "another tool made it; leave out --against" in refused(
        foreign, tmp_path, against=fitted_checkpoint()
    )
    (tmp_path / "own").mkdir()
    own = palettize_package(plain, alone(4), tmp_path / "own" / "x.mlpackage", check=False)
    same = palettize_package(foreign, alone(4), tmp_path / "x.mlpackage", check=False)
    weights = "Data/com.apple.CoreML/weights/weight.bin"
    assert (same.path / weights).read_bytes() == (own.path / weights).read_bytes()
    assert "mvit_coreml.options" not in SavedPackage(same.path).user_defined


def test_a_changed_package_is_refused_as_a_new_digest_would_hide_it(
    plain: Path, tmp_path: Path
) -> None:
    package = altered(plain, tmp_path, _renamed)
    assert "was changed after it was converted" in refused(package, tmp_path)


def test_another_checkpoint_than_the_package_came_from_is_refused(
    tmp_path: Path, plain: Path
) -> None:
    own = fitted_checkpoint()
    other = dataclasses.replace(
        own, provenance=dataclasses.replace(own.provenance, sha256="6" * 64)
    )
    assert "other weights" in refused(plain, tmp_path, against=other)


def test_a_promised_drop_needs_the_checkpoint(plain: Path, tmp_path: Path) -> None:
    options = {"bits": "auto", "promise": Promise(max_drop=1), "dataset": tmp_path}
    assert "--against" in refused(plain, tmp_path, **options)


@pytest.mark.parametrize("options", [{"bits": 3}, {"bits": 4, "group_size": 8}])
def test_what_the_packages_target_cannot_hold_is_refused(
    options: dict[str, int], plain: Path, tmp_path: Path
) -> None:
    assert "iOS 18; this package is for iOS 17" in refused(plain, tmp_path, **options)


def test_no_bits_are_nothing_to_do(plain: Path, tmp_path: Path) -> None:
    assert "give bits or a plan" in refused(plain, tmp_path, bits=None)


def test_a_plan_of_another_model_is_refused(tuned: Path, tmp_path: Path) -> None:
    package, _ = converted("mobilevitv2")
    plan = tuned.with_suffix(".plan.toml")
    assert "no such weight" in refused(package.path, tmp_path, plan=plan)


def test_a_failed_gate_leaves_nothing_unless_it_is_to_be_kept(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it states other bits than it has."""
    monkeypatch.setattr(build_package, "palette_metadata", lambda plan: {"bits": "2"})
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "x.mlpackage"
    with pytest.raises(GateError, match="not written, as it is not sound: structure is 1"):
        palettize_package(plain, alone(8), path)
    assert list(folder.iterdir()) == []
    kept = palettize_package(plain, alone(8), path, keep_failed=True)
    assert kept.path.is_dir()
    assert kept.parity is not None
    assert not kept.parity.passed


def test_a_package_can_be_replaced_by_its_palettized_self(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mlpackage"
    shutil.copytree(plain, path)
    with pytest.raises(InputError, match="use --force"):
        palettize_package(path, PaletteOptions(), path)
    found = palettize_package(path, alone(6), path, force=True)
    assert isinstance(found, CompressedPackage)
    assert inspect_package(path).size == found.size < found.original_size


def test_a_folder_that_is_no_package_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MvitCoremlError, match=r"no \.mlpackage folder"):
        palettize_package(tmp_path, PaletteOptions(), tmp_path / "x.mlpackage")


def test_options_of_a_small_checkpoint_reach_the_plan(tmp_path: Path) -> None:
    plain, _ = converted("mobilenet_v2")
    found = palettize_package(plain.path, alone(4), tmp_path / "x.mlpackage")
    text = found.plan.read_text()
    assert small_checkpoint("mobilenet_v2").provenance.sha256 in text
    assert f"size = {found.size}" in text


def altered(package: Path, folder: Path, change: Any) -> Path:
    """Write a package again after a change of its program and specification."""
    program, spec = read_program(package)
    path = folder / "altered.mlpackage"
    spec = save_again(program, spec, path)
    change(spec)
    finish_package(path, spec)
    return path


def _anonymous(spec: Any) -> None:
    spec.description.metadata.userDefined.clear()


def _renamed(spec: Any) -> None:
    spec.description.metadata.userDefined["mvit_coreml.program_sha256"] = "0" * 64
