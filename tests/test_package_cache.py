"""The tests' own cache of packages never hands out what conversion would not make today."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import package_cache
import pytest
from packages import read_tree, small_checkpoint

from mvit_coreml import ConvertedPackage, ConvertOptions, convert
from mvit_coreml.workflows.build_package import PlainPackage
from mvit_coreml.workflows.package_options import fill_in

OPTIONS = ConvertOptions(bits=4, kmeans_only=True)


@pytest.fixture
def count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Start with an empty cache; the list grows with every conversion.

    The first converts, and the others give the same package again, as conversions do.
    """
    made: list[Path] = []
    results: list[ConvertedPackage] = []
    kept = tmp_path_factory.mktemp("kept")

    def counted(checkpoint: Any, options: Any, path: Path, **more: Any) -> ConvertedPackage:
        made.append(path)
        if not results:
            results.append(convert(checkpoint, options, kept / path.name, **more))
        shutil.copytree(kept, path.parent, dirs_exist_ok=True)
        plan = results[0].plan
        return replace(results[0], path=path, plan=plan and path.with_name(plan.name))

    monkeypatch.setattr(package_cache, "convert", counted)
    monkeypatch.setattr(package_cache, "_generation", lambda: tmp_path)
    return made


def test_a_second_request_gets_the_same_package(count: list[Path]) -> None:
    checkpoint = small_checkpoint("mobilenet_v2")
    first = package_cache.converted_package(checkpoint, OPTIONS)
    files = read_tree(first.path)
    assert package_cache.converted_package(checkpoint, OPTIONS) == first
    assert len(count) == 1
    assert first.plan is not None
    assert first.plan.is_file()

    key = package_cache._key(checkpoint, OPTIONS)
    weights = dict(checkpoint.weights)
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    others = {
        package_cache._key(replace(checkpoint, weights=weights), OPTIONS),
        package_cache._key(small_checkpoint("mobilenet_v2", size=32), OPTIONS),
        package_cache._key(checkpoint, replace(OPTIONS, bits=6)),
    }
    assert len(others | {key}) == 4

    def spoil_weights() -> None:
        path = first.path / "Data/com.apple.CoreML/weights/weight.bin"
        path.write_bytes(path.read_bytes()[:-1] + b"?")

    def spoil_result() -> None:
        (first.path.parent / "result.pickle").write_bytes(b"")

    spoilers: list[Callable[[], Any]] = [
        spoil_weights,
        spoil_result,
        (first.path / "Manifest.json").unlink,
        (first.path.parent / "digest").unlink,
    ]
    for times, spoil in enumerate(spoilers, start=2):
        spoil()
        assert package_cache.converted_package(checkpoint, OPTIONS) == first
        assert len(count) == times
        assert read_tree(first.path) == files


def test_a_conversion_that_fails_leaves_no_entry(
    count: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(package_cache, "convert", fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        package_cache.converted_package(small_checkpoint("mobilenet_v2"), OPTIONS)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def contents(package: Path) -> dict[str, bytes]:
    """Return a package's files but the one that names them at random until it is finished."""
    return {name: data for name, data in read_tree(package).items() if name != "Manifest.json"}


@pytest.mark.parametrize("more", [{}, {"ios": 18, "image_sizes": ((64, 64), (32, 64))}], ids=str)
def test_a_package_without_palettes_is_what_building_it_gives(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, more: dict[str, Any]
) -> None:
    kept, builds = tmp_path / "kept", []
    kept.mkdir()
    monkeypatch.setattr(package_cache, "_generation", lambda: kept)
    build = package_cache._build_plain_package

    def counted(*arguments: Any, **options: Any) -> PlainPackage:
        builds.append(arguments)
        return build(*arguments, **options)

    monkeypatch.setattr(package_cache, "_build_plain_package", counted)
    checkpoint = small_checkpoint("mobilenet_v2", size=32)
    stages: list[str] = []
    told: list[str] = []
    options = fill_in(replace(OPTIONS, **more), checkpoint)
    expected = build(checkpoint, options, tmp_path / "built", progress=stages.append)
    for name, bits in (("one", 4), ("two", 6)):
        asked = replace(options, bits=bits)
        made = package_cache.plain_package(checkpoint, asked, tmp_path / name, progress=told.append)
        assert made.path.relative_to(tmp_path / name) == expected.path.relative_to(
            tmp_path / "built"
        )
        assert read_tree(made.path) == read_tree(expected.path)
        for function, path in expected.functions.items():
            assert contents(made.functions[function]) == contents(path)
        assert made.spec == expected.spec
        assert replace(
            made, path=expected.path, spec=None, functions=expected.functions
        ) == replace(expected, spec=None, options=asked)
    assert told == 2 * stages
    assert len(builds) == 1
    package_cache.plain_package(checkpoint, replace(options, output="logits"), tmp_path / "other")
    assert len(builds) == 2


def test_a_measurement_is_made_once_and_a_failed_one_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(package_cache, "_generation", lambda: tmp_path)
    made = []

    def measure() -> int:
        made.append(len(made))
        if made == [0]:
            raise KeyboardInterrupt
        return made[-1]

    with pytest.raises(KeyboardInterrupt):
        package_cache.measured("name", measure)
    assert [package_cache.measured("name", measure) for _ in range(2)] == [1, 1]
    assert package_cache.measured("other", measure) == 2


def test_sources_are_those_of_conversion() -> None:
    names = {path.relative_to(package_cache.ROOT).as_posix() for path in package_cache._sources()}
    assert "mvit_coreml/workflows/convert.py" in names
    assert "tests/package_cache.py" in names
    assert not [name for name in names if name.startswith("mvit_coreml/reports/")]


def test_old_generations_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package_cache, "FOLDER", tmp_path)
    for number in range(5):
        (tmp_path / f"old {number}").mkdir()
    folder = package_cache._generation.__wrapped__()
    assert folder in tmp_path.iterdir()
    assert len(list(tmp_path.iterdir())) == 3
