"""W8A8 fitted to images: the grids of activations, 8-bit weights, and what was found on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvit_coreml.compression.calibration.activation_ranges import choose_grids
from mvit_coreml.compression.calibration.linear_layers import find_layers
from mvit_coreml.compression.calibration.quantization import quantize_weights
from mvit_coreml.compression.calibration.rounding_noise import rounding_noise
from mvit_coreml.compression.palettizable_weights import weight_sha256
from mvit_coreml.compression.promise import Promise
from mvit_coreml.compression.quantization.grid import Grid
from mvit_coreml.compression.quantization.placement import (
    Int8Layer,
    QuantizedValue,
    place_quantization,
)
from mvit_coreml.compression.quantization.quantization_plan import (
    PlannedActivation,
    PlannedLayer,
    Quantization,
    QuantizationPlan,
)
from mvit_coreml.compression.quantization.quantization_plan_file import (
    is_quantization_plan,
    read_quantization,
)
from mvit_coreml.errors import InputError
from mvit_coreml.inspection.compute_types import compute_types
from mvit_coreml.validation.fitted_layers import fitted_layer_snrs
from mvit_coreml.workflows.build_package import Progress
from mvit_coreml.workflows.choose_palettes import FEWEST_IMAGES, Photos
from mvit_coreml.workflows.fit_palettes import PaletteFitting
from mvit_coreml.workflows.package_options import PaletteOptions
from mvit_coreml.workflows.publish_package import Candidate

# Parts of the predicted noise that are left in turn, where all of it breaks the promise.
_NOISE_LEFT = (1.0, 0.5, 0.25, 0.1)
# Part of the multiply-accumulates that may stay in floating point for it, and the part of the noise
# that a value has to make up.
_MOST_MACS, _WORTH_LEAVING = 0.15, 0.02


def quantizes(options: PaletteOptions) -> bool:
    """Whether options ask for 8-bit activations, in words or by a plan.

    Raises:
        InputError: the plan cannot be read.
    """
    if options.plan is not None:
        return is_quantization_plan(options.plan)
    return options.quantize is not None


def quantized_candidates(
    package: Path,
    options: PaletteOptions,
    images: Sequence[Any] | None,
    *,
    build: Callable[[Quantization, Path], Path],
    source_sha256: str,
    folder: Path,
    progress: Progress,
    photos: Photos | None = None,
) -> Iterator[Candidate]:
    """Yield the package that options ask for, made when its turn comes.

    Args:
        package: complete, in floating point.
        options: with ``quantize``, or with the ``plan`` of an earlier one.
        images: to calibrate on and to judge on; synthetic pictures by default.
        build: makes the quantized package in a folder of its own.
        source_sha256: of the checkpoint's weights.
        folder: beside the package's place.
        progress: told how it gets on.
        photos: how they are prepared, and what they lead to, where the package does not say it.

    Raises:
        InputError: a plan, images or a package that cannot be used.
    """
    if options.plan is not None:
        read = _asked(read_quantization(options.plan), options)
        progress("quantize")
        yield Candidate(package=build(read, folder / "quantized"), compression=read, images=images)
        return
    fitting = QuantizationFitting(
        package, images, source_sha256=source_sha256, progress=progress, photos=photos
    )
    parts = _NOISE_LEFT if options.quantize == "auto" else (1.0,)
    tried: set[frozenset[str]] = set()
    for part in parts:
        kept = fitting.costliest(part)
        if kept in tried:
            continue
        tried.add(kept)
        quantization, notes = fitting.fit(kept)
        quantization = _asked(quantization, options)
        progress("quantize")
        finished = build(quantization, folder / f"quantized{len(tried)}")
        yield Candidate(
            package=finished, compression=quantization, images=fitting.judged, notes=notes
        )


class QuantizationFitting:
    """Calibrates a package for 8-bit activations and weights.

    Args:
        package: complete, in floating point.
        images: synthetic pictures by default.
        source_sha256: of the checkpoint's weights.
        progress: told how it gets on.
        photos: how they are prepared, and what they lead to, where the package does not say it.

    Attributes:
        judged: images that the package may be judged on, as nothing was calibrated on them;
            ``None`` for synthetic pictures.

    Raises:
        InputError: images that cannot be read, or a package without layers to quantize.
    """

    def __init__(
        self,
        package: Path,
        images: Sequence[Any] | None,
        *,
        source_sha256: str,
        progress: Progress,
        photos: Photos | None = None,
    ) -> None:
        self.progress, self.source_sha256 = progress, source_sha256
        self._notes: list[str] = []
        calibrated_on = images
        if images is not None and len(images) < FEWEST_IMAGES:
            calibrated_on = None
            self._notes.append(
                f"{len(images)} images are too few to calibrate on, so synthetic pictures were"
                f" used; give {FEWEST_IMAGES} or more"
            )
        progress("calibrate")
        self._fitting = PaletteFitting(
            package, calibrated_on, source_sha256=source_sha256, photos=photos
        )
        self._kind = "synthetic pictures" if calibrated_on is None else "images"
        self.judged = images if calibrated_on is None else self._fitting.held_out
        self._function = self._fitting.function
        self._saved = self._fitting.loaded.function()
        self._layers = find_layers(self._function)
        everything = place_quantization(self._saved).layers
        # What does not lead to the scores cannot be judged by them.
        weights = {layer.weight for layer in everything}
        self._elsewhere = frozenset(weights - set(self._function.constants))
        if not place_quantization(self._saved, self._elsewhere).layers:
            raise InputError(f"{package.name}: has no convolution or linear layer to quantize")

    def costliest(self, part: float) -> frozenset[str]:
        """Choose the layers to leave in floating point so that little noise is left.

        Args:
            part: of the predicted noise of all rounded activations that may be left.

        Returns:
            Names of their weights: those whose inputs cost most for each multiply-accumulate, as
            far as these are few.
        """
        if part >= 1:
            return frozenset()
        placement = place_quantization(self._saved, self._elsewhere)
        noise = rounding_noise(
            self._function, self._fitting.tuner.pixels, self._grids(placement.values)
        )
        macs = {layer.name: layer.macs for layer in compute_types(self._saved).layers}
        readers: dict[str, list[Int8Layer]] = {}
        for layer in placement.layers:
            readers.setdefault(layer.source, []).append(layer)
        cost = {
            name: sum(macs[layer.operation.name] for layer in layers)
            for name, layers in readers.items()
        }
        left, kept, spent = sum(noise.values()), set[str](), 0
        allowed, most = part * left, _MOST_MACS * sum(macs.values())
        for name in sorted(readers, key=lambda name: -noise[name] / max(cost[name], 1)):
            # A layer that costs little helps little, however small it is.
            if left <= allowed or noise[name] < _WORTH_LEAVING * left:
                continue
            if spent + cost[name] <= most:
                left, spent = left - noise[name], spent + cost[name]
                kept.update(layer.weight for layer in readers[name])
        return frozenset(kept)

    def fit(self, kept: frozenset[str] = frozenset()) -> tuple[Quantization, tuple[str, ...]]:
        """Calibrate.

        Args:
            kept: names of weights whose layers stay in floating point.

        Returns:
            The plan, and sentences about what was done.
        """
        self.progress("calibrate")
        function, pixels = self._function, self._fitting.tuner.pixels
        fisher = self._fitting.tuner.fisher
        placement = place_quantization(self._saved, self._elsewhere | kept)
        grids = self._grids(placement.values)
        values = quantize_weights(
            function,
            pixels,
            grids,
            placement.layers,
            self._layers,
            fisher,
            progress=lambda done, total: self.progress("calibrate", f"layer {done} of {total}"),
        )
        decoded = {name: weight.decode() for name, weight in values.weights.items()}
        snrs = fitted_layer_snrs(function, {**decoded, **values.constants})
        planned = {layer.weight: layer for layer in placement.layers}
        plan = QuantizationPlan(
            ios=self._saved.opset,
            source_sha256=self.source_sha256,
            activations=tuple(PlannedActivation(v.name, grids[v.name]) for v in placement.values),
            layers=tuple(_planned(layer, self._fitting) for layer in planned.values()),
            layer_snrs=tuple(snrs.get(info.name) for info in self._fitting.infos),
        )
        notes = [*self._notes]
        notes.append(f"activations and weights were calibrated on {len(pixels)} {self._kind}")
        if kept:
            notes.append(self._kept_words(kept))
        return Quantization(plan, values), tuple(notes)

    def _grids(self, values: Sequence[QuantizedValue]) -> dict[str, Grid]:
        tuner = self._fitting.tuner
        return choose_grids(self._function, tuner.pixels, values, self._layers, tuner.fisher)

    def _kept_words(self, kept: frozenset[str]) -> str:
        costs = compute_types(self._saved)
        placed = place_quantization(self._saved).layers
        names = {layer.operation.name for layer in placed if layer.weight in kept}
        macs = sum(layer.macs for layer in costs.layers if layer.name in names)
        few = "1 layer stays" if len(names) == 1 else f"{len(names)} layers stay"
        listed = ", ".join(sorted(names))
        return f"{few} in floating point, {100 * macs / costs.macs:.1f}% of the MACs: {listed}"


def _planned(layer: Int8Layer, fitting: PaletteFitting) -> PlannedLayer:
    function = fitting.function
    stored = function.constants[layer.weight].numpy().astype(function.dtypes[layer.weight])
    return PlannedLayer(layer.weight, stored.shape, weight_sha256(stored))


def _asked(quantization: Quantization, options: PaletteOptions) -> Quantization:
    """Let a plan say what its package was made for and is accepted under."""
    plan, promise = quantization.plan, options.promise
    asked = {k: v for k, v in plan.asked.items() if k not in Promise.__dataclass_fields__}
    if options.quantize is not None:
        asked["quantize"] = options.quantize
    if promise is not None:
        asked |= {name: value for name, value in vars(promise).items() if value is not None}
    return replace(quantization, plan=replace(plan, asked=asked))
