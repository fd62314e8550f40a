"""Names and colours of a package's classes, from the package alone."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import PackageError
from mvit_coreml.export.metadata import KEY_PREFIX, PREVIEW_PARAMS, label_colors
from mvit_coreml.mil.program import Function, Package
from mvit_coreml.visualization.segmentation_colors import distinct_colors

LABELS_KEY = KEY_PREFIX + "labels"
_COLOR = re.compile(r"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})")


def class_labels(package: Package, function: Function) -> tuple[str, ...] | None:
    """Return the class names in order of class index, ``None`` where the package has none.

    They stand in the program of a classifier with labels, in the parameters of Xcode's preview, or
    under this project's own key.

    Raises:
        PackageError: the metadata that should hold them is damaged.
    """
    if function.labels is not None:
        return tuple(str(label) for label in function.labels)
    for key, labels in (
        (PREVIEW_PARAMS, _preview(package).get("labels")),
        (LABELS_KEY, _json(package, LABELS_KEY)),
    ):
        if labels is None:
            continue
        if not isinstance(labels, list):
            raise PackageError(f"{package.path}: the metadata {key} holds no list of labels")
        return tuple(str(label) for label in labels)
    return None


def class_colors(package: Package, function: Function, count: int) -> NDArray[np.uint8]:
    """Return a colour for every class.

    They are those of the preview's parameters; a package without gets the ones that a conversion
    would give its labels, or as many that are easy to tell apart.

    Args:
        package: the package.
        function: one of its functions.
        count: number of classes.

    Returns:
        (count, 3) uint8 RGB.

    Raises:
        PackageError: the package has colours, but they are damaged or too few.
    """
    stored = _preview(package).get("colors")
    if stored is None:
        labels = class_labels(package, function)
        if labels is None or len(labels) < count:
            return np.asarray(distinct_colors(count), np.uint8)
        stored = label_colors(labels)
    matches = [_COLOR.fullmatch(str(color)) for color in stored]
    colors = [[int(part, 16) for part in match.groups()] for match in matches if match is not None]
    if len(colors) != len(matches) or len(colors) < count:
        raise PackageError(
            f"{package.path}: the metadata {PREVIEW_PARAMS} holds {len(colors)} colours of the "
            f"form #RRGGBB for {count} classes"
        )
    return np.array(colors[:count], np.uint8).reshape(count, 3)


def _preview(package: Package) -> dict[str, Any]:
    content = _json(package, PREVIEW_PARAMS)
    return content if isinstance(content, dict) else {}


def _json(package: Package, key: str) -> Any:
    text = package.metadata.user_defined.get(key)
    try:
        return None if text is None else json.loads(text)
    except ValueError:
        raise PackageError(f"{package.path}: the metadata {key} is damaged: no JSON") from None
