"""Palettes fitted to images: of given bits, or of the bits that keep a promise.

What is measured on the way runs in memory, with the saved package's weights and fp32 arithmetic;
the package that comes of it is judged by :mod:`mvit_coreml.workflows.convert` as it lies on disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from mvit_coreml.compression.allocation.mixed_bits import (
    Allocation,
    WeightOptions,
    allocate,
    frontier,
)
from mvit_coreml.compression.allocation.package_sizes import PackageSizes
from mvit_coreml.compression.allocation.sensitivity import Sensitivity, predict_sensitivity
from mvit_coreml.compression.apply_plan import uniform_reasons
from mvit_coreml.compression.calibration.differentiable import (
    DifferentiableFunction,
    Quality,
    combined_snr,
    compare_scores,
    scores,
)
from mvit_coreml.compression.calibration.fine_tuning import random_views
from mvit_coreml.compression.calibration.tuner import Tuned, Tuner, deadline_in, split_images
from mvit_coreml.compression.palettizable_weights import function_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice
from mvit_coreml.compression.plan import PlanValues, Scalar, make_plan
from mvit_coreml.compression.promise import Measured, Promise, default_promise, format_size
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.evaluation.agreement import AgreementMeter
from mvit_coreml.evaluation.metrics import ConfusionMatrix
from mvit_coreml.evaluation.read_metadata import choose_preparation
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.parallel import parallel_map
from mvit_coreml.preprocessing.image_loading import evenly_spaced
from mvit_coreml.validation.fitted_layers import fitted_layer_snrs
from mvit_coreml.validation.synthetic_images import calibration_pictures, synthetic_pictures
from mvit_coreml.workflows.build_package import Progress, no_progress
from mvit_coreml.workflows.choose_palettes import (
    Palettes,
    Photos,
    asked_for,
    grouped_choices,
)
from mvit_coreml.workflows.package_options import PaletteOptions

if TYPE_CHECKING:
    from mvit_coreml.evaluation.accuracy import MeasuredDrop
    from mvit_coreml.validation.pytorch_comparison import ParityReport

# More images than these, and more to fit to than have so many pixels, make it slower and little
# better.
_MOST_IMAGES = 512
_FITTING_PIXELS = 480 * 224 * 224
# Parts of the images that a promise is searched on, and judged on; and their most.
_SEARCHING, _MOST_SEARCHING = 0.12, 32
_JUDGING, _MOST_JUDGING = 0.25, 128
# Views of every image that a promise is searched on, besides itself, and the pixels that all of
# these may have: a large map shows much of what a network does.
_VIEWS = 2
_SEARCHING_PIXELS = 128 * 224 * 224
# Pixels of all synthetic pictures to fit to, where there are no images, and those pictures at
# least and at most; and the pictures to judge by, which are those of packages that are validated.
_PICTURE_PIXELS = 64 * 224 * 224
_FEWEST_PICTURES, _MOST_PICTURES = 24, 96
_JUDGING_PICTURES = 12
# Pixels of all images that sensitivity is predicted on, and those images at least.
_SENSITIVITY_PIXELS = 48 * 256 * 256
_FEWEST_SENSITIVITY_IMAGES = 8
# Images that the units of several outputs are measured on.
_BALANCING_IMAGES = 8
# Images that the rounding of half precision is measured on.
_ROUNDING_IMAGES = 8
# Without a request, a package is no smaller than with so many bits for every weight, and none has
# fewer than the fewest: a forgiving network is not pressed to the limit of what pictures can show.
_DEFAULT_BITS = 6
_FEWEST_BITS = 4
# How far noise stays below what just keeps a promise after a fit that fell short, and how much less
# it is than that of a finished package which did.
_MARGIN = 0.8
_STRICTER, _STRICTEST = 4.0, 16.0
# What a saved package may come out lower than foreseen, in dB.
_SLACK = 0.3
# How often the bytes between two allocations are halved.
_BISECTIONS = 5
# What the metadata of a palettized package may take more than that of a plain one, and for each
# weight.
_METADATA_BYTES, _METADATA_BYTES_A_WEIGHT = 320, 5


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedPalettes:
    """Palettes that were fitted to images.

    Attributes:
        palettes: the plan and its values.
        held_out: images that had no part in it; ``None`` where synthetic pictures were used.
        quality: of the answers on images that a search judged by.
        plain: the same for k-means alone.
        fitted_to: number of images.
        sensitivities: of all weights, where bits were shared out.
        noise: of the weights' palettes together, as predicted; ``None`` where bits were told.
        remedy: says what would keep a promise that a package with them is found to break.
    """

    palettes: Palettes
    held_out: tuple[Any, ...] | None
    quality: Quality
    plain: Quality
    fitted_to: int
    sensitivities: tuple[Sensitivity, ...] = ()
    noise: float | None = None
    remedy: Callable[[ParityReport], str] = field(default=lambda report: "", repr=False)

    def __str__(self) -> str:
        kind = "synthetic pictures" if self.held_out is None else "images"
        return (
            f"the palettes were fitted to {self.fitted_to} {kind}; on others "
            f"{self.quality.snr:.1f} dB before rounding, k-means alone {self.plain.snr:.1f} dB"
        )


def held_out_images(images: Sequence[Any]) -> list[Any]:
    """Return those of a number of images that no palette is fitted to or chosen by."""
    kept, parts = _split(images)
    return [kept[index] for index in parts.judging]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Indices of the images to fit to, to search by, and to judge the finished package on."""

    fitting: list[int]
    searching: list[int]
    judging: list[int]


