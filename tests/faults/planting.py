"""What faults are planted in, and what a fault is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from faults.editor import PackageEditor
from package_cache import converted_package
from packages import small_checkpoint

from mvit_coreml import Checkpoint, ConvertOptions, Promise, load_checkpoint
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.workflows.package_options import fill_in

SEGMENTER = "semantic-segmentation"
# decoded_weights, consistency, snr: this gate finds the fault by the answers alone, without the
# structural comparison; error: the package cannot even be run; the others are aspects of the
# structural comparison.
Catcher = Literal[
    "decoded_weights",
    "consistency",
    "snr",
    "error",
    "interface",
    "graph",
    "attribute",
    "weight",
    "label",
    "metadata",
]
Plant = Callable[[PackageEditor], None]
Alter = Callable[[Checkpoint], Checkpoint]
Damage = Callable[[Path], None]


@dataclass(frozen=True)
class Base:
    """A sound package: what is converted, and with which options."""

    checkpoint: Callable[[], Checkpoint]
    options: Mapping[str, Any]


@cache
def _normalizing() -> Checkpoint:
    checkpoint = small_checkpoint("mobilenet_v2")
    processor = checkpoint.image_processor.replace(
        image_mean=(0.7, 0.5, 0.3), image_std=(0.5, 0.5, 0.5)
    )
    return replace(checkpoint, image_processor=processor)


@cache
def _trained() -> Checkpoint:
    return load_checkpoint(Path(os.environ["MVIT_TEST_DATA"]) / "mobilevit_xxs_cifar10_64")


_MOBILENET = partial(small_checkpoint, "mobilenet_v2")
_MOBILEVIT = partial(small_checkpoint, "mobilevit")
BASES = {
    "classifier": Base(_MOBILENET, {"bits": None}),
    "fp32 classifier": Base(_MOBILENET, {"bits": None, "precision": "fp32"}),
    "4-bit classifier": Base(_MOBILENET, {"bits": 4}),
    "6-bit classifier": Base(_MOBILENET, {"bits": 6}),
    "8-bit classifier": Base(_MOBILENET, {"bits": 8}),
    "normalizing classifier": Base(_normalizing, {"bits": None}),
    "two sizes": Base(_MOBILENET, {"bits": None, "ios": 18, "image_sizes": ((64, 64), (32, 64))}),
    "transformer": Base(_MOBILEVIT, {"bits": None}),
    "6-bit transformer": Base(_MOBILEVIT, {"bits": 6}),
    "separable transformer": Base(partial(small_checkpoint, "mobilevitv2"), {"bits": None}),
    "segmenter": Base(partial(small_checkpoint, "mobilevit", SEGMENTER), {"bits": None}),
    "6-bit segmenter": Base(partial(small_checkpoint, "mobilenet_v2", SEGMENTER), {"bits": 6}),
}
# Needs the real checkpoints.
TRAINED = "trained 6-bit transformer"
_ALL = BASES | {TRAINED: Base(_trained, {"bits": 6})}


def checkpoint_of(base: str) -> Checkpoint:
    """Return the checkpoint that a base is converted from."""
    return _ALL[base].checkpoint()


def options_of(base: str) -> ConvertOptions:
    """Return the options that a base is converted with, with every default filled in."""
    options = dict(_ALL[base].options)
    alone = options["bits"] is not None
    return fill_in(ConvertOptions(**options, kmeans_only=alone), checkpoint_of(base))


def promise_of(base: str) -> Promise | None:
    """Return what a base keeps: the default promise, or nothing where it has coarse palettes."""
    return None if options_of(base).bits is None else Promise(min_snr=-100)


@cache
def sound_package(base: str) -> Path:
    """Return a base's package, made once."""
    return convert_base(base, checkpoint_of(base))


def convert_base(base: str, checkpoint: Checkpoint) -> Path:
    """Convert any checkpoint as a base is; the package must not be changed."""
    return converted_package(checkpoint, options_of(base)).path


def store_digest(path: Path) -> Path:
    """Store a package's digest in it, as if it had been converted like this."""
    editor = PackageEditor(path, copy=False)
    editor.metadata[DIGEST_KEY] = program_digest(load_package(path))
    return editor.save()


@dataclass(frozen=True)
class Fault:
    """A fault, by one of three ways of making it.

    Attributes:
        name: what is wrong.
        size: by how much.
        base: what it is planted in.
        caught_by: what must notice it.
        plant: changes the package.
        alter: changes the checkpoint that is converted instead.
        damage: changes the files.
        program: whether it changes what the package computes, which the digest covers.
    """

    name: str
    size: str
    base: str
    caught_by: Catcher
    plant: Plant | None = None
    alter: Alter | None = None
    damage: Damage | None = None
    program: bool = True

    def faulty_package(self) -> Path:
        """Return a new package with the fault, and its digest where it can be read."""
        if self.alter is not None:
            return convert_base(self.base, self.alter(checkpoint_of(self.base)))
        editor = PackageEditor(sound_package(self.base))
        if self.damage is not None:
            self.damage(editor.path)
            return editor.path
        assert self.plant is not None
        self.plant(editor)
        path = editor.save()
        return path if self.caught_by == "error" else store_digest(path)


FAULTS: list[Fault] = []


def fault(
    base: str, caught_by: Catcher, name: str, size: str, *, program: bool = True
) -> Callable[[Plant], Plant]:
    """Register a function that changes a package."""

    def register(plant: Plant) -> Plant:
        FAULTS.append(Fault(name, size, base, caught_by, plant=plant, program=program))
        return plant

    return register


def altered(base: str, caught_by: Catcher, name: str, size: str) -> Callable[[Alter], Alter]:
    """Register a function that changes the checkpoint."""

    def register(alter: Alter) -> Alter:
        FAULTS.append(Fault(name, size, base, caught_by, alter=alter))
        return alter

    return register


def damaged(base: str, name: str, size: str) -> Callable[[Damage], Damage]:
    """Register a function that changes a package's files so that it cannot be read."""

    def register(damage: Damage) -> Damage:
        FAULTS.append(Fault(name, size, base, "error", damage=damage))
        return damage

    return register
