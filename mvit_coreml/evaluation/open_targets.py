"""Opening what a user names, packages or checkpoints, as targets that answer photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.read_metadata import (
    class_labels,
    image_input,
    preparation_for,
    read_preparation,
)
from mvit_coreml.evaluation.targets import OutputRole, PackageTarget, ReferenceTarget
from mvit_coreml.export.atomic_package import SUFFIX
from mvit_coreml.mil.predictor import Engine, Predictor
from mvit_coreml.models.config import Task
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ColorOrder

# How to reach the hub changes nothing about a package.
_HARMLESS = ("token", "cache_dir", "local_files_only")


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """How targets are run.

    Attributes:
        engine: of packages.
        function: of packages that have several.
        workers: threads that run a package; all cores by default.
        fit: how photos are brought to a checkpoint's input; ``None`` does as the package beside
            it, or as ``convert`` would: pads for segmenters, crops for classifiers.
        color_order: order in which the first target's weights get the channels, instead of the
            order that it declares.
        loading: further arguments of ``load_checkpoint``.
    """

    engine: Engine = "auto"
    function: str | None = None
    workers: int | None = None
    fit: Fit | None = None
    color_order: ColorOrder | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OpenTarget:
    """A target and what it can be asked.

    Attributes:
        target: answers photos.
        task: what it is for.
        classes: what it tells apart, if it says so.
        declared_order: colour order that the package or checkpoint declares.
        color_order: colour order that it is run in.
        reduce_labels: whether its checkpoint wants masks that count from 1.
        engine: what runs it: ``portable``, ``coreml`` or ``pytorch``.
        notes: what was assumed about it.
    """

    target: PackageTarget | ReferenceTarget
    task: Task
    classes: ModelClasses | None
    declared_order: ColorOrder
    color_order: ColorOrder
    reduce_labels: bool
    engine: str
    notes: tuple[str, ...] = ()


def is_package(source: str | Path) -> bool:
    """Whether a user's source is a Core ML package rather than a checkpoint."""
    path = Path(source).expanduser()
    return path.suffix == SUFFIX or (path / "Manifest.json").is_file()


def open_targets(
    sources: Sequence[str | Path], options: OpenOptions | None = None
) -> tuple[OpenTarget, ...]:
    """Open one or two sources so that their answers can be compared.

    Beside a package, a checkpoint is run at the package's size and with its fit, and answers maps
    of the same size. A package of another tool is prepared as the checkpoint beside it.

    Args:
        sources: a package or checkpoint each.
        options: how they are run.

    Raises:
        MvitCoremlError: a source that cannot be loaded, has no classes, or does not compare.
    """
    options = options or OpenOptions()
    checkpoints = {
        index: load_checkpoint(source, **options.loading)
        for index, source in enumerate(sources)
        if not is_package(source)
    }
    _check_options(str(sources[0]), options, bool(checkpoints), len(checkpoints) < len(sources))
    # Only the first source's colour order can be overridden.
    ways = [options, *[replace(options, color_order=None) for _ in sources[1:]]]
    beside = next(iter(checkpoints.values()), None)
    opened = {
        index: _open_package(Path(source).expanduser(), beside, ways[index])
        for index, source in enumerate(sources)
        if index not in checkpoints
    }
    like = next((package.target for package in opened.values()), None)
    assert like is None or isinstance(like, PackageTarget)
    for index, checkpoint in checkpoints.items():
        opened[index] = _open_checkpoint(checkpoint, like, ways[index])
    targets = tuple(opened[index] for index in range(len(sources)))
    _check_comparable(targets)
    return targets


def _check_options(name: str, options: OpenOptions, checkpoints: bool, packages: bool) -> None:
    """Refuse options of checkpoints without one, and of packages without one."""
    changing = [option for option in options.loading if option not in _HARMLESS]
    if not checkpoints and (options.fit is not None or changing):
        option = "fit" if options.fit is not None else changing[0].replace("_", " ")
        raise InputError(
            f"{name}: is a package, whose {option} was settled when it was converted; give it "
            "for checkpoints only"
        )
    if not packages and options.function is not None:
        raise InputError(f"{name}: is a checkpoint; only packages have functions")


