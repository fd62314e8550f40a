"""What NumPy, PyTorch and Pillow make of a model's answers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mvit_coreml.export.metadata import label_colors
from mvit_coreml.preprocessing.geometry import Fit, place
from mvit_coreml.preprocessing.segmentation_maps import unfit_map
from mvit_coreml.visualization.segmentation_colors import distinct_colors, voc_colors

# What stands in the gaps between rows; larger than any score, so that reading it shows.
GAP = 999.0


def top_k() -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    scores = {
        "distinct": [0.1, 0.6, 0.05, 0.25],
        "tie at the top": [0.2, 0.3, 0.3, 0.2],
        "all equal": [0.25] * 4,
        "tie across the cut": [0.1, 0.4, 0.1, 0.1, 0.3],
        "one class": [1.0],
        "negative": [-3.0, -1.0, -2.0, -1.0],
        "large logits": [1000.0, 999.0, -1000.0],
        "many with ties": [float(v) for v in rng.integers(0, 12, 60) / 16],
    }
    cases = []
    for name, values in scores.items():
        logits = np.array(values, np.float32)
        # A stable sort leaves equal scores in the order of their classes.
        order = np.argsort(-logits, kind="stable")
        softmax = torch.from_numpy(logits).double().softmax(0)
        cases.append(
            {
                "name": name,
                "scores": values,
                "order": [int(index) for index in order[:5]],
                "softmax": [round(float(value), 12) for value in softmax],
            }
        )
    return cases


def segmentation() -> dict[str, Any]:
    return {
        "voc_colors": [_hex(color) for color in voc_colors(21)],
        "voc_colors_256_sha256": hashlib.sha256(voc_colors(256).tobytes()).hexdigest(),
        "label_colors": [{"labels": labels, "colors": label_colors(labels)} for labels in _LABELS],
        "distinct_colors": [_hex(color) for color in distinct_colors(40)],
        "overlays": [_overlay(255), _overlay(128), _overlay(1), _overlay(0)],
        "scores": [_scores(shape, row, seed) for seed, (shape, row) in enumerate(_SHAPES)],
        "classes": [_classes((5, 7), 7), _classes((5, 7), 16), _classes((9, 2), 32)],
        "unfitted": [_unfitted(*case) for case in _FITTED],
    }


_LABELS = (
    ["road", "sky", "tree"],
    ["Background", "road", "sky", "tree"],
    ["background", "Aeroplane", *map(str, range(2, 15)), "person", *map(str, range(16, 21))],
    ["background", *map(str, range(20))],
)
# Shape of the scores and length of a padded row.
_SHAPES = (
    ((1, 4, 5, 7), 7),
    ((1, 4, 5, 7), 16),
    ((3, 9, 2), 16),
    ((1, 21, 8, 6), 32),
    ((1, 2, 1, 1), 16),
)
# Size of the image, size and crop of its processor, fit, and shape of the map.
_FITTED: tuple[tuple[Any, int, Any, Fit, Any], ...] = (
    ((10, 14), 12, (8, 8), "crop", (8, 8)),
    ((10, 14), 12, (8, 8), "pad", (4, 4)),
    ((14, 10), 12, (8, 8), "stretch", (2, 2)),
    ((3, 20), 5, (8, 8), "crop", (8, 8)),
    ((31, 17), 16, (12, 16), "pad", (6, 8)),
)


def _overlay(alpha: int) -> dict[str, Any]:
    classes = np.arange(35).reshape(5, 7) % 6
    colors = distinct_colors(6)
    rgba = np.dstack([colors[classes], np.full((5, 7), alpha, np.uint8)]).astype(np.uint8)
    hidden = rgba.copy()
    hidden[classes == 0] = 0
    return {
        "width": 7,
        "height": 5,
        "classes": classes.ravel().tolist(),
        "colors": [_hex(color) for color in colors],
        "alpha": alpha,
        # Pillow's RGBa holds colours multiplied by alpha.
        "rgba": _premultiplied(rgba),
        "rgba_without_class_0": _premultiplied(hidden),
    }


def _premultiplied(rgba: NDArray[np.uint8]) -> str:
    return Image.fromarray(rgba, "RGBA").convert("RGBa").tobytes("raw", "RGBa").hex()


def _scores(shape: tuple[int, ...], row: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    # Few levels, so that there are ties between classes.
    scores = (rng.integers(-6, 7, shape) / 4).astype(np.float32)
    *_, classes, height, width = shape
    padded = np.full((classes, height, row), GAP, np.float32)
    padded[:, :, :width] = scores.reshape(classes, height, width)
    strides = [classes * height * row] * (len(shape) - 3) + [height * row, row, 1]
    larger = (height * 3 + 1, width * 2 + 3)
    smooth = torch.from_numpy(rng.normal(size=(1, classes, height, width)).astype(np.float32))
    resized = torch.nn.functional.interpolate(smooth, size=larger, mode="bilinear")[0]
    return {
        "shape": list(shape),
        "strides": strides,
        "values": padded.ravel().tolist(),
        "map": scores.reshape(classes, height, width).argmax(0).ravel().tolist(),
        "smooth_values": [float(value) for value in smooth.ravel()],
        "resized": {"width": larger[1], "height": larger[0]},
        "resized_map": resized.argmax(0).ravel().tolist(),
    }


def _classes(size: tuple[int, int], row: int) -> dict[str, Any]:
    classes = np.random.default_rng(row).integers(0, 21, size)
    padded = np.full((size[0], row), int(GAP))
    padded[:, : size[1]] = classes
    return {
        "shape": list(size),
        "strides": [row, 1],
        "values": padded.ravel().tolist(),
        "map": classes.ravel().tolist(),
    }


def _unfitted(
    image: tuple[int, int], edge: int, frame: tuple[int, int], fit: Fit, shape: tuple[int, int]
) -> dict[str, Any]:
    laid_out = place(image, size=edge, crop_size=frame, fit=fit)
    classes = np.random.default_rng(edge).integers(0, 9, shape)
    return {
        "image": {"width": image[1], "height": image[0]},
        "input": {"width": frame[1], "height": frame[0]},
        "shortest_edge": edge,
        "fit": fit,
        "map_width": shape[1],
        "map_height": shape[0],
        "classes": classes.ravel().tolist(),
        "fill": 255,
        "unfitted": unfit_map(classes, laid_out, fill=255).ravel().tolist(),
    }


def _hex(color: Any) -> str:
    return "#{:02X}{:02X}{:02X}".format(*(int(value) for value in color))
