"""What ``mvit-coreml predict`` prints and saves about its images."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvit_coreml.cli.printing import shape_in_words, table
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.metrics import top_k
from mvit_coreml.evaluation.read_metadata import class_colors
from mvit_coreml.evaluation.targets import NOT_SEEN, Answer, PackageTarget
from mvit_coreml.files import write_file
from mvit_coreml.preprocessing.image_loading import foreign_profile, open_image, to_rgb, to_srgb
from mvit_coreml.visualization.segmentation_colors import (
    LegendEntry,
    add_legend,
    overlay,
    paletted_mask,
)

if TYPE_CHECKING:
    from mvit_coreml.cli.commands.predict import SavingArguments


class PredictionResults:
    """Reads images, and makes of every answer what is printed and saved.

    Args:
        target: the package.
        images: their files.
        saving: where maps and features go.
        labels: class names, where the package has none.
        top: number of a classifier's classes to list; by default 5, and of several labels all that
            are there.
        threshold: probability above which one of several labels is there; by default 0.5.

    Attributes:
        documents: what the package answered about the images so far, ready for JSON.

    Raises:
        InputError: an option that does not fit the package, or a file that may not be written.
    """

    def __init__(
        self,
        target: PackageTarget,
        images: Sequence[Path],
        saving: SavingArguments,
        labels: Sequence[str] | None = None,
        top: int | None = None,
        threshold: float | None = None,
    ) -> None:
        self.target, self.images = target, images
        several = target.activation == "sigmoid" and any(role.is_scores for role in target.roles)
        self._check(several or threshold is None, "--threshold", "does not tell several labels")
        self.threshold = (0.5 if threshold is None else threshold) if several else None
        self.top = top if several or top is not None else 5
        self.labels = labels if target.labels is None else target.labels
        self.photos: dict[int, Image.Image] = {}
        self.documents: list[dict[str, Any]] = []
        self.features = [role for role in target.roles if role.kind == "features"]
        maps = any(role.is_map for role in target.roles)
        self.files: dict[str, list[Path]] = {}
        self.feature_files: dict[str, list[Path]] = {}
        for option, pattern in (("overlay", saving.overlay), ("mask", saving.mask)):
            if pattern is not None:
                self._check(maps, f"--{option}", "answers no class maps")
                self.files[option] = destinations(
                    f"--{option}", pattern, images, ".png", saving.force
                )
        both = [path.resolve() for paths in self.files.values() for path in paths]
        if len(set(both)) < len(both):
            raise InputError("--overlay and --mask name the same file; name different ones")
        if saving.features is not None:
            self._check(bool(self.features), "--features", "answers no features")
            saving.features.mkdir(parents=True, exist_ok=True)
            for role in self.features:
                suffix = ".png" if role.is_image else ".npy"
                pattern = str(saving.features / f"{{name}}.{role.name}{suffix}")
                self.feature_files[role.role] = destinations(
                    "--features", pattern, images, suffix, saving.force
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
        """Save what is to be saved of an answer, and return what there is to print."""
        document: dict[str, Any] = {"image": str(self.images[index])}
        if answer.scores() is not None and self.threshold is not None:
            listed = top_classes(answer, self.labels, self.top)
            there = [one for one in listed if one["probability"] > self.threshold]
            document |= {"threshold": self.threshold, "labels": there}
        elif answer.scores() is not None:
            document["top"] = top_classes(answer, self.labels, self.top)
        elif answer.class_map() is not None:
            document |= self._segmentation(index, answer)
        values = next((r.role for r in self.target.roles if r.kind == "values"), None)
        if values is not None:
            document["values"] = [
                {"index": index, "label": _label(self.labels, index), "value": value}
                for index, value in enumerate(answer.outputs[values].reshape(-1).tolist())
            ]
        if self.features:
            document["features"] = {
                role.name: self._feature(index, answer, role.role) for role in self.features
            }
        self.documents.append(document)
        return document

    def _segmentation(self, index: int, answer: Answer) -> dict[str, Any]:
        classes = answer.photo_map()
        assert classes is not None
        shares = class_shares(classes, self.labels)
        confidence = answer.photo_confidence()
        if confidence is not None:
            for share in shares:
                share["confidence"] = float(confidence[classes == share["index"]].mean())
        document: dict[str, Any] = {
            "size": list(classes.shape),
            "seen": float((classes != NOT_SEEN).mean()),
            "classes": shares,
        }
        count = max(len(self.labels or ()), int(classes.max()) + 1)
        colors = class_colors(self.target.package, self.target.function, count)
        if "overlay" in self.files:
            painted = paint_classes(self.photos.pop(index), classes, colors, shares)
            document["overlay"] = self._save_png("overlay", index, Image.fromarray(painted))
        if "mask" in self.files:
            document["mask"] = self._save_png("mask", index, paletted_mask(classes, colors))
        return document

    def _feature(self, index: int, answer: Answer, role: str) -> dict[str, Any]:
        values = answer.outputs[role]
        document = describe_array(values)
        if role in self.feature_files:
            path = self.feature_files[role][index]
            if path.suffix == ".png":
                write_file(path, _png(_picture(values, self._color_order(role))))
            else:
                save_array(path, values)
            document["file"] = str(path)
        return document

    def _color_order(self, role: str) -> str | None:
        return next(one.color_order for one in self.target.function.outputs if one.name == role)

    def _save_png(self, option: str, index: int, image: Image.Image) -> str:
        path = self.files[option][index]
        write_file(path, _png(image))
        return str(path)

    def lines(self, document: dict[str, Any]) -> Iterator[str]:
        """Yield what to print about one image."""
        yield document["image"]
        if "labels" in document and not document["labels"]:
            yield f"  no label above {document['threshold']:g}"
        scores = document.get("top", document.get("labels"))
        if scores:
            rows = []
            for rank, score in enumerate(scores, 1):
                row = (str(rank), f"{100 * score['probability']:.2f} %", score["label"])
                logit = (f"logit {score['logit']:.3f}",) if "logit" in score else ()
                rows.append((*row, f"[{score['index']}]", *logit))
            yield table(rows, indent=2, right=(0, 1))
        if "values" in document:
            values = [
                (f"{one['value']:.6g}", one["label"], f"[{one['index']}]")
                for one in document["values"]
            ]
            yield table(values, indent=2, right=(0,))
        if "classes" in document:
            rows = []
            for share in document["classes"]:
                row = (f"{100 * share['share']:.2f} %", share["label"], f"[{share['index']}]")
                sure = share.get("confidence")
                rows.append(row if sure is None else (*row, f"{100 * sure:.1f} % sure"))
            yield table(rows, indent=2, right=(0,))
            if document["seen"] < 1:
                yield f"  of the {100 * document['seen']:.1f} % of the image that the fit keeps"
            yield from (f"  {name} saved as {document[name]}" for name in self.files)
        for name, feature in document.get("features", {}).items():
            shape = shape_in_words(feature["shape"])
            yield (
                f"  {name}: {feature['dtype']} {shape}, {feature['min']:.4g} to "
                f"{feature['max']:.4g}, mean {feature['mean']:.4g}"
            )
            if "file" in feature:
                yield f"    saved as {feature['file']}"


def describe_array(values: NDArray[Any]) -> dict[str, Any]:
    """Return the shape, element type and range of an array."""
    if not values.size:
        nothing = {"min": float("nan"), "mean": float("nan"), "max": float("nan")}
        return {"shape": list(values.shape), "dtype": str(values.dtype)} | nothing
    return {
        "shape": list(values.shape),
        "dtype": str(values.dtype),
        "min": float(values.min()),
        "mean": float(values.mean(dtype=np.float64)),
        "max": float(values.max()),
    }


def save_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array as a .npy file, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_file(path, buffer.getvalue())


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _picture(values: NDArray[Any], color_order: str | None) -> Image.Image:
    """Return an output that is an image: (1, channels, height, width) from 0 to 255."""
    planes = np.clip(np.rint(np.asarray(values, np.float32)), 0, 255).astype(np.uint8)
    planes = planes.reshape(planes.shape[-3:])
    if len(planes) == 1:
        return Image.fromarray(planes[0])
    if color_order == "bgr":
        planes = planes[::-1]
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(planes, 0, -1)))


def top_classes(
    answer: Answer, labels: Sequence[str] | None, count: int | None
) -> list[dict[str, Any]]:
    """Return the most likely classes of a classifier's answer, the likeliest first.

    Args:
        answer: with probabilities or logits.
        labels: class names.
        count: how many to return; ``None`` for all.

    Returns:
        Of each class its ``index``, ``label``, ``probability`` from 0 to 1, and the ``logit`` where
        the package answers logits; the probability is that of their activation then.
    """
    scores, probabilities = answer.scores(), answer.probabilities()
    assert scores is not None
    assert probabilities is not None
    top: list[dict[str, Any]] = []
    for index in top_k(scores, scores.size if count is None else count):
        probability = float(probabilities[index])
        top.append({"index": index, "label": _label(labels, index), "probability": probability})
        if "probabilities" not in answer.outputs:
            top[-1]["logit"] = float(scores[index])
    return top


def class_shares(classes: NDArray[Any], labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the classes of a photo's map, the largest first.

    Returns:
        Of each class its ``index``, ``label``, number of ``pixels``, and their ``share`` of those
        that the package saw.
    """
    seen = classes[classes != NOT_SEEN]
    indices, counts = np.unique(seen, return_counts=True)
    pairs = sorted(zip(counts.tolist(), indices.tolist(), strict=True), key=lambda p: (-p[0], p[1]))
    return [
        {
            "index": index,
            "label": _label(labels, index),
            "pixels": pixels,
            "share": pixels / seen.size,
        }
        for pixels, index in pairs
    ]


