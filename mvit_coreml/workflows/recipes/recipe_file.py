"""Recipes: small TOML files that say what to build from a checkpoint and how good it must be."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvit_coreml.compression.promise import Promise, parse_size
from mvit_coreml.errors import InputError
from mvit_coreml.export.output_heads import OUTPUTS_OF_TASK
from mvit_coreml.workflows.finishing import PLAN_SUFFIX
from mvit_coreml.workflows.options import ConvertOptions

SUFFIX = ".toml"


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """What a package must keep; ``None`` asks for nothing beyond the gates of ``validate``.

    Attributes:
        min_snr: signal-to-noise ratio of its scores against PyTorch, in dB.
        min_agreement: part of the photos, or of a segmenter's pixels, 0 to 1, on which the most
            likely class is PyTorch's. Judged where photos are given: on synthetic pictures it
            means little.
        max_size_mb: sum of the sizes of its files, in MB of 10^6 bytes.

    Raises:
        InputError: a bound that makes no sense.
    """

    min_snr: float | None = None
    min_agreement: float | None = None
    max_size_mb: float | None = None

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise InputError(f"min_agreement is {self.min_agreement:g}; it must be from 0 to 1")
        if self.max_size_mb is not None and not self.max_size_mb > 0:
            raise InputError(f"max_size_mb is {self.max_size_mb:g}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One package to build.

    Attributes:
        name: of the package, without its suffix; of a file its own name.
        source: hub id, or path of a folder or weight file.
        revision: branch, tag or commit of a hub checkpoint.
        labels: file of class names instead of the checkpoint's.
        image_processor: preprocessing instead of the checkpoint's: hub id, folder or JSON file.
        output_stride: of files that do not tell: 8, 16 or 32.
        options: what kind of package to make.
        tolerances: what it must keep.
        license_note: a sentence for whoever ships the package; it goes into the index.
    """

    name: str
    source: str | Path
    revision: str | None = None
    labels: Path | None = None
    image_processor: str | Path | None = None
    output_stride: int | None = None
    options: ConvertOptions = field(default_factory=ConvertOptions)
    tolerances: Tolerances = field(default_factory=Tolerances)
    license_note: str | None = None


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe; paths in it are relative to its own folder.

    Raises:
        InputError: the file is missing, no TOML, or holds an unknown key or a wrong value; the
            message names the line.
    """
    file = Path(path)
    if file.suffix != SUFFIX:
        raise InputError(f"{file}: a recipe's name must end in {SUFFIX}")
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: cannot read the recipe: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: no recipe: it is not UTF-8 text") from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{file}: not valid TOML: {error}") from None
    return _Reader(file, text).recipe(content)


def find_recipes(paths: Sequence[str | Path]) -> list[Recipe]:
    """Read recipes, and all recipes of folders in order of their names.

    Palettization plans, whose names end in ``.plan.toml``, may lie among them.

    Args:
        paths: files and folders; what is found twice is read once.

    Raises:
        InputError: a path is missing, a folder holds no recipe, two recipes have one name, or a
            recipe is wrong.
    """
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        found = [path]
        if path.is_dir():
            found = sorted(
                file for file in path.glob(f"*{SUFFIX}") if not file.name.endswith(PLAN_SUFFIX)
            )
            if not found:
                raise InputError(f"{path}: holds no recipe; a recipe's name ends in {SUFFIX}")
        files |= {file.resolve(): file for file in found}
    recipes: dict[str, tuple[Path, Recipe]] = {}
    for file in files.values():
        recipe = read_recipe(file)
        if recipe.name in recipes:
            raise InputError(
                f"{file}: makes the same package as {recipes[recipe.name][0]}, "
                f"{recipe.name}; rename one of them"
            )
        recipes[recipe.name] = file, recipe
    return [recipe for _, recipe in recipes.values()]


class _WrongTypeError(Exception):
    """A value of a wrong type; its text says what would be right."""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongTypeError("a text in quotes")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _WrongTypeError("a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _WrongTypeError("a number")
    return float(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _WrongTypeError("a list")
    return value


def _bits(value: Any) -> int | dict[str, Any] | None:
    if value == "none":
        return None
    if isinstance(value, dict):
        return value
    try:
        return _whole(value)
    except _WrongTypeError:
        raise _WrongTypeError(
            'a whole number, "none", or a table of promises such as { min_agreement = 0.98 }'
        ) from None


def _bytes(value: Any) -> int:
    try:
        return parse_size(value if isinstance(value, str) else str(_whole(value)))
    except (_WrongTypeError, InputError):
        raise _WrongTypeError('a size such as "1.2MB" or a number of bytes') from None


def _size(value: Any) -> tuple[int, int]:
    try:
        if not isinstance(value, list):
            return _whole(value), _whole(value)
        height, width = map(_whole, value)
    except (_WrongTypeError, ValueError):
        raise _WrongTypeError("a number of pixels or [height, width]") from None
    return height, width


def _sizes(value: Any) -> tuple[tuple[int, int], ...]:
    try:
        return tuple(_size(size) for size in _list(value))
    except _WrongTypeError:
        raise _WrongTypeError("a list of sizes such as [256] or [[256, 320]]") from None


def _map_size(value: Any) -> str | tuple[int, int]:
    if value in ("input", "logits"):
        return value
    try:
        return _size(value)
    except _WrongTypeError:
        raise _WrongTypeError('"input", "logits", a number of pixels or [height, width]') from None


def _layers(value: Any) -> tuple[int, ...]:
    try:
        return tuple(_whole(layer) for layer in _list(value))
    except _WrongTypeError:
        raise _WrongTypeError("a list of whole numbers") from None


def _color_order(value: Any) -> str | None:
    orders = {"auto": None, "bgr": "BGR", "rgb": "RGB"}
    if not isinstance(value, str) or value not in orders:
        raise _WrongTypeError('"auto", "bgr" or "rgb"')
    return orders[value]


def _output(value: Any) -> str:
    kinds = list(dict.fromkeys(kind for kinds in OUTPUTS_OF_TASK.values() for kind in kinds))
    if value not in kinds:
        raise _WrongTypeError("one of " + ", ".join(f'"{kind}"' for kind in kinds))
    return value


def _tolerances(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongTypeError("a table")
    return value


_Keys = Mapping[str, Callable[[Any], Any]]
_CHECKPOINT_KEYS: _Keys = {
    "source": _text,
    "revision": _text,
    "labels": _text,
    "image_processor": _text,
    "output_stride": _whole,
}
# In an order in which an option that only some targets have is judged after its target.
_OPTION_KEYS: _Keys = {
    "ios": _whole,
    "precision": _text,
    "bits": _bits,
    "group_size": _whole,
    "tune_minutes": _number,
    "plan": _text,
    "output": _output,
    "map_size": _map_size,
    "layers": _layers,
    "image_sizes": _sizes,
    "fit": _text,
    "color_order": _color_order,
    "author": _text,
    "license": _text,
    "description": _text,
    "version": _text,
}
_OTHER_KEYS: _Keys = {"tolerances": _tolerances, "license_note": _text}
_KEYS: _Keys = {**_CHECKPOINT_KEYS, **_OPTION_KEYS, **_OTHER_KEYS}
_TOLERANCE_KEYS: _Keys = dict.fromkeys(("min_snr", "min_agreement", "max_size_mb"), _number)
_PROMISE_KEYS: _Keys = {"target_size": _bytes, "min_snr": _number, "min_agreement": _number}
_OUTPUT_STRIDES = (8, 16, 32)


class _Reader:
    """Checks what stands in a file and turns it into a recipe."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.lines = text.splitlines()

    def recipe(self, content: dict[str, Any]) -> Recipe:
        given = self.values(content, _KEYS)
        if "source" not in given:
            raise InputError(f"{self.file}: source is missing; it names the checkpoint")
        bounds = self.values(given.pop("tolerances", {}), _TOLERANCE_KEYS, "tolerances")
        stride = given.get("output_stride")
        if stride is not None and stride not in _OUTPUT_STRIDES:
            raise self.error(
                ("output_stride",), f"output_stride is {stride}; it must be 8, 16 or 32"
            )
        if "labels" in given:
            given["labels"] = self.local(given["labels"])
        if "plan" in given:
            given["plan"] = self.local(given["plan"])
        for key in ("source", "image_processor"):
            if key in given:
                given[key] = self.place(given[key])
        if isinstance(given.get("bits"), dict):
            promised = self.values(given["bits"], _PROMISE_KEYS, "bits")
            given["bits"] = self.built(Promise, promised, "bits")
        options = {key: given.pop(key) for key in _OPTION_KEYS if key in given}
        return Recipe(
            name=self.file.name.removesuffix(SUFFIX),
            options=self.built(ConvertOptions, options),
            tolerances=self.built(Tolerances, bounds, "tolerances"),
            **given,
        )

    def values(self, table: dict[str, Any], keys: _Keys, *place: str) -> dict[str, Any]:
        """Return the values of a table, each of its type."""
        given = {}
        for key, value in table.items():
            if key not in keys:
                raise self.error(
                    (*place, key), f"unknown key {key!r}; the keys are {', '.join(keys)}"
                )
            try:
                given[key] = keys[key](value)
            except _WrongTypeError as wrong:
                name = ".".join((*place, key))
                raise self.error((*place, key), f"{name} must be {wrong}, not {value!r}") from None
        return given

    def built(self, make: Callable[..., Any], given: dict[str, Any], *place: str) -> Any:
        """Build from the values one after the other, to know which one does not fit."""
        so_far: dict[str, Any] = {}
        last: tuple[str, ...] = place
        try:
            for key, value in given.items():
                last = (*place, key)
                so_far |= _fields(key, value)
                make(**so_far)
            return make(**so_far)
        except InputError as error:
            raise self.error(last, str(error)) from None

    def local(self, name: str) -> Path:
        return self.file.parent / Path(name).expanduser()

    def place(self, name: str) -> str | Path:
        """Tell a hub id from a path."""
        path = self.local(name)
        return path if path.exists() or name.startswith((".", "/", "~")) else name

    def error(self, key: tuple[str, ...], message: str) -> InputError:
        """Return an error that names the line of a key."""
        line = self.line(key)
        where = f"{self.file}" if line is None else f"{self.file}, line {line}"
        return InputError(f"{where}: {message}")

    def line(self, key: tuple[str, ...]) -> int | None:
        """Return the line on which a key stands, in whichever way TOML allows it to be written."""
        header: tuple[str, ...] = ()
        inside = None
        for number, line in enumerate(self.lines, 1):
            if found := re.match(r"\s*\[\[?\s*([\w\-\"'. ]+?)\s*\]\]?\s*(#|$)", line):
                header = _parts(found[1])
                assigned = header
            elif found := re.match(r"\s*([\w\-\"'. ]+?)\s*=", line):
                assigned = (*header, *_parts(found[1]))
            else:
                continue
            if assigned == key:
                return number
            if assigned == key[: len(assigned)]:
                inside = number
        return inside


def _fields(key: str, value: Any) -> dict[str, Any]:
    """Return the fields that a key stands for."""
    return {"bits": "auto", "promise": value} if isinstance(value, Promise) else {key: value}


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip(" \"'") for part in name.split("."))
