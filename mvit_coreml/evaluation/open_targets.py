"""Opening what a user names, packages or checkpoints, as targets that answer photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.checkpoints.class_names import assumed_names, read_names
from mvit_coreml.checkpoints.load import load_checkpoint, load_image_processor
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.read_metadata import (
    PreparationOptions,
    choose_preparation,
    class_labels,
    image_input,
    is_own,
    preparation_for,
    read_preparation,
)
from mvit_coreml.evaluation.targets import (
    OutputRole,
    PackageTarget,
    ReferenceTarget,
    head_activation_of,
)
from mvit_coreml.export.atomic_package import SUFFIX
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Engine, Predictor
from mvit_coreml.models.config import Task
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ColorOrder

# How to reach the hub changes nothing about a package.
_HARMLESS = ("token", "cache_dir", "local_files_only")
# What a package of another tool may not say.
_OF_OTHER_TOOLS = ("fit", "resize", "image_processor", "labels")


@dataclass(frozen=True, kw_only=True)
class OpenOptions:
    """How targets are run.

    Attributes:
        engine: of packages.
        function: of packages that have several.
        workers: threads that run a package; all cores by default.
        fit: how photos are brought to the input of a checkpoint, or of a package that does not say
            it; ``None`` does as the package beside a checkpoint, or as ``convert`` would: pads for
            segmenters, crops for classifiers; a package alone has photos stretched, as Core ML
            does by itself.
        resize: shortest edge in pixels that photos are resized to before the centre is cut out,
            for packages that do not say how they are prepared.
        color_order: order in which the first target's weights get the channels, instead of the
            order that it declares.
        loading: further arguments of ``load_checkpoint``.
    """

    engine: Engine = "auto"
    function: str | None = None
    workers: int | None = None
    fit: Fit | None = None
    resize: int | None = None
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
    packages = [
        Path(source).expanduser()
        for index, source in enumerate(sources)
        if index not in checkpoints
    ]
    _check_options(str(sources[0]), options, bool(checkpoints), packages)
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


def _check_options(
    name: str, options: OpenOptions, checkpoints: bool, packages: Sequence[Path]
) -> None:
    """Refuse options of checkpoints without one, and of packages without one."""
    changing = [option for option in options.loading if option not in _HARMLESS]
    changing += [option for option in ("resize", "fit") if getattr(options, option) is not None]
    foreign = [path for path in packages if changing and not is_own(load_package(path))]
    if foreign:
        changing = [option for option in changing if option not in _OF_OTHER_TOOLS]
    if not foreign and options.resize is not None:
        raise InputError(
            f"{name}: says itself how photos are prepared; --resize is for packages that do not"
        )
    if not checkpoints and changing:
        option = changing[-1].replace("_", " ")
        raise InputError(
            f"{name}: is a package, whose {option} was settled when it was converted; give it "
            "for checkpoints only"
        )
    if not packages and options.function is not None:
        raise InputError(f"{name}: is a checkpoint; only packages have functions")


def _open_package(path: Path, beside: Checkpoint | None, options: OpenOptions) -> OpenTarget:
    predictor = Predictor(path, options.function, engine=options.engine)
    image = image_input(predictor.package, predictor.function)
    own = read_preparation(predictor.package, predictor.function)
    preparation = own
    notes: tuple[str, ...] = ()
    if own is None and beside is None:
        source = options.loading.get("image_processor")
        chosen = PreparationOptions(
            fit=options.fit,
            resize=options.resize,
            processor=None if source is None else load_image_processor(source),
        )
        preparation, note = choose_preparation(predictor.package, predictor.function, chosen)
        notes = (note,) if note else ()
    elif own is None and beside is not None:
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
    labels = class_labels(predictor.package, predictor.function)
    named = options.loading.get("labels") if labels is None and beside is None else None
    if named is not None:
        labels = read_names(named)
    count = len(labels or ()) or None if beside is None else len(beside.id2label)
    target = PackageTarget(predictor, preparation, count, options.workers)
    classes = _package_classes(target, count)
    if named is not None:
        classes = ModelClasses(count=len(labels or ()), labels=labels)
    elif classes is not None and classes.labels is None and own is None:
        assumed = assumed_names(_package_task(target), classes.count)
        if assumed is not None:
            classes = ModelClasses(count=classes.count, labels=assumed[0])
            notes = (*notes, f"{path.name}: {assumed[1]}")
    return OpenTarget(
        target=target,
        task=_package_task(target),
        classes=classes,
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
        if role.is_scores and target.activation != "none":
            return "image-classification"
    answers = "values" if any(role.kind == "values" for role in target.roles) else "features"
    raise InputError(
        f"{target.package.path}: answers {answers}, not classes; there is no accuracy to measure"
        + ("" if is_own(target.package) else " (--labels names its classes, if it has any)")
    )


def target_classes(target: PackageTarget, labels: Sequence[str] | None = None) -> ModelClasses:
    """Return the classes that a package tells apart.

    Args:
        target: the package.
        labels: their names, where it has none.

    Raises:
        InputError: it has no classes, or does not say how many.
    """
    task = _package_task(target)
    if labels is not None:
        return ModelClasses(count=len(labels), labels=tuple(labels))
    classes = _package_classes(target, None)
    if classes is None:
        raise InputError(
            f"{target.package.path}: does not say how many classes it has; name them with --labels"
        )
    assumed = None if classes.labels is not None else assumed_names(task, classes.count)
    return classes if assumed is None else ModelClasses(count=classes.count, labels=assumed[0])


def _package_classes(target: PackageTarget, count: int | None) -> ModelClasses | None:
    if target.labels is not None:
        return ModelClasses(count=len(target.labels), labels=target.labels)
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
    activation = head_activation_of(checkpoint) if like is None else like.activation
    if activation == "none":
        raise InputError(
            f"{checkpoint.provenance.name}: is a regression, whose values are no classes; there is "
            "no accuracy to measure"
        )
    size = checkpoint.input_size if like is None else like.image.size
    fit = options.fit or (like.preparation.fit if like is not None else None)
    target = ReferenceTarget(
        checkpoint,
        roles=(_reference_role(checkpoint.task, like, size),),
        fit=fit or _default_fit(checkpoint.task),
        size=size,
        color_order=options.color_order,
        activation=activation,
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
        if other.target.activation != first.target.activation:
            raise InputError(f"{pair}: one tells a photo's one label, the other several")
        counts = [one.classes.count for one in (first, other) if one.classes is not None]
        if len(set(counts)) > 1:
            raise InputError(f"{pair}: one has {counts[0]} classes, the other {counts[1]}")
