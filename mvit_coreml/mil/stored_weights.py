"""The constants of a saved function: how each is stored, and what it decodes to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import PackageError, errors_at, first_line
from mvit_coreml.mil.kernels import KERNEL_ERRORS, as_python, find_kernel
from mvit_coreml.mil.program import Argument, Constant, Function, Operation, Reference
from mvit_coreml.mil.value_types import TensorType

# Strides, paddings, axes and shapes have at most this many elements; a larger tensor is a weight.
_ATTRIBUTE_SIZE = 16
# Parameters of compressed constants that hold none of their elements.
_DESCRIPTIONS = ("shape", "axis", "vector_axis", "output_dtype")
# Which place a stored part has: (weight file, offset in it), or (function, operation, parameter).
Part = tuple[str, ...] | tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class Weight:
    """A tensor stored in a package, as the operations use it.

    Attributes:
        name: of the value in the program.
        users: the operations that take it, each with the parameter it is given for.
        type: element type and shape once decoded.
        scheme: how it is stored: ``fp16``, ``6-bit palette``, ``8-bit linear``, ``sparse``, ...
        bits: stored bits of one element, tables and scales apart; of sparse ones, of a stored one.
        parts: the stored pieces it consists of, with the bytes of each.
        argument: what to decode.
    """

    name: str
    users: tuple[tuple[Operation, str], ...] = field(repr=False)
    type: TensorType
    scheme: str
    bits: int
    parts: dict[Part, int] = field(repr=False)
    argument: Argument = field(repr=False)

    @property
    def is_compressed(self) -> bool:
        """Whether it takes less than its element type does."""
        return self.scheme != self.type.data_type.name

    @property
    def stored_bytes(self) -> int:
        """Bytes on disk, with its tables and scales."""
        return sum(self.parts.values())

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.type.count or 0


class Constants:
    """The constants of one function, decoded when asked for.

    Args:
        function: the function.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self._origins: dict[str, tuple[Operation, int]] = {
            output.name: (operation, index)
            for operation in function.walk()
            if operation.is_constant
            for index, output in enumerate(operation.outputs)
        }

    def is_constant(self, argument: Argument) -> bool:
        """Whether an argument is stored in the package."""
        return isinstance(argument, Constant) or self.has(argument.name)

    def has(self, name: str) -> bool:
        """Whether a name is that of a constant."""
        return name in self._origins

    def type_of(self, argument: Argument) -> Any:
        """Declared type of a constant argument."""
        if isinstance(argument, Constant):
            return argument.type
        operation, index = self._origins[argument.name]
        return operation.outputs[index].type

    def decode(self, argument: Argument) -> Any:
        """Return a constant argument's value: an array of the declared type, or a list.

        Raises:
            PackageError: it cannot be decoded, or is of another shape than declared.
        """
        if isinstance(argument, Constant):
            return argument.decode()
        operation, index = self._origins[argument.name]
        with errors_at(self.function.place(operation)):
            if operation.op_type == "const":
                value = self.decode(operation.inputs["val"][0])
            else:
                value = self.decompress(operation, self.parameters(operation))[index]
            declared = operation.outputs[index].type
            if isinstance(value, np.ndarray) and isinstance(declared, TensorType):
                if not declared.accepts(value.shape):
                    raise PackageError(
                        f"it holds shape {list(value.shape)} where {declared} is declared"
                    )
                value = value.astype(declared.data_type.numpy, copy=False)
        return value

    def origin(self, argument: Argument) -> Operation | None:
        """Return the operation that stores a constant; ``None`` for one that stands in place."""
        return None if isinstance(argument, Constant) else self._origins[argument.name][0]

    def parameters(self, operation: Operation) -> dict[str, Any]:
        """Return what a compressed constant is made of: the value of every parameter.

        Raises:
            PackageError: one cannot be decoded.
        """
        return {name: self.decode(values[0]) for name, values in operation.inputs.items()}

    def decompress(self, operation: Operation, parameters: Mapping[str, Any]) -> tuple[Any, ...]:
        """Compute the outputs of a ``constexpr_`` operation from the values of its parameters.

        Raises:
            PackageError: the runtime does not know the operation, or the values do not fit it.
        """
        kernel = find_kernel(operation.op_type, self.function.opset)
        if kernel is None:
            raise PackageError("the runtime does not implement this operation")
        tensors = [parameters.get(name) for name in kernel.tensors]
        names = sorted(kernel.attributes & set(parameters))
        try:
            results = kernel.function(*tensors, **{n: as_python(parameters[n]) for n in names})
        except KERNEL_ERRORS as error:
            raise PackageError(first_line(error)) from None
        return results if isinstance(results, tuple) else (results,)

    def attribute(self, argument: Argument) -> Any:
        """Return a constant argument as Python numbers, texts or nested lists of them."""
        return as_python(self.decode(argument))

    def weights(self) -> tuple[Weight, ...]:
        """Return every stored tensor that the operations use, in order of first use."""
        uses: dict[int | str, tuple[Argument, list[tuple[Operation, str]]]] = {}
        for operation in self.function.walk():
            if operation.is_constant:
                continue
            # A protobuf map has no order of its own.
            for parameter, values in sorted(operation.inputs.items()):
                for argument in values:
                    if self.is_constant(argument) and is_weight(self.type_of(argument)):
                        key = argument.name if isinstance(argument, Reference) else id(argument)
                        uses.setdefault(key, (argument, []))[1].append((operation, parameter))
        return tuple(self._weight(argument, users) for argument, users in uses.values())

    def _weight(self, argument: Argument, users: list[tuple[Operation, str]]) -> Weight:
        operation, parameter = users[0]
        fallback = f"{operation.name}.{parameter}"
        layers, bits = self.layers_of(argument)
        return Weight(
            name=argument.name if isinstance(argument, Reference) else fallback,
            users=tuple(users),
            type=self.type_of(argument),
            scheme=" + ".join(layers) or self.type_of(argument).data_type.name,
            bits=bits,
            parts=dict(self._parts(argument, fallback)),
            argument=argument,
        )

    def layers_of(self, argument: Argument) -> tuple[list[str], int]:
        """Name a constant's compressions, the outermost first, and the bits of one element."""
        data_type = self.type_of(argument).data_type
        operation = self.origin(argument)
        if operation is None or operation.op_type == "const":
            return [], data_type.bits
        if operation.op_type not in _SCHEMES:
            return [operation.op_type.removeprefix("constexpr_")], data_type.bits
        payload, table, words = _SCHEMES[operation.op_type]
        elements = operation.inputs[payload][0]
        inner, bits = self.layers_of(elements)
        form = ""
        outer: list[str] = []
        if table is not None:
            value = operation.inputs[table][0]
            form, (outer, _) = _form(self.type_of(value)), self.layers_of(value)
            if "shape" in operation.inputs:
                # The older form packs the indices into bytes, and only the table's size tells bits.
                bits = _bits(self.type_of(value).count or 1)
        stored = self.type_of(elements).data_type.name
        layer = words.format(bits=bits, form=form, stored=stored)
        return [layer, *inner, *(f"{one} table" for one in outer)], bits

    def _parts(self, argument: Argument, place: str) -> Iterator[tuple[Part, int]]:
        """Yield the stored pieces of a constant with their bytes."""
        if isinstance(argument, Constant):
            if argument.weights is not None:
                yield (str(argument.weights.path), argument.offset), argument.stored_bytes
            else:
                yield (self.function.name, place), argument.stored_bytes
            return
        operation, _ = self._origins[argument.name]
        for parameter, arguments in sorted(operation.inputs.items()):
            if parameter not in _DESCRIPTIONS:
                for part in arguments:
                    yield from self._parts(part, f"{operation.name}.{parameter}")


