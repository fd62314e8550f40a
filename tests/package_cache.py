"""Converted packages that tests share: between workers, and with later runs of the same sources.

A package is known by the digest of everything that it depends on: the sources of mvit_coreml and
of the stand-ins, the versions of the libraries, the CPU's kernels, the checkpoint's weights and the
options. Tests of conversion itself call :func:`mvit_coreml.convert` instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

from mvit_coreml import Checkpoint, ConvertedPackage, ConvertOptions, PaletteOptions, convert
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.workflows import build_package
from mvit_coreml.workflows import convert as conversion
from mvit_coreml.workflows.build_package import PlainPackage, Progress, no_progress
from mvit_coreml.workflows.package_options import fill_in

ROOT = Path(__file__).resolve().parents[1]
# Removed by `make clean`.
FOLDER = ROOT / ".pytest_cache" / "packages"
# Parts of mvit_coreml that take no part in a conversion.
_UNUSED = ("cli", "demo", "inspection", "reports")
_LIBRARIES = ("coremltools", "numba", "numpy", "safetensors", "torch")
_build_plain_package = build_package.build_plain_package
# Sources whose packages are kept: today's, and those of the runs before.
_GENERATIONS = 3


def converted_package(checkpoint: Checkpoint, options: ConvertOptions) -> ConvertedPackage:
    """Return a package, from the cache if it was made before; it must not be changed.

    Args:
        checkpoint: what is converted.
        options: the kind of package; they decide, with the checkpoint, which entry is used.
    """
    assert options.plan is None, "a plan's file may change"
    assert options.dataset is None, "images may change"
    entry = _generation() / _key(checkpoint, options)
    with FileLock(entry.with_suffix(".lock")):
        made = _read(entry)
        if made is None:
            _write(entry, checkpoint, options)
            made = _read(entry)
            assert made is not None, f"{entry} was written and cannot be read"
    return made


def measured(name: str, measure: Callable[[], Any]) -> Any:
    """Return what was measured with today's sources, which is kept as the packages are.

    Args:
        name: a digest of everything else that the result depends on.
        measure: called if it was not measured before.
    """
    entry = _generation() / f"{name}.pickle"
    with FileLock(entry.with_suffix(".lock")):
        if not entry.is_file():
            unfinished = entry.with_suffix(".unfinished")
            unfinished.write_bytes(pickle.dumps(measure()))
            unfinished.rename(entry)
        return pickle.loads(entry.read_bytes())


def plain_package(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    folder: Path,
    *,
    images: Sequence[Any] | None = None,
    progress: Progress = no_progress,
    verbose: bool = False,
) -> PlainPackage:
    """Stand in for :func:`~mvit_coreml.workflows.build_package.build_plain_package`.

    What that made before of the same checkpoint with the same options is copied to ``folder``, and
    the same stages are told. Where images or what coremltools prints matter, it is made anew.
    """
    if options.precision == "mixed" or verbose:
        return _build_plain_package(
            checkpoint, options, folder, images=images, progress=progress, verbose=verbose
        )
    for _ in options.image_sizes:
        progress("trace")
        progress("convert")
        progress("write")
    kept = plain_package_to_read(checkpoint, options, folder)
    shutil.copytree(kept.path.parent, folder, dirs_exist_ok=True)
    placed = _moved(kept, folder)
    spec = load_coremltools().utils.load_spec(str(placed.path))
    return replace(placed, spec=spec, options=options)


def plain_package_to_read(checkpoint: Checkpoint, options: ConvertOptions, _: Path) -> PlainPackage:
    """Stand in for the same where the package is only read: it is that of the cache itself."""
    unpalettized = replace(options, **vars(PaletteOptions(bits=None)))
    entry = _generation() / f"{_key(checkpoint, unpalettized)}-plain"
    with FileLock(entry.with_suffix(".lock")):
        if not entry.is_dir():
            with tempfile.TemporaryDirectory(prefix="building-", dir=entry.parent) as unfinished:
                made = _build_plain_package(checkpoint, unpalettized, Path(unfinished) / "made")
                folder = made.path.parent
                result = _moved(replace(made, spec=None), entry)
                (folder / "result.pickle").write_bytes(pickle.dumps(result))
                folder.rename(entry)
    kept: PlainPackage = pickle.loads((entry / "result.pickle").read_bytes())
    return kept


def _moved(made: PlainPackage, folder: Path) -> PlainPackage:
    """Return what was made as it is in another folder."""
    functions = {name: folder / path.name for name, path in made.functions.items()}
    return replace(made, path=folder / made.path.name, functions=functions)


def _read(entry: Path) -> ConvertedPackage | None:
    """Return what an entry holds, ``None`` if it is missing or not as it was written."""
    with contextlib.suppress(OSError, ValueError, EOFError, pickle.UnpicklingError):
        result = (entry / "result.pickle").read_bytes()
        digest = (entry / "digest").read_text()
        if digest == _digest(entry / "package.mlpackage", result):
            return pickle.loads(result)  # type: ignore[no-any-return]
    return None


def _write(entry: Path, checkpoint: Checkpoint, options: ConvertOptions) -> None:
    """Convert, and let the entry appear at its place at once."""
    shutil.rmtree(entry, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="converting-", dir=entry.parent) as folder:
        unfinished = Path(folder) / "entry"
        unfinished.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            # Packages with other palettes begin with the same one without.
            patch.setattr(conversion, "build_plain_package", plain_package)
            made = convert(checkpoint, options, unfinished / "package.mlpackage", check=False)
        # Paths are those that the entry will have.
        plan = made.plan and entry / made.plan.name
        result = pickle.dumps(replace(made, path=entry / "package.mlpackage", plan=plan))
        (unfinished / "result.pickle").write_bytes(result)
        digest = _digest(unfinished / "package.mlpackage", result)
        (unfinished / "digest").write_text(digest)
        unfinished.rename(entry)


def _digest(package: Path, result: bytes) -> str:
    digest = hashlib.sha256(result)
    for path in sorted(package.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(package)).encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _key(checkpoint: Checkpoint, options: ConvertOptions) -> str:
    options = fill_in(options, checkpoint)
    digest = hashlib.sha256()
    fields = (checkpoint.config, checkpoint.task, checkpoint.image_processor)
    for part in (*fields, checkpoint.provenance, checkpoint.notes, options):
        digest.update(repr(part).encode() + b"\0")
    for name, weight in checkpoint.weights.items():
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()[:32]


@cache
def _generation() -> Path:
    """Return the folder of today's sources, libraries and kernels; others' are removed in time."""
    digest = hashlib.sha256(sys.version.encode())
    # Other kernels add in another order.
    kernels = torch.backends.cpu.get_cpu_capability(), os.environ.get("ONEDNN_MAX_CPU_ISA")
    digest.update(repr(kernels).encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}".encode())
    for path in _sources():
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    folder = FOLDER / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    by_age = sorted(FOLDER.iterdir(), key=lambda other: other.stat().st_mtime)
    for old in by_age[:-_GENERATIONS]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _sources() -> Iterator[Path]:
    package = ROOT / "mvit_coreml"
    for path in sorted([*package.rglob("*.py"), *package.rglob("*.toml")]):
        if path.relative_to(package).parts[0] not in _UNUSED:
            yield path
    yield Path(__file__)
