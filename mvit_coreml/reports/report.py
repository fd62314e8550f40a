"""What a report holds, and how it is filled from what the commands have computed.

Reports are plain data; every format shows the same ones.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy import Evaluation
from mvit_coreml.evaluation.read_metadata import class_colors, class_labels, read_preparation
from mvit_coreml.evaluation.targets import output_roles
from mvit_coreml.export.metadata import KEY_PREFIX, versions
from mvit_coreml.files import file_sha256, parse_json
from mvit_coreml.inspection.package_contents import FunctionFacts, Inspection, inspect_package
from mvit_coreml.inspection.package_cost import FunctionCost, function_cost
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Function, Package
from mvit_coreml.mil.value_types import DATA_TYPES
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.validation.structure_comparison import stored_precision

# Bytes of one element of the weights that palettes are compared with.
_PLAIN = {"plain fp16": 2, "plain fp32": 4}
_SAME_SIZE = 0.005
THIS_PACKAGE = "this package"
OTHER_BYTES = "program and metadata"


@dataclass(frozen=True, kw_only=True)
class SizeBar:
    """A package's size on disk and what it consists of.

    Attributes:
        label: which package: this one, or the same one with plain weights.
        parts: what the bytes are for, and how many.
    """

    label: str
    parts: tuple[tuple[str, int], ...]

    @property
    def size(self) -> int:
        """Sum of the parts, in bytes."""
        return sum(size for _, size in self.parts)


@dataclass(frozen=True, kw_only=True)
class PackageFacts:
    """A package as it is on disk.

    Attributes:
        name: its file name.
        inspection: what is in it.
        function: the function that the report is about.
        precision: ``fp16``, ``fp32`` or ``mixed``.
        bits: fewest bits of its palettes, ``None`` without.
        fit: how photos are brought to the input; ``None`` where the package does not say.
        sizes: this package, and the same one with plain weights.
        colors: ``#rrggbb`` of every class of a segmenter; empty for others.
        sha256: of every file, by its path inside the package, in hexadecimal.
        cost: what the function costs to run, an estimate; ``None`` where it was not made.
    """

    name: str
    inspection: Inspection = field(repr=False)
    function: FunctionFacts = field(repr=False)
    precision: str
    bits: int | None
    fit: str | None
    sizes: tuple[SizeBar, ...]
    colors: tuple[str, ...] = field(default=(), repr=False)
    sha256: Mapping[str, str] = field(default_factory=dict, repr=False)
    cost: FunctionCost | None = field(default=None, repr=False)

    @property
    def palettes(self) -> str:
        """Bits of the palettes: ``6``, ``4 to 8``, or nothing without palettes."""
        groups = self.inspection.weights
        bits = sorted({group.bits for group in groups if "palette" in group.scheme})
        return " to ".join(str(width) for width in dict.fromkeys([*bits[:1], *bits[-1:]]))


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """How to get the same figures again.

    Attributes:
        command: what was typed, empty if no command was.
        versions: of the software that computed the report.
        made_with: of the software that converted the package, as its metadata says.
        checkpoint: its name; empty where it is not known.
        revision: the hub commit, if it came from the hub.
        weights_sha256: of the checkpoint's weight files, empty where it is not known.
    """

    command: str
    versions: Mapping[str, str]
    made_with: Mapping[str, str] = field(default_factory=dict)
    checkpoint: str = ""
    revision: str | None = None
    weights_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows; what is ``None`` or empty has no section.

    Attributes:
        title: name of the package, or of what was evaluated.
        parity: how the package compares with its checkpoint.
        package: what is in the package.
        evaluation: how often it is right.
        labels: class names in class order.
        notes: what whoever reads this should know, beside the notes of ``parity``.
        reproduction: how to get the same figures again.
    """

    title: str
    parity: ParityReport | None = None
    package: PackageFacts | None = None
    evaluation: Evaluation | None = None
    labels: tuple[str, ...] = field(default=(), repr=False)
    notes: tuple[str, ...] = ()
    reproduction: Reproduction | None = None

    def label(self, index: int) -> str:
        """Name of a class, or its number where it has none."""
        return self.labels[index] if 0 <= index < len(self.labels) else f"class {index}"

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Every note once."""
        notes = self.parity.notes if self.parity is not None else ()
        return tuple(dict.fromkeys([*notes, *self.notes]))


def build_report(
    *,
    package: str | Path | None = None,
    parity: ParityReport | None = None,
    evaluation: Evaluation | None = None,
    checkpoint: Checkpoint | None = None,
    labels: Sequence[str] | None = None,
    command: str = "",
    notes: Sequence[str] = (),
) -> Report:
    """Collect what a report shows.

    Args:
        package: the saved package; its facts, sizes and digests are read from disk.
        parity: result of a validation. With ``samples`` given to it, images are shown.
        evaluation: result on labelled images.
        checkpoint: what the package came from; without, the package's metadata is asked.
        labels: class names; by default the package's, or the checkpoint's.
        command: what was typed, for whoever wants the same figures.
        notes: what else to say.

    Raises:
        InputError: there is nothing to report.
        PackageError: the package cannot be read.
    """
    if package is not None:
        loaded = load_package(package)
        function = loaded.function(None if parity is None else parity.function)
        facts = _package_facts(loaded, function)
        title, names, metadata = facts.name, facts.function.labels, loaded.metadata.user_defined
    else:
        facts, names, metadata = None, None, {}
        if parity is not None:
            title = parity.package
        elif evaluation is not None:
            title = evaluation.accuracies[0].target
        else:
            raise InputError("nothing to report; give a package, a validation or an evaluation")
    if names is None and checkpoint is not None:
        names = tuple(checkpoint.id2label.values())
    return Report(
        title=title,
        parity=parity,
        package=facts,
        evaluation=evaluation,
        labels=tuple(labels if labels is not None else names or ()),
        notes=tuple(notes),
        reproduction=_reproduction(checkpoint, metadata, command),
    )


def plain_sizes(inspection: Inspection) -> tuple[SizeBar, ...]:
    """Return a package's size, and what it would be with every weight in fp16 or fp32.

    A plain size that is the package's own is left out.

    A float weight takes 2 or 4 bytes an element then, however it is stored now. Integers, the
    program and the metadata stay as they are; the 64 bytes or so with which a weight file separates
    two tensors count with the latter.

    Args:
        inspection: of the package.
    """
    stored = sum(group.stored_bytes for group in inspection.weights)
    rest = (OTHER_BYTES, inspection.size - stored)
    groups = tuple((group.scheme, group.stored_bytes) for group in inspection.weights)
    own = SizeBar(label=THIS_PACKAGE, parts=(*groups, rest))
    bars = [own]
    for label, size in _PLAIN.items():
        parts: dict[str, int] = {}
        for group in inspection.weights:
            known = DATA_TYPES.get(group.scheme)
            if known is not None and not known.is_float:
                name, bytes_taken = group.scheme, group.stored_bytes
            else:
                name, bytes_taken = label.removeprefix("plain "), group.elements * size
            parts[name] = parts.get(name, 0) + bytes_taken
        bar = SizeBar(label=label, parts=(*parts.items(), rest))
        # A package without palettes is one of the two itself, but for the odd tensor.
        if abs(bar.size - own.size) > _SAME_SIZE * own.size:
            bars.append(bar)
    return tuple(bars)


def _package_facts(package: Package, function: Function) -> PackageFacts:
    inspection = inspect_package(package.path)
    precision, bits = stored_precision(function)
    stated = package.metadata.user_defined.get(KEY_PREFIX + "precision", "")
    takes_image = len(function.inputs) == 1 and hasattr(function.inputs[0], "color_order")
    preparation = read_preparation(package, function) if takes_image else None
    return PackageFacts(
        name=package.path.name,
        inspection=inspection,
        function=next(facts for facts in inspection.functions if facts.name == function.name),
        # That some operations stay in fp32 shows in the metadata alone.
        precision="mixed" if stated == "mixed" else precision,
        bits=bits,
        fit=None if preparation is None else preparation.fit,
        sizes=plain_sizes(inspection),
        colors=_class_colors(package, function),
        sha256={name: file_sha256(package.path / name) for name in inspection.files},
        cost=function_cost(package, function),
    )


def _class_colors(package: Package, function: Function) -> tuple[str, ...]:
    labels = class_labels(package, function)
    count = 0 if labels is None else len(labels)
    if not any(role.is_map for role in output_roles(function, count or None)):
        return ()
    # A package without names may hold any class index that fits a byte.
    colors = class_colors(package, function, count or 256)
    return tuple("#{:02x}{:02x}{:02x}".format(*color) for color in colors.tolist())


def _reproduction(
    checkpoint: Checkpoint | None, metadata: Mapping[str, str], command: str
) -> Reproduction:
    if checkpoint is not None:
        source = checkpoint.provenance
        name, revision, sha256 = source.name, source.revision, source.sha256
    else:
        name = metadata.get(KEY_PREFIX + "source", "")
        revision = metadata.get(KEY_PREFIX + "source_revision") or None
        sha256 = metadata.get(KEY_PREFIX + "weights_sha256", "")
    return Reproduction(
        command=command,
        versions=versions() | {"python": platform.python_version()},
        made_with=_made_with(metadata.get(KEY_PREFIX + "versions")),
        checkpoint=name,
        revision=revision,
        weights_sha256=sha256,
    )


def _made_with(text: str | None) -> dict[str, str]:
    """Read the versions in a package's metadata; of damaged ones there is nothing to show."""
    try:
        stored = parse_json(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in stored.items()} if isinstance(stored, dict) else {}
