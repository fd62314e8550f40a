"""What one package holds: interface, graph, weights, metadata, and what to beware of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvit_coreml.evaluation.read_metadata import class_labels
from mvit_coreml.inspection.cautions import Caution, function_cautions, package_cautions
from mvit_coreml.inspection.compute_types import ComputeTypes, compute_types
from mvit_coreml.inspection.input_arithmetic import BakedPreprocessing, read_baked_preprocessing
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import (
    ArrayFeature,
    Function,
    ImageFeature,
    Metadata,
    OutputFeature,
    Package,
)
from mvit_coreml.mil.stored_weights import Constants, Part, Weight

# Specification version to the iOS version it came with.
IOS_OF_SPECIFICATION = {6: 15, 7: 16, 8: 17, 9: 18, 10: 26}
# Operations that only move values about.
LAYOUT_OPS = (
    "reshape",
    "transpose",
    "split",
    "concat",
    "slice_by_index",
    "slice_by_size",
    "slice_update",
    "expand_dims",
    "squeeze",
)
# coremltools compresses weights of more elements than this unless told otherwise.
COMPRESSION_THRESHOLD = 2048


@dataclass(frozen=True, kw_only=True)
class WeightGroup:
    """All weights of a package that are stored the same way.

    Attributes:
        scheme: see :class:`~mvit_coreml.mil.stored_weights.Weight`.
        bits: stored bits of one element, without tables.
        tensors: how many there are.
        elements: elements of all of them.
        stored_bytes: bytes on disk, tables included; what two tensors share counts once.
    """

    scheme: str
    bits: int
    tensors: int
    elements: int
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class PlainWeight:
    """A tensor that is not compressed.

    Attributes:
        name: in the program.
        shape: of the tensor.
        data_type: of its elements.
        stored_bytes: bytes on disk.
        reason: why tools leave it as it is.
    """

    name: str
    shape: tuple[int, ...]
    data_type: str
    stored_bytes: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class FunctionFacts:
    """One function of a package.

    Attributes:
        name: ``main`` unless the package has several.
        ios: version whose operation definitions it uses.
        inputs: as apps see them.
        outputs: as apps see them.
        preprocessing: what the program does to its image first; ``None`` without an image input.
        labels: class names in class order, ``None`` where the package has none.
        repeated_labels: those that stand more than once.
        operations: operation to how often it occurs, the most frequent first, constants left out.
        layout_operations: those of them that only move values about.
        compute: what it computes in.
        largest_rank: of all values.
        largest_rank_at: operation that computes the first value of that rank.
    """

    name: str
    ios: int
    inputs: tuple[ImageFeature | ArrayFeature, ...]
    outputs: tuple[OutputFeature, ...]
    preprocessing: BakedPreprocessing | None
    labels: tuple[str, ...] | None = field(repr=False)
    repeated_labels: tuple[str, ...]
    operations: Mapping[str, int]
    layout_operations: Mapping[str, int]
    compute: ComputeTypes
    largest_rank: int
    largest_rank_at: str


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Facts about a package.

    Attributes:
        path: of the package.
        files: size in bytes of every file, by its path inside the package.
        ios: deployment target.
        specification_version: 6 to 10.
        default_function: the one that runs when none is asked for.
        functions: in order of name.
        weights: by the way they are stored, the largest group first.
        plain_weights: those that are not compressed, the largest first.
        metadata: author, licence, and so on.
        cautions: what to beware of.
    """

    path: Path
    files: Mapping[str, int]
    ios: int
    specification_version: int
    default_function: str
    functions: tuple[FunctionFacts, ...]
    weights: tuple[WeightGroup, ...]
    plain_weights: tuple[PlainWeight, ...] = field(repr=False)
    metadata: Metadata
    cautions: tuple[Caution, ...]

    @property
    def size(self) -> int:
        """Sum of the sizes of all files, in bytes."""
        return sum(self.files.values())


