"""``mvit-coreml demo``: everything once, with the bundled checkpoints."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mvit_coreml.cli.printing import echo_json
from mvit_coreml.cli.reports import typed_command
from mvit_coreml.cli.stages import StageProgress
from mvit_coreml.cli.tables import table

if TYPE_CHECKING:
    from mvit_coreml.demo.run_demo import DemoResult
    from mvit_coreml.evaluation.accuracy import Accuracy

_EXAMPLES = """\b
Examples:
  mvit-coreml demo
  mvit-coreml demo -o try-out
  mvit-coreml demo --force --json
"""
_KINDS = {"classifier": "a classifier", "segmenter": "a segmenter"}


@click.command("demo", epilog=_EXAMPLES)
@click.option(
    "-o",
    "--output-path",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("mvit-demo"),
    show_default=True,
    help="Folder for the packages and their reports; made if it is missing.",
)
@click.option("--force", is_flag=True, help="Replace what an earlier demo left there.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON document.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no summary.")
def command(folder: Path, force: bool, as_json: bool, quiet: bool) -> None:
    """Convert the two bundled checkpoints, check the packages, and show what they answer.

    A classifier and a segmenter of handwritten digits in red and blue ink, trained for this
    project. Nothing is downloaded and nothing is opened; it takes about half a minute.
    """
    with StageProgress(silent=quiet) as progress:
        progress("import")
        from mvit_coreml.demo.run_demo import NAMES, run_demo

        results = run_demo(
            folder,
            force=force,
            command=typed_command(),
            progress=lambda kind, stage: progress(stage, NAMES[kind]),
        )
    if as_json:
        echo_json([_as_json(result) for result in results])
    elif not quiet:
        click.echo("\n\n".join(["\n".join(_summary(result)) for result in results]))
        click.echo("\n" + "\n".join(_where(folder, results)))


def _summary(result: DemoResult) -> Iterator[str]:
    package, parity = result.package, result.parity
    share = parity.equal_classes or 0.0
    unit = "pixels" if result.kind == "segmenter" else "pictures"
    yield f"{package.path.name}: {_KINDS[result.kind]} of {len(result.labels)} classes"
    yield (
        f"  size       {package.size / 1e6:.2f} MB with {package.options.bits}-bit palettes, "
        f"{result.plain_size / 1e6:.2f} MB in fp16"
    )
    yield (
        f"  checked    answers like its PyTorch checkpoint: SNR {parity.scores.snr:.1f} dB, "
        f"{share:.1%} of the {unit} get the same class"
    )
    if result.kind == "segmenter":
        yield f"  mean IoU   {_percent(result.right)} on {len(result.images)} pictures it never saw"
        yield f"             {_percent(result.swapped)} with red and blue swapped"
        return
    yield f"  top-1      {_percent(result.right)} on {len(result.images)} pictures it never saw"
    yield f"             {_percent(result.swapped)} with red and blue swapped:"
    rows = [("PICTURE", "PACKAGE", "RED AND BLUE SWAPPED")]
    for image, right, swapped in zip(
        result.images, result.right.predictions, result.swapped.predictions, strict=True
    ):
        rows.append((image, result.labels[right], result.labels[swapped]))
    yield table(rows, indent=13)


def _where(folder: Path, results: list[DemoResult]) -> Iterator[str]:
    classifier, *_ = results
    pictures, checkpoint = folder / "pictures", folder / "checkpoints" / classifier.kind
    first = pictures / "images" / classifier.images[0]
    yield "packages"
    yield from (f"  {result.package.path}" for result in results)
    yield "reports, to open in a browser"
    yield from (f"  {result.report}" for result in results)
    yield "to go on"
    commands = (
        ("predict", classifier.package.path, first),
        ("evaluate", checkpoint, pictures / "pictures.csv", "--color-order", "both"),
        ("convert", checkpoint, "--bits", "4", "-o", folder / "Smaller.mlpackage"),
    )
    for words in commands:
        yield "  " + shlex.join(["mvit-coreml", *map(str, words)])


def _percent(accuracy: Accuracy) -> str:
    return f"{accuracy.main.value:.1%}"


def _as_json(result: DemoResult) -> dict[str, Any]:
    parity = result.parity
    named = {"package": result.right, "red_and_blue_swapped": result.swapped}
    return {
        "kind": result.kind,
        "package": result.package.path,
        "report": result.report,
        "size": result.package.size,
        "fp16_size": result.plain_size,
        "bits": result.package.options.bits,
        "passed": parity.passed,
        "snr": parity.scores.snr,
        "agreement": dict(parity.agreement),
        "accuracy": {
            name: {metric: dataclasses.asdict(share) for metric, share in found.figures.items()}
            for name, found in named.items()
        },
        "pictures": [
            {
                "picture": image,
                "label": result.labels[truth],
                **{name: result.labels[found.predictions[index]] for name, found in named.items()},
            }
            for index, (image, truth) in enumerate(zip(result.images, result.truth, strict=False))
        ],
    }
