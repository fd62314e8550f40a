"""A saved function as a differentiable function of its constants."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mvit_coreml.compression.palettizable_weights import function_weights
from mvit_coreml.errors import InputError, PackageError, errors_at
from mvit_coreml.evaluation.metrics import decibels, varies_in_fp32
from mvit_coreml.mil.compiler import (
    Arithmetic,
    CompiledFunction,
    Step,
    compile_function,
    in_fp32,
    needed_steps,
)
from mvit_coreml.mil.interpreter import input_tensor
from mvit_coreml.mil.package_check import check_package
from mvit_coreml.mil.parallel import parallel_map
from mvit_coreml.mil.program import Function, ImageFeature, Package, find_scores
from mvit_coreml.mil.value_types import TensorType, ValueType
from mvit_coreml.models.config import HeadActivation

# Operations that treat every element of the first axis of their first argument alike. Images laid
# along it are computed several times faster than through vmap, which copies what conv returns.
_ALONG_FIRST_AXIS = frozenset(
    {
        "avg_pool",
        "cast",
        "clip",
        "conv",
        "conv_transpose",
        "gelu",
        "linear",
        "max_pool",
        "pixel_shuffle",
        "pixel_unshuffle",
        "relu",
        "relu6",
        "resize_bilinear",
        "sigmoid",
        "silu",
        "upsample_bilinear",
    }
)
_ELEMENTWISE = frozenset({"add", "mul", "sub"})
# Operations that torch.vmap cannot turn into one over all images.
_ONE_BY_ONE = frozenset({"classify", "non_maximum_suppression", "non_zero"})


class DifferentiableFunction:
    """Executes a package's default function on batches of images, with gradients.

    Programs are written for one image. Each operation goes through ``torch.vmap``, which turns it
    into one over all images of a batch. Gradients flow into the constants that a caller puts in
    the place of the stored ones.

    Args:
        package: what :func:`~mvit_coreml.mil.package_reader.load_package` returned.
        arithmetic: ``fp32``, or ``program`` to round as the program does, without gradients.
        num_labels: number of classes, to tell scores from features in packages of other tools.

    Attributes:
        function: the function.
        rounds: whether it rounds as the program does.
        image: its input.
        scores: name of the value that a call returns: what the final softmax, sigmoid or argmax is
            taken of, before a map is enlarged; without one, the first output.
        answers_of: names of all such values: besides the first, outputs that neither follow from
            it nor lead to it.
        units: what each of them is divided by, so that several count alike; see :meth:`balance`.
        activation: what it goes through, ``none`` for features and values; others hold a score
            for each class along axis 1.
        constants: the stored values of all float constants that take part in the scores, by name,
            in program order, as fp32 tensors; palettized ones decoded.
        dtypes: the types that the program stores them in, float16 or float32.
        axes: on which the output channels of each palettizable weight lie, by name.
        schedule: the steps that lead to the scores, in order, each with the numbers of the values
            that nothing needs after it.

    Raises:
        PackageError: the package is damaged, takes something else than one image, or has no
            output to compare.
    """

    def __init__(
        self,
        package: Package,
        *,
        arithmetic: Arithmetic = "fp32",
        num_labels: int | None = None,
    ) -> None:
        check_package(package)
        self.function: Function = package.function()
        inputs = self.function.inputs
        if len(inputs) != 1 or not isinstance(inputs[0], ImageFeature):
            raise PackageError(f"{package.path}: {self.function.name!r} does not take one image")
        self.image: ImageFeature = inputs[0]
        scores = find_scores(package, self.function, num_labels)
        self.scores, self.activation = scores.name, scores.activation
        self.answers_of: tuple[str, ...] = scores.names
        self.units: tuple[float, ...] = (1.0,) * len(scores.names)
        self._compiled: CompiledFunction = compile_function(self.function, arithmetic)
        self.rounds = arithmetic == "program"
        self.schedule = needed_steps(self._compiled, map(self.number, self.answers_of))
        self._names: dict[Any, str] = {
            number: name for name, ns in self._compiled.constants.items() for number in ns
        }
        used = {number for step, _ in self.schedule for number in step.sources()}
        stored: dict[str, Tensor] = {}
        for name, numbers in self._compiled.constants.items():
            value = self._compiled.values[numbers[0]]
            if isinstance(value, Tensor) and value.is_floating_point() and used & {*numbers}:
                stored[name] = value.float()
        order = [op.outputs[0].name for op in self.function.operations if op.outputs]
        self.constants: Mapping[str, Tensor] = MappingProxyType(
            {name: stored[name] for name in order if name in stored}
        )
        self.dtypes: Mapping[str, np.dtype[Any]] = MappingProxyType(
            {name: _stored_type(self._compiled.types[name]) for name in self.constants}
        )

        self.axes: Mapping[str, int] = MappingProxyType(
            {info.name: info.axis for info, _ in function_weights(self.function)}
        )

    @property
    def of_classes(self) -> bool:
        """Whether the scores are those of classes or labels."""
        return self.activation != "none"

    def balance(self, pixels: Tensor) -> None:
        """Let several scores count alike, whatever their units are: those of boxes and of classes.

        Args:
            pixels: (N, C, height, width) of some images, on which each gets a mean square of 1.
        """
        if len(self.answers_of) > 1:
            with torch.no_grad():
                execution = self._executed(pixels, None)
            values = (execution.values[self.number(name)] for name in self.answers_of)
            self.units = tuple(max(float(v.square().mean()), 1e-30) ** 0.5 for v in values)

    def answers(self, execution: Execution) -> Tensor:
        """Return the scores at the end of an execution.

        Returns:
            (N, 1, ...) of the only one as it is; (N, 1, total) of several, one after another.
        """
        values: list[Tensor] = [execution.values[self.number(name)] for name in self.answers_of]
        if len(values) == 1:
            return values[0]
        pairs = zip(values, self.units, strict=True)
        return torch.cat([value.flatten(1)[:, None] / unit for value, unit in pairs], 2)

    def pixels(self, images: Sequence[Any]) -> Tensor:
        """Return images as a batch that a call takes.

        Args:
            images: Pillow images or (height, width, 3) uint8 RGB arrays of the declared size.

        Returns:
            (N, 3, height, width) fp32 from 0 to 255, in the colour order of the program.

        Raises:
            InputError: an image is of another kind or size.
        """
        declared = self.function.arguments[0].type
        assert isinstance(declared, TensorType)
        return torch.cat([input_tensor(self.image, declared, image) for image in images])

    def __call__(
        self, pixels: Tensor | Sequence[Any], constants: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Return the raw scores of a batch.

        Args:
            pixels: (N, 3, height, width) as :meth:`pixels` makes them, or the images themselves.
            constants: fp32 tensors in the place of stored constants, by name.

        Returns:
            (N, ...) scores: the program's value of shape (1, ...) for each image; of several
            values (N, total).

        Raises:
            InputError: a constant is unknown, or of another shape.
            PackageError: an operation failed.
        """
        batch = pixels if isinstance(pixels, Tensor) else self.pixels(pixels)
        value = self.answers(self._executed(batch, constants))
        return value.squeeze(1) if value.dim() > 1 and value.shape[1] == 1 else value

    def _executed(self, batch: Tensor, constants: Mapping[str, Tensor] | None) -> Execution:
        execution = self.start(batch, constants)
        for step, released in self.schedule:
            execution.advance(step, released)
        return execution

    def live_bytes(self, pixels: Tensor) -> list[int]:
        """Return what one image's values take at each step towards the scores, in bytes.

        Args:
            pixels: (1, 3, height, width) of any image.
        """
        execution = self.start(pixels)
        live_bytes = []
        with torch.no_grad():
            for step, released in self.schedule:
                execution.advance(step)
                live = (execution.values[number] for number in execution.batched)
                live_bytes.append(sum(value.nbytes for value in live if isinstance(value, Tensor)))
                execution.release(released)
        return live_bytes

    def start(self, pixels: Tensor, constants: Mapping[str, Tensor] | None = None) -> Execution:
        """Return an execution that stands before the first step; arguments as for a call."""
        values = list(self._compiled.values)
        for name, tensor in (constants or {}).items():
            self.replace(values, name, tensor)
        return Execution(self, values, pixels)

    def replace(self, values: list[Any], name: str, tensor: Tensor) -> None:
        """Put a tensor in the place of a constant among the values of an execution.

        Raises:
            InputError: there is no such constant, or it is of another shape.
        """
        if name not in self.constants:
            raise InputError(f"the program has no constant {name!r} that can be replaced")
        expected = self.constants[name].shape
        if tensor.shape != expected:
            raise InputError(f"{name!r} has shape {list(tensor.shape)}, not {list(expected)}")
        for number in self._compiled.constants[name]:
            half = self._compiled.values[number].dtype is torch.float16
            values[number] = tensor.half() if half else tensor

    def number(self, name: str) -> int:
        """Number of a named value of the program."""
        return self._compiled.numbers[name]

    def constant_name(self, argument: int | tuple[int, ...] | None) -> str | None:
        """Name of the constant that an argument is the number of, None for another argument."""
        return self._names.get(argument)


