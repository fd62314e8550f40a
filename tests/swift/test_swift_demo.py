"""What of swift_demo/ can be checked without a Mac; needs a Swift 6 toolchain."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from packages import converted, noise
from PIL import Image
from swift_check import (
    DEMO,
    ROOT,
    SENDABILITY,
    check,
    compile_stubs,
    copy_sources,
    swift_sources,
)

pytestmark = pytest.mark.skipif(
    shutil.which("swift") is None, reason="no Swift toolchain: swift is not on PATH"
)

PAGES = [ROOT / "README.md", ROOT / "docs" / "app-integration.md", DEMO / "README.md"]
SNIPPET = re.compile(
    r"(?:<!-- not (?:compiled|run): (?P<reason>[^>]+) -->\n)?```swift\n(?P<code>.*?)```", re.DOTALL
)
# Mistakes that only a compiler that knows the frameworks' interfaces can see.
BROKEN_CALLS = {
    "no such method": (
        "ImageModel.swift",
        "model.prediction(from: input, options: MLPredictionOptions())",
        "model.predict(from: input, options: MLPredictionOptions())",
    ),
    "wrong argument label": (
        "ImageModel.swift",
        "MLModel.load(contentsOf: url, configuration: configuration)",
        "MLModel.load(at: url, configuration: configuration)",
    ),
    "no such case": ("VisionRunner.swift", ".scaleToFill", ".stretch"),
    "wrong type": (
        "PixelBufferPool.swift",
        "CVPixelBufferPoolCreatePixelBuffer(nil, pool, &buffer)",
        "CVPixelBufferPoolCreatePixelBuffer(pool, &buffer)",
    ),
    "forgotten await": (
        "ModelStore.swift",
        "try await MLModel.compileModel(at: package)",
        "try MLModel.compileModel(at: package)",
    ),
    "model leaves its actor": (
        "ImageModel.swift",
        "_ = try predict(buffer)",
        "_ = try await model.prediction(\n"
        "from: MLDictionaryFeatureProvider(dictionary: [:]), options: MLPredictionOptions())",
    ),
}


# Mistakes that only a stub with the real declaration's types can see.
BROKEN_APP = {
    "what the model lacks": ("Views/LatencyView.swift", "demo.latency.p95", "demo.latency.p96"),
    "a case that a later system adds": ("Camera/Camera.swift", "    @unknown default: false\n", ""),
    "a layer that is no layer": (
        "Camera/CameraPreview.swift",
        "previewLayer: layer",
        "previewLayer: 1",
    ),
}


def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | more, check=False
    )


@pytest.fixture(scope="session")
def built() -> None:
    """The package, built once for all tests."""
    # One job at a time: several compilers would each read the whole module.
    done = run("swift", "build", "--build-tests", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    warnings = [line for line in done.stdout.splitlines() if " warning: " in line]
    assert not warnings


@pytest.fixture(scope="session", params=SENDABILITY)
def with_core_ml(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stubs, MViTKit and MViTCoreML, compiled for one way in which SDKs speak of Sendability."""
    folder = tmp_path_factory.mktemp("modules")
    compile_stubs(folder, request.param)
    sources = swift_sources(DEMO / "Sources" / "MViTCoreML")
    done = check(sources, "MViTCoreML", folder, emit=True, package=True)
    assert done.passed, done.messages
    return folder


