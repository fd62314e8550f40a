"""The Swift package as a stranger meets it: by URL, on any platform, from the command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
from packages import converted, noise
from swift_check import DEMO, ROOT, swift_sources

from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.predictor import Predictor

README = (DEMO / "README.md").read_text(encoding="utf-8")
needs_swift = pytest.mark.skipif(
    shutil.which("swift") is None, reason="no Swift toolchain: swift is not on PATH"
)
TOOL = ROOT / ".build" / "debug" / "mvit"
STRANGER = """
import MViTKit
#if canImport(MViTCoreML)
import MViTCoreML
#endif

// Names that other modules have as well.
struct SHA256 {}
struct Box {}
struct Answer {}
enum ContentMode { case fit }

let steps = Preprocessing(
  inputSize: PixelSize(width: 8, height: 8), fit: .stretch, resize: nil, resample: .bilinear)
let picture = try PixelImage(size: PixelSize(width: 16, height: 12), order: .bgra)
print(try Preprocessor(steps).run(picture).image.size, SHA256(), Box(), Answer(), ContentMode.fit)
"""


def run(*command: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def integration_lines(kind: str) -> list[str]:
    """The lines of README's manifest that name a package or a product."""
    (block,) = (
        block for block in re.findall(r"```swift\n(.*?)```", README, re.DOTALL) if kind in block
    )
    return [line.strip() for line in block.splitlines() if line.strip().startswith(kind)]


@needs_swift
def test_stranger_builds_against_the_package_by_url(tmp_path: Path) -> None:
    repository = tmp_path / "mvit-coreml"
    for path in [ROOT / "Package.swift", *swift_sources(DEMO)]:
        copied = repository / path.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copied)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(repository)]
    for step in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "a"]):
        assert run(*git, *step).returncode == 0
    assert run(*git, "tag", "0.1.0").returncode == 0
    (package,) = integration_lines(".package(")
    package, count = re.subn(r'"https://[^"]+"', f'"file://{repository}"', package)
    assert count == 1
    products = integration_lines(".product(")
    assert len(products) == 2
    stranger = tmp_path / "Stranger"
    (stranger / "Sources" / "Stranger").mkdir(parents=True)
    (stranger / "Sources" / "Stranger" / "main.swift").write_text(STRANGER)
    (stranger / "Package.swift").write_text(
        "// swift-tools-version: 6.0\nimport PackageDescription\n"
        'let package = Package(name: "Stranger", platforms: [.iOS(.v17), .macOS(.v14)],\n'
        f"  dependencies: [{package.rstrip(',')}],\n"
        '  targets: [.executableTarget(name: "Stranger", dependencies: ['
        f"{' '.join(products)}])])\n"
    )
    done = run("swift", "run", "--jobs", "1", folder=stranger)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8" in done.stdout.split()[0]


def test_every_availability_names_all_platforms_of_the_manifest() -> None:
    """A star stands for the oldest system that the manifest allows, which may lack the call."""
    manifest = (ROOT / "Package.swift").read_text(encoding="utf-8")
    platforms = set(re.findall(r"\.(iOS|macOS|tvOS|visionOS)\(", manifest))
    assert platforms == {"iOS", "macOS", "tvOS", "visionOS"}
    found = 0
    for path in swift_sources(DEMO / "Sources"):
        for names in re.findall(r"[@#]available\(([^)]*)\)", path.read_text(encoding="utf-8")):
            found += 1
            assert platforms <= set(re.findall(r"[a-zA-Z]+", names)), (path, names)
    assert found > 4


@needs_swift
@pytest.mark.parametrize(("system", "fits"), [("watchos10.0", False), ("ios17.0", True)])
def test_watch_is_told_what_it_lacks(tmp_path: Path, system: str, fits: bool) -> None:
    source = DEMO / "Sources" / "MViTCoreML" / "UnsupportedPlatform.swift"
    # Without the system's own library: the file needs none.
    options = ("-frontend", "-typecheck", "-parse-stdlib", "-target", f"arm64-apple-{system}")
    done = run("swiftc", *options, str(source), folder=tmp_path)
    assert (done.returncode == 0) == fits
    assert fits or "watchOS does not have" in done.stderr


def test_both_libraries_are_documented_on_the_index() -> None:
    settings = (ROOT / ".spi.yml").read_text(encoding="utf-8")
    for name in ("MViTKit", "MViTCoreML"):
        page = DEMO / "Sources" / name / f"{name}.docc" / f"{name}.md"
        assert page.read_text(encoding="utf-8").startswith(f"# ``{name}``\n")
        assert name in settings


def test_pages_of_the_documentation_name_what_exists() -> None:
    for name in ("MViTKit", "MViTCoreML"):
        code = "\n".join(
            path.read_text(encoding="utf-8") for path in swift_sources(DEMO / "Sources" / name)
        )
        text = (DEMO / "Sources" / name / f"{name}.docc" / f"{name}.md").read_text(encoding="utf-8")
        symbols = re.findall(r"^- ``(\w+)``$", text, re.MULTILINE)
        assert symbols
        kinds = "struct|class|actor|enum|protocol|func"
        for symbol in symbols:
            assert re.search(rf"public (?:final )?(?:{kinds}) {symbol}\b", code), symbol