def _split(images: Sequence[Any]) -> tuple[list[Any], _Parts]:
    """Return the images that are used, and how they are shared out."""
    kept = [images[index] for index in evenly_spaced(len(images), _MOST_IMAGES)]
    count = len(kept)
    searching = min(_MOST_SEARCHING, max(2, round(_SEARCHING * count)))
    judging = min(_MOST_JUDGING, max(4, round(_JUDGING * count)))
    fitting, others = split_images(count, searching + judging)
    chosen = set(evenly_spaced(len(others), searching))
    return kept, _Parts(
        fitting=fitting,
        searching=[index for place, index in enumerate(others) if place in chosen],
        judging=[index for place, index in enumerate(others) if place not in chosen],
    )


@dataclass(frozen=True, eq=False)
class _Trial:
    """Palettes that were tried, and what they were measured to do."""

    allocation: Allocation
    tuned: Tuned
    measured: Measured


def fit_palettes(
    package: Path,
    options: PaletteOptions,
    images: Sequence[Any] | None,
    *,
    source_sha256: str,
    build: Callable[[Palettes, Path], Path],
    accuracy: MeasuredDrop | None,
    folder: Path,
    progress: Progress,
    photos: Photos | None = None,
) -> Iterator[FittedPalettes]:
    """Yield the palettes that options ask for, and then, where bits are shared out, ever more bits.

    Args:
        package: complete, without palettes.
        options: with ``bits``.
        images: synthetic pictures by default.
        source_sha256: of the checkpoint's weights.
        build: makes the package with some palettes in a folder of its own.
        accuracy: measures the drop that is promised, if one is.
        folder: for the packages that are tried.
        progress: told how it gets on.
        photos: how they are prepared, and what they lead to, where the package does not say it.

    Raises:
        InputError: an image that cannot be read.
        GateError: nothing keeps the promise within its size.
    """
    fitting = PaletteFitting(
        package, images, source_sha256=source_sha256, progress=progress, photos=photos
    )

    def drop(palettes: Palettes) -> float:
        assert accuracy is not None
        with tempfile.TemporaryDirectory(dir=folder) as tried:
            return accuracy.of(build(palettes, Path(tried)))

    fitted: FittedPalettes | None = fitting.fit(options, drop=None if accuracy is None else drop)
    while fitted is not None:
        yield fitted
        fitted = fitting.stricter(fitted, options)


