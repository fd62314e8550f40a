"""What a report collects from a package on disk."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.metadata import version

import pytest
from packages import converted

from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.inspection.package_contents import WeightGroup, inspect_package
from mvit_coreml.reports.report import build_report, plain_sizes


def test_the_parts_of_this_package_add_up_to_its_size(classified):
    package, saved = converted("mobilenet_v2", "image-classification", bits=6)
    own, *_ = classified.package.sizes
    assert own.size == package.size == saved.size


def test_plain_sizes_are_those_of_packages_converted_without_palettes(classified):
    _, half, single = classified.package.sizes
    for bar, precision in ((half, "fp16"), (single, "fp32")):
        package, _ = converted("mobilenet_v2", "image-classification", precision=precision)
        assert bar.label == f"plain {precision}"
        # The program has more operations with palettes, by a few kilobytes.
        assert bar.size == pytest.approx(package.size, rel=0.04)


def test_plain_sizes_by_hand(classified):
    inspection = replace(
        classified.package.inspection,
        files={"a": 900, "b": 100},
        weights=(
            WeightGroup(scheme="6-bit palette", bits=6, tensors=1, elements=800, stored_bytes=650),
            WeightGroup(scheme="fp16", bits=16, tensors=1, elements=50, stored_bytes=100),
            WeightGroup(scheme="int32", bits=32, tensors=1, elements=20, stored_bytes=80),
        ),
    )
    own, half, single = plain_sizes(inspection)
    rest = ("program and metadata", 170)
    assert own.parts == (("6-bit palette", 650), ("fp16", 100), ("int32", 80), rest)
    assert half.parts == (("fp16", 1700), ("int32", 80), rest)
    assert single.parts == (("fp32", 3400), ("int32", 80), rest)


def test_a_package_without_palettes_is_compared_with_the_other_precision_alone(segmented):
    assert [bar.label for bar in segmented.package.sizes] == ["this package", "plain fp32"]


def test_files_are_named_with_their_digests(classified):
    path = classified.package.inspection.path
    files = [file for file in path.rglob("*") if file.is_file()]
    assert classified.package.sha256 == {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }
    assert len(files) >= 3


def test_versions_command_and_source_are_recorded(classified):
    found = classified.reproduction
    assert found.command == "mvit-coreml validate"
    assert found.versions["torch"] == version("torch")
    assert list(found.versions) == ["mvit-coreml", "coremltools", "torch", "python"]
    assert (found.checkpoint, found.weights_sha256) == ("owner/mobilenet_v2", "5" * 64)
    assert found.made_with["coremltools"] == version("coremltools")


def test_without_the_checkpoint_the_metadata_names_it(classified):
    found = build_report(package=classified.package.inspection.path)
    assert found.reproduction.checkpoint == "owner/mobilenet_v2"
    assert found.reproduction.weights_sha256 == "5" * 64
    assert found.labels == inspect_package(classified.package.inspection.path).functions[0].labels


def test_a_segmenters_colours_are_the_packages(segmented):
    assert len(segmented.package.colors) == len(segmented.labels) == 7
    assert len(set(segmented.package.colors)) == 7


def test_there_is_no_report_about_nothing_or_a_missing_package(tmp_path):
    with pytest.raises(InputError, match="nothing to report"):
        build_report()
    with pytest.raises(PackageError):
        build_report(package=tmp_path / "missing.mlpackage")


def test_metadata_stand_in_the_order_of_their_keys(classified):
    # A protobuf's map has another order in every process.
    keys = list(classified.package.inspection.metadata.user_defined)
    assert len(keys) > 5
    assert keys == sorted(keys)
