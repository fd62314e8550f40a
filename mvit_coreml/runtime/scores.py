"""Which value of a function holds its raw scores."""

from __future__ import annotations

from mvit_coreml.errors import PackageError
from mvit_coreml.runtime.program import Function, Reference

# What may stand between the scores' softmax or argmax and the outputs.
_FINISHING = ("classify", "cast", "squeeze", "const", "identity")


def raw_scores_name(function: Function) -> str | None:
    """Name of the value that a function's last softmax or argmax is taken of, if it has one."""
    for operation in reversed(function.operations):
        if operation.op_type in ("softmax", "reduce_argmax"):
            argument = operation.inputs["x"][0]
            return argument.name if isinstance(argument, Reference) else None
        if operation.op_type not in _FINISHING:
            return None
    return None


def scores_name(function: Function) -> str:
    """Name of a function's raw scores or, without them, of its first output that is an array.

    Raises:
        PackageError: it has neither.
    """
    found = raw_scores_name(function)
    if found is not None:
        return found
    for name, output in zip(function.results, function.outputs, strict=True):
        if output.kind == "array":
            return name
    raise PackageError(f"function {function.name!r} returns neither scores nor arrays")
