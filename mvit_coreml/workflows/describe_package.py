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
from mvit_coreml.workflows.package_options import ConvertOptions, fit_of


def describe_package(
    spec: Any,
    checkpoint: Checkpoint,
    options: ConvertOptions,
    labels: Sequence[str],
    outputs: Sequence[Output],
    preprocessing: dict[str, dict[str, Any]],
) -> None:
    """Write the metadata of a package without palettes into its specification.

    Args:
        spec: a ``Model`` protobuf message, of one function or several.
        checkpoint: what is converted.
        options: with every default filled in.
        labels: unique class names.
        outputs: of the package.
        preprocessing: function name to how a photo becomes its input.
    """
    source = checkpoint.provenance
    owner, known = "unknown", None
    if "/" in source.name:  # an id of the hub
        from mvit_coreml.checkpoints.catalogue import CATALOGUE

        owner = source.name.split("/")[0]
        known = {entry.id: entry.license for entry in CATALOGUE}.get(source.name)
    metadata = spec.description.metadata
    metadata.author = options.author or owner
    metadata.license = options.license or known or "not stated; see the source checkpoint"
    metadata.shortDescription = options.description or (
        f"{_FAMILY_NAMES[checkpoint.family]} for {checkpoint.task.replace('-', ' ')}, "
        f"converted from {source.name}."
    )
    metadata.versionString = options.version
    # coremltools stamps the date, which would make every package differ.
    metadata.userDefined.pop("com.github.apple.coremltools.conversion_date", None)
    for key, value in _user_defined(checkpoint, options, labels, preprocessing).items():
        metadata.userDefined[key] = value
    sizes = " or ".join(
        f"{image['width']}x{image['height']} pixels" for image in preprocessing.values()
    )
    described = {output.name: output.description for output in outputs}
    for function in spec.description.functions or [spec.description]:
        for feature in function.input:
            feature.shortDescription = (
                f"Photo of {sizes}, brought to that size by {_FITS[fit_of(options)]}; "
                "colour order and scaling are built in."
            )
        for feature in function.output:
            feature.shortDescription = described[feature.name]


def _user_defined(
    checkpoint: Checkpoint,
    options: ConvertOptions,
    labels: Sequence[str],
    preprocessing: dict[str, dict[str, Any]],
) -> dict[str, str]:
    """Return the preview's keys and those of this project."""
    source = checkpoint.provenance
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
        "options": options.to_json(),
        "preprocessing": json.dumps(preprocessing),
    }
    if options.precision == "mixed":
        own["fp32_operations"] = json.dumps(options.fp32_operations)
    preview = {}
    if (checkpoint.task, options.output) in _PREVIEWED:
        preview = meta.preview(checkpoint.task, labels)
    elif options.output != "features":
        own["labels"] = json.dumps(list(labels), ensure_ascii=False)
    return preview | {meta.KEY_PREFIX + key: value for key, value in own.items()}


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
