"""Palettes fitted to images: of given bits, or of the bits that keep a promise.

What is measured on the way runs in memory, with the saved package's weights and fp32 arithmetic;
the package that comes of it is judged by :mod:`mvit_coreml.workflows.convert` as it lies on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mvit_coreml.compression.allocation.mixed_bits import (
    Allocation,
    WeightOptions,
    allocate,
    frontier,
)
from mvit_coreml.compression.allocation.package_sizes import PackageSizes
from mvit_coreml.compression.allocation.sensitivity import Sensitivity, measure_sensitivity
from mvit_coreml.compression.apply_plan import uniform_reasons
from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    Quality,
    combined_snr,
    compare_scores,
    scores,
)
from mvit_coreml.compression.calibration.tuner import (
    Calibration,
    Tuned,
    Tuner,
    deadline_in,
    split_images,
)
from mvit_coreml.compression.palettizable_weights import function_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.compression.plan import PlanValues, Scalar, make_plan
from mvit_coreml.compression.promise import Measured, Promise, Trial, find_smallest, format_size
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.evaluation.read_metadata import read_preparation
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.parallel import parallel_map
from mvit_coreml.preprocessing.image_loading import evenly_spaced
from mvit_coreml.validation.synthetic_images import synthetic_pictures
from mvit_coreml.workflows.build_package import Progress, no_progress
from mvit_coreml.workflows.choose_palettes import Palettes, asked_for, grouped_choices
from mvit_coreml.workflows.package_options import PaletteOptions

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import AccuracyDrop

# More images than these make it slower and little better.
_MOST_IMAGES = 512
# Synthetic pictures to fit to and to judge by, where there are no images. They are others than
# those that packages are validated on.
_PICTURES = 96
_JUDGING_PICTURES = 16
_PICTURE_SEED = 1
# Pixels of all images that sensitivity is measured on, and those images at least.
_SENSITIVITY_PIXELS = 48 * 256 * 256
_FEWEST_SENSITIVITY_IMAGES = 8
# Images that the rounding of half precision is measured on.
_ROUNDING_IMAGES = 8
# Packages that are considered for a promise about answers.
_CANDIDATES = 64
# What the metadata of a palettized package may take more than that of a plain one.
_METADATA_BYTES = 160


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedPalettes:
    """Palettes that were fitted to images.

    Attributes:
        palettes: the plan and its values.
        held_out: images that had no part in it; ``None`` where synthetic pictures were used.
        quality: of the answers on held-out images.
        plain: the same for k-means alone.
        fitted_to: number of images.
        sensitivities: of all weights, where bits were shared out.
    """

    palettes: Palettes
    held_out: tuple[Any, ...] | None
    quality: Quality
    plain: Quality
    fitted_to: int
    sensitivities: tuple[Sensitivity, ...] = ()

    def __str__(self) -> str:
        kind = "synthetic pictures" if self.held_out is None else "images"
        return (
            f"the palettes were fitted to {self.fitted_to} {kind}; on others they have "
            f"{self.quality}, k-means alone {self.plain}"
        )


def held_out_images(images: Sequence[Any]) -> list[Any]:
    """Return those of a number of images that no palette is fitted to.

    Raises:
        InputError: they are too few to fit palettes to.
    """
    kept, _, judging = _split(images)
    return [kept[index] for index in judging]


def _split(images: Sequence[Any]) -> tuple[list[Any], list[int], list[int]]:
    """Return the images that are used, and the indices of those to fit to and to judge on."""
    kept = [images[index] for index in evenly_spaced(len(images), _MOST_IMAGES)]
    return kept, *split_images(len(kept))


def fit_palettes(
    package: Path,
    options: PaletteOptions,
    images: Sequence[Any] | None,
    *,
    source_sha256: str,
    build: Callable[[Palettes, Path], Path],
    accuracy: AccuracyDrop | None,
    folder: Path,
    progress: Progress,
) -> FittedPalettes:
    """Fit the palettes that options ask for.

    Args:
        package: complete, of this project, without palettes.
        options: with ``bits``.
        images: synthetic pictures by default.
        source_sha256: of the checkpoint's weights.
        build: makes the package with some palettes in a folder of its own.
        accuracy: measures the drop that is promised, if one is.
        folder: for the packages that are tried.
        progress: told how it gets on.

    Raises:
        InputError: too few images, or one that cannot be read.
        GateError: nothing keeps the promise.
    """
    fitting = PaletteFitting(package, images, source_sha256=source_sha256, progress=progress)
    if accuracy is None:
        return fitting.fit(options)

    def drop(palettes: Palettes) -> float:
        with tempfile.TemporaryDirectory(dir=folder) as tried:
            return accuracy.of(build(palettes, Path(tried)))

    return fitting.fit(options, drop=drop)


class PaletteFitting:
    """Fits palettes for one package; what does not depend on the options is done once.

    Args:
        package: complete, of this project, without palettes.
        images: paths, Pillow images or arrays; synthetic pictures by default.
        source_sha256: of the checkpoint's weights.
        progress: told how it gets on.

    Raises:
        InputError: too few images, or one that cannot be read.
    """

    def __init__(
        self,
        package: Path,
        images: Sequence[Any] | None = None,
        *,
        source_sha256: str = "",
        progress: Progress = no_progress,
    ) -> None:
        self.package, self.source_sha256, self.progress = package, source_sha256, progress
        progress("tune", "preparing images")
        self.loaded = load_package(package)
        self.function = DifferentiableFunction(self.loaded)
        default = self.loaded.function()
        self.weights = [(info, stored.decode()) for info, stored in function_weights(default)]
        self.infos = [info for info, _ in self.weights]
        # Measured once they are asked for.
        self.sensitivities: tuple[Sensitivity, ...] = ()
        self.held_out: tuple[Any, ...] | None = None
        if images is None:
            size = self.function.image.height, self.function.image.width
            count = _PICTURES + _JUDGING_PICTURES
            pictures = synthetic_pictures(count, size, _PICTURE_SEED)
            # In turn, so that all kinds are on both sides.
            judging = evenly_spaced(count, _JUDGING_PICTURES)
            fitting = [index for index in range(count) if index not in set(judging)]
            chosen: list[Any] = list(pictures)
        else:
            kept, fitting, judging = _split(images)
            self.held_out = tuple(kept[index] for index in judging)
            chosen = self._prepared(kept)
        pixels = self.function.pixels(chosen)
        self.tuner = Tuner(self.function, Calibration(pixels[fitting], pixels[judging]))

    def _prepared(self, images: Sequence[Any]) -> list[Any]:
        preparation = read_preparation(self.loaded, self.loaded.function())
        if preparation is None:
            raise InputError(
                f"{self.package}: does not say how photos are prepared; another tool made it"
            )
        return [fitted.pixels for fitted in parallel_map(preparation, images)]

    def fit(
        self,
        options: PaletteOptions,
        *,
        drop: Callable[[Palettes], float] | None = None,
    ) -> FittedPalettes:
        """Find palettes.

        Args:
            options: with ``bits``.
            drop: loss of accuracy of a package with some palettes, in percentage points.

        Raises:
            GateError: nothing keeps the promise.
        """
        if options.bits == "auto":
            assert options.promise is not None
            choices, tuned = self._search(options, options.promise, drop)
        else:
            assert options.bits is not None
            choices = grouped_choices(self.infos, options.bits, options.group_size)
            tuned = None
        if tuned is None:
            tuned = self.tuner.tune(choices, options.tune_minutes, self._report)
        elif options.tune_minutes is not None:
            tuned = self.tuner.fine_tune(tuned, deadline_in(options.tune_minutes), self._report)
        return self.result(choices, tuned, _asked(options))

    def result(
        self, choices: Mapping[str, Choice], tuned: Tuned, asked: Mapping[str, Scalar]
    ) -> FittedPalettes:
        """Write down what was found."""
        return FittedPalettes(
            palettes=self.palettes(choices, tuned, asked),
            held_out=self.held_out,
            quality=tuned.quality,
            plain=tuned.plain,
            fitted_to=len(self.tuner.calibration.pixels),
            sensitivities=self.sensitivities,
        )

    def palettes(
        self, choices: Mapping[str, Choice], tuned: Tuned, asked: Mapping[str, Scalar]
    ) -> Palettes:
        """Return the plan and its values; k-means alone needs none."""
        values = PlanValues()
        if not tuned.is_plain:
            values = PlanValues(palettes=tuned.weights.palettes, constants=tuned.weights.constants)
        plan = make_plan(
            self.weights,
            choices,
            ios=self.loaded.function().opset,
            source_sha256=self.source_sha256,
            asked=asked,
            values=values,
            reasons=uniform_reasons(self.infos) if "bits" in asked else None,
        )
        return Palettes(plan, values)

    def _report(self, detail: str) -> None:
        self.progress("tune", detail)

    @cached_property
    def sizes(self) -> PackageSizes:
        """Predicts the package's size."""
        return PackageSizes(self.package)

    def _measured(self, group_sizes: Sequence[int]) -> list[Sensitivity]:
        """Measure what each weight's palettes do, under every choice that saves bytes."""
        pixels = self.tuner.calibration.pixels
        area = pixels.shape[2] * pixels.shape[3]
        count = max(_FEWEST_SENSITIVITY_IMAGES, _SENSITIVITY_PIXELS // area)
        candidates = {
            info.name: self.sizes.choices_for(info.name, None, group_sizes) for info in self.infos
        }
        return measure_sensitivity(
            self.function,
            pixels[:count],
            candidates,
            progress=lambda done, total: self._report(f"sensitivity of weight {done} of {total}"),
        )

    def weight_options(self, group_size: int = 0) -> list[WeightOptions]:
        """Measure the choices that every weight has: their bytes and their noise."""
        self.sensitivities = tuple(self._measured((group_size,) if group_size else ()))
        return [
            WeightOptions(
                weight.name,
                tuple(weight.noise),
                tuple(self.sizes.weight_bytes(weight.name, choice) for choice in weight.noise),
                tuple(weight.noise.values()),
            )
            for weight in self.sensitivities
        ]

    def _search(
        self, options: PaletteOptions, promise: Promise, drop: Callable[[Palettes], float] | None
    ) -> tuple[dict[str, Choice], Tuned | None]:
        weight_options = self.weight_options(options.group_size)
        if not promise.asks_quality:
            assert promise.target_size is not None
            return self.under(promise.target_size, weight_options), None

        def attempt(candidate: Allocation) -> Trial[tuple[dict[str, Choice], Tuned]]:
            size = self.predicted_bytes(candidate.choices)
            self._report(f"trying {format_size(size)}")
            tuned = self.tuner.reconstruct(candidate.choices)
            lost = None
            if drop is not None:
                lost = drop(self.palettes(candidate.choices, tuned, {}))
            snr = combined_snr(tuned.quality.snr, self.rounding_snr)
            self._report(f"{format_size(size)}, held out: {replace(tuned.quality, snr=snr)}")
            measured = Measured(size, snr, tuned.quality.agreement, lost)
            return Trial(measured, (candidate.choices, tuned))

        path = frontier(weight_options)
        candidates = [path[index] for index in evenly_spaced(len(path), _CANDIDATES)]
        if candidates[-1] is not path[-1]:
            candidates.append(path[-1])
        return find_smallest(candidates, attempt, promise).result

    def predicted_bytes(self, choices: Mapping[str, Choice]) -> int:
        """Return the bytes that the finished package will take at most."""
        return self.sizes.package_bytes(choices) + _METADATA_BYTES

    def under(self, target_size: int, options: Sequence[WeightOptions]) -> dict[str, Choice]:
        """Share out bits for the least noise under a size in bytes.

        Raises:
            GateError: nothing is that small.
        """
        plain = {option.name: UNCOMPRESSED for option in options}
        weights = sum(self.sizes.weight_bytes(name, UNCOMPRESSED) for name in plain)
        budget = target_size - (self.predicted_bytes(plain) - weights)
        while True:
            try:
                allocation = allocate(options, max_bytes=budget)
            except InputError:
                smallest = frontier(options)[-1]
                size = format_size(self.predicted_bytes(smallest.choices))
                raise GateError(
                    f"no plan is under {format_size(target_size)}; the smallest, {size}, uses"
                    f" {smallest}"
                ) from None
            excess = self.predicted_bytes(allocation.choices) - target_size
            if excess <= 0:
                return allocation.choices
            budget -= excess

    @cached_property
    def rounding_snr(self) -> float:
        """What half precision alone leaves of the answers, in dB."""
        pixels: Tensor = self.tuner.calibration.held_out[:_ROUNDING_IMAGES]
        rounded = DifferentiableFunction(self.loaded, arithmetic="program")
        reference = self.tuner.reference[:_ROUNDING_IMAGES]
        return compare_scores(scores(rounded, pixels), reference, self.function.of_classes).snr


def _asked(options: PaletteOptions) -> dict[str, Scalar]:
    asked: dict[str, Scalar] = {}
    if options.promise is None:
        assert isinstance(options.bits, int)
        asked = asked_for(options.bits, options.group_size)
    else:
        promised = vars(options.promise)
        asked = {name: value for name, value in promised.items() if value is not None}
    if options.tune_minutes is not None:
        asked["tune_minutes"] = options.tune_minutes
    return asked
