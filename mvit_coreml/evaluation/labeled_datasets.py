"""Reading labelled images from folders or CSV: what each shows, as a model's class indices."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses, match_classes, quoted
from mvit_coreml.preprocessing.image_loading import (
    evenly_spaced,
    images_in,
    is_image_name,
    open_image,
)
from mvit_coreml.preprocessing.segmentation_maps import map_array
from mvit_coreml.preprocessing.segmentation_maps import reduce_labels as shift_labels
from mvit_coreml.visualization.segmentation_colors import voc_colors

VOID = 255
"""Class index of pixels that are not scored; in colours (224, 224, 192), both as in VOC."""

_TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_IMAGE_COLUMNS = ("file", "filename", "file_name", "image", "image_path", "path", "img")
_LABEL_COLUMNS = ("label", "class", "class_id", "label_id", "target", "synset", "category", "name")
_LABELS_COLUMNS = ("labels", "tags", "classes", "categories", "label_ids", *_LABEL_COLUMNS)
# What may stand between the labels of a cell, besides blanks.
_LABEL_MARKS = "|;,"
# Cells of a column for one label.
_YES = {"1": True, "1.0": True, "true": True, "yes": True}
_NO = {"0": False, "0.0": False, "false": False, "no": False}
_MASK_COLUMNS = ("mask", "target", "annotation", "segmentation", "label")
# Folders of images and masks with equal names, as in VOC's development kit and elsewhere.
_MASK_FOLDERS = (("JPEGImages", "SegmentationClass"), ("images", "masks"))
_MASK_ENDINGS = ("_target", "_mask")
_VOC_SPLIT = Path("ImageSets/Segmentation/val.txt")


@dataclass(frozen=True, kw_only=True)
class _DatasetImages:
    name: str
    images: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> Self:
        """Return ``limit`` of the images, spread evenly over all."""
        chosen = evenly_spaced(len(self.images), limit)
        columns: dict[str, Any] = {
            name: tuple(column[place] for place in chosen)
            for name, column in vars(self).items()
            if name in ("images", "labels", "masks")
        }
        return replace(self, **columns)


@dataclass(frozen=True, kw_only=True)
class LabeledImages(_DatasetImages):
    """Images for a classifier.

    Attributes:
        name: of the data set.
        images: the files.
        labels: class index of each.
        notes: sentences about how the labels were understood.
    """

    labels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MultiLabelImages(_DatasetImages):
    """Images for a classifier of several labels.

    Attributes:
        name: of the data set.
        images: the files.
        labels: class indices of each, in order; none where it has no label.
        notes: sentences about how the labels were understood.
    """

    labels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class MaskedImages(_DatasetImages):
    """Images for a segmenter.

    Attributes:
        name: of the data set.
        images: the files.
        masks: the file of each image's mask, see :func:`read_mask`.
        reduce_labels: whether the masks count classes from 1, 0 being void.
        notes: sentences about how they were found.
    """

    masks: tuple[Path, ...]
    reduce_labels: bool = False


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


def read_multi_label_images(
    path: str | Path,
    classes: ModelClasses,
    *,
    label_column: str | None = None,
    label_offset: int | None = None,
) -> MultiLabelImages:
    """Read a CSV file of images that have several labels each, or none.

    Either it has a column of 0 and 1 for every one of the model's labels, or a column of labels
    with ``|``, ``;``, commas (in quotes) or blanks between them, by name or class index.

    Args:
        path: CSV file; the images are relative to its folder.
        classes: the model's.
        label_column: column of the labels instead of the one found by its name.
        label_offset: added to labels that are numbers; ``None`` finds it out.

    Raises:
        InputError: nothing there, a folder, a label without a column, or a cell that means nothing.
    """
    path = find_dataset(path)
    if path.is_dir():
        raise InputError(
            f"{path}: a folder of class folders gives a photo one label, and the model tells "
            "several; list them in a CSV of file,labels or with a column of 0 and 1 for each label"
        )
    table = read_table(path)
    image = _image_column(table)
    images = tuple(table.files(image))
    by_label = None if label_column is not None else _yes_or_no_columns(table, image, classes)
    if by_label is not None:
        present = [by_label[index] for index in range(classes.count)]
        rows = tuple(tuple(np.flatnonzero(row).tolist()) for row in zip(*present, strict=True))
        note = f"labels are those of {len(present)} columns of 0 and 1"
        return MultiLabelImages(name=path.name, images=images, labels=rows, notes=(note,))
    column = label_column or table.find([n for n in _LABELS_COLUMNS if n != image.lower()])
    others = [name for name in table.columns if name != image]
    if column is None and len(others) == 1:
        column = others[0]
    if column is None:
        raise InputError(
            f"{table.path}: no column is certain to hold the labels among {', '.join(others)}; "
            "name it with --label-column, or give a column of 0 and 1 for every label"
        )
    cells = _label_cells(table.column(column), classes)
    names = {name for cell in cells for name in cell}
    match = match_classes(
        names, classes, str(path), offset=label_offset, mapping_folders=(path.parent,)
    )
    labels = tuple(tuple(sorted({match.indices[name] for name in cell})) for cell in cells)
    return MultiLabelImages(name=path.name, images=images, labels=labels, notes=match.notes)


def _yes_or_no_columns(
    table: CsvTable, image: str, classes: ModelClasses
) -> dict[int, list[bool]] | None:
    """Return the columns of 0 and 1 by class index; ``None`` where labels are written otherwise."""
    meanings = _YES | _NO
    columns = {
        name: [meanings.get(cell.lower()) for cell in table.column(name)]
        for name in table.columns
        if name != image
    }
    read = {name: [v for v in cells if v is not None] for name, cells in columns.items()}
    whole = {name: cells for name, cells in read.items() if len(cells) == len(table.rows)}
    if len(whole) < 2 and not (whole and classes.count == 1):
        return None
    indices: dict[str, int] = {}
    for name in whole:
        # Further columns of 0 and 1, such as one that parts the data, are no labels.
        with contextlib.suppress(InputError):
            indices |= match_classes([name], classes, str(table.path)).indices
    if not indices:
        return None
    missing = [classes.name(i) for i in range(classes.count) if i not in indices.values()]
    if missing:
        raise InputError(
            f"{table.path}: has no column of 0 and 1 for {quoted(missing)}; give every label one"
        )
    return {index: whole[name] for name, index in indices.items()}


def _label_cells(cells: Sequence[str], classes: ModelClasses) -> list[list[str]]:
    """Part the labels of every cell."""
    mark = next((mark for mark in _LABEL_MARKS if any(mark in cell for cell in cells)), None)
    if mark is None:
        # A blank may be part of a name.
        try:
            match_classes([cell for cell in cells if cell], classes, "")
        except InputError:
            return [cell.split() for cell in cells]
        return [[cell] if cell else [] for cell in cells]
    return [[part.strip() for part in cell.split(mark) if part.strip()] for cell in cells]


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
        images, masks, notes = _mask_folder(path)
    else:
        table = read_table(path)
        column = _image_column(table)
        images = table.files(column)
        masks = table.files(_file_column(table, _MASK_COLUMNS, "masks", "mask", besides=column))
    return MaskedImages(
        name=path.name,
        images=tuple(images),
        masks=tuple(masks),
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
        labels = np.asarray(shift_labels(labels), np.int64)
    scored = labels[labels != VOID]
    if scored.size and not 0 <= scored.min() <= scored.max() < num_classes:
        worst = int(scored.max() if scored.max() >= num_classes else scored.min())
        raise InputError(
            f"{path}: holds class {worst}, but the model has {num_classes} classes "
            f"(0 to {num_classes - 1}); {VOID} marks pixels to leave out"
        )
    return labels


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
    if path.is_file() and path.suffix.lower() not in _TABLE_SUFFIXES:
        listed = ", ".join(_TABLE_SUFFIXES)
        raise InputError(f"{path}: is neither a folder nor a CSV file ({listed})")
    return path


def _class_folders(path: Path) -> tuple[list[Path], list[str]]:
    """Return the images of a folder of class folders, and the class folder of each."""
    images: list[Path] = []
    names: list[str] = []
    for folder in sorted(path.iterdir()):
        if folder.is_dir() and not folder.name.startswith("."):
            of_class = images_in(folder)
            images += of_class
            names += [folder.name] * len(of_class)
    if not images:
        raise InputError(
            f"{path}: holds no class folders with images; name the folder above them, or a CSV "
            "of file,label"
        )
    return images, names


def _image_column(table: CsvTable) -> str:
    return _file_column(table, _IMAGE_COLUMNS, "images", "file")


def _file_column(
    table: CsvTable, names: Sequence[str], what: str, advised: str, besides: str = ""
) -> str:
    """Return the column of one of these names, or else the first one of image files."""
    column = table.find([name for name in names if name != besides.lower()])
    column = column or next((one for one in table.file_columns() if one != besides), None)
    if column is None:
        raise InputError(
            f"{table.path}: no column names {what} among {', '.join(table.columns)}; call it "
            f"{advised!r}"
        )
    return column


def _label_column(
    table: CsvTable, classes: ModelClasses, asked_for: str | None
) -> tuple[str, tuple[str, ...]]:
    if asked_for is not None:
        table.column(asked_for)  # says so if there is none
        return asked_for, ()
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


def _mask_folder(path: Path) -> tuple[list[Path], list[Path], tuple[str, ...]]:
    """Return the images and masks of a folder, and what there is to say about them."""
    notes: tuple[str, ...] = ()
    # Stem of each mask to the stems that its image may have, the likeliest first.
    stems: dict[str, tuple[str, ...]]
    for image_folder, mask_folder in _MASK_FOLDERS:
        if (path / image_folder).is_dir() and (path / mask_folder).is_dir():
            images, masks = _by_stem(path / image_folder), _by_stem(path / mask_folder)
            stems = {stem: (stem,) for stem in masks}
            if (path / _VOC_SPLIT).is_file():
                listed = (path / _VOC_SPLIT).read_text(encoding="utf-8").split()
                _check_all([stem for stem in listed if stem not in masks], path, "mask")
                stems = {stem: (stem,) for stem in listed}
                notes = (f"the images are the {len(listed)} of {_VOC_SPLIT.as_posix()}",)
            break
    else:
        images = masks = _by_stem(path)
        bases = {
            stem: stem.removesuffix(ending)
            for stem in masks
            for ending in _MASK_ENDINGS
            if stem.endswith(ending)
        }
        stems = {stem: (f"{base}_image", base) for stem, base in bases.items()}
    if not stems:
        raise InputError(
            f"{path}: holds no images with masks; lay them out as JPEGImages and "
            "SegmentationClass, as X_image.* and X_target.* or X.* and X_mask.*, or list them in "
            "a CSV of image,mask"
        )
    image_of = {
        mask: images[stem]
        for mask, candidates in stems.items()
        for stem in reversed(candidates)
        if stem in images
    }
    _check_all([masks[mask].name for mask in stems if mask not in image_of], path, "image")
    return [image_of[mask] for mask in stems], [masks[mask] for mask in stems], notes


def _by_stem(folder: Path) -> dict[str, Path]:
    by_stem: dict[str, Path] = {}
    for file in images_in(folder, deep=False):
        other = by_stem.setdefault(file.stem, file)
        if other != file:
            raise InputError(
                f"{file.parent}: {other.name} and {file.name} differ only in their ending; which "
                "belongs to the mask cannot be told"
            )
    return by_stem


def _check_all(missing: Sequence[str], path: Path, what: str) -> None:
    if missing:
        raise InputError(f"{path}: there is no {what} to {quoted(missing)}")


@dataclass(frozen=True, kw_only=True)
class CsvTable:
    """A CSV file.

    Attributes:
        path: the file.
        columns: their names; ``1``, ``2``, … where the file has no header.
        rows: line number and cells of every row that is not empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.columns:
            raise InputError(
                f"{self.path}: has no column {name!r}; it has: {', '.join(self.columns)}"
            )
        position = self.columns.index(name)
        return [cells[position] for _, cells in self.rows]

    def find(self, names: Sequence[str]) -> str | None:
        """Return the first column of one of these names, whatever their case."""
        by_name = {column.lower(): column for column in reversed(self.columns)}
        return next((by_name[name] for name in names if name in by_name), None)

    def file_columns(self) -> list[str]:
        """Columns whose first cell is an image's name."""
        first = self.rows[0][1]
        return [name for name, cell in zip(self.columns, first, strict=True) if is_image_name(cell)]

    def files(self, column: str) -> list[Path]:
        """Return the files that a column names, relative to the table's folder.

        Raises:
            InputError: one is missing, named with its line.
        """
        paths = []
        for (line, _), cell in zip(self.rows, self.column(column), strict=True):
            path = self.path.parent / cell
            if not path.is_file():
                raise InputError(f"{self.path}, line {line}: there is no file {path}")
            paths.append(path)
        return paths


def read_table(path: Path) -> CsvTable:
    """Read a CSV file; commas, semicolons or tabs part its columns, and a header is optional.

    Raises:
        InputError: unreadable, empty, or rows of unequal length.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        header = text.split("\n", 1)[0]
        delimiter = next((mark for mark in "\t,;" if mark in header), ",")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [
            (reader.line_num, tuple(cell.strip() for cell in cells))
            for cells in reader
            if any(cell.strip() for cell in cells)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "is no CSV in UTF-8"
        raise InputError(f"{path}: {reason}") from None
    if not rows:
        raise InputError(f"{path}: is empty; it must list an image and its label on every line")
    if any(is_image_name(cell) for cell in rows[0][1]):
        columns = tuple(str(number + 1) for number in range(len(rows[0][1])))
    else:
        columns, rows = rows[0][1], rows[1:]
    if not rows:
        raise InputError(f"{path}: lists no images below its header")
    for line, cells in rows:
        if len(cells) != len(columns):
            raise InputError(
                f"{path}, line {line}: has {len(cells)} columns where there are {len(columns)}; "
                "put quotes around names with a comma"
            )
    return CsvTable(path=path, columns=columns, rows=tuple(rows))
