"""Preparing a 12-megapixel photo in Swift beside Pillow, in one run.

    python benchmarks/preprocessing.py [--size 4000x3000] [--rounds 5] [--runs 4]

Both turn the same decoded pixels upright where the photo lies on its side, resize them to a
shortest edge of 288, and cut out 256 x 256. Swift is built for release and times itself; the two
take turns, so that a busy moment of the machine hits both. The last column must not exceed 3, and
the pixels must be the same.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
EDGE, CROP = 288, 256
TURNED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}


def photo(width: int, height: int) -> Image.Image:
    """Return an image with smooth and busy parts, like a photo's."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-9, 10, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))


def with_pillow(image: Image.Image, orientation: int, resample: str) -> Image.Image:
    turn = TURNED[orientation]
    upright = image if turn is None else image.transpose(turn)
    width, height = upright.size
    if width <= height:
        size = (EDGE, int(EDGE * height / width))
    else:
        size = (int(EDGE * width / height), EDGE)
    resized = upright.resize(size, Image.Resampling[resample.upper()])
    left, top = (size[0] - CROP) // 2, (size[1] - CROP) // 2
    return resized.crop((left, top, left + CROP, top + CROP))


def with_swift(
    tool: Path, file: Path, orientation: int, resample: str, runs: int
) -> dict[str, str]:
    command = [str(tool), "bench-preprocess", str(file), "--runs", str(runs)]
    command += ["--size", str(CROP), "--resize", str(EDGE), "--resample", resample]
    done = subprocess.run(
        [*command, "--orientation", str(orientation)], capture_output=True, text=True, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def milliseconds(work: Callable[[], object], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="4000x3000", help="WIDTHxHEIGHT of the photo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=4, help="timed runs of each in a round")
    options = parser.parse_args()
    width, height = (int(edge) for edge in options.size.split("x"))

    build = ["swift", "build", "-c", "release", "--product", "mvit"]
    subprocess.run(build, cwd=ROOT, check=True, stdout=sys.stderr)
    tool = ROOT / ".build" / "release" / "mvit"
    image = photo(width, height)
    print(f"{width}x{height}, {width * height / 1e6:.1f} megapixels, to {CROP}x{CROP}")
    print(f"{'orientation':11}  {'filter':8}  {'Pillow ms':>9}  {'Swift ms':>8}  {'ratio':>5}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photo.ppm"
        image.save(file)
        for orientation in TURNED:
            for resample in ("bilinear", "bicubic"):
                expected = with_pillow(image, orientation, resample)
                pillow, swift = [], []
                for _ in range(options.rounds):
                    pillow.append(
                        milliseconds(
                            lambda o=orientation, r=resample: with_pillow(image, o, r), options.runs
                        )
                    )
                    answer = with_swift(tool, file, orientation, resample, options.runs)
                    swift.append(float(answer["median_ms"]))
                    if answer["sha256"] != hashlib.sha256(expected.tobytes()).hexdigest():
                        raise SystemExit("the pixels differ")
                ours, theirs = statistics.median(swift), statistics.median(pillow)
                print(
                    f"{orientation:11}  {resample:8}  {theirs:9.1f}  {ours:8.1f}  "
                    f"{ours / theirs:5.2f}"
                )


if __name__ == "__main__":
    main()
