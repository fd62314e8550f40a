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
FRAMEWORKS = ("CoreGraphics", "CoreVideo", "ImageIO", "CoreML", "Vision")
UI = ("AVFoundation", "UniformTypeIdentifiers", "UIKit", "SwiftUI", "PhotosUI")


@dataclass(frozen=True)
class Compiled:
    """What a compiler run gave."""

    passed: bool
    messages: str


def swift_sources(folder: Path) -> list[Path]:
    """Return every Swift file of a folder."""
    return sorted(folder.rglob("*.swift"))


def compile_stubs(modules: Path) -> None:
    """Compile the stubs and MViTKit to modules that other checks import."""
    for folder, names in (("frameworks", FRAMEWORKS), ("ui", UI)):
        for name in names:
            sources = sorted((STUBS / folder).glob(f"{name}*.swift"))
            done = check(sources, name, modules, emit=True)
            assert done.passed, done.messages
    done = check(swift_sources(DEMO / "Sources" / "MViTKit"), "MViTKit", modules, emit=True)
    assert done.passed, done.messages


def check(
    sources: Sequence[Path], name: str, modules: Path, *, emit: bool = False, main: bool = False
) -> Compiled:
    """Compile a module in Swift 6 mode, with the modules in ``modules`` at hand.

    Args:
        sources: its files.
        name: of the module.
        modules: folder of compiled modules.
        emit: add the module to that folder.
        main: whether one of the files has statements at its top level.
    """
    command = ["swiftc", "-swift-version", "6", "-warnings-as-errors", "-wmo", "-emit-sil"]
    # A file, as the compiler replaces what it writes: /dev/null, where it may.
    command += ["-o", str(modules / f"{name}.sil"), "-module-name", name, "-I", str(modules)]
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