def find_weight_scheme(constants: Constants, argument: Argument) -> str:
    """Say how a constant argument is stored, as :class:`Weight` does."""
    layers, _ = constants.layers_of(argument)
    return " + ".join(layers) or str(constants.type_of(argument).data_type.name)


def is_weight(value_type: Any) -> bool:
    """Whether a constant of this type is a weight rather than an attribute.

    Weights are tensors of floats that are no scalars, and anything of more than sixteen elements.
    """
    if not isinstance(value_type, TensorType) or value_type.data_type.name == "string":
        return False
    if value_type.data_type.is_float and value_type.shape:
        return True
    return (value_type.count or 0) > _ATTRIBUTE_SIZE


def _form(table: TensorType) -> str:
    """Say what a palette has more than one table of numbers."""
    shape = table.sizes
    grouped = any(size > 1 for size in shape[:-2])
    vectors = len(shape) > 1 and shape[-1] > 1
    return f"{'grouped ' if grouped else ''}{'vector ' if vectors else ''}"


# Operation to the parameter that holds its elements, that of its table, and words for both.
_SCHEMES = {
    "constexpr_lut_to_dense": ("indices", "lut", "{bits}-bit {form}palette"),
    "constexpr_lut_to_sparse": ("indices_nonzero_data", "lut", "{bits}-bit {form}palette"),
    "constexpr_affine_dequantize": ("quantized_data", None, "{bits}-bit linear"),
    "constexpr_blockwise_shift_scale": ("data", None, "{bits}-bit linear"),
    "constexpr_sparse_blockwise_shift_scale": ("nonzero_data", None, "{bits}-bit linear"),
    "constexpr_sparse_to_dense": ("nonzero_data", None, "sparse"),
    "constexpr_cast": ("source_val", None, "{stored}"),
}