class Execution:
    """A batch of images on its way through a function, one step at a time.

    Attributes:
        values: of the program, by number: constants as they are, all that depends on the image
            with an axis for the images put before its own, None where not yet or no longer held.
        batched: numbers of those that depend on the image.
    """

    def __init__(self, function: DifferentiableFunction, values: list[Any], pixels: Tensor) -> None:
        self._function, self._images, self.values = function, len(pixels), values
        argument = function.number(function.function.arguments[0].name)
        self.values[argument] = pixels.contiguous(memory_format=torch.channels_last)[:, None]
        self.batched = {argument}

    def __len__(self) -> int:
        """Number of images."""
        return self._images

    def advance(self, step: Step, released: Iterable[int] = ()) -> None:
        """Execute a step and forget the values that are not needed after it.

        Raises:
            PackageError: the operation failed.
        """
        with errors_at(self._function.function.place(step.operation)):
            results = self._results(step)
        for number, result, dtype in zip(step.outputs, results, step.types, strict=True):
            rounds = self._function.rounds and dtype is not None and isinstance(result, Tensor)
            self.values[number] = result.to(dtype) if rounds else result
        if not self.batched.isdisjoint(step.sources()):
            self.batched.update(step.outputs)
        self.release(released)

    def release(self, numbers: Iterable[int]) -> None:
        """Forget values."""
        for number in numbers:
            self.values[number] = None

    def _results(self, step: Step) -> tuple[Any, ...]:
        widen = self._function.rounds and step.rounding == "widened"
        arguments = step.fetch(self.values, in_fp32 if widen else None)
        if self.batched.isdisjoint(step.sources()):
            return step.run(arguments, self.values)
        # Sizes and places that follow from a shape are the same for every image.
        values: Sequence[Any] = self.values
        late = self.batched.intersection(step.late_attributes.values())
        if late:
            values = [v[0] if n in late else v for n, v in enumerate(values)]
        axes = tuple(_axes(argument, self.batched) for argument in step.arguments)
        if _merges(step, arguments, axes) or _attends(step, arguments, axes):
            merged = [
                _merged(x) if axis == 0 else x for x, axis in zip(arguments, axes, strict=True)
            ]
            sizes = arguments[0].shape[:2]
            return tuple(result.unflatten(0, sizes) for result in step.run(merged, values))
        if step.operation.op_type not in _ONE_BY_ONE:
            try:
                return torch.vmap(lambda *one: step.run(one, values), in_dims=axes)(*arguments)
            except (PackageError, RuntimeError):
                # Some kernels write in place or look at values, which vmap refuses.
                pass
        images = (
            step.run(
                [_one(x, axis, number) for x, axis in zip(arguments, axes, strict=True)], values
            )
            for number in range(self._images)
        )
        return tuple(torch.stack(results) for results in zip(*images, strict=True))


