"""W8A8 packages: ours beside coremltools' own recipe, calibrated on the same pictures, in one run.

    python benchmarks/quantization.py [--data FOLDER] [--photos 128] [CASE ...]

FOLDER (by default the environment variable MVIT_TEST_DATA) holds trained checkpoints, images to
calibrate on and other images to evaluate on. For each checkpoint a package is converted in half
precision. coremltools' graph passes then round its activations (``linear_quantize_activations``,
which itself needs a Mac to calibrate: here they get the least and greatest value of everything on
all the calibration pictures, measured by the portable runtime) and its weights
(``linear_quantize_weights``, symmetric, one scale for each channel); ``mvit-coreml convert
--quantize w8a8`` makes ours. Every figure comes from a saved package, run by the portable runtime
on the evaluation images. "seconds" is the whole of our conversion, and for the recipe its passes
without the measuring. No latency is measured: nothing here runs on a device.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from faithfulness import DEEPLAB, MOBILENET, MOBILEVIT, Judge, calibration, command

CASES = {"mobilenet": MOBILENET, "mobilevit": MOBILEVIT, "deeplab": DEEPLAB}
# A large input takes long to run by operations, and shows much.
MOST_PIXELS = 128 * 224 * 224


def chosen_photos(folder: Path, count: int, into: Path) -> Path:
    """Link evenly spaced photos of a folder into another one, which is made."""
    from mvit_coreml.preprocessing.image_loading import find_images

    into.mkdir()
    for number, photo in enumerate(find_images(folder, count)):
        (into / f"{number:04}{photo.suffix}").symlink_to(photo.resolve())
    return into


def extremes(package: Path, photos: Path) -> dict[str, dict[str, float]]:
    """Return the least and the greatest value of everything that a package computes."""
    from mvit_coreml.evaluation.read_metadata import choose_preparation
    from mvit_coreml.mil.parallel import parallel_map
    from mvit_coreml.mil.predictor import Predictor
    from mvit_coreml.mil.value_types import TensorType
    from mvit_coreml.preprocessing.image_loading import find_images

    predictor = Predictor(package, engine="portable")
    prepare, _ = choose_preparation(predictor.package, predictor.function)
    names = [
        value.name
        for step in predictor.function.steps
        for value in step.outputs
        if isinstance(value.type, TensorType) and value.type.data_type.is_float
    ]
    (image,) = predictor.function.inputs

    def one(photo: Path) -> list[tuple[str, float, float]]:
        values = predictor.run({image.name: prepare(photo).pixels}, [], intermediates=names)
        return [(name, float(v.min()), float(v.max())) for name, v in values.items()]

    found: dict[str, dict[str, float]] = {}
    for ranges in parallel_map(one, find_images(photos)):
        for name, low, high in ranges:
            known = found.setdefault(name, {"rmin": low, "rmax": high})
            known["rmin"], known["rmax"] = min(known["rmin"], low), max(known["rmax"], high)
    return found


def coremltools_recipe(source: Path, statistics: dict[str, Any], output: Path) -> float:
    """Quantize a package as coremltools does once it has statistics; return the seconds."""
    from mvit_coreml.export.coremltools_import import load_coremltools, quiet

    ct = load_coremltools()
    import coremltools.optimize.coreml as cto
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.converters.mil.mil.passes.graph_pass import PassOption
    from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
    from coremltools.models import utils

    config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(mode="linear_symmetric"))
    passes = []
    for place in ("prefix", "suffix"):
        one = PASS_REGISTRY[f"compression::insert_{place}_quantize_dequantize_pair"]
        one.set_options([PassOption("config", config), PassOption("activation_stats", statistics)])
        passes.append(one)
    passes.append(PASS_REGISTRY["common::dequantize_quantize_pair_elimination"])
    start = time.perf_counter()
    with quiet():
        model = ct.models.MLModel(str(source), skip_model_load=True)
        version = model.get_spec().specificationVersion
        model = utils._apply_graph_pass(
            model, passes, spec_version=version, pymil_load_func=load, skip_model_load=True
        )
        model = cto.linear_quantize_weights(model, config)
        model.save(str(output))
    return time.perf_counter() - start


def shares(package: Path) -> str:
    """Say what a package computes in 8 bits, and what it moves."""
    from mvit_coreml import inspect_package

    (function,) = inspect_package(package).functions
    compute = function.compute
    moved = sum(compute.moved_bytes.values()) / 1e6
    pairs = function.operations.get("quantize", 0)
    return f"{100 * compute.int8_share:5.1f} % of MACs int8, moves {moved:6.2f} MB, {pairs} pairs"


def run(name: str, data: Path, folder: Path, most: int, more: list[str]) -> None:
    model = CASES[name]
    judge = Judge(data, model)
    folder = folder / name
    folder.mkdir()
    source, fp16 = data / model, folder / "fp16.mlpackage"
    height, width = judge.checkpoint.input_size
    count = max(16, min(most, MOST_PIXELS // (height * width)))
    photos = chosen_photos(calibration(data, model, folder), count, folder / "photos")
    command("convert", source, "--bits", "none", "--no-validate", "--quiet", "-o", fp16)
    print(f"{name}: {model}, {count} pictures to calibrate on", flush=True)
    print(judge.line("fp16", fp16, 0.0), flush=True)
    theirs = folder / "coremltools.mlpackage"
    seconds = coremltools_recipe(fp16, extremes(fp16, photos), theirs)
    print(judge.line("coremltools, min-max", theirs, seconds), shares(theirs), flush=True)
    ours = folder / "ours.mlpackage"
    made = ["--quantize", "w8a8", "--images", photos, "--keep-failed", "--quiet", "-o", ours]
    seconds = command("convert", source, *made, *more)
    print(judge.line("ours", ours, seconds), shares(ours), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--data", type=Path, default=os.environ.get("MVIT_TEST_DATA"))
    parser.add_argument("--photos", type=int, default=128, help="to calibrate on, at most")
    parser.add_argument("--ios", default="17", help="deployment target of our packages")
    options = parser.parse_args()
    if options.data is None:
        raise SystemExit("name the folder of the data with --data or in MVIT_TEST_DATA")
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        raise SystemExit(f"no case {unknown[0]!r}; known are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.cases or CASES:
            more = ["--ios", options.ios]
            run(name, Path(options.data), Path(folder), options.photos, more)


if __name__ == "__main__":
    main()
