"""Data sets of labelled images: what each image shows, as class indices of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses, match_classes, quoted
from mvit_coreml.evaluation.csv_tables import (
    TABLE_SUFFIXES,
    Table,
    is_image_name,
    read_table,
)
from mvit_coreml.preprocessing.image_loading import open_image
from mvit_coreml.preprocessing.segmentation_maps import map_array, reduce_labels
from mvit_coreml.visualization.segmentation_colors import voc_colors

VOID = 255
"""Class index of pixels that are not scored; in colours (224, 224, 192), both as in VOC."""

_IMAGE_COLUMNS = ("file", "filename", "file_name", "image", "image_path", "path", "img")
_LABEL_COLUMNS = ("label", "class", "class_id", "label_id", "target", "synset", "category", "name")
_MASK_COLUMNS = ("mask", "target", "annotation", "segmentation", "label")
# Folders of images and masks with equal names, as in VOC's development kit and elsewhere.
_MASK_FOLDERS = (("JPEGImages", "SegmentationClass"), ("images", "masks"))
_MASK_ENDINGS = ("_target", "_mask")
_VOC_SPLIT = Path("ImageSets/Segmentation/val.txt")


@dataclass(frozen=True, kw_only=True)
class LabeledImages:
    """Images for a classifier.

    Attributes:
        name: of the data set.
        images: the files.
        labels: class index of each.
        notes: sentences about how the labels were understood.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> Self:
        """Return ``limit`` of the images, spread evenly over all."""
        chosen = evenly_spaced(len(self.images), limit)
        return replace(
            self,
            images=tuple(self.images[index] for index in chosen),
            labels=tuple(self.labels[index] for index in chosen),
        )


@dataclass(frozen=True, kw_only=True)
class MaskedImages:
    """Images for a segmenter.

    Attributes:
        name: of the data set.
        images: the files.
        masks: the file of each image's mask, see :func:`read_mask`.
        reduce_labels: whether the masks count classes from 1, 0 being void.
        notes: sentences about how they were found.
    """

    name: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    reduce_labels: bool = False
    notes: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> Self:
        """Return ``limit`` of the images, spread evenly over all."""
        chosen = evenly_spaced(len(self.images), limit)
        return replace(
            self,
            images=tuple(self.images[index] for index in chosen),
            masks=tuple(self.masks[index] for index in chosen),
        )


