"""What a report is about: plain data, which every format shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mvit_coreml.evaluation.accuracy import Evaluation
from mvit_coreml.inspection.package_contents import FunctionFacts, Inspection
from mvit_coreml.validation.answer_comparison import ParityReport


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

    @property
    def palettes(self) -> str:
        """Bits of the palettes: ``6``, ``4 to 8``, or nothing without palettes."""
        groups = self.inspection.weights
        found = sorted({group.bits for group in groups if "palette" in group.scheme})
        return " to ".join(str(bits) for bits in dict.fromkeys([*found[:1], *found[-1:]]))


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
        said = self.parity.notes if self.parity is not None else ()
        return tuple(dict.fromkeys([*said, *self.notes]))
