"""Every architecture of the catalogue, for every deployment target and kind of output.

    python benchmarks/convert_matrix.py [--only mobilevitv2] [--ios 17] [--output logits]

Weights are random: what is tried is whether the conversion works and what graph comes out. A line
is printed as each case ends; the exit code is 1 if any failed. Checkpoints that share architecture
and preprocessing are tried once. The whole matrix takes about an hour; ``--image-size`` shortens
it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mvit_coreml import (
    Checkpoint,
    ConvertOptions,
    ImageProcessor,
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    build_model,
    convert,
)
from mvit_coreml.checkpoints.catalogue import CATALOGUE, CatalogueEntry
from mvit_coreml.checkpoints.checkpoint import Provenance
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.export.output_heads import OUTPUTS_OF_TASK
from mvit_coreml.export.torch_to_mil import IOS_TARGETS

MOBILEVIT = {
    "s": {},
    "xs": {"hidden_sizes": (96, 120, 144), "neck_hidden_sizes": (16, 32, 48, 64, 80, 96, 384)},
    "xxs": {
        "hidden_sizes": (64, 80, 96),
        "neck_hidden_sizes": (16, 16, 24, 48, 64, 80, 320),
        "expand_ratio": 2.0,
    },
}
TIMM_MOBILENET = {"tf_padding": False, "layer_norm_eps": 1e-5}
TIMM_DEEP = {
    "110d": {"depth_multiplier": 1.09, "stage_depths": (1, 3, 4, 5, 4, 4, 1)},
    "120d": {"depth_multiplier": 1.2, "stage_depths": (1, 3, 5, 6, 5, 5, 1), "stem_channels": 32},
}
LAYOUT_OPS = (
    "reshape",
    "transpose",
    "split",
    "concat",
    "slice_by_index",
    "expand_dims",
    "squeeze",
)
FORBIDDEN_OPS = ("gather", "gather_along_axis", "gather_nd", "tile", "pad")
NORM_OPS = ("layer_norm", "instance_norm", "batch_norm")
# A name of the output that proves the kind.
ANSWERS = {
    ("image-classification", "probabilities"): "classLabel_probs",
    ("semantic-segmentation", "probabilities"): "probabilities",
    ("semantic-segmentation", "classes"): "classes",
    **{(task, "logits"): "logits" for task in OUTPUTS_OF_TASK},
    **{(task, "features"): "pooler_output" for task in OUTPUTS_OF_TASK},
}


@dataclass(frozen=True)
class Row:
    """One conversion.

    Attributes:
        name: id of the checkpoint.
        ios: deployment target.
        kind: kind of output.
        operations: number of operations, constants left out.
        layout: of them, those that only move values.
        rank: the highest rank of a tensor.
        megabytes: size of the package.
        seconds: time of the conversion.
        failure: why it failed; empty if it did not.
    """

    name: str
    ios: int
    kind: str
    operations: int = 0
    layout: int = 0
    rank: int = 0
    megabytes: float = 0.0
    seconds: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name:46} {self.ios:>3} {self.kind:13} {self.operations:5} {self.layout:6} "
            f"{self.rank:4} {self.megabytes:8.2f} {self.seconds:7.1f}  {self.failure or 'ok'}"
        )


HEADER = (
    f"{'checkpoint':46} ios output          ops layout rank       MB seconds  result\n" + "-" * 112
)


def configuration(entry: CatalogueEntry) -> Any:
    """Return the architecture that an id of the catalogue names."""
    segments = entry.task == "semantic-segmentation"
    classes = 21 if segments else 1001 if entry.id.startswith("google/") else 1000
    fields: dict[str, Any] = {
        "id2label": {index: f"class {index}" for index in range(classes)},
        "image_size": entry.image_size,
    }
    if segments:
        fields["output_stride"] = 8 if entry.family == "mobilenet_v2" else 16
    name = entry.id.rsplit("/", 1)[-1]
    if entry.family == "mobilevit":
        size = re.search(r"mobilevit-(xx-small|x-small|small|xxs|xs|s)", name.replace("_", "-"))
        assert size, name
        key = {"small": "s", "x-small": "xs", "xx-small": "xxs"}.get(size[1], size[1])
        return MobileViTConfig(**fields | MOBILEVIT[key])
    if entry.family == "mobilevitv2":
        width = re.search(r"mobilevitv2[-_](\d\.\d+|\d{3})", name)
        assert width, name
        number = float(width[1]) if "." in width[1] else int(width[1]) / 100
        grid = "interpolate" if entry.format != "huggingface" else "truncate"
        return MobileViTV2Config(width_multiplier=number, patch_grid=grid, **fields)
    if entry.format == "timm":
        width = re.search(r"mobilenetv2_(\d{3}d?)", name)
        assert width, name
        if width[1] in TIMM_DEEP:
            fields |= TIMM_DEEP[width[1]] | {"head_channels": 1280}
        else:
            fields["depth_multiplier"] = int(width[1]) / 100
        return MobileNetV2Config(**fields | TIMM_MOBILENET)
    width = re.search(r"mobilenet_v2_(\d\.\d+)", name)
    assert width, name
    return MobileNetV2Config(depth_multiplier=float(width[1]), **fields)


def image_processor(entry: CatalogueEntry) -> ImageProcessor:
    """Return a preprocessing of the kind that an entry's library publishes."""
    if entry.format == "timm" and entry.family == "mobilenet_v2":
        return ImageProcessor.for_mobilenet_v2(
            image_size=entry.image_size,
            image_mean=(0.485, 0.456, 0.406),
            image_std=(0.229, 0.224, 0.225),
        )
    if entry.family == "mobilenet_v2":
        return ImageProcessor.for_mobilenet_v2(image_size=entry.image_size)
    return ImageProcessor.for_mobilevit(
        image_size=entry.image_size, do_flip_channel_order=entry.format != "timm"
    )


