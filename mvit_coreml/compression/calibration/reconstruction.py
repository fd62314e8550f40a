"""Layer-by-layer reconstruction: each palettized layer gives what it gave, on its inputs now.

A layer behind palettized ones no longer gets the inputs that its weight was trained for. In order
of execution every weight is first refitted, by ridge regression, to give the original outputs from
the inputs as they are by then; then its indices and table are chosen for the least error of its
outputs (:mod:`~mvit_coreml.compression.calibration.gptq`), and its bias takes up the rest of its
mean. Nothing is trained: each step has a closed form, needs only the second moments of the inputs,
and hardly overfits, as the strength of the ridge is cross-validated for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvit_coreml.compression.calibration.differentiable import DifferentiableFunction, Execution
from mvit_coreml.compression.calibration.gptq import SHRINKAGE, palettize_layer
from mvit_coreml.compression.calibration.linear_layers import Layer, find_layers
from mvit_coreml.compression.kmeans import ClusterJob, cluster_weights
from mvit_coreml.compression.palettized_weight import UNCOMPRESSED, Choice, PalettizedWeight
from mvit_coreml.compression.plan import PlanValues
from mvit_coreml.mil.compiler import Step
from mvit_coreml.mil.parallel import one_thread, parallel_map
from mvit_coreml.models.config import HeadActivation

# Pixels of the images that are computed at a time, as all their activations are kept.
_PIXELS = 4 * 256 * 256
# Images that it is measured on; it changes little beyond. Larger ones count as several.
_IMAGES = 64
_IMAGE_PIXELS = 256 * 256
# What errors of a channel count beside its measured share, relative to the mean.
_ROW_FLOOR = 0.3


@dataclass(frozen=True, eq=False)
class LayerFisher:
    """How much a layer's outputs matter for the answers.

    Attributes:
        diagonal: (G, O), the Fisher diagonal: a mean over images and positions; not negative.
        coherence: how far gradients agree across the positions of a map: the square of their mean
            over the mean of their squares, times the number of positions. It is 1 where they are
            independent, and that number where they are equal, as before a global pooling.
        positions: of the layer's output; 1 for a vector.
    """

    diagonal: Tensor
    coherence: float
    positions: int


def fisher_information(
    function: DifferentiableFunction, pixels: Tensor, layers: Sequence[Layer], *, seed: int = 0
) -> dict[str, LayerFisher]:
    """Return how much each layer's output channels matter for the answers.

    The curvature of the answers' divergence from what they are now, in the outputs of a layer, is
    the Gauss-Newton (or Fisher) matrix JᵀAJ, with A that of the softmax or of the sigmoids for
    scores of classes, and the identity for features. Its diagonal is estimated by random signs
    (Hutchinson, 1989): for a vector r whose outer product is A on average, the squared gradient of
    r·scores is JᵀAJ's diagonal on average.

    Args:
        function: as saved.
        pixels: (N, 3, height, width), see :meth:`DifferentiableFunction.pixels`; measured on the
            first 64 images, or fewer if they are large.
        layers: of the function.
        seed: of the random signs.

    Returns:
        By the name of a layer's weight.
    """
    area = pixels.shape[2] * pixels.shape[3]
    pixels = pixels[: -(-_IMAGES // max(1, area // _IMAGE_PIXELS))]
    batches = torch.split(pixels, max(1, _PIXELS // area))
    squares = {layer.weight: torch.zeros(layer.channels) for layer in layers}
    means, positions = dict(squares), dict.fromkeys(squares, 1)

    def gradients(number: int) -> list[Tensor]:
        return _gradients(function, batches[number], layers, seed + number)

    for batch in parallel_map(gradients, range(len(batches))):
        for layer, gradient in zip(layers, batch, strict=True):
            name = layer.weight
            positions[name] = gradient.shape[2]
            squares[name] = squares[name] + gradient.square().mean(2).sum(0)
            means[name] = means[name] + gradient.mean(2).square().sum(0)
    return {
        layer.weight: LayerFisher(
            (squares[layer.weight] / len(pixels)).reshape(layer.groups, -1),
            positions[layer.weight]
            * float(means[layer.weight].sum() / squares[layer.weight].sum().clamp(min=1e-30)),
            positions[layer.weight],
        )
        for layer in layers
    }


def row_weights(diagonal: Tensor) -> Tensor:
    """Return what the errors of a layer's output channels count, from its Fisher diagonal."""
    return diagonal / diagonal.mean().clamp(min=1e-30) + _ROW_FLOOR


