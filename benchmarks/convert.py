"""Conversion against the script one would write by hand, in one run.

    python benchmarks/convert.py [--case mobilevit-small ...] [--repeats 3]

Both turn the same folder into a saved fp16 package. The plain script traces transformers' model
and calls coremltools; it runs with what the installed numpy allows (``--plain-python`` names the
interpreter of another environment, for a numpy below 2.4, which coremltools 9.0 needs to convert
transformers' MobileViTs). Each run is a fresh process. "stages" is the time after the imports,
"process" that of the whole process, "peak" its largest resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

PLAIN = """
import json, resource, sys, time
import coremltools as ct
import torch
import transformers
start = time.perf_counter()
folder, output, size, architecture = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
model = getattr(transformers, architecture).from_pretrained(folder).eval()


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image).logits


image = torch.rand(1, 3, size, size)
traced = torch.jit.trace(Logits(model).eval(), image)
package = ct.convert(
    traced,
    inputs=[
        ct.ImageType(
            "image", shape=image.shape, scale=1 / 255, color_layout=ct.colorlayout.BGR
        )
    ],
    minimum_deployment_target=ct.target.iOS17,
)
package.save(output)
seconds = time.perf_counter() - start
print("RESULT " + json.dumps({
    "stages": seconds,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""
OURS = """
import json, resource, sys, time
from mvit_coreml import ConvertOptions, convert, load_checkpoint
from mvit_coreml.export.coremltools_import import load_coremltools
load_coremltools()
start = time.perf_counter()
folder, output = sys.argv[1], sys.argv[2]
options = ConvertOptions(bits=None, output="logits")
convert(load_checkpoint(folder), options, output, check=False)
seconds = time.perf_counter() - start
print("RESULT " + json.dumps({
    "stages": seconds,
    "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def run(python: str, script: str, arguments: list[str]) -> dict[str, float]:
    start = time.perf_counter()
    done = subprocess.run(
        [python, "-c", script, *arguments], capture_output=True, text=True, env=os.environ
    )
    elapsed = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"failed: {done.stderr.strip().splitlines()[-1]}")
    result = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return {"process": elapsed, **json.loads(result.removeprefix("RESULT "))}


def size_in_mb(package: Path) -> float:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file()) / 1e6


def compare(case: str, repeats: int, plain_python: str) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from standins import PUBLISHED, enliven, transformers_name

    from mvit_coreml import ImageProcessor, build_model

    config, task, size = PUBLISHED[case]
    for_family: Any = (
        ImageProcessor.for_mobilenet_v2
        if config.model_type == "mobilenet_v2"
        else ImageProcessor.for_mobilevit
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = build_model(config, task)
        enliven(model, (size, size))  # vanishing activations would slow the plain trace down
        model.save_pretrained(folder)
        processor = for_family(image_size=size).to_dict()
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
        plain, ours = [], []
        for index in range(repeats):
            theirs, mine = folder / f"plain{index}.mlpackage", folder / f"ours{index}.mlpackage"
            arguments = [name, str(theirs), str(size), transformers_name(config, task)]
            plain.append(run(plain_python, PLAIN, arguments))
            ours.append(run(sys.executable, OURS, [name, str(mine)]))
        sizes = size_in_mb(mine), size_in_mb(theirs)
    print(case)
    for key, unit in (("stages", "s"), ("process", "s"), ("peak", "MB")):
        a = statistics.median(row[key] for row in ours)
        b = statistics.median(row[key] for row in plain)
        print(f"  {key:>8}: ours {a:8.2f} {unit}  plain {b:8.2f} {unit}  {a / b:.2f}x")
    print(f"  {'size':>8}: ours {sizes[0]:8.2f} MB  plain {sizes[1]:8.2f} MB", flush=True)


def main() -> None:
    cases = (
        "mobilevit-small",
        "mobilevitv2-1.0",
        "mobilenet_v2_1.0_224",
        "deeplabv3-mobilevit-small",
    )
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", action="append")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-python", default=sys.executable)
    given = parser.parse_args()
    for case in given.case or cases:
        compare(case, given.repeats, given.plain_python)


if __name__ == "__main__":
    main()
