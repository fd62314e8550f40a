"""What ``mvit-coreml convert`` does: build, validate, put in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.errors import GateError
from mvit_coreml.export.atomic_package import (
    SUFFIX,
    check_destination,
    package_size,
    publish,
    staging_folder,
)
from mvit_coreml.export.output_heads import Output
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.workflows.build_package import PackageBuilder, Progress, no_progress
from mvit_coreml.workflows.describe import notes
from mvit_coreml.workflows.finishing import (
    PICTURES_AFTER_CONVERSION,
    failing,
    named,
    too_few,
    write_plan_beside,
)
from mvit_coreml.workflows.fit_palettes import fit_palettes, wants_fitting
from mvit_coreml.workflows.options import ConvertOptions, fill_in
from mvit_coreml.workflows.palettization import Palettes, load_plan
from mvit_coreml.workflows.validate import validate

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import AccuracyDrop


@dataclass(frozen=True, kw_only=True)
class ConvertedPackage:
    """A package that was written.

    Attributes:
        path: where it is.
        size: sum of the sizes of its files, in bytes.
        source: name of the checkpoint.
        task: what the model is for.
        functions: function name to its input's (height, width) in pixels; one function is ``main``.
        outputs: what it answers, at the first size.
        options: as they were carried out, with every default filled in.
        preprocessing: function name to how a photo becomes its input, as stored in the metadata.
        notes: sentences about what was assumed or changed.
        parity: how it compared with the checkpoint, ``None`` if that was not asked for.
        plan: file with how its weights were palettized, ``None`` if they were not.
    """

    path: Path
    size: int
    source: str
    task: str
    functions: dict[str, tuple[int, int]]
    outputs: tuple[Output, ...]
    options: ConvertOptions
    preprocessing: dict[str, dict[str, Any]] = field(repr=False)
    notes: tuple[str, ...] = ()
    parity: ParityReport | None = field(default=None, repr=False)
    plan: Path | None = None


def convert(
    checkpoint: Checkpoint,
    options: ConvertOptions | None = None,
    output: str | Path | None = None,
    *,
    force: bool = False,
    check: bool = True,
    keep_failed: bool = False,
    images: Sequence[Any] | None = None,
    samples: int = 0,
    rejected: Callable[[Path, ParityReport], None] = lambda package, report: None,
    progress: Progress = no_progress,
    verbose: bool = False,
) -> ConvertedPackage:
    """Convert a checkpoint to an ML Program package, and validate it before it appears.

    Beside a palettized package lies its plan, which leads to the same package again.

    Args:
        checkpoint: from :func:`~mvit_coreml.load_checkpoint`.
        options: what kind of package to make.
        output: the package to write, ending in ``.mlpackage``; by default the checkpoint's name in
            the current folder.
        force: replace an existing package.
        check: run the finished package and the checkpoint on the same images before putting it in
            place, see :func:`validate`.
        keep_failed: put a package that fails a gate in place all the same.
        images: to fit palettes to, to measure and to check on; what is checked are some that no
            palette was fitted to. Synthetic pictures by default.
        samples: number of images whose answers the check keeps for a report, which then has the
            error of every operation too.
        rejected: called with a package that fails a gate, and how it compared, before it is thrown
            away.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.

    Raises:
        InputError: options that do not fit the checkpoint, or a destination that cannot be used.
        GateError: the package does not answer like the checkpoint, or does not keep a promise.
        MvitCoremlError: the package could not be written.
    """
    options = fill_in(options or ConvertOptions(), checkpoint)
    destination = Path(output) if output is not None else default_destination(checkpoint)
    check_destination(destination, force)
    accuracy = None
    if options.dataset is not None:
        from mvit_coreml.evaluation.accuracy import AccuracyDrop

        accuracy = AccuracyDrop(checkpoint, options.dataset, options.color_order)
    report = None
    with staging_folder(destination) as staging:
        builder = PackageBuilder(
            checkpoint, options, images=images, folder=staging, progress=progress, verbose=verbose
        )
        palettes, judged, said = _palettes(builder, images, accuracy, staging)
        built = builder.build(staging / "built", palettes)
        finished = named(built.package, destination.name)
        if check:
            progress("validate")
            report = validate(
                finished,
                checkpoint,
                judged,
                color_order=options.color_order,
                structure=built.plan is not None,
                layers=None if samples else False,
                pictures=PICTURES_AFTER_CONVERSION,
                samples=samples,
            )
            failure = failing(finished, report, options.promise, accuracy)
            if failure and not keep_failed:
                rejected(finished, report)
                raise GateError(
                    f"{destination}: not written, as it {failure}; --keep-failed writes it all the"
                    " same"
                )
            said += (f"it {failure}",) if failure and report.passed else ()
        size = package_size(finished)
        publish(finished, destination)
    plan = None
    if built.plan is not None:
        palettes = built.plan, built.values
        plan = write_plan_beside(destination, palettes, size, report, options.plan)
    told = notes(checkpoint, built.options, built.renamed, built.unsafe)
    return ConvertedPackage(
        path=destination,
        size=size,
        source=checkpoint.provenance.name,
        task=checkpoint.task,
        functions=built.functions,
        outputs=built.outputs,
        options=built.options,
        preprocessing=built.preprocessing,
        notes=(*checkpoint.notes, *told, *said),
        parity=report,
        plan=plan,
    )


def _palettes(
    builder: PackageBuilder,
    images: Sequence[Any] | None,
    accuracy: AccuracyDrop | None,
    folder: Path,
) -> tuple[Palettes | None, Sequence[Any] | None, tuple[str, ...]]:
    """Find the palettes, unless they are those of k-means with equal bits.

    Returns:
        The palettes; the images that they may be judged on; what there is to say about them.
    """
    options = builder.options
    if options.plan is not None:
        return load_plan(options.plan), images, ()
    if not wants_fitting(options, images):
        return None, images, too_few(options, images)
    fitted = fit_palettes(
        builder.plain(folder / "plain").package,
        options,
        images,
        source_sha256=builder.checkpoint.provenance.sha256,
        build=lambda palettes, tried: builder.build(tried, palettes).package,
        accuracy=accuracy,
        folder=folder,
        progress=builder.progress,
    )
    return fitted.palettes, fitted.held_out, (str(fitted),)


def default_destination(checkpoint: Checkpoint) -> Path:
    """Return the package's path when none is given: the checkpoint's name, in this folder."""
    name = checkpoint.provenance.name.rsplit("/", 1)[-1]
    for suffix in (".pt", ".pth", ".bin", ".safetensors"):
        name = name.removesuffix(suffix)
    return Path(name + SUFFIX)
