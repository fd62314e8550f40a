"""Reading tensors from weight files, and nothing but tensors."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mvit_coreml.checkpoints.sources import Source
from mvit_coreml.errors import CheckpointError, first_line
from mvit_coreml.files import file_sha256, parse_json

# In order of preference; an index lists the shards of a checkpoint in several files.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Where training scripts put the weights inside a saved dictionary. Averaged weights come first:
# they are the ones that timm and cvnets evaluate and publish.
_WRAPPERS = (
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
)
_PREFIXES = ("module.", "_orig_mod.", "model.")
# What is read as it is; a number of eight bits is no weight without its scale.
_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, eq=False)
class RawWeights:
    """Tensors as a file names them.

    Attributes:
        tensors: name to tensor, on the CPU, memory-mapped where the file allows.
        files: names of the files they came from.
        sha256: SHA-256 of those files' bytes, one after the other, in hexadecimal.
        notes: sentences about choices that had to be made.
    """

    tensors: Mapping[str, Tensor]
    files: tuple[str, ...]
    sha256: str
    notes: tuple[str, ...] = ()


def read_weights(source: Source) -> RawWeights:
    """Read all weights of a source.

    Raises:
        CheckpointError: no weights, or weights that are damaged, unsafe or incomplete.
    """
    name, path = _find(source)
    files = _shards(source, path) if name.endswith(".index.json") else {name: path}
    tensors: dict[str, Tensor] = {}
    notes: tuple[str, ...] = ()
    for file in files.values():
        read, read_notes = _read_file(file)
        tensors |= read
        notes += read_notes
    return RawWeights(tensors, tuple(files), file_sha256(*files.values()), notes)


def _find(source: Source) -> tuple[str, Path]:
    names = (source.weight_file,) if source.weight_file else WEIGHT_FILES
    for name in names:
        path = source.fetch(name)
        if path is not None:
            return name, path
    raise CheckpointError(
        f"{source.name}: no weights: none of {', '.join(WEIGHT_FILES)} is "
        f"{source.where}; a file of another name can be given by its own path"
    )


def _shards(source: Source, index: Path) -> dict[str, Path]:
    weight_map = as_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{index}: not a readable index of weight files")
    shards = {}
    for name in sorted(set(map(str, weight_map.values()))):
        # An index comes with the checkpoint and must not point outside of its folder.
        if not re.fullmatch(r"[\w][\w.-]*\.(safetensors|bin)", name):
            raise CheckpointError(
                f"{index}: lists {name!r}; only file names in the same folder are read"
            )
        path = source.fetch(name)
        if path is None:
            raise CheckpointError(f"{source.name}: {name}, which {index.name} lists, is missing")
        shards[name] = path
    if not shards:
        raise CheckpointError(f"{index}: lists no weight files")
    return shards


def _read_file(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise CheckpointError(
                    f"{path}: a Git LFS pointer, not the weights; run 'git lfs pull' in its folder"
                )
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    if path.suffix == ".safetensors":
        return _clean(path, _read_safetensors(path)), ()
    tensors, notes = _unwrap(path, _read_torch(path))
    return _clean(path, tensors), notes


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: truncated or damaged ({first_line(error)}); fetch it again"
        ) from None


def _read_torch(path: Path) -> object:
    try:
        # timm's training script saves its parsed arguments beside the weights; a Namespace holds
        # data only.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except Exception as error:  # torch's reader fails in many types on damaged input
        refused = isinstance(error, pickle.UnpicklingError)
        unsafe = re.search(r"(?:GLOBAL|global:?) (?:GLOBAL )?([\w.]+) ", str(error))
        if refused and unsafe:
            raise CheckpointError(
                f"{path}: refused: reading it would run {unsafe.group(1)}; "
                "save the state_dict alone, as safetensors"
            ) from None
        raise CheckpointError(
            f"{path}: truncated, damaged or no PyTorch weights ({first_line(error)}); "
            "fetch it again, or save a state_dict"
        ) from None


def _unwrap(path: Path, content: object) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Dig the state dict out of what a training script saved around it."""
    notes: list[str] = []
    seen = {id(content)}
    while isinstance(content, Mapping):
        wrappers = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
        if not wrappers:
            break
        if len(wrappers) > 1:
            notes.append(f"The file holds {' and '.join(wrappers)}; {wrappers[0]} was read.")
        content = content[wrappers[0]]
        if id(content) in seen:
            raise CheckpointError(f"{path}: its {wrappers[0]} holds itself; save a state_dict")
        seen.add(id(content))
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, no state dict")
    tensors = {
        name: value.detach()
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    return tensors, tuple(notes)


def _clean(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert to float32, refuse what is no usable weight, strip what wrappers put before names."""
    if not tensors:
        raise CheckpointError(f"{path}: holds no weights")
    weights = dict(_checked(path, tensors))
    while prefix := next((p for p in _PREFIXES if all(n.startswith(p) for n in weights)), None):
        weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights


def _checked(path: Path, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            yield name, tensor
            continue
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"{path}: weight {name!r} is {tensor.dtype}; only floating-point weights of 16 "
                "bits or more are read"
            )
        if tensor.device.type != "cpu" or tensor.layout != torch.strided:
            kind = "empty" if tensor.is_meta else "sparse"
            raise CheckpointError(f"{path}: weight {name!r} is {kind}; save it as a dense tensor")
        weight = tensor.to(torch.float32)
        # A sum costs one pass and no memory, and any NaN or infinity makes it one itself; only a
        # sum that overflows needs the exact look.
        if not torch.isfinite(weight.sum()) and not torch.isfinite(weight).all():
            raise CheckpointError(f"{path}: weight {name!r} holds NaN or infinite values")
        if name.endswith("running_var") and bool((weight < 0).any()):
            raise CheckpointError(f"{path}: weight {name!r} holds variances below zero")
        yield name, weight


def as_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: not readable as a JSON object.
    """
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not readable as JSON: {first_line(error)}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: must hold a JSON object")
    return data
