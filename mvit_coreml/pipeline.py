"""The stages of a conversion, in order: what ``mvit-coreml convert`` does.

load (the caller) -> prepare and trace -> convert -> palettize -> write.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.coreml import metadata as meta
from mvit_coreml.coreml.image_input import ColorOrder
from mvit_coreml.coreml.outputs import (
    MapSize,
    Output,
    OutputKind,
    describe_outputs,
)
from mvit_coreml.coreml.package import (
    SUFFIX,
    check_destination,
    finish_package,
    package_size,
    publish,
    staging_folder,
)
from mvit_coreml.coreml.program import (
    IOS_TARGETS,
    Bits,
    Precision,
    merge_functions,
    save_program,
)
from mvit_coreml.errors import InputError
from mvit_coreml.imaging.geometry import Fit
from mvit_coreml.models.build import build_model

Stage = Literal["trace", "convert", "palettize", "write"]
Progress = Callable[[Stage], None]

# First target whose packages may hold several functions.
MULTIFUNCTION_IOS = 18


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What kind of package to make.

    Attributes:
        ios: deployment target: 16, 17, 18 or 26.
        precision: compute precision, ``fp16`` or ``fp32``.
        bits: palettize the weights to 8, 6 or 4 bits; ``None`` leaves them in ``precision``.
        output: what the package answers; ``None`` is the task's first kind: ``probabilities`` of a
            classifier, ``classes`` of a segmenter, ``features`` of a backbone.
        map_size: size of a segmenter's maps: the input's, the logits' own, or (height, width);
            ``None`` is the input's, but for the ``logits`` output their own.
        layers: hidden states to add to ``features``, counted from 0.
        image_sizes: (height, width) of the input in pixels; several make a multifunction package
            whose first is the default; none is the size of the checkpoint's processor.
        fit: how a photo is brought to the input: ``crop``, ``stretch`` or ``pad``; ``None`` crops
            for classifiers and backbones, as their processors do, and pads for segmenters, which
            then see the whole photo undistorted.
        color_order: ``RGB`` or ``BGR`` instead of the checkpoint's.
        author: metadata; ``None`` is the owner of a hub id.
        license: metadata; ``None`` is what the catalogue knows.
        description: metadata; ``None`` is a sentence about the model.
        version: metadata.
    """

    ios: int = 17
    precision: Precision = "fp16"
    bits: Bits | None = 6
    output: OutputKind | None = None
    map_size: MapSize | None = None
    layers: tuple[int, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] = ()
    fit: Fit | None = None
    color_order: ColorOrder | None = None
    author: str | None = None
    license: str | None = None
    description: str | None = None
    version: str = "1.0"

    def __post_init__(self) -> None:
        _check_choice("ios", self.ios, IOS_TARGETS)
        _check_choice("precision", self.precision, ("fp16", "fp32"))
        _check_choice("bits", self.bits, (None, 8, 6, 4))
        _check_choice("fit", self.fit, (None, "crop", "stretch", "pad"))
        _check_choice("color_order", self.color_order, (None, "RGB", "BGR"))
        if len(set(self.image_sizes)) != len(self.image_sizes):
            raise InputError("an image size is given twice; give each once")
        if len(self.image_sizes) > 1 and self.ios < MULTIFUNCTION_IOS:
            raise InputError(
                f"several image sizes need iOS {MULTIFUNCTION_IOS} or newer (--ios 18); "
                f"for iOS {self.ios} convert one package for each size"
            )


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


def convert(
    checkpoint: Checkpoint,
    options: ConvertOptions | None = None,
    output: str | Path | None = None,
    *,
    force: bool = False,
    progress: Progress = lambda stage: None,
    verbose: bool = False,
) -> ConvertedPackage:
    """Convert a checkpoint to an ML Program package.

    Args:
        checkpoint: from :func:`~mvit_coreml.load_checkpoint`.
        options: what kind of package to make.
        output: the package to write, ending in ``.mlpackage``; by default the checkpoint's name in
            the current folder.
        force: replace an existing package.
        progress: called with the name of every stage as it begins.
        verbose: let coremltools print.

    Raises:
        InputError: options that do not fit the checkpoint, or a destination that cannot be used.
        MvitCoremlError: the package could not be written.
    """
    options = _fill_in(options or ConvertOptions(), checkpoint)
    destination = Path(output) if output is not None else default_destination(checkpoint)
    check_destination(destination, force)
    labels, renamed = meta.unique_labels(list(checkpoint.id2label.values()))
    model = build_model(checkpoint)
    functions = _functions(checkpoint, options)
    is_classifier = checkpoint.task == "image-classification" and options.output == "probabilities"
    with staging_folder(destination) as staging:
        specs, raws = [], []
        for name, (processor, image) in functions.items():
            progress("trace")
            module, program = _program(model, image, options, is_classifier, progress, verbose)
            progress("write")
            raws.append(staging / f"{name}{SUFFIX}")
            specs.append(
                save_program(
                    program,
                    raws[-1],
                    ios=options.ios,
                    class_labels=labels if is_classifier else None,
                    verbose=verbose,
                )
            )
            del processor
        outputs = describe_outputs(module, specs[0], labels)
        raw, spec = raws[0], specs[0]
        if len(raws) > 1:
            raw = staging / f"merged{SUFFIX}"
            spec = merge_functions(dict(zip(functions, raws, strict=True)), raw, verbose=verbose)
        preprocessing = {
            name: meta.describe_preprocessing(processor, options.fit or "crop", image)
            for name, (processor, image) in functions.items()
        }
        meta.write_metadata(
            spec, _metadata(checkpoint, options, labels, outputs, preprocessing)
        )
        finish_package(raw, spec)
        size = package_size(raw)
        publish(raw, destination)
    return ConvertedPackage(
        path=destination,
        size=size,
        source=checkpoint.provenance.name,
        task=checkpoint.task,
        functions={name: (image.height, image.width) for name, (_, image) in functions.items()},
        outputs=outputs,
        options=options,
        preprocessing=preprocessing,
        notes=(*checkpoint.notes, *_notes(options, checkpoint, renamed)),
    )
