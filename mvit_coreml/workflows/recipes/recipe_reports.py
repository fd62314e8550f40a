"""Reports of built packages, one a recipe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.reports.report import build_report
from mvit_coreml.reports.write_report import write_report
from mvit_coreml.validation.gates import Gate
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.validation.report_samples import REPORT_SAMPLES
from mvit_coreml.workflows.finishing import PICTURES_AFTER_CONVERSION
from mvit_coreml.workflows.recipes.package_index import Check
from mvit_coreml.workflows.recipes.recipe_file import Recipe
from mvit_coreml.workflows.validate import validate


@dataclass(frozen=True, kw_only=True)
class RecipeReports:
    """Where the reports of a build go.

    Attributes:
        paths: recipe's name to its report.
        command: what was typed, for whoever wants the same packages.
    """

    paths: dict[str, Path]
    command: str = ""

    def place(self, recipe: Recipe, folder: Path) -> str:
        """Path of a recipe's report relative to the folder of the packages."""
        return Path(os.path.relpath(self.paths[recipe.name], folder)).as_posix()

    def write(
        self,
        recipe: Recipe,
        package: Path,
        parity: ParityReport,
        checkpoint: Checkpoint,
        checks: Iterable[Check],
        notes: Sequence[str],
    ) -> None:
        """Write the report of a package, whose verdict is that of its recipe.

        Args:
            recipe: the package's.
            package: where it lies now.
            parity: how it compares with its checkpoint.
            checkpoint: what it was made from.
            checks: the gates and the recipe's tolerances.
            notes: of the index.
        """
        judged = {gate.name for gate in parity.gates}
        asked = (_gate(check) for check in checks if check.name not in judged)
        report = build_report(
            package=package,
            parity=replace(parity, gates=(*parity.gates, *asked)),
            checkpoint=checkpoint,
            command=self.command,
            notes=notes,
        )
        write_report(report, self.paths[recipe.name])


def validate_again(
    package: Path, checkpoint: Checkpoint, recipe: Recipe, images: Sequence[Any] | None
) -> ParityReport:
    """Compare a package that was built before with its checkpoint, as the build did."""
    return validate(
        package,
        checkpoint,
        images,
        color_order=recipe.options.color_order,
        layers=None,
        pictures=PICTURES_AFTER_CONVERSION,
        samples=REPORT_SAMPLES,
    )


def _gate(check: Check) -> Gate:
    value = float("nan") if check.value is None else check.value
    return Gate(name=check.name, value=value, bound=check.bound, passed=check.passed, advice="")
