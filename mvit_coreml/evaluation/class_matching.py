"""What the class folders and label columns of a data set mean to a model."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvit_coreml.errors import InputError
from mvit_coreml.export.metadata import unique_labels
from mvit_coreml.files import parse_json

# A WordNet id as ImageNet writes it, alone or before a name.
_SYNSET = re.compile(r"n\d{8}")
_SYNSET_AND_NAME = re.compile(r"n\d{8}[_\- ]+(.+)")
_NUMBERED = re.compile(r"(.+) \((\d+)\)")
# Files that list ImageNet's synset ids in class order: one "id names" a line, after ILSVRC's
# synset_words.txt, or Keras' JSON of class index to [id, name].
_SYNSET_FILES = ("synset_words.txt", "LOC_synset_mapping.txt", "imagenet_class_index.json")
_LISTED = 10
# MobileNetV2's class count: ImageNet's own labels never mean its class 0.
_IMAGENET_AND_BACKGROUND = 1001


@dataclass(frozen=True, kw_only=True)
class ModelClasses:
    """The classes a model tells apart.

    Attributes:
        count: how many.
        labels: their names in class order, if the model knows them.
    """

    count: int
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != self.count:
            raise InputError(f"{len(self.labels)} class names for a model of {self.count} classes")

    @property
    def background_first(self) -> bool:
        """Whether class 0 is a background that photos are not labelled with."""
        return self.labels is not None and self.labels[0].lower() == "background"

    def name(self, index: int) -> str:
        """Name of a class, or its number where it has none."""
        return str(index) if self.labels is None else self.labels[index]


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """What the class names of a data set stand for.

    Attributes:
        indices: class name in the data set to class index of the model.
        notes: sentences about what was concluded.
    """

    indices: Mapping[str, int]
    notes: tuple[str, ...] = ()


def match_classes(
    names: Iterable[str],
    classes: ModelClasses,
    where: str,
    *,
    offset: int | None = None,
    mapping_folders: Sequence[Path] = (),
) -> ClassMatch:
    """Match the classes of a data set to a model's, all in one way.

    Tried in this order: names (whole, or one of the synonyms between commas; ImageNet's synset id
    may stand before them; case, ``_`` and ``-`` do not matter), class indices, synset ids. The
    latter are looked up in a file that lists them in class order, or numbered by rank when there
    are as many as the model has classes, as ImageNet's are.

    Args:
        names: class folders or label cells.
        classes: the model's.
        where: the data set, for messages.
        offset: added to indices; they then are the only way. ``None`` finds it out.
        mapping_folders: where to look for a list of synset ids.

    Raises:
        InputError: names that match no class or several, or indices whose meaning is not certain.
    """
    names = sorted(set(names))
    if offset is None and classes.labels is not None:
        named = _NameMatcher(classes.labels)
        candidates = {name: named.candidates(name) for name in names}
        if all(candidates.values()):
            return ClassMatch(indices=_only_candidates(candidates, where))
        unmatched = [name for name, indices in candidates.items() if not indices]
    else:
        unmatched = names
    if all(name.isascii() and name.isdigit() for name in names):
        return _match_numbers(names, classes, where, offset)
    if offset is not None:
        raise InputError(
            f"{where}: a label offset needs classes that are numbers, but there is {names[-1]!r}"
        )
    if all(_SYNSET.fullmatch(name) for name in names):
        return _match_synsets(names, classes, where, mapping_folders)
    raise InputError(
        f"{where}: {len(unmatched)} of {len(names)} classes match none of the model's "
        f"{classes.count}{_example(classes)}: {quoted(unmatched)}; name them as the model does or "
        "by class index, or list the images in a CSV of file,label"
    )


def quoted(names: Collection[str]) -> str:
    """Name a few things and count the rest."""
    listed = ", ".join(repr(name) for name in list(names)[:_LISTED])
    more = len(names) - _LISTED
    return f"{listed} and {more} more" if more > 0 else listed


def _example(classes: ModelClasses) -> str:
    if classes.labels is None:
        return " (which have no names)"
    return f" (such as {classes.labels[-1]!r})"


class _NameMatcher:
    """Finds classes by name; several have the same name in ImageNet."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.whole: dict[str, set[int]] = {}
        self.synonyms: dict[str, set[int]] = {}
        for index, label in enumerate(unique_labels(labels)[0]):
            name = _without_number(label, index)
            self.whole.setdefault(_normalized(name), set()).add(index)
            for synonym in name.split(","):
                self.synonyms.setdefault(_normalized(synonym), set()).add(index)

    def candidates(self, name: str) -> list[int]:
        """Classes that a name may mean."""
        prefixed = _SYNSET_AND_NAME.fullmatch(name)
        for spelling in (name, prefixed[1] if prefixed else name):
            numbered = _NUMBERED.fullmatch(spelling)
            if numbered is not None:
                index = int(numbered[2])
                if index in self.whole.get(_normalized(numbered[1]), ()):
                    return [index]
            key = _normalized(spelling)
            indices = self.whole.get(key) or self.synonyms.get(key)
            if indices:
                return sorted(indices)
        return []