class PaletteFitting:
    """Fits palettes for one package; what does not depend on the options is done once.

    Args:
        package: complete, without palettes.
        images: synthetic pictures by default.
        source_sha256: of the checkpoint's weights.
        progress: told how it gets on.
        photos: how they are prepared, and what they lead to, where the package does not say it.

    Attributes:
        infos: the palettizable weights.
        weights: the same with their elements.
        tuner: holds the images.
        held_out: images that the finished package may be judged on; ``None`` without images.
        sensitivities: as last predicted.

    Raises:
        InputError: an image that cannot be read.
    """

    def __init__(
        self,
        package: Path,
        images: Sequence[Any] | None,
        *,
        source_sha256: str = "",
        progress: Progress = no_progress,
        photos: Photos | None = None,
    ) -> None:
        self.package, self.source_sha256, self.progress = package, source_sha256, progress
        progress("tune")
        self.loaded = load_package(package)
        self.preparation = (
            choose_preparation(self.loaded, self.loaded.function())[0]
            if photos is None
            else photos.preparation
        )
        self.num_labels = None if photos is None else photos.num_labels
        self.weights = [
            (info, stored.decode()) for info, stored in function_weights(self.loaded.function())
        ]
        self.infos = [info for info, _ in self.weights]
        self.function = DifferentiableFunction(self.loaded, num_labels=self.num_labels)
        self.sensitivities: tuple[Sensitivity, ...] = ()
        self._known_options: dict[int, list[WeightOptions]] = {}
        self._fewest_bits, self._stricter = 1, 1.0
        self.held_out: tuple[Any, ...] | None = None
        size = self.function.image.height, self.function.image.width
        if images is None:
            count = _PICTURE_PIXELS // (size[0] * size[1])
            count = max(_FEWEST_PICTURES, min(_MOST_PICTURES, count))
            fitting = self.function.pixels(calibration_pictures(count, size))
            # As a package's validation prepares them.
            searching = self._prepared(list(synthetic_pictures(_JUDGING_PICTURES, size)))
            self._photos = 0
        else:
            kept, parts = _split(images)
            self.held_out = tuple(kept[index] for index in parts.judging)
            most = _FITTING_PIXELS // (size[0] * size[1])
            fitting = self._prepared([kept[index] for index in parts.fitting[:most]])
            chosen = self._prepared([kept[index] for index in parts.searching])
            self._photos = len(chosen)
            views = min(_VIEWS, max(0, _SEARCHING_PIXELS // chosen[:, 0].numel() - 1))
            searching = torch.cat([chosen, random_views(chosen, views * len(chosen), seed=2)])
        self.function.balance(searching[:_BALANCING_IMAGES])
        self.tuner = Tuner(self.function, fitting, searching)

    def _prepared(self, images: Sequence[Any]) -> Tensor:
        fitted = parallel_map(self.preparation, images)
        return self.function.pixels([one.pixels for one in fitted])

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
            GateError: nothing keeps the promise within the size.
        """
        noise = None
        if options.bits == "auto":
            choices, tuned, noise = self._search(options, drop)
            if options.tune_minutes is not None:
                deadline = deadline_in(options.tune_minutes)
                tuned = self.tuner.fine_tune(tuned, deadline, self._report)
        else:
            assert options.bits is not None
            choices = grouped_choices(self.infos, options.bits, options.group_size)
            tuned = self.tuner.tune(choices, options.tune_minutes, self._report)
        return self.result(choices, tuned, _asked(options), noise)

    def stricter(self, fitted: FittedPalettes, options: PaletteOptions) -> FittedPalettes | None:
        """Fit again with more bits, where a finished package fell short of its promise.

        Args:
            fitted: what it had, with bits that were shared out.
            options: as it was fitted with.

        Returns:
            ``None`` where no palettes are left to give up.
        """
        if not fitted.noise:
            return None
        self._stricter *= _STRICTER
        noise = fitted.noise / self._stricter if self._stricter < _STRICTEST else 0.0
        candidate = self._allocation(noise, options.group_size)
        tuned = self.tuner.reconstruct(candidate.choices)
        return self.result(candidate.choices, tuned, _asked(options), candidate.noise)

    def result(
        self,
        choices: Mapping[str, Choice],
        tuned: Tuned,
        asked: Mapping[str, Scalar],
        noise: float | None = None,
    ) -> FittedPalettes:
        """Write down what was found."""
        return FittedPalettes(
            palettes=self.palettes(choices, tuned, asked),
            held_out=self.held_out,
            quality=tuned.quality,
            plain=tuned.plain,
            fitted_to=len(self.tuner.pixels),
            sensitivities=self.sensitivities,
            noise=noise,
            remedy=lambda report: "" if noise is not None else self.remedy(choices, report),
        )

    def remedy(self, choices: Mapping[str, Choice], report: ParityReport) -> str:
        """Say what would keep the promise that a package with given bits breaks, and its size."""
        weight_options = self._options_of(0)
        noise = {w.name: dict(zip(w.choices, w.noise, strict=True)) for w in weight_options}
        now = sum(noise[name].get(choice, 0.0) for name, choice in choices.items())
        factor = report.promise.noise_factor(report.measured())
        enough = self._allocation(_MARGIN * factor * now, 0)
        size = format_size(self.predicted_bytes(enough.choices))
        return f"; --bits auto keeps it in about {size}, bits given to the weights that need them"

    def palettes(
        self, choices: Mapping[str, Choice], tuned: Tuned, asked: Mapping[str, Scalar]
    ) -> Palettes:
        """Return the plan and its values; k-means alone needs none."""
        values = PlanValues() if tuned.is_plain else tuned.weights
        plan = make_plan(
            self.weights,
            choices,
            ios=self.loaded.function().opset,
            source_sha256=self.source_sha256,
            asked=asked,
            values=values,
            snrs=self._layer_snrs(values),
            reasons=uniform_reasons(self.infos) if "bits" in asked else None,
        )
        return Palettes(plan, values)

    def _layer_snrs(self, values: PlanValues) -> dict[str, float]:
        if not values.constants:
            return {}
        decoded = {name: palette.decode() for name, palette in values.palettes.items()}
        return fitted_layer_snrs(self.function, {**decoded, **values.constants})

    def _report(self, detail: str) -> None:
        self.progress("tune", detail)

    @cached_property
    def sizes(self) -> PackageSizes:
        """Predicts the package's size."""
        return PackageSizes(self.package)

    def weight_options(self, group_size: int = 0) -> list[WeightOptions]:
        """Predict what each weight's choices that save bytes take, and the noise that they add."""
        pixels = self.tuner.pixels
        area = pixels.shape[2] * pixels.shape[3]
        count = max(_FEWEST_SENSITIVITY_IMAGES, _SENSITIVITY_PIXELS // area)
        group_sizes = (group_size,) if group_size else ()
        self.sensitivities = tuple(
            predict_sensitivity(
                self.function,
                pixels[:count],
                {
                    info.name: [
                        choice
                        for choice in self.sizes.choices_for(info.name, None, group_sizes)
                        if choice.bits is None or choice.bits >= self._fewest_bits
                    ]
                    for info in self.infos
                },
                self.tuner.fisher,
                progress=lambda done, total: self._report(f"sensitivity {done} of {total}"),
            )
        )
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
        self, options: PaletteOptions, drop: Callable[[Palettes], float] | None
    ) -> tuple[Mapping[str, Choice], Tuned, float]:
        """Share out bits for a promise: draft, fit, and fit again with more where it fell short."""
        promise = options.promise
        if promise is None:
            self._fewest_bits = _FEWEST_BITS
        weight_options = self._options_of(options.group_size)
        if promise is not None and not promise.asks_quality:
            assert promise.target_size is not None
            choices = self.under(promise.target_size, weight_options)
            return choices, self.tuner.reconstruct(choices, report=self._report), 0.0
        asked = self.default_promise() if promise is None else promise.of_answers()

        def attempt(candidate: Allocation, *, draft: bool = False) -> _Trial:
            size = self.predicted_bytes(candidate.choices)
            self._report(f"trying {format_size(size)}")
            tuned = self.tuner.reconstruct(candidate.choices, draft=draft)
            lost = None if drop is None else drop(self.palettes(candidate.choices, tuned, {}))
            return _Trial(candidate, tuned, self._measured(tuned, size, lost))

        candidate = self._first(options.group_size)
        drafted = attempt(candidate, draft=True)
        may_grow = asked.noise_factor(drafted.measured)
        if may_grow < 1 or promise is not None:
            noise = may_grow * candidate.noise * (_MARGIN if may_grow < 1 else 1.0)
            candidate = self._allocation(noise, options.group_size)
        trial = attempt(candidate)
        if not asked.is_likely(trial.measured):
            may_grow = asked.noise_factor(trial.measured)
            noise = _MARGIN * min(1.0, may_grow) * candidate.noise
            trial = attempt(self._allocation(noise, options.group_size))
        self._check_size(promise, trial)
        return trial.allocation.choices, trial.tuned, trial.allocation.noise

    def default_promise(self) -> Promise:
        """Return what is promised where nothing is asked for."""
        answers: Literal["class", "map", "features"] = "features"
        if self.function.of_classes:
            answers = "map" if self.tuner.reference.dim() > 2 else "class"
        return default_promise(photos=bool(self._photos), answers=answers)

    def _check_size(self, promise: Promise | None, trial: _Trial) -> None:
        """Refuse what answers well enough but is too large."""
        if promise is None or promise.target_size is None:
            return
        size = self.predicted_bytes(trial.allocation.choices)
        if size > promise.target_size:
            raise GateError(
                f"no plan has {promise}: the smallest that answers well enough takes about"
                f" {format_size(size)} ({trial.allocation})"
            )

    def _options_of(self, group_size: int) -> list[WeightOptions]:
        if group_size not in self._known_options:
            self._known_options[group_size] = self.weight_options(group_size)
        return self._known_options[group_size]

    def _first(self, group_size: int) -> Allocation:
        """Return what is tried first: the bytes of equal bits, shared out."""
        weight_options = self._options_of(group_size)
        equal = grouped_choices(self.infos, _DEFAULT_BITS, group_size)
        choices = self.under(self.predicted_bytes(equal), weight_options)
        noise = {w.name: dict(zip(w.choices, w.noise, strict=True)) for w in weight_options}
        return Allocation(
            choices=choices,
            bytes=sum(self.sizes.weight_bytes(name, choice) for name, choice in choices.items()),
            noise=sum(noise[name][choice] for name, choice in choices.items()),
        )

    def _allocation(self, noise: float, group_size: int) -> Allocation:
        """Return the smallest allocation with no more than a predicted noise."""
        weight_options = self._options_of(group_size)
        path = frontier(weight_options)
        place = next((i for i in reversed(range(len(path))) if path[i].noise <= noise), 0)
        best = path[place]
        if place + 1 == len(path) or place == 0:
            return best
        # One step of the path may be large; between its ends are others.
        low, high = path[place + 1].bytes, best.bytes
        for _ in range(_BISECTIONS):
            middle = allocate(weight_options, max_bytes=(low + high) / 2)
            if middle.noise <= noise:
                best, high = middle, middle.bytes
            else:
                low = (low + high) // 2
        return best

    def _measured(self, tuned: Tuned, size: int, drop: float | None) -> Measured:
        """Return what palettes do on the images that a promise is searched on."""
        answers = tuned.answers
        estimate = miou = None
        if self._photos and self.function.of_classes:
            meter = AgreementMeter(several_labels=self.function.activation == "sigmoid")
            confusion = ConfusionMatrix(answers.shape[1], ignore=-1)
            pairs = zip(answers.numpy(), self.tuner.reference.numpy(), strict=True)
            for number, (answer, reference) in enumerate(pairs):
                meter.add(answer, reference, image=number % self._photos)
                if answer.ndim > 1:
                    confusion.add(answer.argmax(0), reference.argmax(0))
            estimate = meter.result()
            miou = confusion.mean_iou() if answers.dim() > 2 else None
        snr = combined_snr(tuned.quality.variation_snr, self.rounding_snr) - _SLACK
        shown = f"{snr:.1f} dB" if estimate is None else f"{estimate.expected:.1%} of the answers"
        self._report(f"{format_size(size)}: {shown}")
        return Measured(size=size, snr=snr, agreement=estimate, miou=miou, drop=drop)

    def predicted_bytes(self, choices: Mapping[str, Choice]) -> int:
        """Return the bytes that the finished package will take at most."""
        metadata = _METADATA_BYTES + _METADATA_BYTES_A_WEIGHT * len(self.infos)
        return self.sizes.package_bytes(choices) + metadata

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
        pixels: Tensor = self.tuner.held_out[:_ROUNDING_IMAGES]
        rounded = DifferentiableFunction(
            self.loaded, arithmetic="program", num_labels=self.num_labels
        )
        rounded.units = self.function.units
        reference = self.tuner.reference[:_ROUNDING_IMAGES]
        return compare_scores(
            scores(rounded, pixels), reference, self.function.activation
        ).variation_snr


def _asked(options: PaletteOptions) -> dict[str, Scalar]:
    asked: dict[str, Scalar] = {}
    if isinstance(options.bits, int):
        asked = asked_for(options.bits, options.group_size)
    if options.promise is not None:
        promised = vars(options.promise)
        asked |= {name: value for name, value in promised.items() if value is not None}
    if options.tune_minutes is not None:
        asked["tune_minutes"] = options.tune_minutes
    return asked
