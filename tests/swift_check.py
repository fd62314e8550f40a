"""Checks Apple-only Swift code against interface stubs, with the compiler's own diagnostics.

Sources go through the compiler up to its intermediate language, not only through the type
checker: data races between isolation domains are found in that later step.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "swift_demo"
STUBS = Path(__file__).parent / "swift_stubs"
# In the order in which they import each other.
FRAMEWORKS = ("os", "CoreGraphics", "CoreVideo", "ImageIO", "CoreML", "Vision")
# What SDKs say about the Sendability of MLModel, CVPixelBufferPool, AVCaptureSession and the
# handlers of key-value observation: nothing, that they are, or that they are not.
SENDABILITY = ("SILENT", "SENDABLE", "NOT_SENDABLE")
UI = ("AVFoundation", "UniformTypeIdentifiers", "UIKit", "SwiftUI", "PhotosUI")


@dataclass(frozen=True)
class Compiled:
    """What a compiler run gave."""

    passed: bool
    messages: str


def swift_sources(folder: Path) -> list[Path]:
    """Return every Swift file of a folder."""
    return sorted(folder.rglob("*.swift"))


def compile_stubs(modules: Path, sendability: str = "SILENT") -> None:
    """Compile the stubs and MViTKit to modules that other checks import.

    Args:
        modules: folder for them.
        sendability: one of ``SENDABILITY``.
    """
    for folder, names in (("frameworks", FRAMEWORKS), ("ui", UI)):
        for name in names:
            sources = sorted((STUBS / folder).glob(f"{name}*.swift"))
            done = check(sources, name, modules, emit=True, stub=sendability)
            assert done.passed, done.messages
    sources = swift_sources(DEMO / "Sources" / "MViTKit")
    done = check(sources, "MViTKit", modules, emit=True, package=True)
    assert done.passed, done.messages


def check(
    sources: Sequence[Path],
    name: str,
    modules: Path,
    *,
    emit: bool = False,
    main: bool = False,
    package: bool = False,
    testable: bool = False,
    stub: str | None = None,
) -> Compiled:
    """Compile a module in Swift 6 mode, with the modules in ``modules`` at hand.

    Args:
        sources: its files.
        name: of the module.
        modules: folder of compiled modules.
        emit: add the module to that folder.
        main: whether one of the files has statements at its top level.
        package: whether it is a part of the Swift package, and sees what only those may see.
        testable: whether tests may see what is not public, and whether what is for debugging is in.
        stub: the Sendability of a stub, which like a framework's may grow cases later.
    """
    command = ["swiftc", "-swift-version", "6", "-wmo", "-emit-sil"]
    # A file, as the compiler replaces what it writes: /dev/null, where it may.
    command += ["-o", str(modules / f"{name}.sil"), "-module-name", name, "-I", str(modules)]
    if testable:
        command += ["-enable-testing", "-D", "DEBUG"]
    if package:
        command += ["-package-name", "mvit"]
    if stub is not None:
        # Foundation promises less than a framework does on Linux, which is a warning.
        command += ["-D", stub, "-enable-library-evolution", "-suppress-warnings"]
    else:
        command += ["-warnings-as-errors"]
    if not main:
        command += ["-parse-as-library"]
    if emit:
        command += ["-emit-module", "-emit-module-path", str(modules / f"{name}.swiftmodule")]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True)
    return Compiled(done.returncode == 0, done.stdout + done.stderr)


def copy_sources(folder: Path, target: Path) -> Path:
    """Copy a module's sources, to be broken in a test."""
    shutil.copytree(folder, target)
    return target
