"""What sound packages reach: the measurements behind the default gates of ``validate``.

Run from the repository root: ``python benchmarks/parity.py [SOURCE...] [--photos DIR]``. Every
checkpoint is converted at each precision and number of bits, and each saved package is compared
with PyTorch on synthetic pictures and, where given, on photos.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from mvit_coreml import ConvertOptions, ValidateOptions, convert, load_checkpoint, validate
from mvit_coreml.preprocessing.image_loading import find_images

SETTINGS: tuple[dict[str, object], ...] = (
    {"precision": "fp32", "bits": None},
    {"precision": "fp16", "bits": None},
    {"precision": "fp16", "bits": 8},
    {"precision": "fp16", "bits": 6},
    {"precision": "fp16", "bits": 4},
)


def known_sources() -> list[tuple[str, Path | None]]:
    """Trained checkpoints of the test data, each with photos of its kind."""
    data = Path(os.environ.get("MVIT_TEST_DATA", ""))
    pairs = {
        "mobilenet_v2_1.0_224": "imagenet",
        "mobilevit_xxs_cifar10_64": "cifar10/evaluation",
        "deeplabv3_mobilenet_v2_1.0_513_os16": "voc",
    }
    return [(str(data / name), data / photos) for name, photos in pairs.items()]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--limit", type=int, default=100)
    arguments = parser.parse_args()
    pairs = [(source, arguments.photos) for source in arguments.sources] or known_sources()
    print(f"{'checkpoint':<36}{'weights':<10}{'synthetic':>11}{'photos':>11}  agreement")
    for source, photos in pairs:
        checkpoint = load_checkpoint(source)
        for setting in SETTINGS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "package.mlpackage"
                options = ConvertOptions(**setting)  # type: ignore[arg-type]
                convert(checkpoint, options, path, check=False)
                synthetic = validate(path, checkpoint, options=ValidateOptions(structure=False))
                cells = f"{synthetic.scores.snr:>8.1f} dB"
                if photos is not None:
                    images = find_images(photos, arguments.limit)
                    report = validate(path, checkpoint, images, ValidateOptions(structure=False))
                    name, share = next(iter(report.agreement.items()), ("", 0.0))
                    cells += f"{report.scores.snr:>8.1f} dB  {name} {share:.4f}"
            bits = setting["bits"]
            weights = f"{bits} bits" if bits else setting["precision"]
            print(f"{checkpoint.provenance.name:<36}{weights!s:<10}{cells}", flush=True)


if __name__ == "__main__":
    main()