@pytest.fixture(scope="session")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same where SDKs say nothing, for what does not hang on it."""
    folder = tmp_path_factory.mktemp("silent")
    compile_stubs(folder)
    sources = swift_sources(DEMO / "Sources" / "MViTCoreML")
    assert check(sources, "MViTCoreML", folder, emit=True, package=True).passed
    return folder


@pytest.fixture(scope="session")
def self_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages with self-tests as the app bundles them, and the pictures as Linux reads them."""
    folder = tmp_path_factory.mktemp("self-tests")
    spec = importlib.util.spec_from_file_location("make_models", DEMO / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    picture = noise((150, 131), 60)
    picture.save(folder / "picture.png")
    kinds = {"Classifier": "image-classification", "Segmenter": "semantic-segmentation"}
    for name, task in kinds.items():
        package = shutil.copytree(
            converted("mobilevit", task)[1].path, folder / "made" / f"{name}.mlpackage"
        )
        placed = script.add_model(package, folder / "picture.png", folder / "models")
        shown = Image.open(placed.with_name(f"{name}.selftest.png"))
        assert shown.info["srgb"] == 0
        shown.save(placed.with_name(f"{name}.selftest.ppm"))
    return folder / "models"


@pytest.mark.usefixtures("built")
def test_swift_tests_pass(self_tests: Path) -> None:
    done = run("swift", "test", "--skip-build", MVIT_SELF_TESTS=str(self_tests))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test file of every package" in done.stdout


def test_format_is_clean() -> None:
    done = run(
        *("swift", "format", "lint", "--strict", "--recursive"),
        *("--configuration", "swift_demo/.swift-format", "Package.swift"),
        *(f"swift_demo/{name}" for name in ("Sources", "Tests", "MViTDemo", "MViTDemoTests")),
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.usefixtures("with_core_ml")
def test_core_ml_code_agrees_with_the_frameworks_interfaces() -> None:
    """The fixture compiles it; a failure shows there."""


@pytest.mark.parametrize(("file", "right", "wrong"), BROKEN_CALLS.values(), ids=BROKEN_CALLS)
def test_broken_call_is_found(
    modules: Path, tmp_path: Path, file: str, right: str, wrong: str
) -> None:
    broken = copy_sources(DEMO / "Sources" / "MViTCoreML", tmp_path / "broken")
    code = (broken / file).read_text()
    assert right in code
    (broken / file).write_text(code.replace(right, wrong))
    done = check(swift_sources(broken), "MViTCoreML", modules, package=True)
    assert not done.passed
    assert f"{file}:" in done.messages


def test_command_line_tool_agrees_with_the_frameworks_interfaces(with_core_ml: Path) -> None:
    done = check(swift_sources(DEMO / "Sources" / "mvit"), "mvit", with_core_ml, package=True)
    assert done.passed, done.messages


def test_views_parse() -> None:
    done = run("swiftc", "-parse", *map(str, swift_sources(DEMO / "MViTDemo")))
    assert done.returncode == 0, done.stderr


def test_app_agrees_with_the_frameworks_interfaces(with_core_ml: Path) -> None:
    done = check(swift_sources(DEMO / "MViTDemo"), "MViTDemo", with_core_ml)
    assert done.passed, done.messages


def test_tests_on_a_device_agree_with_the_app(modules: Path) -> None:
    done = check(swift_sources(DEMO / "MViTDemo"), "MViTDemo", modules, emit=True, testable=True)
    assert done.passed, done.messages
    done = check(swift_sources(DEMO / "MViTDemoTests"), "MViTDemoTests", modules)
    assert done.passed, done.messages


@pytest.mark.parametrize(("file", "right", "wrong"), BROKEN_APP.values(), ids=BROKEN_APP)
def test_mistake_in_the_app_is_found(
    modules: Path, tmp_path: Path, file: str, right: str, wrong: str
) -> None:
    broken = copy_sources(DEMO / "MViTDemo", tmp_path / "broken")
    code = (broken / file).read_text()
    assert right in code
    (broken / file).write_text(code.replace(right, wrong))
    done = check(swift_sources(broken), "MViTDemo", modules)
    assert not done.passed
    assert f"{Path(file).name}:" in done.messages


def snippets() -> list[Any]:
    found = []
    for page in PAGES:
        for number, match in enumerate(SNIPPET.finditer(page.read_text(encoding="utf-8"))):
            if match["reason"] is None:
                found.append(pytest.param(match["code"], id=f"{page.name}-{number}"))
    return found


@pytest.mark.parametrize("code", snippets())
def test_snippet_compiles(modules: Path, tmp_path: Path, code: str) -> None:
    source = tmp_path / "Snippet.swift"
    source.write_text(code)
    done = check([source], "Snippet", modules)
    assert done.passed, done.messages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_integration_takes_ten_lines(page: Path) -> None:
    found = SNIPPET.finditer(page.read_text(encoding="utf-8"))
    code = next(match["code"] for match in found if match["reason"] is None)
    assert "ModelStore.shared.model(at:" in code
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