@pytest.fixture(scope="module")
def tool() -> Path:
    done = run("swift", "build", "--product", "mvit", "--jobs", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return TOOL


COMMANDS = (
    *("classify", "segment", "bench", "plan", "describe"),
    *("listing", "preprocess", "bench-preprocess"),
)


@needs_swift
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(tool: Path, command: str) -> None:
    for words in ([command, "--help"], ["help", command], [command, "x", "-h"]):
        done = run(str(tool), *words)
        assert done.returncode == 0
        assert done.stdout.startswith(f"mvit {command} ")
    assert f"mvit {command} " in run(str(tool), "--help").stdout


@needs_swift
def test_version_is_the_projects(tool: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert run(str(tool), "--version").stdout == f"mvit {project['version']}\n"


@needs_swift
@pytest.mark.parametrize("command", ["classify", "segment", "bench", "plan"])
def test_what_needs_core_ml_says_so_and_what_works(tool: Path, command: str) -> None:
    done = run(str(tool), command, "A.mlpackage", "photo.png")
    assert done.returncode == 2
    assert done.stderr.startswith(f"mvit: {command} runs the model with Core ML")
    assert "mvit-coreml predict" in done.stderr
    assert done.stderr.count("\n") == 1


@needs_swift
def test_picture_of_another_format_is_refused_with_the_way_out(tool: Path, tmp_path: Path) -> None:
    noise((9, 9), 5).save(tmp_path / "a.png")
    done = run(str(tool), "preprocess", str(tmp_path / "a.png"))
    assert done.returncode == 2
    assert "PGM, PPM and PAM" in done.stderr
    assert "convert it" in done.stderr


@needs_swift
def test_describe_lists_the_classes_of_a_classifier(tool: Path) -> None:
    package = converted("mobilevit", "image-classification")[1].path
    done = run(str(tool), "describe", str(package))
    assert done.returncode == 0, done.stderr
    listed = re.findall(r"^class (\d+)  (.+)$", done.stdout, re.MULTILINE)
    labels = PackageTarget(Predictor(package, engine="portable")).labels
    assert labels
    assert listed == [(str(index), label) for index, label in enumerate(labels)]


@needs_swift
def test_listing_tells_every_file_with_its_digest(tool: Path, tmp_path: Path) -> None:
    package = converted("mobilevit", "image-classification")[1].path
    target = tmp_path / "listing.json"
    done = run(str(tool), "listing", str(package), "-o", str(target))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["sha256", sha256(target.read_bytes()).hexdigest()]
    listing = json.loads(target.read_text())
    assert listing["name"] == package.name
    files = {path for path in package.rglob("*") if path.is_file()}
    assert {package / file["path"] for file in listing["files"]} == files
    for file in listing["files"]:
        content = (package / file["path"]).read_bytes()
        assert (file["size"], file["sha256"]) == (len(content), sha256(content).hexdigest())


COUNTER = """
#include <stddef.h>
#include <stdio.h>
static unsigned long count;
void *__libc_malloc(size_t); void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t); void *__libc_memalign(size_t, size_t);
static void add(void) { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED); }
void *malloc(size_t n) { add(); return __libc_malloc(n); }
void *calloc(size_t a, size_t b) { add(); return __libc_calloc(a, b); }
void *realloc(void *p, size_t n) { add(); return __libc_realloc(p, n); }
void *aligned_alloc(size_t a, size_t n) { add(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n) {
  add(); *p = __libc_memalign(a, n); return *p ? 0 : 12;
}
__attribute__((destructor)) static void report(void) { fprintf(stderr, "%lu\\n", count); }
"""


FRAMES = """
let steps = Preprocessing(
  inputSize: PixelSize(width: 64, height: 64), fit: .crop, resize: .shortestEdge(72),
  resample: .bilinear)
let frames = FramePreprocessor(steps)
let picture = try PixelImage(size: PixelSize(width: 320, height: 180), order: .bgra)
var input = try PixelImage(size: steps.inputSize, order: .bgra)
try picture.withView { source in
  try input.withMutableView { target in
    for _ in 0..<(CommandLine.arguments.count > 1 ? 40 : 2) { try frames.run(source, into: target) }
  }
}
"""


@needs_swift
@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang to count allocations with")
def test_frames_after_the_first_cost_no_allocation(tmp_path: Path) -> None:
    """Compiled with optimisation, as an app is that people use."""
    (tmp_path / "count.c").write_text(COUNTER)
    library = tmp_path / "count.so"
    built = run("clang", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "count.c"))
    if built.returncode:
        pytest.skip("allocations are counted with glibc's own functions")
    main, program = tmp_path / "main.swift", tmp_path / "frames"
    main.write_text(FRAMES)
    kit = DEMO / "Sources" / "MViTKit"
    sources = [*swift_sources(kit / "Preprocessing"), *swift_sources(kit / "Geometry"), main]
    done = run("swiftc", "-O", "-wmo", "-o", str(program), *map(str, sources), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    counts = []
    for words in ([], ["more"]):
        done = run("env", f"LD_PRELOAD={library}", str(program), *words)
        assert done.returncode == 0, done.stderr
        counts.append(int(done.stderr.split()[-1]))
    assert counts[0] == counts[1] > 0
