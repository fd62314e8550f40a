"""Writes the files that pytest and Swift's tests both check: python -m tests.golden.write.

Every expected value comes from Pillow, NumPy, PyTorch or a real package, never from Swift.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path[:0] = [path for path in [str(FOLDER.parent)] if path not in sys.path]

from golden import answer_cases, package_cases, preprocessing_cases  # noqa: E402
from golden.pictures import picture  # noqa: E402

DATA = FOLDER / "data"


def image_files() -> dict[str, bytes]:
    """Return the files about preprocessing."""
    pixels = picture("waves", 1, (23, 37))
    grey = pixels[..., :1].repeat(3, axis=-1)
    alpha = picture("noise", 2, (23, 37))[..., :1]
    # The three binary forms of the Netpbm formats, with a comment, as editors leave them.
    portable = {
        "picture.ppm": (b"P6\n# drawn by a formula\n37 23\n255\n" + pixels.tobytes(), pixels),
        "picture.pgm": (b"P5 37 23 255\n" + pixels[..., 0].tobytes(), grey),
        "picture.pam": (
            b"P7\nWIDTH 37\nHEIGHT 23\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
            + b"".join(
                bytes([*p, *a])
                for p, a in zip(pixels.reshape(-1, 3), alpha.ravel()[:, None], strict=True)
            ),
            pixels,
        ),
    }
    content = {
        "cases": preprocessing_cases.cases(),
        "placements": preprocessing_cases.placements(),
        "netpbm": {
            name: hashlib.sha256(rgb.tobytes()).hexdigest() for name, (_, rgb) in portable.items()
        },
    }
    files = {name: data for name, (data, _) in portable.items()}
    return files | {"preprocessing.json": _lines(content)}


def answer_files() -> dict[str, bytes]:
    """Return the files about what models answer."""
    content = {"top_k": answer_cases.top_k(), "segmentation": answer_cases.segmentation()}
    return {"answers.json": _lines(content)}


def _lines(content: dict[str, Any]) -> bytes:
    """Write JSON with a case a line, which a difference is read in."""
    parts = []
    for key, value in content.items():
        if isinstance(value, list):
            inner = ",\n".join(json.dumps(case, ensure_ascii=False) for case in value)
            parts.append(f"{json.dumps(key)}: [\n{inner}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return ("{\n" + ",\n".join(parts) + "\n}\n").encode()


def main() -> None:
    """Write all files anew."""
    files = image_files() | answer_files() | package_cases.files()
    shutil.rmtree(DATA, ignore_errors=True)
    for name, content in files.items():
        path = DATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
