"""Recipes: small TOML files that say what to build from a checkpoint and how good it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mvit_coreml.compression.plan_file import PLAN_SUFFIX
from mvit_coreml.compression.promise import Promise, parse_size
from mvit_coreml.errors import InputError
from mvit_coreml.export.output_heads import MapType, OutputKind
from mvit_coreml.files import check_table, read_toml
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.workflows.package_options import ConvertOptions

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
        hints: what its file should say otherwise.
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
    hints: tuple[str, ...] = ()


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe; paths in it are relative to its own folder.

    Raises:
        InputError: the file is missing, no TOML, or holds an unknown key or a wrong value; the
            message names the line.
    """
    file = Path(path)
    if file.suffix != SUFFIX:
        raise InputError(f"{file}: a recipe's name must end in {SUFFIX}")
    text, content = read_toml(file, "recipe")
    return _Reader(file, text).recipe(content)


def find_recipes(paths: Sequence[str | Path]) -> list[Recipe]:
    """Read recipes, and all recipes of folders in order of their names.

    Palettization plans, whose names end in ``.plan.toml``, may lie among them.

    Args:
        paths: files and folders; what is named twice is read once.

    Raises:
        InputError: a path is missing, a folder holds no recipe, two recipes have one name, or a
            recipe is wrong.
    """
    files: dict[Path, Path] = {}
    for path in map(Path, paths):
        listed = [path]
        if path.is_dir():
            listed = sorted(
                file for file in path.glob(f"*{SUFFIX}") if not file.name.endswith(PLAN_SUFFIX)
            )
            if not listed:
                raise InputError(f"{path}: holds no recipe; a recipe's name ends in {SUFFIX}")
        files |= {file.resolve(): file for file in listed}
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


def _pixels(value: int | list[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _bytes(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError
    return parse_size(str(value))


# A description is what messages say that a value must be. TOML has no null: None is left out.
_Text = Annotated[str | None, Field(pattern=r"\S", description="a text in quotes")]
_Whole = Annotated[int | None, Field(description="a whole number")]
_Number = Annotated[float | None, Field(allow_inf_nan=False, description="a number")]
_Size = Annotated[
    int | Annotated[list[int], Field(min_length=2, max_length=2)], AfterValidator(_pixels)
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _PromiseTable(_Table):
    target_size: Annotated[
        int | None,
        BeforeValidator(_bytes),
        Field(description='a size such as "1.2MB" or a number of bytes'),
    ] = None
    min_snr: _Number = None
    min_agreement: _Number = None


class _ToleranceTable(_Table):
    min_snr: _Number = None
    min_agreement: _Number = None
    max_size_mb: _Number = None


class _CheckpointTable(_Table):
    source: _Text
    revision: _Text = None
    labels: _Text = None
    image_processor: _Text = None
    output_stride: Annotated[Literal[8, 16, 32] | None, Field(description="8, 16 or 32")] = None
    license_note: _Text = None
    tolerances: Annotated[dict[str, Any], Field(description="a table")] = {}


class _RecipeTable(_CheckpointTable):
    # In an order in which an option that only some targets have is judged after its target.
    ios: _Whole = None
    precision: _Text = None
    bits: Annotated[
        int | Literal["none"] | dict[str, Any] | None,
        Field(
            description='a whole number, "none", or a table of promises such as '
            "{ min_agreement = 0.98 }"
        ),
    ] = None
    group_size: _Whole = None
    tune_minutes: _Number = None
    plan: _Text = None
    output_kind: Annotated[
        OutputKind | None,
        Field(
            description='one of "probabilities", "logits", "values", "classes", "features", '
            '"embedding"'
        ),
    ] = None
    activation: Annotated[
        HeadActivation | None, Field(description='"softmax", "sigmoid" or "none"')
    ] = None
    map_size: Annotated[
        Literal["input", "logits"] | _Size | None,
        Field(description='"input", "logits", a number of pixels or [height, width]'),
    ] = None
    map_type: Annotated[MapType | None, Field(description='"int32", "uint8" or "image"')] = None
    confidence: Annotated[bool | None, Field(description="true or false")] = None
    share_constants: Annotated[bool | None, Field(description="true or false")] = None
    layers: Annotated[
        list[int] | None, AfterValidator(tuple), Field(description="a list of whole numbers")
    ] = None
    image_sizes: Annotated[
        list[_Size] | None,
        AfterValidator(tuple),
        Field(description="a list of sizes such as [256] or [[256, 320]]"),
    ] = None
    fit: _Text = None
    color_order: Annotated[
        Literal["auto", "bgr", "rgb"] | None, Field(description='"auto", "bgr" or "rgb"')
    ] = None
    author: _Text = None
    license: _Text = None
    description: _Text = None
    version: _Text = None


# Keys of the version before.
_RENAMED = {"output": "output_kind"}


class _Reader:
    """Checks what stands in a file and turns it into a recipe."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.lines = text.splitlines()

    def recipe(self, content: dict[str, Any]) -> Recipe:
        hints = tuple(
            f"{self.file}: {old} is now {new}; the old name will go"
            for old, new in _RENAMED.items()
            if old in content
        )
        content = {_RENAMED.get(key, key): value for key, value in content.items()}
        values = self.values(_RecipeTable, content)
        bounds = self.values(_ToleranceTable, values.pop("tolerances", {}), "tolerances")
        for key in ("labels", "plan"):
            if key in values:
                values[key] = self.local(values[key])
        for key in ("source", "image_processor"):
            if key in values:
                values[key] = self.place(values[key])
        if "color_order" in values:
            values["color_order"] = {"bgr": "BGR", "rgb": "RGB"}.get(values["color_order"])
        if values.get("bits") == "none":
            values["bits"] = None
        elif isinstance(values.get("bits"), dict):
            promised = self.values(_PromiseTable, values["bits"], "bits")
            values["bits"] = self.built(Promise, promised, "bits")
        own = {key: values.pop(key) for key in _CheckpointTable.model_fields if key in values}
        return Recipe(
            name=self.file.name.removesuffix(SUFFIX),
            options=self.built(ConvertOptions, values),
            tolerances=self.built(Tolerances, bounds, "tolerances"),
            hints=hints,
            **own,
        )

    def values(self, table: type[_Table], content: dict[str, Any], *place: str) -> dict[str, Any]:
        """Return the values of a table, each of its type."""
        checked = check_table(table, content, self.error, *place)
        return {key: getattr(checked, key) for key in table.model_fields if key in content}

    def built(self, make: Callable[..., Any], values: dict[str, Any], *place: str) -> Any:
        """Build from the values one after the other, to know which one does not fit."""
        so_far: dict[str, Any] = {}
        last: tuple[str, ...] = place
        try:
            for key, value in values.items():
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
            if match := re.match(r"\s*\[\[?\s*([\w\-\"'. ]+?)\s*\]\]?\s*(#|$)", line):
                header = _parts(match[1])
                assigned = header
            elif match := re.match(r"\s*([\w\-\"'. ]+?)\s*=", line):
                assigned = (*header, *_parts(match[1]))
            else:
                continue
            if assigned and assigned[0] in _RENAMED:
                assigned = (_RENAMED[assigned[0]], *assigned[1:])
            if assigned == key:
                return number
            if assigned == key[: len(assigned)]:
                inside = number
        return inside


def _fields(key: str, value: Any) -> dict[str, Any]:
    """Return the fields that a key stands for."""
    if isinstance(value, Promise):
        return {"bits": "auto", "promise": value}
    return {"output" if key == "output_kind" else key: value}


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip(" \"'") for part in name.split("."))
