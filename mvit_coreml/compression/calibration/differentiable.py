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
from mvit_coreml.evaluation.metrics import decibels
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


class DifferentiableFunction:
    """Executes a package's default function on batches of images, with gradients.

    Programs are written for one image. Each operation goes through ``torch.vmap``, which turns it
    into one over all images of a batch. Gradients flow into the constants that a caller puts in
    the place of the stored ones.

    Args:
        package: what :func:`~mvit_coreml.mil.package_reader.load_package` returned.
        arithmetic: ``fp32``, or ``program`` to round as the program does, without gradients.

    Attributes:
        function: the function.
        rounds: whether it rounds as the program does.
        image: its input.
        scores: name of the value that a call returns: what the final softmax or argmax is taken
            of, before a map is enlarged; without one, the first output that is an array.
        of_classes: whether that holds a score for each class along axis 1; features otherwise.
        constants: the stored values of all float constants that take part in the scores, by name,
            in program order, as fp32 tensors; palettized ones decoded.
        dtypes: the types that the program stores them in, float16 or float32.
        axes: on which the output channels of each palettizable weight lie, by name.
        schedule: the steps that lead to the scores, in order, each with the numbers of the values
            that nothing needs after it.

    Raises:
        PackageError: the package is damaged, takes something else than one image of three
            colours, or has no output to compare.
    """

    def __init__(self, package: Package, *, arithmetic: Arithmetic = "fp32") -> None:
        check_package(package)
        self.function: Function = package.function()
        inputs = self.function.inputs
        if len(inputs) != 1 or not isinstance(inputs[0], ImageFeature):
            raise PackageError(f"{package.path}: {self.function.name!r} does not take one image")
        self.image: ImageFeature = inputs[0]
        scores = find_scores(self.function)
        self.scores, self.of_classes = scores.name, scores.of_classes
        self._compiled: CompiledFunction = compile_function(self.function, arithmetic)
        self.rounds = arithmetic == "program"
        self.schedule = needed_steps(self._compiled, [self.number(self.scores)])
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
            (N, ...) scores: the program's value of shape (1, ...) for each image.

        Raises:
            InputError: a constant is unknown, or of another shape.
            PackageError: an operation failed.
        """
        batch = pixels if isinstance(pixels, Tensor) else self.pixels(pixels)
        execution = self.start(batch, constants)
        for step, released in self.schedule:
            execution.advance(step, released)
        value: Tensor = execution.values[self.number(self.scores)]
        return value.squeeze(1) if value.dim() > 1 and value.shape[1] == 1 else value

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
        axes = tuple(_axes(argument, self.batched) for argument in step.arguments)
        if _merges(step, arguments, axes):
            merged = [
                x.flatten(0, 1) if axis == 0 else x for x, axis in zip(arguments, axes, strict=True)
            ]
            sizes = arguments[0].shape[:2]
            return tuple(result.unflatten(0, sizes) for result in step.run(merged, self.values))
        return torch.vmap(lambda *one: step.run(one, self.values), in_dims=axes)(*arguments)


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


def _stored_type(declared: ValueType) -> np.dtype[Any]:
    half = isinstance(declared, TensorType) and declared.data_type.name == "fp16"
    return np.dtype(np.float16 if half else np.float32)


def _axes(argument: int | tuple[int, ...] | None, batched: set[int]) -> Any:
    if isinstance(argument, tuple):
        return tuple(0 if number in batched else None for number in argument)
    return 0 if argument in batched else None


_MICRO_BATCH = 8


@dataclass(frozen=True)
class Quality:
    """How close answers are to those they are compared with.

    Attributes:
        snr: of the raw scores, in dB, all images together.
        variation_snr: the same with how they differ between images as the signal, see
            :class:`~mvit_coreml.evaluation.metrics.Closeness`.
        agreement: part of the images, or of the positions of maps, with the same best class;
            ``None`` for features.
        divergence: mean Kullback-Leibler divergence of the class probabilities in nats; for
            features the squared error relative to the signal.
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

    return torch.cat(list(parallel_map(run, torch.split(pixels, _MICRO_BATCH))))


def compare_scores(answers: Tensor, reference: Tensor, of_classes: bool) -> Quality:
    """Compare the scores of the same images.

    Args:
        answers: (N, ...), of classes along axis 1 if ``of_classes``.
        reference: what they should be.
        of_classes: whether they are scores of classes.
    """
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
    snr, variation_snr = decibels(signal, error), decibels(variation, error)
    if not of_classes:
        return Quality(snr, variation_snr, None, error / max(signal, 1e-300))
    agreement = float((answers.argmax(1) == reference.argmax(1)).double().mean())
    divergent = float(divergence(answers, reference, of_classes))
    return Quality(snr, variation_snr, agreement, divergent)


def divergence(answers: Tensor, reference: Tensor, of_classes: bool) -> Tensor:
    """Return what :class:`Quality` calls so, differentiable in ``answers``."""
    if not of_classes:
        return (answers - reference).square().sum() / reference.square().sum().clamp(min=1e-30)
    by_class = F.kl_div(
        answers.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True
    )
    return by_class.sum(1).mean()


def combined_snr(first: float, second: float) -> float:
    """Return the SNR in dB of two independent errors together."""
    noise = 10 ** (-first / 10) + 10 ** (-second / 10)
    return -10 * math.log10(noise) if noise > 0 else math.inf