def _open_package(path: Path, beside: Checkpoint | None, options: OpenOptions) -> OpenTarget:
    predictor = Predictor(path, options.function, engine=options.engine)
    image = image_input(predictor.package, predictor.function)
    preparation = read_preparation(predictor.package, predictor.function)
    notes: tuple[str, ...] = ()
    if preparation is None and beside is not None:
        fit = options.fit or _default_fit(beside.task)
        preparation = preparation_for(image, beside.image_processor, fit, beside.input_size)
        notes = (
            f"{path.name} does not say how photos are prepared: it was done as "
            f"{beside.provenance.name} says",
        )
    declared: ColorOrder = "BGR" if image.color_order == "bgr" else "RGB"
    if options.color_order is not None and image.color_order == "grayscale":
        raise InputError(f"{path}: takes gray images, which have no colour order")
    if options.color_order not in (None, declared) and preparation is not None:
        preparation = replace(preparation, swap_channels=True)
    count = None if beside is None else len(beside.id2label)
    target = PackageTarget(predictor, preparation, count, options.workers)
    return OpenTarget(
        target=target,
        task=_package_task(target),
        classes=_package_classes(target, count),
        declared_order=declared,
        color_order=options.color_order or declared,
        reduce_labels=False,
        engine=predictor.engine,
        notes=notes,
    )


def _package_task(target: PackageTarget) -> Task:
    for role in target.roles:
        if role.is_map:
            return "semantic-segmentation"
        if role.is_scores:
            return "image-classification"
    raise InputError(
        f"{target.package.path}: answers features, not classes; there is no accuracy to measure"
    )


def _package_classes(target: PackageTarget, count: int | None) -> ModelClasses | None:
    labels = class_labels(target.package, target.function)
    if labels is not None:
        return ModelClasses(count=len(labels), labels=labels)
    for role in target.roles:
        if role.is_scores and len(role.shape) > 1 and role.shape[1] > 0:
            return ModelClasses(count=role.shape[1])
    return None if count is None else ModelClasses(count=count)


def _open_checkpoint(
    checkpoint: Checkpoint, like: PackageTarget | None, options: OpenOptions
) -> OpenTarget:
    if checkpoint.task == "backbone":
        raise InputError(
            f"{checkpoint.provenance.name}: is a backbone without classes; there is no accuracy to "
            "measure"
        )
    size = checkpoint.input_size if like is None else (like.image.height, like.image.width)
    fit = options.fit or (like.preparation.fit if like is not None else None)
    target = ReferenceTarget(
        checkpoint,
        roles=(_reference_role(checkpoint.task, like, size),),
        fit=fit or _default_fit(checkpoint.task),
        size=size,
        color_order=options.color_order,
    )
    labels = tuple(checkpoint.id2label.values())
    flips = checkpoint.image_processor.do_flip_channel_order
    declared: ColorOrder = "BGR" if flips else "RGB"
    return OpenTarget(
        target=target,
        task=checkpoint.task,
        classes=ModelClasses(count=len(labels), labels=labels),
        declared_order=declared,
        color_order=options.color_order or declared,
        reduce_labels=checkpoint.image_processor.do_reduce_labels,
        engine="pytorch",
        notes=checkpoint.notes,
    )


def _reference_role(task: Task, like: PackageTarget | None, size: tuple[int, int]) -> OutputRole:
    """Return what a checkpoint is to answer: logits, or maps as the package beside it."""
    if task == "image-classification":
        return OutputRole(name="logits", role="logits")
    for role in () if like is None else like.roles:
        if role.is_map and len(role.shape) > 1 and min(role.shape[-2:]) > 0:
            return role
    return OutputRole(name="classes", role="classes", shape=(1, *size))


def _default_fit(task: Task) -> Fit:
    return "pad" if task == "semantic-segmentation" else "crop"


def _check_comparable(targets: Sequence[OpenTarget]) -> None:
    first = targets[0]
    for other in targets[1:]:
        pair = f"{first.target.name} and {other.target.name} do not compare"
        if other.task != first.task:
            raise InputError(f"{pair}: one is for {first.task}, the other for {other.task}")
        counts = [one.classes.count for one in (first, other) if one.classes is not None]
        if len(set(counts)) > 1:
            raise InputError(f"{pair}: one has {counts[0]} classes, the other {counts[1]}")