def _merged(images: Tensor) -> Tensor:
    """Put the images of (N, B, ...) on the first axis, with the channels last if they are."""
    merged = images.flatten(0, 1)
    if merged.dim() == 4 and merged.is_contiguous(memory_format=torch.channels_last):
        # The stride of a single image says nothing, but convolutions go by it.
        merged = merged.as_strided(merged.shape, (merged[0].numel(), *merged.stride()[1:]))
    return merged


def _merges(step: Step, arguments: Sequence[Any], axes: Sequence[Any]) -> bool:
    """Whether images may lie on the first axis of the operation's own arguments."""
    if axes[0] != 0 or arguments[0].dim() < 3:
        return False
    if step.operation.op_type in _ALONG_FIRST_AXIS:
        return all(axis is None for axis in axes[1:])
    return step.operation.op_type in _ELEMENTWISE and all(
        x.shape == arguments[0].shape if axis == 0 else isinstance(x, Tensor) and x.dim() == 0
        for x, axis in zip(arguments, axes, strict=True)
    )


def _attends(step: Step, arguments: Sequence[Any], axes: Sequence[Any]) -> bool:
    """Whether it is attention with the same mask, if any, for all images."""
    if step.operation.op_type != "scaled_dot_product_attention" or axes[:3] != (0, 0, 0):
        return False
    mask = arguments[3] if len(arguments) > 3 else None
    same = mask is None or (axes[3] is None and (mask.dim() < 3 or mask.shape[0] == 1))
    return same and all(x.dim() >= 4 for x in arguments[:3])


