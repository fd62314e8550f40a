"""The interpreter: runs a function of a saved package, operation by operation, with torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvit_coreml.errors import InputError, errors_at
from mvit_coreml.mil.compiler import (
    Arithmetic,
    CompiledBlock,
    CompiledFunction,
    Step,
    compile_function,
    in_fp32,
    needed_steps,
    torch_type,
)
from mvit_coreml.mil.package_check import check_package
from mvit_coreml.mil.program import (
    ArrayFeature,
    Function,
    ImageFeature,
    Operation,
    Package,
    takes_size,
)
from mvit_coreml.mil.value_types import TensorType


class RangeRecorder(Protocol):
    """What takes note of the results of operations: a ``HeadroomRecorder`` of validation."""

    def record(self, operation: Operation, value: Any) -> None:
        """Take note of an unrounded result; runs may be in several threads."""


class Runtime:
    """Executes one function of a saved package.

    A value that the program declares as fp16 is rounded to fp16 when it is computed; within an
    operation the arithmetic is fp32. This is what the program asks for, not a copy of what one
    of Apple's processors does: those may keep or lose further bits.

    Args:
        package: what :func:`~mvit_coreml.mil.package_reader.load_package` returned.
        function: name of the function, the default one if None.
        arithmetic: ``program``, or ``fp32`` to compute and keep all floats in fp32, which leaves
            out the rounding errors of fp16 but not those of the stored weights.

    Raises:
        PackageError: the package is damaged or uses something that the runtime does not know.
    """

    def __init__(
        self, package: Package, function: str | None = None, arithmetic: Arithmetic = "program"
    ) -> None:
        if arithmetic not in ("program", "fp32"):
            raise InputError(f"arithmetic must be 'program' or 'fp32', not {arithmetic!r}")
        check_package(package)
        self.package = package
        self.function: Function = package.function(function)
        self.arithmetic: Arithmetic = arithmetic
        self._compiled: CompiledFunction = compile_function(self.function, arithmetic)
        self._schedules: dict[frozenset[int], list[tuple[Step, tuple[int, ...]]]] = {}

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations that are executed, in order; constants are not among them."""
        return tuple(step.operation.name for step in self._compiled.steps)

    def make_state(self) -> dict[str, Tensor]:
        """Return the values that the function keeps between calls, by name, all zero."""
        types = [(state.name, state.type) for state in self.function.states]
        return {
            name: torch.zeros(kind.sizes, dtype=torch_type(kind.data_type, self.arithmetic))
            for name, kind in types
            if isinstance(kind, TensorType)
        }

    def run(
        self,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        intermediates: Iterable[str] = (),
        headroom: RangeRecorder | None = None,
        state: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """Execute the function once.

        Args:
            inputs: a value for every input. An image is a (height, width, 3) uint8 array in RGB
                order, or a Pillow image, of exactly a declared size: the runtime brings it into
                the declared colour order. Grayscale images are (height, width), or RGB of which
                the brightness is taken. Everything else is an array or tensor of a declared shape.
            outputs: names of the outputs to compute, all if None. Nothing else is computed.
            intermediates: names of operations, or of values, whose results to return too.
            headroom: takes note of what each operation that computes floats gives, before rounding.
            state: what :meth:`make_state` returned, and this and later runs change.

        Returns:
            Arrays by output name, in the declared element type (all floats are fp32 with fp32
            arithmetic); for a classifier the label and a dictionary of probabilities, as Core ML
            returns them. Intermediates come under the names they were asked for; an operation
            with several outputs gives a tuple.

        Raises:
            InputError: an input is missing, unknown or of the wrong kind or shape, or an output
                or operation is unknown.
            PackageError: an operation failed, such as an index that is out of range.
        """
        features, names = self.function.features_of(inputs, outputs)
        requested = self._numbers(names, intermediates)
        last = frozenset(number for numbers in requested.values() for number in numbers)
        if last not in self._schedules:
            self._schedules[last] = needed_steps(self._compiled, last)
        with torch.inference_mode():
            values = list(self._compiled.values)
            for argument in self.function.arguments:
                name, declared = argument.name, argument.type
                assert isinstance(declared, TensorType)  # checked with the package
                tensor = input_tensor(features[name], declared, inputs[name])
                dtype = torch_type(declared.data_type, self.arithmetic)
                values[self._compiled.numbers[name]] = tensor.to(dtype)
            for declared_state in self.function.states:
                if state is None or declared_state.name not in state:
                    raise InputError(
                        f"the function {self.function.name!r} keeps the state "
                        f"{declared_state.name!r} between calls; hand over a make_state()"
                    )
                values[self._compiled.numbers[declared_state.name]] = state[declared_state.name]
            for step, released in self._schedules[last]:
                self._execute(step, values, headroom)
                for number in released:
                    values[number] = None
        results: dict[str, Any] = {}
        for name, numbers in requested.items():
            arrays = tuple(_as_array(values[number]) for number in numbers)
            results[name] = arrays[0] if len(arrays) == 1 else arrays
        return results

    def _execute(self, step: Step, values: list[Any], headroom: RangeRecorder | None) -> None:
        widen = step.rounding == "widened" or (headroom is not None and step.rounding == "native")
        blocks = [partial(self._run_block, block, values, headroom) for block in step.blocks]
        with errors_at(self.function.place(step.operation)):
            results = step.run(step.fetch(values, in_fp32 if widen else None), values, blocks)
        if headroom is not None and widen:
            for result in results:
                headroom.record(step.operation, result)
        _store(values, step.outputs, results, step.types)

    def _run_block(
        self,
        block: CompiledBlock,
        values: list[Any],
        headroom: RangeRecorder | None,
        *arguments: Any,
    ) -> tuple[Any, ...]:
        _store(values, block.arguments, arguments, block.types)
        for step in block.steps:
            self._execute(step, values, headroom)
        return tuple(values[number] for number in block.results)

    def _numbers(
        self, outputs: Iterable[str], intermediates: Iterable[str]
    ) -> dict[str, tuple[int, ...]]:
        """Map each name that a caller asks for to the numbers of its values."""
        numbers = self._compiled.numbers
        requested: dict[str, tuple[int, ...]] = {name: (numbers[name],) for name in outputs}
        by_operation = {step.operation.name: step.outputs for step in self._compiled.steps}
        for name in intermediates:
            if name not in by_operation and name not in numbers:
                raise InputError(f"no operation of the package is called {name!r}")
            requested[name] = by_operation[name] if name in by_operation else (numbers[name],)
        return requested


def _store(
    values: list[Any],
    numbers: Sequence[int],
    results: Sequence[Any],
    types: Sequence[torch.dtype | None],
) -> None:
    for number, result, dtype in zip(numbers, results, types, strict=True):
        is_tensor = dtype is not None and isinstance(result, Tensor)
        values[number] = result.to(dtype) if is_tensor else result


def _as_array(value: Any) -> Any:
    return np.array(value.numpy(), order="C") if isinstance(value, Tensor) else value


def input_tensor(feature: ImageFeature | ArrayFeature, declared: TensorType, value: Any) -> Tensor:
    """Return an input as a tensor; images as (1, C, height, width) values from 0 to 255.

    Raises:
        InputError: the value is of the wrong kind, element type or shape.
    """
    if isinstance(feature, ImageFeature):
        pixels = image_pixels(feature, value)
        if feature.color_order == "grayscale":
            return torch.from_numpy(pixels.astype(np.float32))[None, None]
        if feature.color_order == "bgr":
            pixels = pixels[..., ::-1]
        # With the channels last in memory, which torch's convolutions are faster with.
        return torch.from_numpy(np.ascontiguousarray(pixels, np.float32)[None]).permute(0, 3, 1, 2)
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    shape = tuple(tensor.shape)
    if not declared.accepts(shape) or not takes_size(feature, shape, shape):
        raise InputError(
            f"the input {feature.name!r} takes an array of shape "
            f"{['?' if size is None else size for size in declared.shape]}{_several(feature)}, "
            f"not {list(shape)}"
        )
    return tensor


def _several(feature: ImageFeature | ArrayFeature) -> str:
    """Return the sizes of an input that has several, for a message."""
    texts = (
        [f"{r.start}" if len(r) == 1 else f"{r.start} to {r[-1]}" for r in ranges]
        for ranges in feature.sizes
    )
    return " or".join(f" ({', '.join(text)})" for text in texts)


def image_pixels(feature: ImageFeature, value: Any) -> np.ndarray:
    """Return an image input as (height, width, 3) RGB or (height, width) gray uint8 pixels.

    Args:
        feature: the input.
        value: Pillow image or uint8 array.

    Raises:
        InputError: the value is no 8-bit image of the declared size.
    """
    gray = feature.color_order == "grayscale"
    if isinstance(value, Image.Image):
        value = np.asarray(value.convert("L" if gray else "RGB"))
    elif isinstance(value, Tensor):
        value = value.numpy()
    name, size = feature.name, f"{feature.width}x{feature.height}"
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        kind = getattr(value, "dtype", type(value).__name__)
        raise InputError(
            f"the input {name!r} takes a Pillow image or a uint8 array of {size} pixels, not {kind}"
        )
    if gray and value.ndim == 3 and value.shape[2] == 1:
        value = value[:, :, 0]
    elif gray and value.ndim == 3 and value.shape[2] == 3:
        value = np.asarray(Image.fromarray(value).convert("L"))
    expected = (feature.height, feature.width) if gray else (feature.height, feature.width, 3)
    channels_fit = value.ndim == len(expected) and value.shape[2:] == expected[2:]
    if not channels_fit or not takes_size(feature, value.shape[:2], expected[:2]):
        raise InputError(
            f"the input {name!r} takes an array of shape {list(expected)}{_several(feature)}, "
            f"not {list(value.shape)}; fit the image to {size} pixels first"
        )
    return value
