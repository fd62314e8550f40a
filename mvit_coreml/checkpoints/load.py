"""Loading a checkpoint, or its image processor alone, from the hub, a folder or a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from mvit_coreml.checkpoints.checkpoint import Checkpoint, Format, Provenance, Reading
from mvit_coreml.checkpoints.class_names import LabelSource, resolve_labels
from mvit_coreml.checkpoints.formats import huggingface
from mvit_coreml.checkpoints.sources import HubOptions, Source, open_source
from mvit_coreml.checkpoints.weight_files import as_json, read_weights
from mvit_coreml.errors import CheckpointError, InputError, errors_at
from mvit_coreml.models.base import model_class
from mvit_coreml.models.config import ModelConfig, Task, architecture_name
from mvit_coreml.preprocessing.image_processor import ColorOrder, ImageProcessor

# Under either name a preprocessor_config.json says what it is for.
_PROCESSOR_TYPE_KEYS = {"image_processor_type", "feature_extractor_type"}


def load_checkpoint(
    source: str | Path,
    *,
    revision: str | None = None,
    image_processor: ImageProcessor | str | Path | None = None,
    color_order: ColorOrder | None = None,
    labels: LabelSource | None = None,
    output_stride: int | None = None,
    task: Task | None = None,
    **hub: Unpack[HubOptions],
) -> Checkpoint:
    """Load a checkpoint of Hugging Face transformers, timm or Apple's cvnets.

    Args:
        source: hub id (``apple/mobilevit-small``), folder, or weight file.
        revision: branch, tag or commit of a hub model.
        image_processor: preprocessing to use instead of the source's: a processor, a hub id, a
            folder, or a JSON file.
        color_order: channel order of the model's input instead of the source's.
        labels: class names to use instead of the source's: a text file with one a line, a JSON
            file, or the names.
        output_stride: input size over feature map size, 8, 16 or 32, instead of the source's.
        task: ``backbone`` keeps only the feature extractor; otherwise the source decides.
        hub: ``token``, ``cache_dir`` and ``local_files_only``, see
            :class:`~mvit_coreml.checkpoints.sources.HubOptions`.

    Returns:
        The checkpoint, its weights checked against the model that its configuration describes.

    Raises:
        CheckpointError: a source that is missing, unreadable, unsafe, unsupported or inconsistent.
        ConfigError: a configuration with an unknown or impossible value.
        InputError: an option that does not apply.
    """
    place = open_source(source, revision=revision, **hub)
    raw = read_weights(place)
    with errors_at(place.name):
        weight_format, reading = _read(place, raw.tensors, output_stride, task)
        reading = _for_task(reading, task)
        config = reading.config
        if output_stride is not None:
            config = config.replace(output_stride=output_stride)
        id2label, label_note = resolve_labels(config.id2label, reading.task, labels)
        config = config.replace(id2label=id2label)
        weights = _fit(config, reading)
    processor, processor_note = _image_processor(place, reading, config, image_processor, hub)
    if color_order is not None:
        if color_order not in ("RGB", "BGR"):
            raise InputError(f"color_order is {color_order!r}; it must be RGB or BGR")
        processor = processor.replace(do_flip_channel_order=color_order == "BGR")
    notes = (*raw.notes, *reading.notes, label_note, processor_note)
    return Checkpoint(
        config=config,
        task=reading.task,
        weights=weights,
        image_processor=processor,
        provenance=Provenance(
            name=place.name,
            format=weight_format,
            revision=place.revision,
            sha256=raw.sha256,
            files=raw.files,
        ),
        notes=tuple(note for note in notes if note is not None),
    )


def _read(
    place: Source, tensors: Mapping[str, Tensor], output_stride: int | None, task: Task | None
) -> tuple[Format, Reading]:
    """Let the format's module read the weights."""
    config_path = place.fetch("config.json")
    data = None if config_path is None else as_json(config_path)
    if data is None or place.weight_file is not None:
        return _recognise(data, tensors, output_stride, task)
    # A folder is what its configuration says it is.
    if "architecture" in data:
        from mvit_coreml.checkpoints.formats import timm

        return "timm", timm.read(tensors, data)
    if "model_type" in data:
        return "huggingface", huggingface.read(tensors, data, task)
    raise CheckpointError(
        "config.json has neither the model_type of Hugging Face nor the architecture of timm"
    )


def _recognise(
    data: dict[str, Any] | None,
    tensors: Mapping[str, Tensor],
    output_stride: int | None,
    task: Task | None,
) -> tuple[Format, Reading]:
    """Tell the format of a file by the names in it."""
    from mvit_coreml.checkpoints.formats import cvnets, timm

    if cvnets.recognises(tensors):
        return "cvnets", cvnets.read(tensors, output_stride)
    if timm.recognises(tensors):
        beside = data if data is not None and "architecture" in data else None
        return "timm", timm.read(tensors, beside)
    if huggingface.recognises(tensors):
        if data is None or "model_type" not in data:
            raise CheckpointError(
                "weights of Hugging Face transformers need their config.json beside them"
            )
        return "huggingface", huggingface.read(tensors, data, task)
    raise CheckpointError(
        f"weights of an unknown model, such as {next(iter(tensors))!r}; supported are MobileViT, "
        "MobileViTV2 and MobileNetV2 of transformers and timm, and the former two of cvnets"
    )