def _stored_type(declared: ValueType) -> np.dtype[Any]:
    half = isinstance(declared, TensorType) and declared.data_type.name == "fp16"
    return np.dtype(np.float16 if half else np.float32)


def _one(argument: Any, axis: Any, image: int) -> Any:
    """Return what an argument is for one image."""
    if isinstance(axis, tuple):
        return tuple(_one(x, own, image) for x, own in zip(argument, axis, strict=True))
    return argument if axis is None else argument[image]


def _axes(argument: int | tuple[int, ...] | None, batched: set[int]) -> Any:
    if isinstance(argument, tuple):
        return tuple(0 if number in batched else None for number in argument)
    return 0 if argument in batched else None


# Pixels of images that are run together.
BATCH_PIXELS = 8 * 224 * 224


@dataclass(frozen=True)
class Quality:
    """How close answers are to those they are compared with.

    Attributes:
        snr: of the raw scores, in dB, all images together.
        variation_snr: the same with how they differ between images as the signal, see
            :class:`~mvit_coreml.evaluation.metrics.Closeness`.
        agreement: part of the images, or of the positions of maps, with the same best class, of
            several labels with all the same labels; ``None`` for features.
        divergence: mean Kullback-Leibler divergence of the class probabilities in nats, of several
            labels the sum over them; for features the squared error relative to the signal.
    """

    snr: float
    variation_snr: float
    agreement: float | None
    divergence: float

    def __str__(self) -> str:
        same = "" if self.agreement is None else f"{self.agreement:.1%} agreement, "
        return f"{same}{self.snr:.1f} dB"


def scores(
    function: DifferentiableFunction, pixels: Tensor, constants: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return the raw scores of many images, (N, ...) fp32, without gradients.

    Args:
        function: to execute.
        pixels: (N, 3, height, width).
        constants: in the place of stored ones, by name.
    """

    def run(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return function(batch, constants)

    size = max(1, BATCH_PIXELS // (pixels.shape[2] * pixels.shape[3]))
    return torch.cat(list(parallel_map(run, torch.split(pixels, size))))


def compare_scores(answers: Tensor, reference: Tensor, activation: HeadActivation) -> Quality:
    """Compare the scores of the same images.

    Args:
        answers: (N, ...), of classes along axis 1 if they go through an activation.
        reference: what they should be.
        activation: what they go through.
    """
    of_classes = activation != "none"
    error = float((answers - reference).double().square().sum())
    by_class = (
        reference.double().movedim(1, 0).flatten(1)
        if of_classes
        else reference.double().flatten(1).T
    )
    samples = by_class.shape[-1] if of_classes else len(reference)
    signal = float(by_class.square().sum())
    varying = float((by_class - by_class.mean(-1, keepdim=True)).square().sum())
    variation = varying * samples / (samples - 1) if samples > 1 else signal
    variation = variation if varies_in_fp32(signal, variation) else signal
    snr, variation_snr = decibels(signal, error), decibels(variation, error)
    if not of_classes:
        return Quality(snr, variation_snr, None, error / max(signal, 1e-300))
    if activation == "sigmoid":
        same = ((answers > 0) == (reference > 0)).all(1)
    else:
        same = answers.argmax(1) == reference.argmax(1)
    agreement = float(same.double().mean())
    divergent = float(divergence(answers, reference, activation))
    return Quality(snr, variation_snr, agreement, divergent)


def divergence(answers: Tensor, reference: Tensor, activation: HeadActivation) -> Tensor:
    """Return what :class:`Quality` calls so, differentiable in ``answers``."""
    if activation == "none":
        return (answers - reference).square().sum() / reference.square().sum().clamp(min=1e-30)
    by_class = F.kl_div(
        _log_probabilities(answers, activation),
        _log_probabilities(reference, activation),
        reduction="none",
        log_target=True,
    )
    return by_class.sum(1).mean()


def _log_probabilities(scores: Tensor, activation: HeadActivation) -> Tensor:
    """Return those of (N, C, ...) classes; of (N, C) labels, that each is there and is not."""
    if activation == "sigmoid":
        return F.logsigmoid(torch.cat([scores, -scores], 1))
    return scores.log_softmax(1)


def combined_snr(first: float, second: float) -> float:
    """Return the SNR in dB of two independent errors together."""
    noise = 10 ** (-first / 10) + 10 ** (-second / 10)
    return -10 * math.log10(noise) if noise > 0 else math.inf
