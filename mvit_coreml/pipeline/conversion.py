"""What ``mvit-coreml convert`` does: build, validate, put in place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.coreml.outputs import Output
from mvit_coreml.coreml.package import (
    SUFFIX,
    check_destination,
    package_size,
    publish,
    staging_folder,
)
from mvit_coreml.errors import GateError
from mvit_coreml.palettes.plan import Scalar
from mvit_coreml.palettes.plan_file import write_plan
from mvit_coreml.parity.validation import ParityReport
from mvit_coreml.pipeline.building import BuiltPackage, Progress, build_package
from mvit_coreml.pipeline.description import notes
from mvit_coreml.pipeline.options import ConvertOptions, fill_in
from mvit_coreml.pipeline.validation import gate_message, validate

PLAN_SUFFIX = ".plan.toml"
# Synthetic pictures that a fresh package is checked with.
_PICTURES_AFTER_CONVERSION = 6


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
    progress: Progress = lambda stage: None,
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
        images: to measure and to check on; synthetic pictures by default.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.

    Raises:
        InputError: options that do not fit the checkpoint, or a destination that cannot be used.
        GateError: the package does not answer like the checkpoint.
        MvitCoremlError: the package could not be written.
    """
    options = fill_in(options or ConvertOptions(), checkpoint)
    destination = Path(output) if output is not None else default_destination(checkpoint)
    check_destination(destination, force)
    report = None
    with staging_folder(destination) as staging:
        built = build_package(
            checkpoint, options, staging, images=images, progress=progress, verbose=verbose
        )
        if check:
            progress("validate")
            report = validate(
                built.package,
                checkpoint,
                images,
                color_order=options.color_order,
                structure=built.plan is not None,
                pictures=_PICTURES_AFTER_CONVERSION,
            )
            if not report.passed and not keep_failed:
                raise GateError(
                    f"{destination}: not written, as it does not answer like the checkpoint: "
                    f"{gate_message(report)}; --keep-failed writes it all the same"
                )
        size = package_size(built.package)
        publish(built.package, destination)
    plan = _write_plan(built, destination, size, report)
    return ConvertedPackage(
        path=destination,
        size=size,
        source=checkpoint.provenance.name,
        task=checkpoint.task,
        functions=built.functions,
        outputs=built.outputs,
        options=built.options,
        preprocessing=built.preprocessing,
        notes=(*checkpoint.notes, *notes(checkpoint, built.options, built.renamed, built.unsafe)),
        parity=report,
        plan=plan,
    )


def _write_plan(
    built: BuiltPackage, destination: Path, size: int, report: ParityReport | None
) -> Path | None:
    """Write down how the weights were palettized, so that it can be done again."""
    if built.plan is None:
        return None
    path = destination.with_suffix(PLAN_SUFFIX)
    given = built.options.plan
    if given is not None and path.exists() and path.samefile(given):
        return path
    measured: dict[str, Scalar] = {"size": size}
    if report is not None:
        measured |= {"snr": round(report.scores.snr, 2), "images": report.images}
        if not report.synthetic:
            measured |= {name: round(value, 4) for name, value in report.agreement.items()}
    write_plan(built.plan.with_measured(**measured), path, built.values)
    return path


def default_destination(checkpoint: Checkpoint) -> Path:
    """Return the package's path when none is given: the checkpoint's name, in this folder."""
    name = checkpoint.provenance.name.rsplit("/", 1)[-1]
    for suffix in (".pt", ".pth", ".bin", ".safetensors"):
        name = name.removesuffix(suffix)
    return Path(name + SUFFIX)