def _without_number(label: str, index: int) -> str:
    """Undo what makes a repeated class name unique in a package."""
    numbered = _NUMBERED.fullmatch(label)
    return numbered[1] if numbered is not None and int(numbered[2]) == index else label


def _normalized(name: str) -> str:
    return " ".join(re.sub(r"[_\-]", " ", name).casefold().split())


def _only_candidates(candidates: Mapping[str, Sequence[int]], where: str) -> dict[str, int]:
    for name, indices in candidates.items():
        if len(indices) > 1:
            choices = " or ".join(f"'{name} ({index})'" for index in indices)
            raise InputError(
                f"{where}: {name!r} is the name of {len(indices)} of the model's classes; "
                f"write {choices}, or use class indices throughout"
            )
    return {name: indices[0] for name, indices in candidates.items()}


def _match_numbers(
    names: Sequence[str], classes: ModelClasses, where: str, offset: int | None
) -> ClassMatch:
    numbers = {name: int(name) for name in names}
    notes: tuple[str, ...] = ()
    if offset is None:
        offset, notes = _find_offset(set(numbers.values()), classes, where)
    indices = {name: number + offset for name, number in numbers.items()}
    for name, index in indices.items():
        if not 0 <= index < classes.count:
            raise InputError(
                f"{where}: label {name} would be class {index}, but the model has {classes.count} "
                f"classes (0 to {classes.count - 1}); say with --label-offset what to add to labels"
            )
    return ClassMatch(indices=indices, notes=notes)


def _find_offset(
    numbers: set[int], classes: ModelClasses, where: str
) -> tuple[int, tuple[str, ...]]:
    """Say what to add to labels that may or may not count the model's background class."""
    if not classes.background_first or max(numbers) >= classes.count - 1:
        return 0, ()
    if 0 in numbers and classes.count == _IMAGENET_AND_BACKGROUND:
        note = (
            "labels count from 0 and the model's class 0 is a background, which no photo shows: "
            "1 was added to them (--label-offset)"
        )
        return 1, (note,)
    raise InputError(
        f"{where}: labels from {min(numbers)} to {max(numbers)} may or may not count the "
        f"background that the model's {classes.count} classes begin with; give --label-offset 0 "
        f"if 1 is {classes.name(1)!r}, --label-offset 1 if 0 is"
    )


def _match_synsets(
    names: Sequence[str], classes: ModelClasses, where: str, folders: Sequence[Path]
) -> ClassMatch:
    counts = (classes.count, classes.count - 1 if classes.background_first else classes.count)
    listed = (folder / name for folder in folders for name in _SYNSET_FILES)
    path = next((one for one in listed if one.is_file()), None)
    if path is not None:
        order = _read_synsets(path)
        if len(order) not in counts:
            raise InputError(
                f"{path}: lists {len(order)} synsets for a model of {classes.count} classes"
            )
        unknown = [name for name in names if name not in order]
        if unknown:
            raise InputError(f"{path}: does not list {quoted(unknown)}")
        note = f"synset ids were looked up in {path.name}"
    elif len(names) in counts:
        # Without a list, only a complete set tells the rank of each.
        order = sorted(names)
        note = f"the {len(names)} synset ids were numbered in sorted order, as ImageNet's are"
    else:
        raise InputError(
            f"{where}: the {len(names)} classes are synset ids such as {names[0]!r}, which do not "
            f"tell the index of {classes.count} classes; put ImageNet's synset_words.txt (one 'id "
            "names' a line, in class order) beside them"
        )
    first = classes.count - len(order)
    indices = {synset: first + rank for rank, synset in enumerate(order)}
    return ClassMatch(indices={name: indices[name] for name in names}, notes=(note,))


def _read_synsets(path: Path) -> list[str]:
    """Return the synset ids of a list, in class order."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix != ".json":
            order = [line.split()[0] for line in text.splitlines() if line.strip()]
        else:
            by_index = {int(index): str(entry[0]) for index, entry in parse_json(text).items()}
            order = [by_index[index] for index in range(len(by_index))]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, IndexError):
        raise InputError(f"{path}: is no list of synset ids in class order") from None
    if len(set(order)) != len(order):
        raise InputError(f"{path}: lists a synset id twice")
    return order
