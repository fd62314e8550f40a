"""What ``mvit-coreml predict`` prints and saves about its images."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from mvit_coreml.cli.destinations import destinations, write_file
from mvit_coreml.cli.tables import table
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.predictions import (
    class_shares,
    paint_classes,
    top_classes,
)
from mvit_coreml.evaluation.read_metadata import class_colors, class_labels
from mvit_coreml.evaluation.targets import NOT_SEEN, Answer, PackageTarget
from mvit_coreml.preprocessing.image_loading import foreign_profile, open_image, to_rgb, to_srgb
from mvit_coreml.visualization.segmentation_colors import paletted_mask


class PredictionReport:
    """Reads images, and makes of every answer what is printed and saved.

    Args:
        target: the package.
        images: their files.
        given: the command's options: ``top``, ``overlay``, ``mask``, ``features`` and ``force``.

    Attributes:
        found: what was found about the images so far, ready for JSON.

    Raises:
        InputError: an option that does not fit the package, or a file that may not be written.
    """

    def __init__(
        self, target: PackageTarget, images: Sequence[Path], given: dict[str, Any]
    ) -> None:
        self.target, self.images = target, images
        self.labels = class_labels(target.package, target.function)
        self.top: int = given["top"]
        self.photos: dict[int, Image.Image] = {}
        self.found: list[dict[str, Any]] = []
        kinds = {role.kind for role in target.roles}
        maps = kinds & {"classes", "map_logits", "map_probabilities"}
        self.files: dict[str, list[Path]] = {}
        self.feature_files: dict[str, list[Path]] = {}
        for option in ("overlay", "mask"):
            if given[option] is not None:
                self._check(bool(maps), f"--{option}", "answers no class maps")
                self.files[option] = destinations(
                    f"--{option}", given[option], images, ".png", given["force"]
                )
        both = [path.resolve() for paths in self.files.values() for path in paths]
        if len(set(both)) < len(both):
            raise InputError("--overlay and --mask name the same file; name different ones")
        if given["features"] is not None:
            self._check("features" in kinds, "--features", "answers no features")
            given["features"].mkdir(parents=True, exist_ok=True)
            for role in target.roles:
                if role.kind == "features":
                    pattern = str(given["features"] / f"{{name}}.{role.name}.npy")
                    self.feature_files[role.role] = destinations(
                        "--features", pattern, images, ".npy", given["force"]
                    )

    def _check(self, fits: bool, option: str, why: str) -> None:
        if not fits:
            raise InputError(f"{option}: {self.target.package.path} {why}; leave it out")

    def read(self, color_managed: bool) -> Iterator[Image.Image]:
        """Open the images one by one; say what their colour profiles lead to."""
        for index, path in enumerate(self.images):
            image = open_image(path)
            profile = foreign_profile(image)
            try:
                if profile is None or not color_managed:
                    photo = to_rgb(image)
                else:
                    photo = to_srgb(image, profile)
            except InputError as error:
                raise InputError(f"{path}: {error}") from None
            if profile is not None and not color_managed:
                click.echo(
                    f"note: {path}: its colour profile ({profile.name}) is ignored, as PyTorch's "
                    "loaders do; --color-managed converts it to sRGB, as iOS does",
                    err=True,
                )
            if "overlay" in self.files:
                self.photos[index] = photo
            yield photo

    def take(self, index: int, answer: Answer) -> dict[str, Any]:
        """Save what is to be saved of an answer, and return what there is to say."""
        found: dict[str, Any] = {"image": str(self.images[index])}
        if answer.scores() is not None:
            found |= self._classification(answer)
        elif answer.class_map() is not None:
            found |= self._segmentation(index, answer)
        features = [role for role in self.target.roles if role.kind == "features"]
        if features:
            found["features"] = {
                role.name: self._feature(index, answer, role.role) for role in features
            }
        self.found.append(found)
        return found

    def _classification(self, answer: Answer) -> dict[str, Any]:
        top = top_classes(answer, self.labels, self.top)
        return {
            "top": [
                {
                    name: value
                    for name, value in dataclasses.asdict(score).items()
                    if value is not None
                }
                for score in top
            ]
        }

    def _segmentation(self, index: int, answer: Answer) -> dict[str, Any]:
        classes = answer.photo_map()
        assert classes is not None
        shares = class_shares(classes, self.labels)
        found: dict[str, Any] = {
            "size": list(classes.shape),
            "seen": float((classes != NOT_SEEN).mean()),
            "classes": [dataclasses.asdict(share) for share in shares],
        }
        count = max(len(self.labels or ()), int(classes.max()) + 1)
        if {"overlay", "mask"} & set(self.files):
            colors = class_colors(self.target.package, self.target.function, count)
        if "overlay" in self.files:
            painted = paint_classes(self.photos.pop(index), classes, colors, shares)
            found["overlay"] = self._save_png("overlay", index, Image.fromarray(painted))
        if "mask" in self.files:
            found["mask"] = self._save_png("mask", index, paletted_mask(classes, colors))
        return found

    def _feature(self, index: int, answer: Answer, role: str) -> dict[str, Any]:
        values = answer.outputs[role]
        found: dict[str, Any] = {
            "shape": list(values.shape),
            "dtype": str(values.dtype),
            "min": float(values.min()),
            "mean": float(values.mean(dtype=np.float64)),
            "max": float(values.max()),
        }
        if role in self.feature_files:
            buffer = io.BytesIO()
            np.save(buffer, values, allow_pickle=False)
            write_file(self.feature_files[role][index], buffer.getvalue())
            found["file"] = str(self.feature_files[role][index])
        return found

    def _save_png(self, option: str, index: int, image: Image.Image) -> str:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        path = self.files[option][index]
        write_file(path, buffer.getvalue())
        return str(path)

    def text(self, found: dict[str, Any]) -> str:
        """Say what was found about one image."""
        lines = [found["image"]]
        if "top" in found:
            rows = []
            for rank, score in enumerate(found["top"], 1):
                row = (str(rank), f"{100 * score['probability']:.2f} %", score["label"])
                logit = (f"logit {score['logit']:.3f}",) if "logit" in score else ()
                rows.append((*row, f"[{score['index']}]", *logit))
            lines.append(table(rows, indent=2, right=(0, 1)))
        if "classes" in found:
            rows = [
                (f"{100 * share['share']:.2f} %", share["label"], f"[{share['index']}]")
                for share in found["classes"]
            ]
            lines.append(table(rows, indent=2, right=(0,)))
            if found["seen"] < 1:
                lines.append(
                    f"  of the {100 * found['seen']:.1f} % of the image that the fit keeps"
                )
            lines += [f"  {name} saved as {found[name]}" for name in self.files if name in found]
        for name, feature in found.get("features", {}).items():
            shape = "x".join(map(str, feature["shape"]))
            lines.append(
                f"  {name}: {feature['dtype']} {shape}, {feature['min']:.4g} to "
                f"{feature['max']:.4g}, mean {feature['mean']:.4g}"
            )
            if "file" in feature:
                lines.append(f"    saved as {feature['file']}")
        return "\n".join(lines)
