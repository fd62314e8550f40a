"""Which value of a function holds its raw scores."""

from __future__ import annotations

from dataclasses import dataclass

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.program import Function, Operation, Reference

# What may stand between the scores' softmax or argmax and the outputs.
_FINISHING = ("classify", "cast", "squeeze", "const", "identity")
# What may stand between the scores of a map's own size and those of the output's.
_ENLARGING = ("upsample_bilinear", "resize_bilinear", "upsample_nearest_neighbor", "cast")


@dataclass(frozen=True)
class Scores:
    """What to compare of a function with another that should answer alike.

    Attributes:
        name: of the value.
        of_classes: whether it holds a score for each class along axis 1; features otherwise.
    """

    name: str
    of_classes: bool


def raw_scores_name(function: Function) -> str | None:
    """Name of the value that a function's last softmax or argmax is taken of, if it has one."""
    for operation in reversed(function.operations):
        if operation.op_type in ("softmax", "reduce_argmax"):
            return _source(operation)
        if operation.op_type not in _FINISHING:
            return None
    return None


def find_scores(function: Function) -> Scores:
    """Return a function's scores, or its first array where it gives no scores.

    Maps of scores are taken before they are enlarged to the size of the output.

    Raises:
        PackageError: it has neither.
    """
    name, of_classes = raw_scores_name(function), True
    if name is None:
        arrays = {
            result: output.name
            for result, output in zip(function.results, function.outputs, strict=True)
            if output.kind == "array"
        }
        if not arrays:
            raise PackageError(f"function {function.name!r} returns neither scores nor arrays")
        name = next(iter(arrays))
        of_classes = arrays[name] == "logits"
    makers = {value.name: op for op in function.operations for value in op.outputs}
    while name in makers and makers[name].op_type in _ENLARGING:
        source = _source(makers[name])
        if source is None:
            break
        name = source
    return Scores(name, of_classes)


def _source(operation: Operation) -> str | None:
    argument = operation.inputs["x"][0]
    return argument.name if isinstance(argument, Reference) else None
