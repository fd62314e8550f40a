"""``mvit-coreml demo``: everything once, with the bundled checkpoints."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.cli import arguments as opt
from mvit_coreml.cli.printing import ProgressLines, faithful_words, table

if TYPE_CHECKING:
    from mvit_coreml.demo.run_demo import DemoResult
    from mvit_coreml.evaluation.accuracy import Accuracy

_KINDS = {"classifier": "a classifier", "segmenter": "a segmenter"}


@dataclass(frozen=True, kw_only=True)
class _Arguments(opt.SummaryArguments):
    """What the command is asked.

    Attributes:
        folder: Folder for the packages and their reports; made if it is missing.
        force: Replace what an earlier demo left there.
    """

    folder: Path = opt.folder_option("mvit-demo")
    force: bool = opt.option()


@opt.command(_Arguments)
def command(arguments: _Arguments) -> None:
    """Convert the two bundled checkpoints, check the packages, and show what they answer.

    A classifier and a segmenter of handwritten digits in red and blue ink, trained for this
    project. Nothing is downloaded and nothing is opened; it takes about half a minute.

    Examples:
        mvit-coreml demo
        mvit-coreml demo -o try-out
        mvit-coreml demo --force --json
    """
    with ProgressLines(silent=arguments.quiet) as progress:
        progress("import")
        from mvit_coreml.demo.run_demo import NAMES, run_demo

        results = run_demo(
            arguments.folder,
            force=arguments.force,
            command=opt.typed_command(),
            progress=lambda kind, stage: progress(stage, NAMES[kind]),
        )
    arguments.show([_as_json(result) for result in results], _lines(arguments.folder, results))


def _lines(folder: Path, results: list[DemoResult]) -> Iterator[str]:
    for result in results:
        yield from _summary(result)
        yield ""
    yield from _where(folder, results)


def _summary(result: DemoResult) -> Iterator[str]:
    package, parity = result.package, result.parity
    rows = [
        (
            "size",
            f"{package.size / 1e6:.2f} MB with palettes, {result.plain_size / 1e6:.2f} MB in fp16",
        ),
        ("keeps", faithful_words(parity, "its PyTorch checkpoint")),
        (
            "mean IoU" if result.kind == "segmenter" else "top-1",
            f"{_percent(result.right)} on {len(result.images)} pictures it never saw",
        ),
        ("", f"{_percent(result.swapped)} with red and blue swapped"),
    ]
    yield f"{package.path.name}: {_KINDS[result.kind]} of {len(result.labels)} classes"
    yield table(rows, indent=2)
    if result.kind == "classifier":
        answers = zip(
            result.images, result.right.predictions, result.swapped.predictions, strict=True
        )
        labels = result.labels
        pictures = [(image, labels[right], labels[swapped]) for image, right, swapped in answers]
        yield table([("PICTURE", "PACKAGE", "RED AND BLUE SWAPPED"), *pictures], indent=4)


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
        "bits": result.parity.bits,
        "passed": parity.passed,
        "snr": parity.scores.snr,
        "agreement": parity.agreement,
        "accuracy": {name: one.figures for name, one in named.items()},
        "pictures": [
            {
                "picture": image,
                "label": result.labels[truth],
                **{name: result.labels[one.predictions[index]] for name, one in named.items()},
            }
            for index, (image, truth) in enumerate(zip(result.images, result.truth, strict=False))
        ],
    }