def _gradients(
    function: DifferentiableFunction, pixels: Tensor, layers: Sequence[Layer], seed: int
) -> list[Tensor]:
    """Return each layer's gradient of the scores along a random probe, (N, C_out, positions)."""
    at = {layer.index: layer for layer in layers}
    execution = function.start(pixels.clone().requires_grad_())
    outputs = []
    for index, (step, released) in enumerate(function.schedule):
        execution.advance(step, released)
        if index in at:
            outputs.append(execution.values[step.outputs[0]])
    scores = function.answers(execution)
    direction = probe(scores.detach(), function.activation, seed)
    # What leads to the answers by choices alone (of the largest, of a class) has no gradient.
    gradients = torch.autograd.grad(
        (scores * direction).sum(), outputs, allow_unused=True, materialize_grads=True
    )
    by_channel = []
    for layer, gradient in zip(at.values(), gradients, strict=True):
        channel_axis = 2 if layer.is_convolution else gradient.dim() - 1
        by_channel.append(gradient.movedim(channel_axis, 1).flatten(2))
    return by_channel


def probe(scores: Tensor, activation: HeadActivation, seed: int) -> Tensor:
    """Return a random vector whose outer product is the curvature on average."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, scores.shape, generator=generator) * 2.0 - 1.0
    if activation == "none":
        return signs
    if activation == "sigmoid":
        probabilities = scores.sigmoid()
        return (probabilities * (1 - probabilities)).sqrt() * signs
    # The classes lie on axis 1 of what the program gives, and (N, 1, C, ...) is that for N images.
    probabilities = scores.softmax(2)
    root = probabilities.sqrt() * signs
    return root - probabilities * root.sum(2, keepdim=True)


LayerProgress = Callable[[int, int], None]

# Samples that a layer's moments are taken of, all images together; more gain little. A draft tells
# with fewer where bits lead.
SAMPLES = 9_600
DRAFT_SAMPLES = 4_800
_FEWEST_POSITIONS = 16
# Pixels of the images that are computed at a time.
_BATCH_PIXELS = 8 * 224 * 224
# Bytes that the values of all images may take at a time. While those of one image take much, only
# some of the images take part; the others join in later.
_LIVE_BYTES = 2_000_000_000
_FEWEST_IMAGES = 16
# Ridges to choose from, relative to the diagonal of the moments.
_RIDGES = (0.003, 0.015, 0.075, 0.4, 2.0, 10.0)
# One in this many micro-batches judges the ridge that was fitted to the others.
_FOLDS = 4
# Parts of the moments' off-diagonal not to count on, to choose from for layers with less than so
# many samples for an input.
_SHRINKAGES = (0.6, 0.2, 0.9)
_SCARCE = 4


@dataclass(frozen=True, eq=False)
class TunedWeights(PlanValues):
    """What a function computes with instead of its stored constants.

    Those that are not palettized but replaced are biases and the weights that stay uncompressed.
    """

    def tensors(self) -> dict[str, Tensor]:
        """Return everything decoded to fp32, as :class:`DifferentiableFunction` takes it."""
        decoded = {name: palette.decode() for name, palette in self.palettes.items()}
        return {
            name: torch.from_numpy(value.astype(np.float32))
            for name, value in (decoded | dict(self.constants)).items()
        }


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of a layer's inputs, (G, K, K) fp32, about their means if it has a bias.

    Attributes:
        now: of the inputs as they are, with themselves.
        across: of the original inputs with those.
    """

    now: Tensor
    across: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.now + other.now, self.across + other.across)


@dataclass(frozen=True, eq=False)
class Refit:
    """A layer's weight as it should become, in floating point, and what its errors count.

    Attributes:
        original: (G, O, K) fp32 weight that it had.
        target: (G, O, K) fp32 weight that gives the original outputs from the inputs as they are.
        fitting: moments of a part of the images.
        judging: those of the others.
        rows: (G, O), what errors of output channels count.
    """

    original: Tensor
    target: Tensor
    fitting: Moments
    judging: Moments
    rows: Tensor

    @property
    def moments(self) -> Moments:
        """Moments of all images."""
        return self.fitting + self.judging