@dataclass(frozen=True, eq=False)
class StoredPalette:
    """A tensor that is stored as tables of entries and the entry of every element.

    Attributes:
        tables: (groups, entries) floats; one group unless parts of the tensor have tables of
            their own.
        places: of every element's entry in ``tables.ravel()``; of the tensor's shape.
    """

    tables: NDArray[Any]
    places: NDArray[np.intp]

    @property
    def bits(self) -> int:
        """Bits of an index."""
        return _bits(self.tables.shape[1])

    @property
    def values(self) -> NDArray[Any]:
        """The tensor that the operations use."""
        return self.tables.ravel()[self.places]


def read_palette(constants: Constants, argument: Argument) -> StoredPalette | None:
    """Read a constant argument's palette.

    Returns:
        ``None`` for a constant that is stored otherwise, or whose entries are vectors.

    Raises:
        PackageError: the palette cannot be decoded.
    """
    operation = constants.origin(argument)
    if operation is None or operation.op_type != "constexpr_lut_to_dense":
        return None
    parameters = constants.parameters(operation)
    table = np.asarray(parameters["lut"])
    entries, length = _layout(table.shape)
    if length != 1:
        return None
    # Looking up in a table of running numbers gives the places, however they are packed.
    numbers = np.arange(table.size).reshape(table.shape)
    (places,) = constants.decompress(operation, {**parameters, "lut": numbers})
    return StoredPalette(tables=table.reshape(-1, entries), places=places)


def palette_bits(constants: Constants) -> set[int]:
    """Return the numbers of bits that the palettes of a function have."""
    tables = [
        constants.type_of(operation.inputs["lut"][0])
        for operation in constants.function.operations
        if operation.op_type == "constexpr_lut_to_dense"
    ]
    return {_bits(_layout(table.shape)[0]) for table in tables}


def _layout(shape: tuple[Any, ...]) -> tuple[int, int]:
    """Return the entries and their length of a table: a vector, or the last two of many axes.

    The vector is the form of iOS 16 and 17; later there is a table for each part of the tensor.
    """
    return (shape[0], 1) if len(shape) == 1 else (shape[-2], shape[-1])


def _bits(entries: int) -> int:
    return max(1, (entries - 1).bit_length())