def _for_task(reading: Reading, task: Task | None) -> Reading:
    """Reduce a model to its backbone if asked to, under the names a backbone has by itself."""
    task = task or reading.task
    if task not in ("backbone", reading.task):
        raise CheckpointError(
            f"holds a model for {reading.task}, not for {task}; only its backbone can be taken out"
        )
    if task != "backbone":
        return reading
    prefix = f"{reading.config.model_type}."
    names = {
        name: name.removeprefix(prefix)
        for name in reading.weights
        if reading.task == "backbone" or name.startswith(prefix)
    }
    return replace(
        reading,
        task=task,
        weights={short: reading.weights[name] for name, short in names.items()},
        origins={short: reading.origins[name] for name, short in names.items()},
    )


def _fit(config: ModelConfig, reading: Reading) -> dict[str, Tensor]:
    """Return the weights in the model's order, each with the shape the model expects."""
    model = architecture_name(config, reading.task)
    # On the meta device a model has shapes but no storage.
    with torch.device("meta"):
        expected = model_class(config, reading.task)(config).state_dict()
    weights = dict(reading.weights)
    for name, shaped in expected.items():
        # Older files lack this counter, which only training reads.
        if name not in weights and name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros((), dtype=shaped.dtype)
    missing = [name for name in expected if name not in weights]
    if missing:
        raise CheckpointError(
            f"{len(missing)} weights of {model} are missing, the first is {missing[0]!r}"
        )
    for name, shaped in expected.items():
        if weights[name].shape != shaped.shape:
            raise CheckpointError(
                f"weight {reading.origins[name]!r} is {tuple(weights[name].shape)}, "
                f"but the configuration makes it {tuple(shaped.shape)}"
            )
    unused = [reading.origins[name] for name in weights if name not in expected]
    if unused:
        raise CheckpointError(
            f"{len(unused)} weights have no place in {model}, the first is {unused[0]!r}"
        )
    return {name: weights[name] for name in expected}


def _image_processor(
    place: Source,
    reading: Reading,
    config: ModelConfig,
    override: ImageProcessor | str | Path | None,
    hub: HubOptions,
) -> tuple[ImageProcessor, str | None]:
    """Return the preprocessing, and a sentence about it if it had to be assumed."""
    if isinstance(override, ImageProcessor):
        return override, None
    if override is not None:
        return load_image_processor(override, model_type=config.model_type, **hub), None
    if reading.image_processor is not None:
        return reading.image_processor, None
    path = place.fetch("preprocessor_config.json")
    if path is not None:
        return _read_processor(path, config.model_type), None
    size = min(config.image_hw)
    default = ImageProcessor.for_family(config.model_type, image_size=size)
    return default, (
        f"No preprocessor_config.json was found: shortest edge {default.size}, centre crop {size}, "
        f"{default.color_order} were assumed, as published for the family; --image-processor names "
        "another."
    )


def load_image_processor(
    source: str | Path, *, model_type: str | None = None, **hub: Unpack[HubOptions]
) -> ImageProcessor:
    """Load the preprocessing of a checkpoint of transformers or timm, without its weights.

    Args:
        source: hub id, folder, or a ``preprocessor_config.json`` or timm ``config.json``.
        model_type: ``mobilevit``, ``mobilevitv2`` or ``mobilenet_v2``, for files that do not tell.
        hub: see :class:`~mvit_coreml.checkpoints.sources.HubOptions`.

    Raises:
        CheckpointError: the source is missing or says nothing about preprocessing.
        ConfigError: an impossible value.
    """
    file = Path(source).expanduser()
    if file.is_file():
        return _read_processor(file, model_type)
    place = open_source(source, **hub)
    path = place.fetch("preprocessor_config.json")
    if path is None:
        # timm keeps the preprocessing in the model's configuration, transformers does not.
        path = place.fetch("config.json")
        if path is None or "architecture" not in as_json(path):
            raise CheckpointError(
                f"{place.name}: has no preprocessor_config.json; name a source that has one"
            )
    return _read_processor(path, model_type)


def _read_processor(path: Path, model_type: str | None) -> ImageProcessor:
    data = as_json(path)
    with errors_at(path):
        if "architecture" in data:
            from mvit_coreml.checkpoints.formats import timm

            return timm.read_image_processor(data, model_type)
        if "model_type" in data and not data.keys() & _PROCESSOR_TYPE_KEYS:
            raise CheckpointError(
                "describes a model, not its preprocessing; name a preprocessor_config.json"
            )
        return ImageProcessor.from_dict(data, model_type)
