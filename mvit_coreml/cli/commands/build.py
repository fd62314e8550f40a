"""``mvit-coreml build``: the packages of recipes, and an index of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import ProgressLines, table
from mvit_coreml.errors import GateError, InputError

if TYPE_CHECKING:
    from mvit_coreml.workflows.build_recipes import RecipeResult
    from mvit_coreml.workflows.package_index import IndexEntry
    from mvit_coreml.workflows.recipe_file import Recipe

_HEADER = ("PACKAGE", "SIZE", "SNR", "AGREEMENT", "RESULT", "TIME")
_NOTHING = "-"


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.HubArguments, opt.SummaryArguments):
    """What the command is asked.

    Attributes:
        folder: Folder for the packages and their index.json; made if it is missing.
        force: Build every package, or those whose inputs have changed.
        keep_going: Go on with the other recipes after a failure, or stop.
        keep_failed: Write packages even if they fall short.
        images: Photos to measure on, a folder or one; by default synthetic pictures.
        report: Write a report of every package, also of one that falls short: a file name that ends
            in .html, .md or .json, with {name} in place of the recipe's.
        verbose: Show what coremltools prints.
    """

    recipes: tuple[Path, ...] = opt.argument(nargs=-1, required=True)
    folder: Path = opt.folder_option("packages")
    force: bool = opt.option("--force/--only-changed", show_default=True)
    keep_going: bool = opt.option("--keep-going/--fail-fast", default=True)
    keep_failed: bool = opt.option()
    images: Path | None = opt.option()
    report: str | None = opt.option(metavar="FILE")
    verbose: bool = opt.option("-v")


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Build the packages of recipes that are not up to date.

    RECIPES are TOML files that name a checkpoint, what to make of it and how good it must be, or
    folders of them. What a failure or an interruption leaves undone, the next build does. Exits
    with 3 when a package fails a gate or a tolerance, else with 2 when one could not be built.

    Examples:
        mvit-coreml build convert/ -o packages/
        mvit-coreml build my-mobilevit.toml -o packages/ --images photos/
        mvit-coreml build convert/apple_mobilevit-small.toml convert/apple_mobilevit-x-small.toml
        mvit-coreml build convert/ -o packages/ --report "packages/{name}.html"
        mvit-coreml build convert/ -o packages/ --force --json
    """
    from mvit_coreml.workflows.build_recipes import RecipeReports, build_recipes
    from mvit_coreml.workflows.recipe_file import find_recipes

    read = find_recipes(arguments.recipes)
    for hint in (hint for recipe in read for hint in recipe.hints):
        click.echo(f"hint: {hint}", err=True)
    reports = None
    if arguments.report is not None:
        paths = _report_paths(arguments.report, [recipe.name for recipe in read])
        reports = RecipeReports(paths=paths, command=opt.typed_command())
    photos = opt.read_images(arguments.images)
    with _RecipeLines(len(read), silent=arguments.quiet) as lines:
        results = build_recipes(
            read,
            arguments.folder,
            force=arguments.force,
            keep_going=arguments.keep_going,
            keep_failed=arguments.keep_failed,
            images=photos,
            reports=reports,
            progress=lines.begin,
            done=lines.end,
            verbose=arguments.verbose,
            **arguments.loading,
        )
    arguments.show(results, [table([_HEADER, *map(_row, results)], right=(1, 2, 3, 5))])
    _raise_failures(results, arguments.folder)


def _report_paths(pattern: str, names: Sequence[str]) -> dict[str, Path]:
    """Return the report of each recipe, and make the folders for them."""
    if "{name}" not in pattern and len(names) > 1:
        raise InputError(
            f"--report {pattern}: is one file for {len(names)} packages; put {{name}} into its "
            "name, such as reports/{name}.html"
        )
    paths = {name: Path(pattern.replace("{name}", name)) for name in names}
    for path in paths.values():
        with contextlib.suppress(OSError):  # what is wrong is said by the check
            path.parent.mkdir(parents=True, exist_ok=True)
        opt.ReportArguments(report=path).check_report()
    return paths


class _RecipeLines(ProgressLines):
    """Prints a line for every recipe, with the stage under way on a terminal.

    Args:
        total: number of recipes.
        silent: print nothing.
    """

    def __init__(self, total: int, *, silent: bool) -> None:
        super().__init__(silent=silent)
        self.total, self.count = total, 1
        self.begun = time.perf_counter()

    def begin(self, recipe: Recipe, stage: str) -> None:
        """Show the stage of a recipe."""
        self.show(f"[{self.count}/{self.total}] {recipe.name}: {stage} …")

    def end(self, result: RecipeResult) -> None:
        """Print a recipe's line."""
        took = f", {time.perf_counter() - self.begun:.1f} s"
        outcome = result.outcome + ("" if result.outcome == "up to date" else took)
        reason = "" if result.message is None else f": {result.message}"
        self.line(f"[{self.count}/{self.total}] {result.entry.name}: {outcome}{reason}")
        self.count += 1
        self.begun = time.perf_counter()


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
    from mvit_coreml.validation.pytorch_comparison import equal_classes

    share = equal_classes(entry.agreement)
    return _NOTHING if share is None or entry.synthetic else f"{share:.1%}"


def _raise_failures(results: Sequence[RecipeResult], folder: Path) -> None:
    from mvit_coreml.workflows.package_index import INDEX_NAME

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
