"""An image processor by itself, without the weights it belongs to."""

from __future__ import annotations

from pathlib import Path

from mvit_coreml.checkpoints.formats import timm as timm_format
from mvit_coreml.checkpoints.sources import open_source
from mvit_coreml.checkpoints.weight_files import as_json
from mvit_coreml.errors import CheckpointError, ConfigError
from mvit_coreml.preprocessing.image_processor import ImageProcessor


def load_image_processor(
    source: str | Path,
    *,
    model_type: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ImageProcessor:
    """Load the preprocessing of a checkpoint of Hugging Face transformers or timm.

    Args:
        source: hub id, folder, or a ``preprocessor_config.json`` or timm ``config.json``.
        model_type: ``mobilevit``, ``mobilevitv2`` or ``mobilenet_v2``, for files that do not tell.
        token: hub token, ``True`` for the stored one, ``False`` for none.
        cache_dir: folder of the hub cache instead of the default one.
        local_files_only: never ask the hub, use its cache alone.

    Raises:
        CheckpointError: the source is missing or says nothing about preprocessing.
        ConfigError: an impossible value.
    """
    file = Path(source).expanduser()
    if file.is_file():
        return _read(file, model_type)
    place = open_source(source, token=token, cache_dir=cache_dir, local_files_only=local_files_only)
    path = place.fetch("preprocessor_config.json") or place.fetch("config.json")
    if path is None:
        raise CheckpointError(f"{place.name}: has no preprocessor_config.json")
    return _read(path, model_type)


def _read(path: Path, model_type: str | None) -> ImageProcessor:
    data = as_json(path)
    try:
        if "architecture" in data:
            family = model_type or _timm_family(str(data["architecture"]))
            return timm_format.image_processor(timm_format.preprocessing(family, data), family)
        return ImageProcessor.from_dict(data, model_type)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(f"{path}: {error}") from None


def _timm_family(architecture: str) -> str:
    for prefix, family in (("mobilevitv2", "mobilevitv2"), ("mobilevit", "mobilevit")):
        if architecture.startswith(prefix):
            return family
    return "mobilenet_v2"
