"""Packages of networks that this project does not convert: run, and palettized at 4 bits.

    python benchmarks/other_models.py [NAME ...] --photos photos [--results table.json]

Each network of ``tests/zoo.py`` (timm's and torchvision's, with lively random weights) is converted
by a plain script of coremltools. SNR in dB, on photos that no palette has seen, all of a network's
outputs together, each with the same weight:

- "fp32" and "fp16": the portable runtime on the saved package against PyTorch in fp32; "floor" is
  PyTorch's own half precision against that.
- "k-means" and "fitted": 4-bit palettes of coremltools' ``palettize_weights``, and of
  ``palettize --bits 4 --images``, against the fp16 package that both were made from.

With ``--results`` what is measured is kept, and a later run goes on where an earlier one ended.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))


def decibels(values: Sequence[Any], expected: Sequence[Any]) -> float:
    """SNR of several outputs together; (photos, ...) arrays of each."""
    import numpy as np

    noise = 0.0
    for value, truth in zip(values, expected, strict=True):
        wanted = truth.astype(np.float64)
        noise += np.square(value.astype(np.float64) - wanted).sum() / np.square(wanted).sum()
    return float("inf") if noise == 0 else float(-10 * np.log10(noise / len(expected)))


def package_answers(package: Path, pictures: Sequence[Any]) -> list[Any]:
    """(photos, ...) of every output."""
    import numpy as np

    from mvit_coreml.mil.parallel import map_images
    from mvit_coreml.mil.predictor import Predictor

    predictor = Predictor(package, engine="portable")
    answers = [list(one.values()) for one in map_images(predictor, pictures)]
    return [np.stack(output) for output in zip(*answers, strict=True)]


def network_answers(module: Any, pictures: Sequence[Any], half: bool = False) -> list[Any]:
    """(photos, ...) of every result of a module, in half precision if asked for."""
    import numpy as np
    import torch

    module = module.half() if half else module.float()
    answers = []
    with torch.no_grad():
        for picture in pictures:
            x = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
            result = module(x.half() if half else x)
            results = result if isinstance(result, tuple) else (result,)
            answers.append([one.float().numpy() for one in results])
    return [np.stack(output) for output in zip(*answers, strict=True)]


def measure(name: str, fitted: Sequence[Path], unseen: Sequence[Path], folder: Path) -> Any:
    """Convert, run and palettize one network."""
    import numpy as np
    from PIL import Image
    from plain_packages import Plain, compress_plainly, convert_plainly
    from zoo import ZOO

    from mvit_coreml import PaletteOptions, palettize_package
    from mvit_coreml.compression.promise import Promise

    build, size, _ = ZOO[name]
    module = Plain(build()).eval()
    pictures = [
        np.asarray(Image.open(p).convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        for p in unseen
    ]
    row: dict[str, Any] = {"name": name}
    truth = network_answers(module, pictures)
    single = convert_plainly(module, size, folder / "fp32.mlpackage", ios=16, precision="fp32")
    row["fp32"] = decibels(package_answers(single, pictures[:4]), [t[:4] for t in truth])
    plain = convert_plainly(module, size, folder / "fp16.mlpackage", ios=17)
    expected = package_answers(plain, pictures)
    row["fp16"] = decibels(expected, truth)
    row["floor"] = decibels(network_answers(module, pictures, half=True), truth)
    start = time.perf_counter()
    theirs = compress_plainly(plain, "4-bit palettes", folder / "theirs.mlpackage")
    row["k-means seconds"] = time.perf_counter() - start
    row["k-means"] = decibels(package_answers(theirs, pictures), expected)
    start = time.perf_counter()
    options = PaletteOptions(bits=4, promise=Promise(min_snr=-100))
    ours = palettize_package(plain, options, folder / "Ours.mlpackage", images=fitted)
    row["fitted seconds"] = time.perf_counter() - start
    row["fitted"] = decibels(package_answers(ours.path, pictures), expected)
    for key, path in (("MB", plain), ("k-means MB", theirs), ("fitted MB", ours.path)):
        row[key] = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
    return row


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A table in Markdown."""
    numbers = ("fp32", "fp16", "floor", "k-means", "fitted")
    header = "| network | fp16, MB | 4 bits, MB | runtime fp32 | fp16 | floor | k-means | fitted |"
    return [
        header,
        "|---|--:|--:|--:|--:|--:|--:|--:|",
        *(
            f"| {row['name']} | {row['MB']:.1f} | {row['fitted MB']:.2f} | "
            + " | ".join(f"{row[key]:.1f}" for key in numbers)
            + " |"
            for row in rows
        ),
    ]


def main() -> None:
    from zoo import ZOO

    from mvit_coreml.preprocessing.image_loading import find_images

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ZOO))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--fit", type=int, default=64, help="photos to fit to")
    parser.add_argument("--unseen", type=int, default=32, help="photos to measure on")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    photos = find_images(options.photos, options.fit + options.unseen)
    unseen = photos[:: len(photos) // options.unseen][: options.unseen]
    fitted = [photo for photo in photos if photo not in unseen][: options.fit]
    kept = options.results is not None and options.results.exists()
    rows = json.loads(options.results.read_text()) if kept else []
    for name in options.names or ZOO:
        if name in [row["name"] for row in rows]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows.append(measure(name, fitted, unseen, Path(folder)))
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
                continue
        print({key: v if isinstance(v, str) else round(v, 2) for key, v in rows[-1].items()})
        sys.stdout.flush()
        if options.results is not None:
            options.results.write_text(json.dumps(rows, indent=1))
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main()
