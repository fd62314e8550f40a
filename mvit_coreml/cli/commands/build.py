"""``mvit-coreml build``: the packages of recipes, and an index of them."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.checkpoint_options import hub_arguments, hub_options
from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.reports import report_paths, typed_command
from mvit_coreml.cli.tables import table
from mvit_coreml.errors import GateError, InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.recipes.build import RecipeResult
    from mvit_coreml.workflows.recipes.package_index import IndexEntry
    from mvit_coreml.workflows.recipes.recipe_file import Recipe

_EXAMPLES = """\b
Examples:
  mvit-coreml build convert/ -o packages/
  mvit-coreml build my-mobilevit.toml -o packages/ --images photos/
  mvit-coreml build convert/apple_mobilevit-small.toml convert/apple_mobilevit-x-small.toml
  mvit-coreml build convert/ -o packages/ --report "packages/{name}.html"
  mvit-coreml build convert/ -o packages/ --force --json
"""
_HEADER = ("PACKAGE", "SIZE", "SNR", "AGREEMENT", "RESULT", "TIME")
_NOTHING = "-"


@click.command("build", epilog=_EXAMPLES)
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output-path",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("packages"),
    show_default=True,
    help="Folder for the packages and their index.json; made if it is missing.",
)
@click.option(
    "--force/--only-changed",
    default=False,
    show_default=True,
    help="Build every package, or those whose inputs have changed.",
)
@click.option(
    "--keep-going/--fail-fast",
    default=True,
    show_default=True,
    help="Go on with the other recipes after a failure, or stop.",
)
@click.option("--keep-failed", is_flag=True, help="Write packages even if they fall short.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Photos to measure on, a folder or one; by default synthetic pictures.",
)
@click.option(
    "--report",
    metavar="FILE",
    help="Write a report of every package, also of one that falls short: a file name that ends in "
    ".html, .md or .json, with {name} in place of the recipe's.",
)
@hub_options
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no table.")
@click.option("-v", "--verbose", is_flag=True, help="Show what coremltools prints.")
def command(
    recipes: tuple[Path, ...],
    folder: Path,
    images: Path | None,
    report: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **given: Any,
) -> None:
    """Build the packages of recipes that are not up to date.

    RECIPES are TOML files that name a checkpoint, what to make of it and how good it must be, or
    folders of them. What a failure or an interruption leaves undone, the next build does. Exits
    with 3 when a package fails a gate or a tolerance, else with 2 when one could not be built.
    """
    from mvit_coreml.preprocessing.image_loading import find_images
    from mvit_coreml.workflows.recipes.build import build_recipes
    from mvit_coreml.workflows.recipes.recipe_file import find_recipes
    from mvit_coreml.workflows.recipes.recipe_reports import RecipeReports

    found = find_recipes(recipes)
    reports = None
    if report is not None:
        paths = report_paths(report, [recipe.name for recipe in found])
        reports = RecipeReports(paths=paths, command=typed_command())
    progress = _Progress(len(found), silent=quiet)
    results = build_recipes(
        found,
        folder,
        force=given["force"],
        keep_going=given["keep_going"],
        keep_failed=given["keep_failed"],
        images=None if images is None else find_images(images),
        reports=reports,
        progress=progress,
        done=progress.done,
        verbose=verbose,
        **hub_arguments(given),
    )
    if as_json:
        echo_json([dataclasses.asdict(result) for result in results])
    elif not quiet:
        click.echo(_table(results))
    _raise_failures(results, folder)


class _Progress:
    """Prints a line to stderr for every recipe, with the stage under way on a terminal."""

    def __init__(self, total: int, silent: bool) -> None:
        self.total, self.count, self.silent = total, 0, silent
        self.stream = sys.stderr
        self.started = time.perf_counter()

    def __call__(self, recipe: Recipe, stage: str) -> None:
        if not self.silent and self.stream.isatty():
            self._write(f"{self._place()} {recipe.name}: {stage} …", newline=False)

    def done(self, result: RecipeResult) -> None:
        """End a recipe's line."""
        seconds = time.perf_counter() - self.started
        if not self.silent:
            took = "" if result.outcome == "up to date" else f", {seconds:.1f} s"
            reason = "" if result.message is None else f": {result.message}"
            name = f"{self._place()} {result.entry.name}"
            self._write(f"{name}: {result.outcome}{took}{reason}", newline=True)
        self.count += 1
        self.started = time.perf_counter()

    def _place(self) -> str:
        return f"[{self.count + 1}/{self.total}]"

    def _write(self, text: str, newline: bool) -> None:
        start = "\r\x1b[K" if self.stream.isatty() else ""
        click.echo(f"{start}{text}", nl=newline, file=self.stream)
        self.stream.flush()


def _table(results: Sequence[RecipeResult]) -> str:
    return table([_HEADER, *map(_row, results)], right=(1, 2, 3, 5))


def _row(result: RecipeResult) -> tuple[str, ...]:
    entry = result.entry
    verdict = {"built": "pass", "up to date": "pass, up to date", "failed": "FAIL"}
    return (
        entry.path or entry.name,
        _NOTHING if entry.size is None else f"{entry.size / 1e6:.2f} MB",
        _NOTHING if entry.snr is None else f"{entry.snr:.1f} dB",
        _agreement(entry),
        verdict.get(result.outcome, "ERROR"),
        _NOTHING
        if result.outcome in ("up to date", "error") or entry.seconds is None
        else f"{entry.seconds:.1f} s",
    )


def _agreement(entry: IndexEntry) -> str:
    """Return the share of photos, or of pixels; on synthetic pictures it means little."""
    share = entry.agreement.get("top1", entry.agreement.get("pixels"))
    return _NOTHING if share is None or entry.synthetic else f"{share:.1%}"


def _raise_failures(results: Sequence[RecipeResult], folder: Path) -> None:
    from mvit_coreml.workflows.recipes.package_index import INDEX_NAME

    failed = [result for result in results if result.outcome == "failed"]
    broken = [result for result in results if result.outcome == "error"]
    parts = [
        f"{len(group)} of {len(results)} packages {words}: "
        + ", ".join(result.entry.name for result in group)
        for group, words in ((failed, "fell short"), (broken, "could not be built"))
        if group
    ]
    if parts:
        reasons = f"{folder / INDEX_NAME} says why"
        raise (GateError if failed else InputError)("; ".join([*parts, reasons]))
