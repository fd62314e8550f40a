"""Loading and running the reference models, against transformers, in one run.

    python benchmarks/reference_models.py

Loading is timed in fresh processes, alternating between the two, and reports the peak memory that
loading added. The forward pass is timed alternately in one process.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LOAD_OURS = """
from mvit_coreml import load_checkpoint, build_model
import mvit_coreml.checkpoints.load, mvit_coreml.models.base, resource, time
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
model = build_model(load_checkpoint({folder!r}))
"""
LOAD_THEIRS = """
from transformers import MobileViTForImageClassification
import resource, time
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
model = MobileViTForImageClassification.from_pretrained({folder!r})
"""
REPORT = """
seconds = time.perf_counter() - start
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(seconds, (after - before) / 1024, after / 1024)
"""


def measure_load(script: str, folder: str) -> tuple[float, float, float]:
    code = script.format(folder=folder) + REPORT
    printed = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    seconds, added, peak = map(float, printed.split()[-3:])
    return seconds, added, peak


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare_loading(repeats: int) -> None:
    from mvit_coreml import MobileViTConfig, build_model

    config = MobileViTConfig(id2label={index: str(index) for index in range(1000)})
    with tempfile.TemporaryDirectory() as folder:
        build_model(config, "image-classification").save_pretrained(folder)
        rows = [
            (measure_load(LOAD_OURS, folder), measure_load(LOAD_THEIRS, folder))
            for _ in range(repeats)
        ]
    for index, unit in enumerate(("seconds to load", "MB added by loading", "MB at the peak")):
        ours = statistics.median(row[0][index] for row in rows)
        theirs = statistics.median(row[1][index] for row in rows)
        print(f"{unit:>20}: ours {ours:8.2f}  transformers {theirs:8.2f}  {ours / theirs:.2f}x")


def compare_forward(repeats: int) -> None:
    import torch
    import transformers

    from mvit_coreml import MobileNetV2Config, MobileViTConfig, MobileViTV2Config, build_model

    for config in (MobileViTConfig(), MobileViTV2Config(), MobileNetV2Config()):
        name = f"{config.architecture_prefix}ForImageClassification"
        theirs = getattr(transformers, name)(
            getattr(transformers, f"{config.architecture_prefix}Config")()
        ).eval()
        # Freshly initialised activations vanish into denormal numbers, which are slow.
        for parameter in theirs.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
        ours = build_model(config, "image-classification")
        ours.load_state_dict(theirs.state_dict())
        for batch in (1, 8):
            images = torch.rand(batch, 3, *config.image_hw)
            ratios, times = [], []
            with torch.inference_mode():
                ours(images), theirs(images)
                for _ in range(3):
                    mine = median_seconds(lambda: ours(images), repeats)  # noqa: B023
                    other = median_seconds(lambda: theirs(images), repeats)  # noqa: B023
                    ratios.append(mine / other)
                    times.append((mine, other))
            mine, other = min(t[0] for t in times), min(t[1] for t in times)
            print(
                f"{config.model_type:>13} batch {batch}: ours {mine * 1e3:7.1f} ms  "
                f"transformers {other * 1e3:7.1f} ms  {statistics.median(ratios):.2f}x"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    compare_loading(repeats)
    compare_forward(repeats)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main()
