"""What packages of different sizes keep of a checkpoint's answers: ``mvit-coreml tradeoff``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.calibration.tuner import FEWEST_IMAGES
from mvit_coreml.compression.choices import BLOCKWISE_IOS, Choice
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.accuracy_drop import read_dataset
from mvit_coreml.workflows.options import ConvertOptions, fill_in
from mvit_coreml.workflows.tradeoff.curve import Tradeoff
from mvit_coreml.workflows.tradeoff.measurement import TradeoffMeasurement, TradeoffProgress

_BITS = (8, 6, 4, 2)
_BITS_WITH_3 = (8, 6, 4, 3, 2)


def _no_progress(stage: str, detail: str = "", /) -> None:
    """Take note of nothing."""


def measure_tradeoff(
    checkpoint: Checkpoint,
    options: ConvertOptions | None = None,
    images: Sequence[Any] | None = None,
    *,
    bits: Sequence[int] | None = None,
    steps: int | None = None,
    tune_minutes: float | None = None,
    dataset: str | Path | None = None,
    coremltools: bool = True,
    progress: TradeoffProgress = _no_progress,
) -> Tradeoff:
    """Make packages of many sizes and measure each as it lies on disk.

    These are the package without palettes; for each of ``bits`` that of k-means alone, that of
    palettes fitted to images and that of coremltools' ``palettize_weights``; and packages of mixed
    bits. The portable runtime runs them on images that no palette was fitted to.

    An interruption (Ctrl-C) ends it early, with what was measured by then; one during tuning ends
    the tuning of that plan.

    Args:
        checkpoint: from :func:`~mvit_coreml.load_checkpoint`.
        options: what kind of packages; of those that say how weights are palettized none counts.
        images: to fit palettes to, and without ``dataset`` to judge on some of them; synthetic
            pictures by default.
        bits: of the uniform plans; by default 8, 6, 4, from iOS 18 also 3, and 2.
        steps: number of mixed plans, at sizes from the smallest to the largest of the uniform
            plans; by default one at the size of each of those.
        tune_minutes: also tune every plan, each for this long at most.
        dataset: folder or CSV of labelled images to judge on.
        coremltools: make coremltools' packages too.
        progress: told of everything that is begun.

    Raises:
        InputError: options, bits, images or labels that cannot be used.
    """
    chosen = options or ConvertOptions()
    chosen = replace(chosen, bits=None, group_size=0, promise=None, dataset=None, plan=None)
    chosen = fill_in(replace(chosen, tune_minutes=None), checkpoint)
    _check(chosen, images, steps, tune_minutes, dataset)
    if bits is None:
        bits = _BITS_WITH_3 if chosen.ios >= BLOCKWISE_IOS else _BITS
    if not bits:
        raise InputError("there are no bits to make packages with; give some, such as 8,6,4")
    for width in bits:
        Choice(width).check_target(chosen.ios)
    with tempfile.TemporaryDirectory() as folder:
        run = TradeoffMeasurement(
            checkpoint,
            chosen,
            images,
            None if dataset is None else read_dataset(checkpoint, Path(dataset)),
            Path(folder),
            progress,
        )
        return run.measure(sorted(set(bits), reverse=True), steps, tune_minutes, coremltools)


def _check(
    options: ConvertOptions,
    images: Sequence[Any] | None,
    steps: int | None,
    tune_minutes: float | None,
    dataset: str | Path | None,
) -> None:
    """Refuse what cannot be measured, before any work is done."""
    if len(options.image_sizes) > 1:
        raise InputError("several image sizes: a trade-off is measured at one; give one")
    if images is not None and len(images) < FEWEST_IMAGES:
        raise InputError(
            f"{len(images)} images are too few to fit palettes to; give {FEWEST_IMAGES} or more"
        )
    if steps is not None and steps < 0:
        raise InputError(f"{steps} mixed plans: give 0 or more")
    if tune_minutes is not None and tune_minutes <= 0:
        raise InputError(f"{tune_minutes:g} minutes of tuning: give more than 0")
    if dataset is not None and options.output == "features":
        raise InputError("features have no accuracy; leave out the labelled images")