def reconstruct(
    function: DifferentiableFunction,
    pixels: Tensor,
    choices: Mapping[str, Choice],
    *,
    fisher: Mapping[str, LayerFisher] | None = None,
    samples: int = SAMPLES,
    progress: LayerProgress = lambda done, total: None,
) -> TunedWeights:
    """Palettize the weights of a function so that its answers on images change little.

    Args:
        function: as saved, not palettized.
        pixels: (N, 3, height, width) of images to calibrate on, see
            :meth:`DifferentiableFunction.pixels`; no labels are needed.
        choices: weight name to bits and groups; others stay uncompressed, and are refitted too.
        fisher: from :func:`fisher_information`; measured on
            the first images by default.
        samples: that a layer's moments are taken of, all images together.
        progress: called with the number of layers done and their total.

    Returns:
        Palettes of all weights that ``choices`` compresses, and replaced constants.
    """
    layers = find_layers(function)
    if fisher is None:
        fisher = fisher_information(function, pixels, layers)
    with one_thread():
        run = _Palettizing(function, pixels, choices, fisher, samples)
        run.palettize_others(layers)
        run.refit_all(layers, progress)
    order = [name for name in function.constants if name in run.palettes]
    return TunedWeights({name: run.palettes[name] for name in order}, run.constants)


def kmeans_palettes(
    function: DifferentiableFunction, choices: Mapping[str, Choice]
) -> dict[str, PalettizedWeight]:
    """Palettize the stored weights of a function by k-means alone, whatever uses them.

    Args:
        function: as saved, not palettized.
        choices: weight name to bits and groups; uncompressed ones are left out, as are names that
            the function does not have.
    """
    return cluster_weights(
        {
            name: ClusterJob(
                function.constants[name].numpy().astype(function.dtypes[name]),
                choice,
                function.axes.get(name, 0),
            )
            for name, choice in choices.items()
            if choice != UNCOMPRESSED and name in function.constants
        }
    )


