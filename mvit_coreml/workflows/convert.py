"""What ``mvit-coreml convert`` does: build, choose palettes, validate, put in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.export.atomic_package import SUFFIX, staging_folder
from mvit_coreml.export.output_heads import Output
from mvit_coreml.validation.pytorch_comparison import ParityReport
from mvit_coreml.workflows.build_package import (
    Progress,
    build_plain_package,
    compress_plain,
    no_progress,
    notes,
)
from mvit_coreml.workflows.choose_palettes import with_promise_of_plan
from mvit_coreml.workflows.fit_quantization import quantized_candidates, quantizes
from mvit_coreml.workflows.package_options import ConvertOptions, fill_in
from mvit_coreml.workflows.publish_package import (
    Candidate,
    check_destination,
    palettized_candidates,
    publish_package,
)
from mvit_coreml.workflows.validate import PICTURES_AFTER_CONVERSION, ValidateOptions, validate

# What weight files end in.
_WEIGHT_SUFFIXES = re.compile(r"(\.(tar|pt|pth|bin|ckpt|safetensors))+$")


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
    options.check_images(images)
    check_destination(destination, force, options.plan)
    options = with_promise_of_plan(options, images)
    accuracy = None
    if options.dataset is not None:
        from mvit_coreml.evaluation.accuracy import AccuracyDrop

        accuracy = AccuracyDrop(
            checkpoint, options.dataset, options.color_order, options.activation
        )
    with staging_folder(destination) as staging:
        plain = build_plain_package(
            checkpoint,
            options,
            staging / "plain",
            images=images,
            progress=progress,
            verbose=verbose,
        )
        if quantizes(options):
            candidates = quantized_candidates(
                plain.path,
                options,
                images,
                build=partial(compress_plain, plain, verbose=verbose),
                source_sha256=checkpoint.provenance.sha256,
                folder=staging,
                progress=progress,
            )
        elif options.bits is None and options.plan is None:
            candidates = iter([Candidate(package=plain.path, images=images)])
        else:
            candidates = palettized_candidates(
                plain.path,
                options,
                images,
                build=partial(compress_plain, plain, verbose=verbose),
                source_sha256=checkpoint.provenance.sha256,
                accuracy=accuracy,
                folder=staging,
                progress=progress,
            )

        def compare(finished: Path, candidate: Candidate) -> ParityReport:
            progress("validate")
            return validate(
                finished,
                checkpoint,
                candidate.images,
                ValidateOptions(
                    color_order=options.color_order,
                    structure=candidate.compression is not None,
                    layers=None if samples else False,
                    pictures=PICTURES_AFTER_CONVERSION,
                    samples=samples,
                    promise=options.promise,
                ),
                expected=finished if candidate.compression is None else plain.path,
                values=candidate.values,
            )

        published = publish_package(
            candidates,
            destination,
            options,
            compare=compare if check else None,
            accuracy=accuracy,
            force=force,
            keep_failed=keep_failed,
            rejected=rejected,
        )
    return ConvertedPackage(
        path=destination,
        size=published.size,
        source=checkpoint.provenance.name,
        task=checkpoint.task,
        functions=plain.input_sizes,
        outputs=plain.outputs,
        options=plain.options,
        preprocessing=plain.preprocessing,
        notes=(
            *checkpoint.notes,
            *notes(checkpoint, plain.options, plain.renamed, plain.unsafe),
            *published.notes,
        ),
        parity=published.parity,
        plan=published.plan,
    )


def default_destination(checkpoint: Checkpoint) -> Path:
    """Return the package's path if nobody names one: the checkpoint's name, in this folder."""
    name = checkpoint.provenance.name.rsplit("/", 1)[-1]
    return Path(_WEIGHT_SUFFIXES.sub("", name) + SUFFIX)
