"""Counts what makes the code hard or easy to find one's way in, beside the limits that it keeps.

    python scripts/structure.py            # what can be counted without running anything, and
                                           # what two conversions of the bundled classifier enter
    python scripts/structure.py --static   # without the conversions

Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import argparse
import ast
import collections
import io
import subprocess
import sys
import tempfile
import threading
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mvit_coreml"
# Words that say nothing of what they name.
VAGUE = ("found", "given", "wanted", "said", "told", "ought")
LIMITS = {
    "modules": 150,
    "lines of code": 18_000,
    "modules in the largest folder": 15,
    "module names standing twice": 0,
    "public class names standing twice": 0,
    "names that say nothing": 0,
    "plain: files entered": 90,
    "plain: traces": 1,
    "plain: builds": 1,
    "fitted: traces": 1,
    "fitted: builds": 1,
}


def main() -> None:
    """Print the counts, and exit with 1 if a limit is not kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--static", action="store_true", help="count without converting anything")
    parser.add_argument("--enter", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.enter:
        _enter(*arguments.enter)
        return
    counts = dict(_static())
    if not arguments.static:
        for kind in ("plain", "fitted"):
            printed = subprocess.run(
                [sys.executable, __file__, "--enter", kind, str(PACKAGE)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout.splitlines()
            names = ("files entered", "traces", "builds")
            counts |= {f"{kind}: {n}": int(c) for n, c in zip(names, printed, strict=True)}
    broken = 0
    for name, count in counts.items():
        limit = LIMITS.get(name)
        over = limit is not None and count > limit
        broken += over
        end = "" if limit is None else f"  (at most {limit:,})" + ("  ABOVE" if over else "")
        print(f"{name:34} {count:>7,}{end}")
    sys.exit(1 if broken else 0)


def _static() -> Iterator[tuple[str, int]]:
    trees = {file: ast.parse(file.read_text("utf-8")) for file in sorted(PACKAGE.rglob("*.py"))}
    yield "modules", len(trees)
    yield "lines of code", sum(lines_of_code(file, tree) for file, tree in trees.items())
    folders = collections.Counter(file.parent for file in trees if file.name != "__init__.py")
    largest, count = folders.most_common(1)[0]
    print(f"the largest folder is {largest.relative_to(ROOT)}")
    yield "modules in the largest folder", count
    # A command is called like the workflow that it calls.
    modules = [f for f in trees if f.name != "__init__.py" and f.parent.name != "commands"]
    twice = _twice(file.stem for file in modules)
    classes = _twice(
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    vague = collections.Counter(name for tree in trees.values() for name in _bound(tree))
    for what, names in (("modules", twice), ("classes", classes)):
        if names:
            print(f"{what} standing twice: {', '.join(names)}")
    if vague:
        print("names that say nothing:", ", ".join(f"{n} {c}" for n, c in vague.items()))
    yield "module names standing twice", len(twice)
    yield "public class names standing twice", len(classes)
    yield "names that say nothing", vague.total()


def lines_of_code(file: Path, tree: ast.Module) -> int:
    """Count the lines that hold code: no docstrings, comments or blank lines."""
    held: set[int] = set()
    layout = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    )
    for token in tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline):
        if token.type not in layout:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(
            node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        ) and ast.get_docstring(node, clean=False):
            docstring = node.body[0]
            held.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(held)


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the vague names that a module binds, once for each time."""
    for node in ast.walk(tree):
        name = None
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.arg):
            name = node.arg
        if name in VAGUE:
            yield name


def _twice(names: Iterator[str]) -> list[str]:
    return sorted(name for name, count in collections.Counter(names).items() if count > 1)


def _enter(kind: str, package: str) -> None:
    """Convert the bundled classifier; print the files entered, the traces and the builds."""
    entered: set[str] = set()
    calls: collections.Counter[str] = collections.Counter()

    def note(frame: object, event: str, argument: object) -> None:
        code = frame.f_code  # type: ignore[attr-defined]
        if event == "call" and code.co_filename.startswith(package):
            entered.add(code.co_filename)
            if code.co_filename.endswith("torch_to_mil.py"):
                calls[code.co_name] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    import mvit_coreml

    demo = Path(mvit_coreml.__file__).parent / "demo"
    from mvit_coreml.cli.main import cli

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["convert", str(demo / "classifier"), "-o", f"{folder}/Classifier.mlpackage"]
        if kind == "plain":
            arguments += ["--bits", "6", "--no-fit", "--min-snr", "10"]
        else:
            arguments += ["--images", str(_write_images(Path(folder)))]
        stdout, sys.stdout = sys.stdout, sys.stderr
        cli(arguments, standalone_mode=False)
        sys.stdout = stdout
    sys.setprofile(None)
    print(len(entered), calls["trace"], calls["build_program"], sep="\n")


def _write_images(folder: Path) -> Path:
    """Write images to fit palettes to; of what, does not matter here."""
    import numpy as np
    from PIL import Image

    images = folder / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(images / f"{number}.png")
    return images


if __name__ == "__main__":
    main()
