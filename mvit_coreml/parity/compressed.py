"""Decoding a compressed constant, with its palette kept apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit_coreml.errors import PackageError
from mvit_coreml.runtime.compiler import as_python
from mvit_coreml.runtime.ops.registry import find_kernel
from mvit_coreml.runtime.program import Operation

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Compressed:
    """A compressed constant.

    Attributes:
        values: the decoded tensor.
        table: the palette's (n,) entries; ``None`` unless one palette holds the whole tensor.
        indices: entry of every element, shaped like ``values``; ``None`` likewise.
    """

    values: Array
    table: Array | None = None
    indices: Array | None = None


def decode_compressed(operation: Operation, given: Mapping[str, Any], opset: int) -> Compressed:
    """Decode a ``constexpr_…`` operation.

    Args:
        operation: the operation.
        given: values of its parameters.
        opset: iOS version whose operation definitions apply.
    """
    kernel = find_kernel(operation.op_type, opset)
    if kernel is None:
        raise PackageError(f"{operation.name}: the runtime cannot decode {operation.op_type}")
    attributes = {name: as_python(given[name]) for name in kernel.attributes & set(given)}

    def decode(values: Mapping[str, Any]) -> Any:
        return kernel.function(*(values.get(name) for name in kernel.tensors), **attributes)

    decoded = decode(given)
    values = np.asarray(decoded[-1] if isinstance(decoded, tuple) else decoded)
    table = given.get("lut")
    if operation.op_type != "constexpr_lut_to_dense" or table is None:
        return Compressed(values)
    if table.size != max(table.shape, default=0):  # a palette for each group, or of vectors
        return Compressed(values)
    # Looking up in a table of running numbers gives the indices, however they are packed.
    numbers = np.arange(table.size).reshape(table.shape)
    return Compressed(values, table.ravel(), np.asarray(decode({**given, "lut": numbers})))