def checkpoint_of(entry: CatalogueEntry) -> Checkpoint:
    """Return a checkpoint of the entry's architecture with random weights, no two of them equal."""
    config = configuration(entry)
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, tensor in build_model(config, entry.task).state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        weights[name] = 1 + noise.abs() if name.endswith("running_var") else 0.05 * noise
    return Checkpoint(
        config=config,
        task=entry.task,
        weights=weights,
        image_processor=image_processor(entry),
        provenance=Provenance(
            name=entry.id, format=entry.format, revision=None, sha256="0" * 64, files=()
        ),
    )


def run_case(
    checkpoint: Checkpoint, ios: int, kind: Any, image_size: tuple[int, int] | None = None
) -> Row:
    """Convert once, and look at what was saved."""
    name = checkpoint.provenance.name
    options = ConvertOptions(
        ios=ios, output=kind, bits=None, image_sizes=(image_size,) if image_size else ()
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.mlpackage"
        start = time.perf_counter()
        try:
            package = convert(checkpoint, options, path, check=False)
        except Exception as error:
            return Row(name, ios, kind, failure=f"{type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        spec = load_coremltools().models.MLModel(str(path), skip_model_load=True).get_spec()
    function = spec.mlProgram.functions["main"]
    operations = [
        op for op in function.block_specializations[function.opset].operations if op.type != "const"
    ]
    census = Counter(op.type for op in operations)
    rank = max(output.type.tensorType.rank for op in operations for output in op.outputs)
    outputs = [output.name for output in spec.description.output]
    return Row(
        name,
        ios,
        kind,
        operations=len(operations),
        layout=sum(census[op] for op in LAYOUT_OPS),
        rank=rank,
        megabytes=package.size / 1e6,
        seconds=seconds,
        failure="; ".join(_failures(checkpoint, kind, census, rank, outputs)),
    )


def _failures(
    checkpoint: Checkpoint, kind: str, census: Counter[str], rank: int, outputs: list[str]
) -> Iterator[str]:
    answer = ANSWERS[checkpoint.task, kind]
    if answer not in outputs:
        yield f"answers {outputs}, not {answer}"
    if rank > 5:
        yield f"rank {rank}"
    for op in FORBIDDEN_OPS:
        if census[op]:
            yield f"{census[op]} {op}"
    norms = 0 if checkpoint.family == "mobilenet_v2" else 21
    found = sum(census[op] for op in NORM_OPS)
    if found != norms:
        yield f"{found} normalisations, not {norms}"
    if census["transpose"] > 12 or sum(census[op] for op in LAYOUT_OPS) > 50:
        yield "more layout operations than needed"


def distinct(entries: Iterator[CatalogueEntry]) -> Iterator[CatalogueEntry]:
    """Leave out an entry that equals an earlier one in all that a conversion depends on."""
    seen = set()
    for entry in entries:
        key = (entry.task, repr(configuration(entry)), image_processor(entry))
        if key not in seen:
            seen.add(key)
            yield entry


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="entries whose id holds this text")
    parser.add_argument("--ios", type=int, action="append", choices=IOS_TARGETS)
    parser.add_argument("--output", action="append", help="kinds of output")
    parser.add_argument("--image-size", type=int, help="pixels instead of the published size")
    parser.add_argument("--all", action="store_true", help="also entries that equal another")
    arguments = parser.parse_args()
    chosen = (entry for entry in CATALOGUE if arguments.only in entry.id)
    size = None if arguments.image_size is None else (arguments.image_size,) * 2
    failed = count = 0
    print(HEADER, flush=True)
    for entry in chosen if arguments.all else distinct(chosen):
        checkpoint = checkpoint_of(entry)
        for kind in OUTPUTS_OF_TASK[entry.task]:
            if arguments.output and kind not in arguments.output:
                continue
            for ios in arguments.ios or IOS_TARGETS:
                row = run_case(checkpoint, ios, kind, size)
                print(row, flush=True)
                count += 1
                failed += bool(row.failure)
    print(f"{count - failed} of {count} passed")
    return int(failed > 0 or count == 0)


if __name__ == "__main__":
    sys.exit(main())
