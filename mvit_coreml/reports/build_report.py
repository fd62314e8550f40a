"""Filling a report from what the commands have computed."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.evaluation.accuracy import Evaluation
from mvit_coreml.evaluation.class_labels import class_colors, class_labels
from mvit_coreml.evaluation.preparation import read_preparation
from mvit_coreml.evaluation.targets import output_roles
from mvit_coreml.export.metadata import KEY_PREFIX
from mvit_coreml.inspection.package_contents import Inspection, inspect_package
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Function, Package
from mvit_coreml.mil.value_types import DATA_TYPES
from mvit_coreml.reports.contents import PackageFacts, Report, Reproduction, SizeBar
from mvit_coreml.validation.answer_comparison import ParityReport
from mvit_coreml.validation.structure import stored_precision

_SOFTWARE = ("mvit-coreml", "coremltools", "torch")
# Bytes of one element of the weights that palettes are compared with.
_PLAIN = {"plain fp16": 2, "plain fp32": 4}
_SAME_SIZE = 0.005
THIS_PACKAGE = "this package"
OTHER_BYTES = "program and metadata"


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
    if package is None and parity is None and evaluation is None:
        raise InputError("nothing to report; give a package, a validation or an evaluation")
    facts, names, own = None, None, {}
    if package is not None:
        loaded = load_package(package)
        function = loaded.function(None if parity is None else parity.function)
        facts = _facts(loaded, function)
        names = facts.function.labels
        own = dict(loaded.metadata.user_defined)
    if names is None and checkpoint is not None:
        names = tuple(checkpoint.id2label.values())
    return Report(
        title=_title(facts, parity, evaluation),
        parity=parity,
        package=facts,
        evaluation=evaluation,
        labels=tuple(labels if labels is not None else names or ()),
        notes=tuple(notes),
        reproduction=_reproduction(checkpoint, own, command),
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
    bars = [SizeBar(label=THIS_PACKAGE, parts=(*groups, rest))]
    for label, size in _PLAIN.items():
        parts: dict[str, int] = {}
        for group in inspection.weights:
            known = DATA_TYPES.get(group.scheme)
            if known is not None and not known.is_float:
                parts[group.scheme] = parts.get(group.scheme, 0) + group.stored_bytes
            else:
                name = label.removeprefix("plain ")
                parts[name] = parts.get(name, 0) + group.elements * size
        bars.append(SizeBar(label=label, parts=(*parts.items(), rest)))
    # A package without palettes is one of the two itself, but for the odd tensor.
    own = bars[0].size
    return (bars[0], *(bar for bar in bars[1:] if abs(bar.size - own) > _SAME_SIZE * own))


def _facts(package: Package, function: Function) -> PackageFacts:
    inspection = inspect_package(package.path)
    precision, bits = stored_precision(function)
    stated = package.metadata.user_defined.get(KEY_PREFIX + "precision", "")
    preparation = read_preparation(package, function) if _takes_image(function) else None
    facts = next(found for found in inspection.functions if found.name == function.name)
    return PackageFacts(
        name=package.path.name,
        inspection=inspection,
        function=facts,
        # That some operations stay in fp32 shows in the metadata alone.
        precision="mixed" if stated == "mixed" else precision,
        bits=bits,
        fit=None if preparation is None else preparation.fit,
        sizes=plain_sizes(inspection),
        colors=_colors(package, function),
        sha256={name: _sha256(package.path / name) for name in inspection.files},
    )


def _takes_image(function: Function) -> bool:
    return len(function.inputs) == 1 and hasattr(function.inputs[0], "color_order")


def _colors(package: Package, function: Function) -> tuple[str, ...]:
    maps = ("classes", "map_logits", "map_probabilities")
    labels = class_labels(package, function)
    count = 0 if labels is None else len(labels)
    if not any(role.kind in maps for role in output_roles(function, count or None)):
        return ()
    # A package without names may hold any class index that fits a byte.
    colors = class_colors(package, function, count or 256)
    return tuple("#{:02x}{:02x}{:02x}".format(*color) for color in colors.tolist())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PackageError(f"{path}: cannot be read: {error.strerror}") from None


def _title(
    facts: PackageFacts | None, parity: ParityReport | None, evaluation: Evaluation | None
) -> str:
    if facts is not None:
        return facts.name
    if parity is not None:
        return parity.package
    return evaluation.accuracies[0].target if evaluation is not None else ""


def _reproduction(
    checkpoint: Checkpoint | None, own: Mapping[str, str], command: str
) -> Reproduction:
    versions = {name: version(name) for name in _SOFTWARE}
    if checkpoint is not None:
        source = checkpoint.provenance
        name, revision, sha256 = source.name, source.revision, source.sha256
    else:
        name = own.get(KEY_PREFIX + "source", "")
        revision = own.get(KEY_PREFIX + "source_revision") or None
        sha256 = own.get(KEY_PREFIX + "weights_sha256", "")
    return Reproduction(
        command=command,
        versions=versions | {"python": platform.python_version()},
        made_with=_made_with(own.get(KEY_PREFIX + "versions")),
        checkpoint=name,
        revision=revision,
        weights_sha256=sha256,
    )


def _made_with(text: str | None) -> dict[str, str]:
    """Read the versions in a package's metadata; of damaged ones there is nothing to show."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
