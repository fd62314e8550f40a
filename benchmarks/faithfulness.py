"""How faithful packages are: ours beside coremltools' plain palettes, in one run.

    python benchmarks/faithfulness.py [--data FOLDER] [CASE ...] [--minutes 0]

FOLDER (by default the environment variable MVIT_TEST_DATA) holds trained checkpoints, images to
calibrate on and other images to evaluate on. Each case converts a checkpoint without palettes, lets
coremltools palettize that package with k-means, and asks ``mvit-coreml convert`` for packages that
are fitted to photos: with the same bits for every weight, and with no more bytes. The default cases
let it do what it does without any option. Every figure comes from a saved package, run by the
portable runtime on the evaluation images; "seconds" is the whole of coremltools' palettization or
of our conversion.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOBILENET = "mobilenet_v2_1.0_224"
MOBILEVIT = "mobilevit_xxs_cifar10_64"
DEEPLAB = "deeplabv3_mobilenet_v2_1.0_513_os16"

PLAIN = """
import sys, time, warnings
warnings.simplefilter("ignore")
import coremltools as ct
import coremltools.optimize.coreml as cto
source, output, bits = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = ct.models.MLModel(source, skip_model_load=True)
config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="kmeans", nbits=bits))
start = time.perf_counter()
model = cto.palettize_weights(model, config)
print("SECONDS", time.perf_counter() - start)
model.save(output)
"""


@dataclass(frozen=True)
class Case:
    """A checkpoint and the bits whose size is not to be exceeded."""

    model: str
    bits: int
    ios: int = 17
    images: bool = True
    group_size: int = 0

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        short = {MOBILENET: "mobilenet", MOBILEVIT: "mobilevit", DEEPLAB: "deeplab"}[self.model]
        groups = f"-groups-of-{self.group_size}" if self.group_size else ""
        return f"{short}-{self.bits}{groups}" + ("" if self.images else "-default")


CASES = (
    Case(MOBILENET, 6, images=False),
    Case(MOBILENET, 6),
    Case(MOBILENET, 4),
    Case(MOBILENET, 4, ios=18, group_size=16),
    Case(DEEPLAB, 6, images=False),
    Case(DEEPLAB, 4),
    Case(MOBILEVIT, 6, images=False),
    Case(MOBILEVIT, 4),
    Case(MOBILEVIT, 3, ios=18),
)


def calibration(data: Path, model: str, folder: Path) -> Path:
    """Return a folder with the images to calibrate on."""
    if model == MOBILEVIT:
        return data / "cifar10/calibration"
    # A segmenter needs no labels either: photos of anything will do.
    photos = folder / "calibration"
    photos.mkdir(exist_ok=True)
    lines = (data / "imagenet/calibration.csv").read_text().splitlines()[1:]
    for name in (line.split(",")[0] for line in lines):
        if not (photos / name).exists():
            (photos / name).symlink_to(data / "imagenet" / name)
    return photos


def evaluation(data: Path, model: str) -> Path:
    """Return the labelled images to evaluate on."""
    sets = {
        MOBILEVIT: "cifar10/evaluation",
        MOBILENET: "imagenet/evaluation.csv",
        DEEPLAB: "voc",
    }
    return data / sets[model]


class Judge:
    """Says how packages do on evaluation images, beside the PyTorch reference."""

    def __init__(self, data: Path, model: str) -> None:
        from mvit_coreml import load_checkpoint
        from mvit_coreml.evaluation.class_matching import ModelClasses
        from mvit_coreml.evaluation.labeled_datasets import read_labeled_images, read_masked_images

        self.checkpoint = load_checkpoint(data / model)
        self.classes = self.checkpoint.config.num_labels
        self.dataset: Any
        if self.checkpoint.task == "semantic-segmentation":
            self.dataset = read_masked_images(evaluation(data, model))
        else:
            labels = tuple(self.checkpoint.id2label.values())
            known = ModelClasses(count=self.classes, labels=labels)
            self.dataset = read_labeled_images(evaluation(data, model), known)
        self.photos = list(self.dataset.images)
        if model == DEEPLAB:
            # Its four labelled photos say little; maps need no labels to be compared.
            lines = (data / "imagenet/evaluation.csv").read_text().splitlines()[1::5]
            self.photos += [data / "imagenet" / line.split(",")[0] for line in lines]

    def line(self, name: str, package: Path, seconds: float) -> str:
        """Return a line of figures."""
        from mvit_coreml import ValidateOptions, validate
        from mvit_coreml.evaluation.accuracy import evaluate
        from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget
        from mvit_coreml.mil.predictor import Predictor

        target = PackageTarget(Predictor(package, engine="portable"))
        size = target.image.height, target.image.width
        fit = target.preparation.fit
        reference = ReferenceTarget(self.checkpoint, target.roles, fit=fit, size=size)
        results = evaluate([reference, target], self.dataset, self.classes)
        ours, main = results.accuracies[0].main, results.accuracies[1].main
        report = validate(package, self.checkpoint, self.photos, ValidateOptions(structure=False))
        return (
            f"  {name:<24} {package_bytes(package):>9,} bytes {seconds:6.1f} s; keeps "
            f"{report.kept()}; {report.scores.snr:5.1f} dB; {100 * main.value:5.1f} % right, drop "
            f"{100 * (ours.value - main.value):+5.1f} points on {results.images} labelled"
        )


def package_bytes(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def command(*arguments: object) -> float:
    """Run ``mvit-coreml`` and return the seconds it took."""
    start = time.perf_counter()
    script = "from mvit_coreml.cli import main; main()"
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True)
    return time.perf_counter() - start


def run(case: Case, data: Path, folder: Path, minutes: float) -> None:
    judge = Judge(data, case.model)
    source = data / case.model
    fp16 = folder / f"{case.model}-{case.ios}.mlpackage"
    made = ["convert", source, "--ios", case.ios, "--no-validate", "--quiet"]
    if not fp16.exists():
        command(*made, "--bits", "none", "-o", fp16)
    plain = folder / f"plain-{case.name}.mlpackage"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(fp16), str(plain), str(case.bits)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    seconds = float(done.stdout.rsplit("SECONDS", 1)[1])
    limit = package_bytes(plain)
    print(f"{case.name}: {case.model}, no larger than coremltools at {case.bits} bits", flush=True)
    print(judge.line("fp16", fp16, 0.0), flush=True)
    print(judge.line("coremltools k-means", plain, seconds), flush=True)
    ours = folder / f"ours-{case.name}.mlpackage"
    if not case.images:
        seconds = command("convert", source, "--ios", case.ios, "--quiet", "-o", ours)
        print(judge.line("ours, default, no photos", ours, seconds), flush=True)
        return
    made += ["--images", calibration(data, case.model, folder), "--force", "-o", ours]
    made += ["--tune", minutes] if minutes else []
    made += ["--group-size", case.group_size] if case.group_size else []
    seconds = command(*made, "--bits", case.bits)
    print(judge.line("ours, photos, same bits", ours, seconds), flush=True)
    seconds = command(*made, "--target-size", limit)
    print(judge.line("ours, photos, same size", ours, seconds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(c.name for c in CASES))
    parser.add_argument("--data", type=Path, default=os.environ.get("MVIT_TEST_DATA"))
    parser.add_argument("--minutes", type=float, default=0, help="of tuning; 0 for none")
    options = parser.parse_args()
    if options.data is None:
        raise SystemExit("name the folder of the data with --data or in MVIT_TEST_DATA")
    known = {case.name: case for case in CASES}
    unknown = [name for name in options.cases if name not in known]
    if unknown:
        raise SystemExit(f"no case {unknown[0]!r}; known are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases or known:
            run(known[name], options.data, Path(folder), options.minutes)


if __name__ == "__main__":
    main()
