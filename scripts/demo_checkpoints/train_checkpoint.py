"""Trains the bundled checkpoints from nothing.

    python scripts/demo_checkpoints/train_checkpoint.py classifier

The pictures are drawn from a seed and prepared by the image processor that the checkpoint ships
with, so that training sees what prediction sees. The held-out scans play no part here; they are
for ``measure_checkpoint.py``.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from digit_pictures import CLASS_LABELS, MASK_LABELS, draw
from torch import Tensor, nn

from mvit_coreml.checkpoints.checkpoint import Checkpoint, Provenance
from mvit_coreml.demo import KINDS, Kind
from mvit_coreml.errors import MvitCoremlError
from mvit_coreml.models.base import Model, build_model
from mvit_coreml.models.config import MobileViTConfig, Task
from mvit_coreml.preprocessing.image_processor import ImageProcessor

SEED = 7
_REPORT_EVERY = 50

# Narrower than the published xx-small: a wheel carries both checkpoints.
_WIDTHS: dict[str, Any] = {
    "hidden_sizes": (48, 64, 80),
    "neck_hidden_sizes": (16, 16, 24, 32, 48, 64, 160),
    "expand_ratio": 2.0,
    "hidden_dropout_prob": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one checkpoint is made.

    Attributes:
        config: the model.
        task: what it is trained for.
        image_processor: prepares the pictures, in training as in use.
        pictures: number of different pictures.
        epochs: how often each is seen.
        batch_size: pictures in a step.
        learning_rate: the highest, reached after the warm-up; it then falls to zero as a cosine.
        warmup: share of the steps in which the rate rises linearly.
        weight_decay: of AdamW, on matrices and kernels but not on biases and norms.
        max_gradient_norm: longer gradients are shortened to this.
    """

    config: MobileViTConfig
    task: Task
    image_processor: ImageProcessor
    pictures: int
    epochs: int
    batch_size: int = 32
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    max_gradient_norm: float = 1.0

    @property
    def steps(self) -> int:
        """Number of optimiser steps."""
        return self.epochs * (self.pictures // self.batch_size)

    def rate(self, step: int) -> float:
        """Share of the highest learning rate at a step, counted from 0."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * math.cos(math.pi * (step - warm) / max(1, self.steps - warm))


RECIPES: dict[Kind, Recipe] = {
    "classifier": Recipe(
        config=MobileViTConfig(**_WIDTHS, image_size=64, id2label=dict(enumerate(CLASS_LABELS))),
        task="image-classification",
        image_processor=ImageProcessor.for_mobilevit(image_size=64, resize_edge=72),
        pictures=16_000,
        epochs=5,
    ),
    "segmenter": Recipe(
        config=MobileViTConfig(
            **_WIDTHS,
            image_size=96,
            output_stride=8,
            # In cells of 8 pixels; the published rates are for maps three times as large.
            atrous_rates=(2, 4, 6),
            aspp_out_channels=64,
            aspp_dropout_prob=0.0,
            classifier_dropout_prob=0.0,
            id2label=dict(enumerate(MASK_LABELS)),
        ),
        task="semantic-segmentation",
        image_processor=ImageProcessor.for_mobilevit(image_size=96, resize_edge=96),
        pictures=10_000,
        epochs=2,
    ),
}


def train(recipe: Recipe, seed: int = SEED) -> Checkpoint:
    """Train a model and return it with half-precision weights.

    Args:
        recipe: what to train, and how.
        seed: of the pictures, their order and the first weights.
    """
    started = time.monotonic()
    torch.manual_seed(seed)
    inputs, labels = _training_set(recipe, seed)
    _say(f"{len(inputs)} pictures drawn in {time.monotonic() - started:.0f} s")
    model = build_model(recipe.config, recipe.task).train()
    _initialize(model)
    optimizer = torch.optim.AdamW(_groups(model, recipe.weight_decay), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, recipe.rate)
    recent = 0.0
    for step, chosen in enumerate(_batches(len(inputs), recipe, seed), start=1):
        loss = model(inputs[chosen].float() / 255, labels=labels[chosen].long()).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
        optimizer.step()
        schedule.step()
        recent += float(loss.detach())
        if step % _REPORT_EVERY == 0:
            elapsed = time.monotonic() - started
            _say(f"step {step}/{recipe.steps}: loss {recent / _REPORT_EVERY:.4f}, {elapsed:.0f} s")
            recent = 0.0
    return Checkpoint(
        config=recipe.config,
        task=recipe.task,
        weights={
            name: weight.half() if weight.is_floating_point() else weight
            for name, weight in model.state_dict().items()
        },
        image_processor=recipe.image_processor,
        provenance=Provenance(
            name="demo", format="huggingface", revision=None, sha256="", files=()
        ),
    )


def _training_set(recipe: Recipe, seed: int) -> tuple[Tensor, Tensor]:
    """Return (N, 3, H, W) uint8 inputs in the model's channel order, and their labels."""
    pictures = draw("training", recipe.pictures, seed)
    prepared = recipe.image_processor(
        pictures.images,
        pictures.masks if recipe.task == "semantic-segmentation" else None,
        do_rescale=False,
    )
    labels: Tensor = prepared.get("labels", torch.from_numpy(pictures.labels))
    return prepared["pixel_values"], labels.to(torch.uint8)


def _initialize(model: Model[Any]) -> None:
    # Steps of AdamW are large beside the family's own initial kernels, whose deviation is 0.02
    # whatever their size; training then wanders for long before it learns.
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")


def _groups(model: Model[Any], weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _batches(count: int, recipe: Recipe, seed: int) -> Iterator[Tensor]:
    rng = np.random.Generator(np.random.PCG64(seed))
    for _ in range(recipe.epochs):
        order = torch.from_numpy(rng.permutation(count))
        full = order[: count - count % recipe.batch_size]
        yield from full.view(-1, recipe.batch_size)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write; by default one of the kind's name, here.",
)
@click.option("--seed", default=SEED, show_default=True, type=click.IntRange(0))
def main(kind: Kind, output: Path | None, seed: int) -> None:
    """Train the demo's classifier or segmenter, and save it as transformers reads it."""
    folder = output or Path(kind)
    try:
        train(RECIPES[kind], seed).save_pretrained(folder)
    except MvitCoremlError as error:
        raise click.ClickException(str(error)) from None
    print(folder)


if __name__ == "__main__":
    main()