def _label(labels: Sequence[str] | None, index: int) -> str:
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


def paint_classes(
    photo: Any,
    classes: NDArray[Any],
    colors: NDArray[np.uint8],
    shares: Sequence[dict[str, Any]],
    alpha: float = 0.5,
) -> NDArray[np.uint8]:
    """Blend the classes' colours over a photo and put a legend below.

    A class 0 named background is left unpainted, and what the package did not see.

    Args:
        photo: the photo.
        classes: (H, W) from :meth:`~mvit_coreml.evaluation.targets.Answer.photo_map`.
        colors: (num_labels, 3) uint8 RGB.
        shares: from :func:`class_shares`; what the legend lists.
        alpha: weight of the colours.

    Returns:
        (H + legend, W', 3) uint8 RGB, as :func:`add_legend` returns it.
    """
    listed = [one for one in shares if one["index"] or one["label"].lower() != "background"]
    bare = np.isin(classes, [one["index"] for one in listed], invert=True)
    pixels = np.asarray(photo)
    painted = overlay(pixels, np.where(bare, 0, classes), colors, alpha)
    entries = []
    for one in listed:
        red, green, blue = (int(value) for value in colors[one["index"]])
        entries.append(
            LegendEntry(f"{one['label']} {100 * one['share']:.1f} %", (red, green, blue))
        )
    return add_legend(np.where(bare[..., None], pixels, painted), entries)


