"""What ``mvit-coreml demo`` leaves and says: run once for all workers, as it takes long."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from filelock import FileLock
from package_cache import plain_package
from packages import session_folder

from mvit_coreml.cli import cli
from mvit_coreml.demo import run_demo
from mvit_coreml.demo.run_demo import DemoResult
from mvit_coreml.workflows import convert


@dataclass(frozen=True)
class DemoRun:
    """A run of the demo in a folder where an old report lay.

    Attributes:
        folder: where it ran.
        untouched: a copy of that folder, for tests that need what a demo leaves.
        exit_code: of the command.
        output: what it printed on both streams.
        stdout: what it printed on the one.
        results: what it measured.
    """

    folder: Path
    untouched: Path
    exit_code: int
    output: str
    stdout: str
    results: list[DemoResult]


def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """Return the run of this test session; the first worker that asks makes it."""
    shared = session_folder(tmp_path_factory)
    stored = shared / "demo-run.pickle"
    with FileLock(shared / "demo-run.lock"):
        if not stored.is_file():
            stored.write_bytes(pickle.dumps(_run(shared / "demo-run")))
    run: DemoRun = pickle.loads(stored.read_bytes())
    return run


def _run(parent: Path) -> DemoRun:
    folder, untouched = parent / "mvit-demo", parent / "untouched"
    folder.mkdir(parents=True)
    (folder / "Digits.html").write_text("an old mvit-coreml report")
    results: list[DemoResult] = []
    original = run_demo.run_demo

    def record(*arguments: Any, **options: Any) -> list[DemoResult]:
        results.extend(original(*arguments, **options))
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_demo, "run_demo", record)
        # Other tests convert the same checkpoints.
        patch.setattr(convert, "build_plain_package", plain_package)
        done = CliRunner().invoke(cli, ["demo", "-o", str(folder), "--force"])
    shutil.copytree(folder, untouched)
    return DemoRun(folder, untouched, done.exit_code, done.output, done.stdout, results)
