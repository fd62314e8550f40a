"""Where a command writes its result for each of several images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mvit_coreml.errors import InputError
from mvit_coreml.files import write_atomically

NAME = "{name}"


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
    if NAME in pattern:
        paths = [Path(pattern.replace(NAME, image.stem)) for image in images]
    elif path.is_dir() or pattern.endswith(("/", os.sep)):
        paths = [path / f"{image.stem}{suffix}" for image in images]
    elif len(images) > 1:
        raise InputError(
            f"{option} {pattern}: is one file for {len(images)} images; name an existing folder, "
            f"or a file with {NAME} in it, such as out/{NAME}{suffix}"
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


def write_file(path: Path, content: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