def destinations(
    option: str, pattern: str, images: Sequence[Path], suffix: str, force: bool
) -> list[Path]:
    """Return the file to write for each image, before any work is done.

    Args:
        option: that gave the pattern, for messages.
        pattern: a file, for one image; a folder, which gets a file named after each image; or a
            file name with ``{name}`` in place of the image's name.
        images: the images.
        suffix: that the files have.
        force: allow existing files to be replaced.

    Raises:
        InputError: one file for several images, a missing folder, a wrong suffix, an existing file
            without ``force``, two results of one name, or a result in place of an image.
    """
    path = Path(pattern)
    if "{name}" in pattern:
        paths = [Path(pattern.replace("{name}", image.stem)) for image in images]
    elif path.is_dir() or pattern.endswith(("/", os.sep)):
        paths = [path / f"{image.stem}{suffix}" for image in images]
    elif len(images) > 1:
        raise InputError(
            f"{option} {pattern}: is one file for {len(images)} images; name an existing folder, "
            f"or a file with {{name}} in it, such as out/{{name}}{suffix}"
        )
    else:
        paths = [path]
    originals = {image.resolve(): image for image in images}
    taken: dict[Path, Path] = {}
    for result, image in zip(paths, images, strict=True):
        place = result.resolve()
        if result.suffix.lower() != suffix:
            raise InputError(f"{option} {result}: the file's name must end in {suffix}")
        if not result.parent.is_dir():
            raise InputError(
                f"{option} {result}: the folder {result.parent} does not exist; create it first"
            )
        if place in originals:
            raise InputError(f"{option} {result}: would replace the image {originals[place]}")
        if place in taken:
            raise InputError(
                f"{option} {result}: {taken[place]} and {image} have the same name; "
                "predict them one at a time"
            )
        if result.exists() and not force:
            raise InputError(f"{option} {result}: exists already; use --force to replace it")
        taken[place] = image
    return paths