class Reconstruction:
    """A function on its way: micro-batches with the original constants and with the new ones.

    What a weight may become is for a subclass to say; here it stays in floating point.

    Args:
        function: as saved.
        pixels: (N, 3, height, width) of images to calibrate on.
        fisher: from :func:`fisher_information`.
        samples: that a layer's moments are taken of, all images together.

    Attributes:
        constants: that have been replaced, as they are stored.
        replaced: everything that has been replaced, decoded to fp32.
        runs: micro-batches under way, with the original constants and with the new ones.
        samples: that the last layer's moments were taken of.
    """

    def __init__(
        self,
        function: DifferentiableFunction,
        pixels: Tensor,
        fisher: Mapping[str, LayerFisher],
        samples: int = SAMPLES,
    ) -> None:
        self.most_samples, self.samples = samples, 0
        self.function, self.fisher = function, fisher
        self.schedule = function.schedule
        self.constants: dict[str, NDArray[Any]] = {}
        self.replaced: dict[str, Tensor] = {}
        self.runs: list[tuple[Execution, Execution]] = []
        # Four micro-batches at least, for one of them to judge the ridge.
        area = pixels.shape[2] * pixels.shape[3]
        size = max(1, min(_BATCH_PIXELS // area, len(pixels) // _FOLDS))
        self.waiting = list(torch.split(pixels, size))
        live = function.live_bytes(pixels[:1])
        # Every image is run twice.
        self.allowed = [
            max(_FEWEST_IMAGES, _LIVE_BYTES // (2 * max(live[index:]))) // size
            for index in range(len(live))
        ]

    def refit_all(self, layers: Sequence[Layer], progress: LayerProgress) -> None:
        """Refit all layers in order of execution."""
        at = {layer.index: layer for layer in layers}
        done = 0
        for index in range(len(self.schedule)):
            self.join(index)
            layer = at.get(index)
            if layer is not None:
                self.refit(layer)
                done += 1
                progress(done, len(layers))
            self.advance(index)

    def execute(
        self, execution: Execution, step: Step, released: tuple[int, ...], *, new: bool
    ) -> None:
        """Take one micro-batch past a step, with the new constants or the original ones."""
        execution.advance(step, released)

    def source(self, layer: Layer, execution: Execution, *, new: bool) -> Tensor:
        """Return what a layer reads in one micro-batch."""
        value: Tensor = execution.values[layer.source]
        return value

    def join(self, index: int) -> None:
        """Let as many further micro-batches take part as there is room for from a step on."""
        room = max(0, self.allowed[index] - len(self.runs))
        joining, self.waiting = self.waiting[:room], self.waiting[room:]

        def catch_up(batch: Tensor) -> tuple[Execution, Execution]:
            pair = self.function.start(batch), self.function.start(batch, self.replaced)
            with torch.no_grad():
                for step, released in self.schedule[:index]:
                    for new, execution in enumerate(pair):
                        self.execute(execution, step, released, new=bool(new))
            return pair

        self.runs += parallel_map(catch_up, joining)

    def advance(self, index: int) -> None:
        """Take all micro-batches past a step."""
        step, released = self.schedule[index]

        def one(numbered: tuple[int, Execution]) -> None:
            with torch.no_grad():
                self.execute(numbered[1], step, released, new=bool(numbered[0]))

        for _ in parallel_map(one, chain.from_iterable(map(enumerate, self.runs))):
            pass

    def refit(self, layer: Layer) -> None:
        """Find what a layer computes with from now on."""
        moments, judging, means = self._moments(layer)
        original = layer.matrix(self.function.constants[layer.weight])
        rows = row_weights(self.fisher[layer.weight].diagonal)
        target = self.target(original, moments, judging, rows)
        weight = self.stored(layer, Refit(original, target, moments, judging, rows))
        self.replace(layer.weight, weight)
        if layer.bias is not None:
            now, before = means
            drift = original.double() @ before - layer.matrix(weight).double() @ now
            bias = self.function.constants[layer.bias] + drift.reshape(-1).float()
            self.replace(layer.bias, self._store(layer.bias, bias))

    def target(self, original: Tensor, fitting: Moments, judging: Moments, rows: Tensor) -> Tensor:
        """Return the weight that gives the original outputs from the inputs as they are by now."""
        ridge = _best_ridge(original, fitting, judging, rows)
        return _fitted(original, fitting + judging, ridge)

    def stored(self, layer: Layer, refit: Refit) -> Tensor:
        """Return a refitted weight as it is stored, decoded to fp32."""
        return self._store(layer.weight, layer.weight_of(refit.target))

    def _store(self, name: str, tensor: Tensor) -> Tensor:
        """Round a constant to the type it is stored in."""
        stored = tensor.numpy().astype(self.function.dtypes[name])
        self.constants[name] = stored
        return torch.from_numpy(stored.astype(np.float32))

    def replace(self, name: str, tensor: Tensor) -> None:
        """Compute with something else in the place of a constant from now on."""
        self.replaced[name] = tensor
        for _, palettized in self.runs:
            self.function.replace(palettized.values, name, tensor)

    def _moments(self, layer: Layer) -> tuple[Moments, Moments, tuple[Tensor, Tensor]]:
        """Return the moments to fit to, those that judge the fit, and the inputs' means.

        The means are (G, K, 1) fp64: of the inputs as they are now, and of the original ones.
        """
        images = sum(len(original) for original, _ in self.runs)
        positions = max(_FEWEST_POSITIONS, -(-self.most_samples // images))

        def samples(number: int) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                before, now = (
                    layer.samples(self.source(layer, execution, new=bool(new)), positions, number)
                    for new, execution in enumerate(self.runs[number])
                )
            return now, before

        parts = list(parallel_map(samples, range(len(self.runs))))
        count = self.samples = sum(now.shape[2] for now, _ in parts)
        means = tuple(
            sum(
                (part[side].sum(2, keepdim=True, dtype=torch.float64) for part in parts),
                torch.zeros(()),
            )
            / count
            for side in (0, 1)
        )
        centre_now, centre_before = (
            mean.float() if layer.bias is not None else torch.zeros(()) for mean in means
        )

        def products(part: tuple[Tensor, Tensor]) -> Moments:
            now, before = part[0] - centre_now, part[1] - centre_before
            return Moments(now @ now.mT, before @ now.mT)

        fitting, judging = Moments(torch.zeros(()), torch.zeros(())), None
        for number, moments in enumerate(parallel_map(products, parts)):
            if number % _FOLDS == _FOLDS - 1:
                judging = moments if judging is None else judging + moments
            else:
                fitting = fitting + moments
        return fitting, judging or fitting, (means[0], means[1])


class _Palettizing(Reconstruction):
    """Gives the weights palettes."""

    def __init__(
        self,
        function: DifferentiableFunction,
        pixels: Tensor,
        choices: Mapping[str, Choice],
        fisher: Mapping[str, LayerFisher],
        samples: int,
    ) -> None:
        super().__init__(function, pixels, fisher, samples)
        self.choices = choices
        self.palettes: dict[str, PalettizedWeight] = {}

    def palettize_others(self, layers: Sequence[Layer]) -> None:
        """Palettize what is no weight of a layer, by k-means."""
        refitted = {layer.weight for layer in layers}
        choices = {name: c for name, c in self.choices.items() if name not in refitted}
        for name, palette in kmeans_palettes(self.function, choices).items():
            self.palettes[name] = palette
            self.replace(name, _decoded(palette))

    def stored(self, layer: Layer, refit: Refit) -> Tensor:
        """Give a refitted weight its palette, if any, and return what that decodes to."""
        choice = self.choices.get(layer.weight, UNCOMPRESSED)
        if choice == UNCOMPRESSED:
            return super().stored(layer, refit)
        dtype = self.function.dtypes[layer.weight]

        def palettized(seen: Moments, shrinkage: float) -> PalettizedWeight:
            return palettize_layer(
                layer, refit.target, seen.now, refit.rows, choice, dtype, shrinkage
            )

        def error(shrinkage: float) -> float:
            decoded = layer.matrix(_decoded(palettized(refit.fitting, shrinkage)))
            return _error(decoded, refit.original, refit.judging, refit.rows)

        shrinkage = SHRINKAGE
        if self.samples < _SCARCE * refit.original.shape[2] and (choice.bits or 0) < 8:
            tried = _SHRINKAGES if self.most_samples > DRAFT_SAMPLES else _SHRINKAGES[:1]
            shrinkage = min(tried, key=error) if len(tried) > 1 else tried[0]
        palette = self.palettes[layer.weight] = palettized(refit.moments, shrinkage)
        return _decoded(palette)


def _best_ridge(original: Tensor, fitting: Moments, judging: Moments, rows: Tensor) -> float:
    """Return the ridge whose fit has the least error on what it was not fitted to."""

    def error(ridge: float) -> float:
        return _error(_fitted(original, fitting, ridge), original, judging, rows)

    errors = parallel_map(error, _RIDGES)
    return min(zip(errors, _RIDGES, strict=True))[1]


def _error(weight: Tensor, original: Tensor, moments: Moments, rows: Tensor) -> float:
    """Return the error of the outputs that a weight gives, but for what no weight can change."""
    per_row = ((weight @ moments.now) * weight - 2 * weight * (original @ moments.across)).sum(2)
    return float((rows * per_row).sum())


def _decoded(palette: PalettizedWeight) -> Tensor:
    return torch.from_numpy(palette.decode().astype(np.float32))


def _fitted(original: Tensor, moments: Moments, ridge: float) -> Tensor:
    """Return the (G, O, K) weight that gives the original outputs from the inputs as they are.

    It minimises ‖W now - original before‖² + ‖W - original‖², the latter weighed by the ridge.
    """
    diagonal = moments.now.diagonal(dim1=1, dim2=2)
    floor = 1e-3 * diagonal.mean(1, keepdim=True) + 1e-6 * diagonal.mean() + 1e-12
    # In units in which every input counts alike, single precision is enough.
    unit = (diagonal + floor).sqrt()
    penalty = torch.diag_embed((ridge * diagonal + floor) / unit.square())
    now = moments.now / (unit[:, :, None] * unit[:, None, :]) + penalty
    across = moments.across / (unit[:, :, None] * unit[:, None, :]) + penalty
    product = (original * unit[:, None, :]) @ across
    factor = torch.linalg.cholesky(now)
    return torch.cholesky_solve(product.mT, factor).mT / unit[:, None, :]