def inspect_package(path: str | Path) -> Inspection:
    """Read a package and say what is in it.

    Args:
        path: an .mlpackage folder of any tool.

    Raises:
        PackageError: it cannot be read.
    """
    package = load_package(path)
    ios = IOS_OF_SPECIFICATION.get(package.specification_version, 0)
    constants = {name: Constants(function) for name, function in package.functions.items()}
    weights = _distinct(
        [weight for function in constants.values() for weight in function.weights()]
    )
    facts = tuple(
        _function_facts(package, function, constants[name])
        for name, function in package.functions.items()
    )
    cautions = [*package_cautions(package, ios)]
    for name, function in package.functions.items():
        cautions += function_cautions(package, function, constants[name])
    return Inspection(
        path=package.path,
        files=file_sizes(package.path),
        ios=ios,
        specification_version=package.specification_version,
        default_function=package.default_function,
        functions=facts,
        weights=_groups(weights),
        plain_weights=_plain(weights),
        metadata=package.metadata,
        cautions=tuple(cautions),
    )


def file_sizes(path: Path) -> dict[str, int]:
    """Return the size in bytes of every file of a folder, by its path inside it."""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in files}


def census(function: Function) -> dict[str, int]:
    """Count a function's operations without constants, the most frequent first."""
    counts = Counter(step.op_type for step in function.steps)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _function_facts(package: Package, function: Function, constants: Constants) -> FunctionFacts:
    counts = census(function)
    ranks = ((len(kind.shape), step.name) for step in function.steps for kind in step.tensor_types)
    rank, place = max((0, ""), *ranks, key=lambda ranked: ranked[0])
    labels = class_labels(package, function)
    return FunctionFacts(
        name=function.name,
        ios=function.opset,
        inputs=function.inputs,
        outputs=function.outputs,
        preprocessing=read_baked_preprocessing(function, constants),
        labels=labels,
        repeated_labels=tuple(label for label, count in Counter(labels).items() if count > 1),
        operations=counts,
        layout_operations={name: counts[name] for name in counts if name in LAYOUT_OPS},
        compute=compute_types(function),
        largest_rank=rank,
        largest_rank_at=place,
    )


def _distinct(weights: Sequence[Weight]) -> list[Weight]:
    """Leave out what a function shares with another."""
    distinct: dict[tuple[Part, ...], Weight] = {}
    for weight in weights:
        distinct.setdefault(tuple(weight.parts), weight)
    return list(distinct.values())


def _groups(weights: Sequence[Weight]) -> tuple[WeightGroup, ...]:
    groups: dict[tuple[str, int], list[Weight]] = {}
    for weight in weights:
        groups.setdefault((weight.scheme, weight.bits), []).append(weight)
    weight_groups = []
    for (scheme, bits), members in groups.items():
        parts = {part: size for weight in members for part, size in weight.parts.items()}
        weight_groups.append(
            WeightGroup(
                scheme=scheme,
                bits=bits,
                tensors=len(members),
                elements=sum(weight.elements for weight in members),
                stored_bytes=sum(parts.values()),
            )
        )
    return tuple(sorted(weight_groups, key=lambda group: (-group.stored_bytes, group.scheme)))


def _plain(weights: Sequence[Weight]) -> tuple[PlainWeight, ...]:
    compressed = any(weight.is_compressed for weight in weights)
    plain = [
        PlainWeight(
            name=weight.name,
            shape=weight.type.sizes,
            data_type=weight.type.data_type.name,
            stored_bytes=weight.stored_bytes,
            reason=_reason(weight) if compressed else "nothing is compressed",
        )
        for weight in weights
        if not weight.is_compressed
    ]
    return tuple(sorted(plain, key=lambda weight: (-weight.stored_bytes, weight.name)))


def _reason(weight: Weight) -> str:
    """Say why coremltools' compressions, at their defaults, leave a tensor alone."""
    if not weight.type.data_type.is_float:
        return "not compressible: integers"
    if len(weight.type.shape) <= 1:
        return "1-D"
    if weight.elements <= COMPRESSION_THRESHOLD:
        return f"no more than {COMPRESSION_THRESHOLD} elements"
    return "left by choice"
