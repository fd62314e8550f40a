"""What a package says about itself, and what its maker is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.plan import PalettizationPlan
from mvit_coreml.export import metadata as meta
from mvit_coreml.export.output_heads import Output
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.workflows.options import ConvertOptions, fit_of


def describe(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    labels: Sequence[str],
    outputs: Sequence[Output],
    preprocessing: dict[str, dict[str, Any]],
    plan: PalettizationPlan | None,
) -> meta.PackageMetadata:
    """Collect the metadata of a package.

    Args:
        checkpoint: what is converted.
        options: with every default filled in.
        labels: unique class names.
        outputs: of the package.
        preprocessing: function name to how a photo becomes its input.
        plan: of the palettes, ``None`` without.
    """
    source = checkpoint.provenance
    owner = source.name.split("/")[0] if "/" in source.name else "unknown"
    known = _published_license(source.name) if "/" in source.name else None
    sizes = " or ".join(
        f"{image['width']}x{image['height']} pixels" for image in preprocessing.values()
    )
    own = {
        "task": checkpoint.task,
        "output": options.output or "",
        "source": source.name,
        "source_format": source.format,
        "source_revision": source.revision or "",
        "weights_sha256": source.sha256,
        "precision": options.precision,
        "bits": "",
        "versions": json.dumps(
            {name: version(name) for name in ("mvit-coreml", "coremltools", "torch")}
        ),
        "preprocessing": json.dumps(preprocessing),
    }
    if plan is not None:
        own |= palette_metadata(plan)
    if options.precision == "mixed":
        own["fp32_operations"] = json.dumps(options.fp32_operations)
    preview = {}
    if (checkpoint.task, options.output) in _PREVIEWED:
        preview = meta.preview(checkpoint.task, labels)
    elif options.output != "features":
        own["labels"] = json.dumps(list(labels), ensure_ascii=False)
    return meta.PackageMetadata(
        author=options.author or owner,
        license=options.license or known or "not stated; see the source checkpoint",
        description=options.description
        or f"{_FAMILY_NAMES[checkpoint.family]} for {checkpoint.task.replace('-', ' ')}, "
        f"converted from {source.name}.",
        version=options.version,
        input_description=f"Photo of {sizes}, brought to that size by {_FITS[fit_of(options)]}; "
        "colour order and scaling are built in.",
        outputs=outputs,
        user_defined=preview | {meta.KEY_PREFIX + key: value for key, value in own.items()},
    )


def _published_license(name: str) -> str | None:
    from mvit_coreml.checkpoints.catalogue import CATALOGUE

    return next((entry.license for entry in CATALOGUE if entry.id == name), None)


def palette_metadata(plan: PalettizationPlan) -> dict[str, str]:
    """Return what a package's metadata says about its palettes, by key without prefix."""
    own = {"bits": ", ".join(map(str, plan.bit_widths))}
    if plan.needs_values:
        own["palette_values"] = "trained" if plan.is_tuned else "weighted"
    return own


def notes(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    renamed: Sequence[str],
    unsafe: Sequence[object],
) -> tuple[str, ...]:
    """Say what was assumed or changed, a sentence each.

    Args:
        checkpoint: what was converted.
        options: with every default filled in.
        renamed: class names that stood twice.
        unsafe: what a mixed program keeps in fp32.
    """
    notes = []
    if renamed and options.output != "features":
        notes.append(f"class names that stood twice were made unique: {', '.join(renamed)}")
    if checkpoint.task == "semantic-segmentation":
        notes.append(
            f"the segmenter's photos are brought to its input by {_FITS[fit_of(options)]} "
            f"(--fit {options.fit})"
        )
    if options.color_order != checkpoint.image_processor.color_order:
        notes.append(f"the colour order is {options.color_order}, not the checkpoint's")
    if options.precision == "mixed":
        kept = ", ".join(map(str, unsafe)) or ", ".join(options.fp32_operations or ())
        notes.append(f"kept in fp32: {kept or 'nothing, every operation is safe in fp16'}")
    return tuple(notes)


_FAMILY_NAMES = {
    "mobilevit": "MobileViT",
    "mobilevitv2": "MobileViTV2",
    "mobilenet_v2": "MobileNetV2",
}
# Outputs that Xcode previews; their packages name the classes in the form it reads.
_PREVIEWED = {("image-classification", "probabilities"), ("semantic-segmentation", "classes")}
_FITS: dict[Fit, str] = {
    "crop": "resizing and cutting out the centre",
    "stretch": "stretching the whole photo",
    "pad": "fitting in the whole photo and padding it with black",
}
