"""Speed of the portable runtime beside PyTorch eager: same weights, same image, batch 1.

Run from the repository root: ``python benchmarks/runtime.py [--threads N]``. The ratio is the
median time of the runtime over that of the reference model; ratios, unlike milliseconds, compare
across machines.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from standins import PUBLISHED, enliven, pictures

from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.models.base import build_model
from mvit_coreml.models.folding import prepare_for_export

MODELS = ("mobilevit-small", "mobilevitv2-1.0", "mobilenet_v2_1.0_224")


class Logits(nn.Module):
    """The classification logits of a model, as a plain tensor for tracing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Return (B, classes) logits."""
        return self.model(pixel_values).logits


def save_package(model: nn.Module, size: int, path: Path) -> None:
    import coremltools as ct

    exported = Logits(prepare_for_export(model)).eval()
    example = torch.rand(1, 3, size, size)
    traced = torch.jit.trace(exported, example, check_trace=False)
    ct.convert(
        traced,
        inputs=[ct.ImageType("image", shape=example.shape, scale=1 / 255)],
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    ).save(str(path))


def interleaved_medians(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Time the calls in turn, so that a busy moment of the machine hits all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for index in range(rounds + 3):
        for call, timed in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if index >= 3:
                timed.append(time.perf_counter() - start)
    return [statistics.median(timed) for timed in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1)")
    parser.add_argument("--rounds", type=int, default=30, help="timed runs (default 30)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'model':24}{'eager ms':>10}{'fp32 ratio':>12}{'fp16 ratio':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            config, task, size = PUBLISHED[name]
            model = build_model(config, task)
            enliven(model, (size, size))
            model.eval()
            path = Path(folder) / f"{name}.mlpackage"
            save_package(model, size, path)
            package = load_package(path)
            pixels = (pictures(1, (size, size))[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().contiguous() / 255
            runtimes = [Runtime(package, arithmetic=kind) for kind in ("fp32", "program")]
            with torch.inference_mode():
                eager, fp32, fp16 = interleaved_medians(
                    [
                        lambda m=model, v=values: m(v),
                        *(lambda r=runtime, p=pixels: r.run({"image": p}) for runtime in runtimes),
                    ],
                    options.rounds,
                )
            print(f"{name:24}{eager * 1e3:10.1f}{fp32 / eager:12.2f}{fp16 / eager:12.2f}")


if __name__ == "__main__":
    main()