def evenly_spaced(count: int, limit: int | None) -> list[int]:
    """Return ``limit`` positions among ``count``, evenly apart, or all if there are no more."""
    if limit is None or limit >= count:
        return list(range(count))
    if limit < 1:
        raise InputError(f"the limit is {limit} images; it must be at least 1")
    return [index * count // limit for index in range(limit)]


def read_labeled_images(
    path: str | Path,
    classes: ModelClasses,
    *,
    label_column: str | None = None,
    label_offset: int | None = None,
) -> LabeledImages:
    """Read a data set for classification.

    A folder holds one folder of images for each class, named as
    :func:`~mvit_coreml.evaluation.class_matching.match_classes` understands. A CSV file lists an
    image (relative to its folder) and its class on every line. Its columns may have any common
    name;
    where there are ``label_N`` columns, the one with the model's class count is read.

    Args:
        path: folder or CSV file.
        classes: the model's.
        label_column: column of the CSV instead of the one found by its name.
        label_offset: added to labels that are numbers; ``None`` finds it out.

    Raises:
        InputError: nothing there, no images, or classes that the model does not have.
    """
    path = find_dataset(path)
    if path.is_dir():
        if label_column is not None:
            raise InputError(f"{path}: is a folder; a label column is part of a CSV file")
        images, names = _class_folders(path)
        notes: tuple[str, ...] = ()
        folders: Sequence[Path] = (path, path.parent)
    else:
        table = read_table(path)
        images = table.files(_image_column(table))
        column, notes = _label_column(table, classes, label_column)
        if label_offset is None and column.lower() == f"label_{classes.count}":
            label_offset = 0
        names, folders = table.column(column), (path.parent,)
    match = match_classes(names, classes, str(path), offset=label_offset, mapping_folders=folders)
    return LabeledImages(
        name=path.name,
        images=tuple(images),
        labels=tuple(match.indices[name] for name in names),
        notes=(*notes, *match.notes),
    )


def read_masked_images(path: str | Path, *, reduce_labels: bool = False) -> MaskedImages:
    """Read a data set for semantic segmentation.

    A folder is laid out as VOC's (``JPEGImages``, ``SegmentationClass``; of the development kit,
    the images of ``ImageSets/Segmentation/val.txt``), has ``images`` and ``masks``, or holds pairs
    ``X_image.*``, ``X_target.*`` or ``X.*``, ``X_mask.*``. A CSV file lists an image and its mask
    on every line, relative to its folder.

    Args:
        path: folder or CSV file.
        reduce_labels: whether the masks count classes from 1, 0 being void.

    Raises:
        InputError: nothing there, no pairs, or a mask without an image.
    """
    path = find_dataset(path)
    notes: tuple[str, ...] = ()
    if path.is_dir():
        pairs, notes = _mask_folder(path)
    else:
        table = read_table(path)
        image, mask = _mask_columns(table)
        pairs = list(zip(table.files(image), table.files(mask), strict=True))
    return MaskedImages(
        name=path.name,
        images=tuple(image for image, _ in pairs),
        masks=tuple(mask for _, mask in pairs),
        reduce_labels=reduce_labels,
        notes=notes,
    )


def read_mask(path: Path, num_classes: int, *, reduce_labels: bool = False) -> NDArray[np.int64]:
    """Read a mask as class indices.

    Args:
        path: an image of one channel, whose values or palette indices are classes, or of three,
            in VOC's colours.
        num_classes: the model's.
        reduce_labels: lower every index by one, 0 becoming void.

    Returns:
        (H, W) class indices, :data:`VOID` where there is nothing to score.

    Raises:
        InputError: unreadable, or a class or colour that the model's classes do not have.
    """
    opened = open_image(path)
    if len(opened.getbands()) >= 3:
        labels = _decode_colors(np.asarray(opened.convert("RGB")), path)
    else:
        first_band = opened if len(opened.getbands()) == 1 else opened.getchannel(0)
        labels = map_array(first_band)
    if reduce_labels:
        labels = _reduced(labels)
    scored = labels[labels != VOID]
    if scored.size and not 0 <= scored.min() <= scored.max() < num_classes:
        worst = int(scored.max() if scored.max() >= num_classes else scored.min())
        raise InputError(
            f"{path}: holds class {worst}, but the model has {num_classes} classes "
            f"(0 to {num_classes - 1}); {VOID} marks pixels to leave out"
        )
    return labels


def _reduced(labels: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(reduce_labels(labels), np.int64)


def _decode_colors(pixels: NDArray[Any], path: Path) -> NDArray[np.int64]:
    weights = np.array([1 << 16, 1 << 8, 1])
    known = voc_colors(256).astype(np.int64) @ weights
    order = np.argsort(known)
    colors, positions = np.unique(pixels.astype(np.int64) @ weights, return_inverse=True)
    places = order[np.searchsorted(known, colors, sorter=order).clip(max=len(known) - 1)]
    for color in colors[known[places] != colors]:
        rgb = (int(color) >> 16, int(color) >> 8 & 255, int(color) & 255)
        raise InputError(
            f"{path}: the colour {rgb} is none of VOC's; save class indices as an image of one "
            "channel"
        )
    return places[positions].reshape(pixels.shape[:2]).astype(np.int64)


def find_dataset(path: str | Path) -> Path:
    """Return the path of a data set that is there: a folder or a CSV file.

    Raises:
        InputError: it is neither.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"{path}: there is no such data set; name a folder or a CSV file")
    if path.is_file() and path.suffix.lower() not in TABLE_SUFFIXES:
        listed = ", ".join(TABLE_SUFFIXES)
        raise InputError(f"{path}: is neither a folder nor a CSV file ({listed})")
    return path


def _images_in(folder: Path, deep: bool = False) -> list[Path]:
    return sorted(
        path
        for path in (folder.rglob("*") if deep else folder.iterdir())
        if is_image_name(path.name) and not path.name.startswith(".") and path.is_file()
    )


def _class_folders(path: Path) -> tuple[list[Path], list[str]]:
    """Return the images of a folder of class folders, and the class folder of each."""
    images: list[Path] = []
    names: list[str] = []
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            found = _images_in(folder, deep=True)
            images += found
            names += [folder.name] * len(found)
    if not images:
        raise InputError(
            f"{path}: holds no class folders with images; name the folder above them, or a CSV "
            "of file,label"
        )
    return images, names


def _image_column(table: Table) -> str:
    column = table.find(_IMAGE_COLUMNS) or next(iter(table.file_columns()), None)
    if column is None:
        raise InputError(
            f"{table.path}: no column names images among {', '.join(table.columns)}; call it 'file'"
        )
    return column


def _label_column(
    table: Table, classes: ModelClasses, given: str | None
) -> tuple[str, tuple[str, ...]]:
    if given is not None:
        table.column(given)  # says so if there is none
        return given, ()
    counted = table.find([f"label_{classes.count}"])
    if counted is not None:
        note = f"labels are those of column {counted!r}, as the model has {classes.count} classes"
        return counted, (note,)
    image = _image_column(table)
    others = [column for column in table.columns if column != image]
    column = table.find([name for name in _LABEL_COLUMNS if name != image.lower()])
    if column is None and len(others) == 1:
        column = others[0]
    if column is None:
        raise InputError(
            f"{table.path}: no column is certain to be the label among "
            f"{', '.join(others) or 'those beside the image'}; name it with --label-column"
        )
    return column, ()


def _mask_columns(table: Table) -> tuple[str, str]:
    files = table.file_columns()
    image = _image_column(table)
    mask = table.find([name for name in _MASK_COLUMNS if name != image.lower()])
    if mask is None:
        mask = next((column for column in files if column != image), None)
    if mask is None:
        raise InputError(
            f"{table.path}: no column names masks among {', '.join(table.columns)}; call it 'mask'"
        )
    return image, mask


def _mask_folder(path: Path) -> tuple[list[tuple[Path, Path]], tuple[str, ...]]:
    for image_folder, mask_folder in _MASK_FOLDERS:
        if (path / image_folder).is_dir() and (path / mask_folder).is_dir():
            return _mask_folders(path, path / image_folder, path / mask_folder)
    files = _by_stem(_images_in(path))
    masks: dict[str, Path] = {}
    wanted: dict[str, tuple[str, ...]] = {}
    for stem, file in files.items():
        for ending in _MASK_ENDINGS:
            if stem.endswith(ending):
                base = stem.removesuffix(ending)
                masks[stem], wanted[stem] = file, (f"{base}_image", base)
    return _paired(path, files, masks, wanted), ()


def _mask_folders(
    path: Path, image_folder: Path, mask_folder: Path
) -> tuple[list[tuple[Path, Path]], tuple[str, ...]]:
    images, masks = _by_stem(_images_in(image_folder)), _by_stem(_images_in(mask_folder))
    notes: tuple[str, ...] = ()
    if (path / _VOC_SPLIT).is_file():
        listed = (path / _VOC_SPLIT).read_text(encoding="utf-8").split()
        _check_all([name for name in listed if name not in masks], path, "mask")
        masks = {name: masks[name] for name in listed}
        notes = (f"the images are the {len(listed)} of {_VOC_SPLIT.as_posix()}",)
    return _paired(path, images, masks, {name: (name,) for name in masks}), notes


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in files:
        other = found.setdefault(file.stem, file)
        if other != file:
            raise InputError(
                f"{file.parent}: {other.name} and {file.name} differ only in their ending; which "
                "belongs to the mask cannot be told"
            )
    return found


def _paired(
    path: Path,
    images: dict[str, Path],
    masks: dict[str, Path],
    wanted: dict[str, tuple[str, ...]],
) -> list[tuple[Path, Path]]:
    """Return every mask with its image: the first of the wanted names that there is."""
    if not masks:
        raise InputError(
            f"{path}: holds no images with masks; lay them out as JPEGImages and "
            "SegmentationClass, as X_image.* and X_target.* or X.* and X_mask.*, or list them in "
            "a CSV of image,mask"
        )
    image_of = {
        mask: next((images[name] for name in names if name in images), None)
        for mask, names in wanted.items()
    }
    _check_all(
        [masks[mask].name for mask, image in image_of.items() if image is None], path, "image"
    )
    return [(image, masks[mask]) for mask, image in image_of.items() if image is not None]


def _check_all(missing: Sequence[str], path: Path, what: str) -> None:
    if missing:
        raise InputError(f"{path}: there is no {what} to {quoted(missing)}")
