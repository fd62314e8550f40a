"""Palettizing a model, against coremltools' own ``palettize_weights``, in one run.

    python benchmarks/palettize.py [--model mobilevit-small] [--bits 6 8] [--repeats 3]

Both start from the same saved fp16 package (random weights; the time depends on the number of
their distinct values) and end with a saved package of the same bits, each in a fresh process
(``--plain-python`` names the interpreter of another environment for coremltools' side). "step" is
palettizing alone: of the program in memory here, ``palettize_weights(model, config)`` with k-means
there. "saved to saved" adds reading and writing the package. "error" is the sum of squared
differences between the weights before and after.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

PLAIN = """
import json, sys, time
import coremltools as ct
import coremltools.optimize.coreml as cto
source, output, bits = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.perf_counter()
model = ct.models.MLModel(source, skip_model_load=True)
config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="kmeans", nbits=bits))
step = time.perf_counter()
model = cto.palettize_weights(model, config)
step = time.perf_counter() - step
model.save(output)
print("RESULT " + json.dumps({"step": step, "saved to saved": time.perf_counter() - start}))
"""
OURS = """
import json, sys, time
from mvit_coreml.export.coremltools_import import load_coremltools
ct = load_coremltools()
from coremltools.converters.mil.frontend.milproto.load import load
from mvit_coreml.export.atomic_package import finish_package
from mvit_coreml.export.torch_to_mil import save_program
from mvit_coreml.compression.apply_plan import apply_plan, program_ios
from mvit_coreml.compression.palettizable_weights import program_weights
from mvit_coreml.workflows.choose_palettes import uniform_palettes
from pathlib import Path
source, output, bits = sys.argv[1], sys.argv[2], int(sys.argv[3])
start = time.perf_counter()
spec = ct.models.MLModel(source, skip_model_load=True).get_spec()
weights = f"{source}/Data/com.apple.CoreML/weights"
program = load(spec, spec.specificationVersion, weights)
step = time.perf_counter()
elements = [(info, op.outputs[0].val) for info, op in program_weights(program)]
palettes = uniform_palettes(elements, bits, ios=program_ios(program), source_sha256="")
apply_plan(program, palettes.plan)
step = time.perf_counter() - step
saved = save_program(program, Path(output), ios=program_ios(program), class_labels=None)
finish_package(Path(output), saved)
print("RESULT " + json.dumps({"step": step, "saved to saved": time.perf_counter() - start}))
"""


def run(python: str, script: str, arguments: list[str]) -> dict[str, float]:
    done = subprocess.run(
        [python, "-c", script, *arguments], capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        raise SystemExit(f"failed: {done.stderr.strip().splitlines()[-1]}")
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(result.removeprefix("RESULT "))


def convert_model(name: str, package: Path) -> None:
    from standins import PUBLISHED, enliven

    from mvit_coreml import ConvertOptions, ImageProcessor, build_model, convert, load_checkpoint

    config, task, size = PUBLISHED[name]
    model = build_model(config, task)
    enliven(model, (size, size))
    for_family: Any = (
        ImageProcessor.for_mobilenet_v2
        if config.model_type == "mobilenet_v2"
        else ImageProcessor.for_mobilevit
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        processor = for_family(image_size=size).to_dict()
        (Path(folder) / "preprocessor_config.json").write_text(json.dumps(processor))
        options = ConvertOptions(bits=None, output="logits")
        convert(load_checkpoint(folder), options, package, check=False)


def squared_error(original: Path, palettized: Path) -> float:
    import numpy as np

    from mvit_coreml.mil.package_reader import load_package
    from mvit_coreml.mil.stored_weights import Constants

    before, after = (Constants(load_package(path).function()) for path in (original, palettized))
    total = 0.0
    for old, new in zip(before.weights(), after.weights(), strict=True):
        difference = before.decode(old.argument).astype(np.float64) - after.decode(new.argument)
        total += float(np.square(difference).sum())
    return total


def size_in_mb(package: Path) -> float:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="mobilevit-small")
    parser.add_argument("--bits", type=int, nargs="+", default=[6, 8])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-python", default=sys.executable)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "source.mlpackage"
        convert_model(options.model, source)
        print(f"{options.model}, {size_in_mb(source):.2f} MB at fp16")
        for bits in options.bits:
            ours, plain = [], []
            for index in range(options.repeats):
                mine = Path(name) / f"ours{bits}_{index}.mlpackage"
                theirs = Path(name) / f"plain{bits}_{index}.mlpackage"
                ours.append(run(sys.executable, OURS, [str(source), str(mine), str(bits)]))
                plain.append(
                    run(options.plain_python, PLAIN, [str(source), str(theirs), str(bits)])
                )
            print(f"{bits} bits")
            for key in ("step", "saved to saved"):
                a = statistics.median(row[key] for row in ours)
                b = statistics.median(row[key] for row in plain)
                print(f"{key:>16}: ours {a:7.2f} s   coremltools {b:7.2f} s   {b / a:.1f}x faster")
            a, b = size_in_mb(mine), size_in_mb(theirs)
            print(f"{'size':>16}: ours {a:7.2f} MB  coremltools {b:7.2f} MB")
            a, b = squared_error(source, mine), squared_error(source, theirs)
            print(
                f"{'error':>16}: ours {a:7.4g}    coremltools {b:7.4g}    {a / b:.4f}x", flush=True
            )


if __name__ == "__main__":
    main()
