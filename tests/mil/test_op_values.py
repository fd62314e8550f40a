"""Operations beside coremltools' own constant folding (``value_inference``).

All cases of one opset are operations of one program: saved, read back and run once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from pairwise import pairwise

pytestmark = pytest.mark.fast

RANDOM = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.1, 3, shape).astype(np.float32)


def integers(low: int, high: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(low, high, shape).astype(np.int32)


@dataclass
class Case:
    name: str
    arrays: tuple[np.ndarray, ...]
    build: Callable[..., Any]
    opset: int = 17


X = normal(2, 3, 4, 5)
UNARY = {
    "abs": X,
    "acos": RANDOM.uniform(-0.9, 0.9, (3, 4)).astype(np.float32),
    "asin": RANDOM.uniform(-0.9, 0.9, (3, 4)).astype(np.float32),
    "atan": X,
    "atanh": RANDOM.uniform(-0.9, 0.9, (3, 4)).astype(np.float32),
    "ceil": X,
    "cos": X,
    "cosh": X,
    "erf": X,
    "exp": X,
    "exp2": X,
    "floor": X,
    "relu": X,
    "relu6": 6 * X,
    "round": np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49, 0.51], np.float32),
    "sigmoid": X,
    "sign": np.array([-2.0, 0.0, 3.0], np.float32),
    "sin": X,
    "sinh": X,
    "softplus": X,
    "softsign": X,
    "sqrt": positive(3, 4),
    "square": X,
    "tan": X,
    "tanh": X,
}
BINARY = {
    "add": X,
    "sub": X,
    "mul": X,
    "real_div": X,
    "maximum": X,
    "minimum": X,
    "floor_div": 5 * X,
    "mod": 5 * X,
    "pow": positive(2, 3, 4, 5),
}
COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
REDUCTIONS = (
    "reduce_l1_norm",
    "reduce_l2_norm",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "reduce_sum_square",
)
POSITIVE_REDUCTIONS = ("reduce_log_sum", "reduce_log_sum_exp")


def unary(op_type: str) -> Callable[..., Any]:
    return lambda mb, x: getattr(mb, op_type)(x=x)


def binary(op_type: str) -> Callable[..., Any]:
    return lambda mb, x, y: getattr(mb, op_type)(x=x, y=y)


def comparison(op_type: str) -> Callable[..., Any]:
    return lambda mb, x, y: mb.cast(x=getattr(mb, op_type)(x=x, y=y), dtype="int32")


def logical(op_type: str) -> Callable[..., Any]:
    return lambda mb, x, y: mb.cast(
        x=getattr(mb, op_type)(x=mb.cast(x=x, dtype="bool"), y=mb.cast(x=y, dtype="bool")),
        dtype="int32",
    )


def reduction(op_type: str, axes: list[int] | None, keep_dims: bool) -> Callable[..., Any]:
    given = {} if axes is None else {"axes": axes}
    return lambda mb, x: getattr(mb, op_type)(x=x, keep_dims=keep_dims, **given)


def attributes(op_type: str, **given: Any) -> Callable[..., Any]:
    return lambda mb, x: getattr(mb, op_type)(x=x, **given)


CASES = [
    *(Case(f"{name}", (x,), unary(name)) for name, x in UNARY.items()),
    *(Case(f"{name}", (x, positive(3, 1, 5)), binary(name)) for name, x in BINARY.items()),
    *(
        Case(f"int_{name}", (integers(-9, 9, 3, 4), integers(1, 5, 4)), binary(name))
        for name in ("add", "sub", "mul", "maximum", "minimum", "floor_div", "mod")
    ),
    *(
        Case(name, (integers(0, 3, 4, 5), integers(0, 3, 4, 5)), comparison(name))
        for name in COMPARISONS
    ),
    *(
        Case(name, (integers(0, 2, 4, 5), integers(0, 2, 4, 5)), logical(name))
        for name in ("logical_and", "logical_or", "logical_xor")
    ),
    *(
        Case(f"{name}_{keep}_{index}", (X,), reduction(name, axes, keep))
        for name, keep, (index, axes) in pairwise(
            REDUCTIONS, (False, True), list(enumerate(([1], [-1, 0], [2, 3], None)))
        )
    ),
    *(
        Case(f"{name}_{keep}", (positive(3, 4, 5),), reduction(name, [1], keep))
        for name in POSITIVE_REDUCTIONS
        for keep in (False, True)
    ),
    Case("argmax", (X,), attributes("reduce_argmax", axis=1)),
    Case("argmax_keep", (X,), attributes("reduce_argmax", axis=-1, keep_dims=True)),
    Case("argmin", (X,), attributes("reduce_argmin", axis=-2)),
    Case("clip", (X,), attributes("clip", alpha=-0.5, beta=0.7)),
    Case("threshold", (X,), attributes("threshold", alpha=0.25)),
    Case("rsqrt", (positive(3, 4),), attributes("rsqrt", epsilon=0.1)),
    Case("inverse", (positive(3, 4),), attributes("inverse", epsilon=0.1)),
    Case("log", (positive(3, 4),), attributes("log", epsilon=0.1)),
    Case("elu", (X,), attributes("elu", alpha=0.7)),
    Case("leaky_relu", (X,), attributes("leaky_relu", alpha=0.3)),
    Case("clamped_relu", (X,), attributes("clamped_relu", alpha=0.3, beta=0.8)),
    Case("linear_activation", (X,), attributes("linear_activation", alpha=0.3, beta=0.8)),
    Case("scaled_tanh", (X,), attributes("scaled_tanh", alpha=0.3, beta=0.8)),
    Case("sigmoid_hard", (5 * X,), attributes("sigmoid_hard", alpha=0.2, beta=0.4)),
    Case("thresholded_relu", (X,), attributes("thresholded_relu", alpha=0.3)),
    Case("prelu", (X,), attributes("prelu", alpha=np.float32([0.1, 0.2, 0.3]))),
    Case(
        "softplus_parametric",
        (X,),
        attributes(
            "softplus_parametric",
            alpha=np.float32([0.5, 1, 1.5]),
            beta=np.float32([1, 2, 3]),
        ),
    ),
    *(
        Case(f"gelu_{mode.lower()}", (X,), attributes("gelu", mode=mode))
        for mode in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    ),
    *(Case(f"softmax_{a % 4}", (X,), attributes("softmax", axis=a)) for a in (0, 1, -1)),
    Case("l2_norm", (X,), attributes("l2_norm", epsilon=0.1)),
    *(
        Case(
            f"layer_norm_{'_'.join(str(a % 4) for a in axes)}",
            (X,),
            attributes(
                "layer_norm",
                axes=axes,
                gamma=positive(*[X.shape[a] for a in sorted(a % 4 for a in axes)]),
                beta=normal(*[X.shape[a] for a in sorted(a % 4 for a in axes)]),
                epsilon=0.1,
            ),
        )
        for axes in ([1], [-1], [2, 3], [1, 2, 3], [1, 3])
    ),
    Case("linear", (normal(2, 3, 4),), attributes("linear", weight=normal(5, 4), bias=normal(5))),
    Case("matmul", (normal(2, 3, 4), normal(4, 5)), lambda mb, x, y: mb.matmul(x=x, y=y)),
    Case(
        "matmul_transposes",
        (normal(2, 4, 3), normal(2, 5, 4)),
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
    ),
    Case(
        "matmul_transpose_y",
        (normal(6, 2, 3, 4), normal(2, 5, 4)),
        lambda mb, x, y: mb.matmul(x=x, y=y, transpose_y=True),
    ),
    Case(
        "einsum",
        (normal(2, 3, 4, 5), normal(2, 5, 4, 6)),
        lambda mb, x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
    ),
    *(
        Case(f"cumsum_{axis}_{reverse}", (X,), attributes("cumsum", axis=axis, reverse=reverse))
        for axis in (0, 2)
        for reverse in (False, True)
    ),
    Case("argsort", (X,), attributes("argsort", axis=1)),
    Case("argsort_ascending", (X,), attributes("argsort", axis=-1, ascending=True)),
    Case("topk", (X,), lambda mb, x: mb.topk(x=x, k=2, axis=2)[0]),
    Case("topk_where", (X,), lambda mb, x: mb.topk(x=x, k=2, axis=2, ascending=True)[1]),
    Case("cast_int", (np.float32([-1.9, -0.5, 0.5, 1.5, 2.9]),), attributes("cast", dtype="int32")),
    Case("cast_float", (integers(-5, 5, 4),), attributes("cast", dtype="fp32")),
    Case(
        "cast_uint16",
        (np.float32([0.9, 70.2, 65535.0]),),
        lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="uint16"), dtype="int32"),
    ),
    Case(
        "cast_bool",
        (np.float32([0.0, 0.3, -2.0]),),
        lambda mb, x: mb.cast(x=mb.cast(x=x, dtype="bool"), dtype="fp32"),
    ),
    Case(
        "select",
        (integers(0, 2, 3, 4), normal(3, 4), normal(4)),
        lambda mb, c, a, b: mb.select(cond=mb.cast(x=c, dtype="bool"), a=a, b=b),
    ),
    Case("reshape", (X,), attributes("reshape", shape=[6, -1])),
    Case("reshape_zero", (X,), attributes("reshape", shape=[0, -1, 0]), 17),
    Case("reshape_zero_more_axes", (normal(2, 50),), attributes("reshape", shape=[1, 0, -1, 0])),
    Case("reshape_zero_same_rank", (X,), attributes("reshape", shape=[0, 1, -1, 0]), 15),
    Case("flatten2d", (X,), attributes("flatten2d", axis=2)),
    Case("expand_dims", (X,), attributes("expand_dims", axes=[-1])),
    Case("expand_dims_two", (normal(3, 4),), attributes("expand_dims", axes=[0, 2])),
    Case("squeeze", (normal(1, 3, 1, 4),), attributes("squeeze", axes=[-2])),
    Case("squeeze_all", (normal(1, 3, 1, 4),), attributes("squeeze")),
    Case("transpose", (X,), attributes("transpose", perm=[2, 0, 3, 1])),
    Case("tile", (normal(2, 3),), attributes("tile", reps=[2, 3])),
    Case("reverse", (X,), attributes("reverse", axes=[1, -1])),
    Case("reverse_all", (X,), attributes("reverse")),
    Case("split_even", (normal(4, 6),), lambda mb, x: mb.split(x=x, num_splits=3, axis=1)[2]),
    Case(
        "split_uneven",
        (normal(4, 6),),
        lambda mb, x: mb.split(x=x, split_sizes=[1, 3, 2], axis=-1)[1],
    ),
    Case("stack", (normal(2, 3), normal(2, 3)), lambda mb, x, y: mb.stack(values=(x, y), axis=1)),
    Case("concat", (normal(2, 3), normal(4, 3)), lambda mb, x, y: mb.concat(values=(x, y), axis=0)),
    Case("pad_constant", (X,), attributes("pad", pad=[1, 2, 0, 3], constant_val=-1.5)),
    Case("pad_reflect", (X,), attributes("pad", pad=[1, 2, 3, 4], mode="reflect")),
    Case("pad_replicate", (X,), attributes("pad", pad=[1, 2, 3, 4], mode="replicate")),
    Case("pad_batch", (X,), attributes("pad", pad=[1, 0, 0, 2, 0, 0, 0, 0], constant_val=0.0)),
    *(
        Case(f"slice_{index}", (normal(6, 7),), attributes("slice_by_index", **given))
        for index, given in enumerate(
            (
                {"begin": [1, 2], "end": [5, 6], "stride": [2, 3]},
                {"begin": [0, 0], "end": [0, 4], "end_mask": [True, False]},
                {"begin": [4, -1], "end": [1, -6], "stride": [-1, -2]},
                {
                    "begin": [0, 0],
                    "end": [0, 0],
                    "stride": [-1, 1],
                    "begin_mask": [True, True],
                    "end_mask": [True, True],
                },
                {"begin": [-4, 2], "end": [-1, 3], "squeeze_mask": [False, True]},
                {"begin": [2, 3], "end": [3, 5], "squeeze_mask": [True, False]},
            )
        )
    ),
    Case(
        "slice_by_size", (X,), attributes("slice_by_size", begin=[0, 1, -2, 0], size=[2, 2, 1, 3])
    ),
    Case("slice_rest", (X,), attributes("slice_by_size", begin=[1, 0, 1, 2], size=[1, 3, -1, -1])),
    Case("gather", (X, integers(0, 4, 2, 3)), lambda mb, x, i: mb.gather(x=x, indices=i, axis=2)),
    Case(
        "gather_batch",
        (X, integers(0, 4, 2, 3, 2)),
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=2, batch_dims=2),
    ),
    Case(
        "gather_batch_late_axis",
        (X, integers(0, 5, 2, 6)),
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=3, batch_dims=1),
        16,
    ),
    Case(
        "gather_negative",
        (X, integers(-3, 3, 4)),
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=1),
        15,
    ),
    Case(
        "gather_along_axis",
        (X, integers(0, 3, 2, 7, 4, 5)),
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=1),
    ),
    Case(
        "gather_along_axis_negative",
        (X, integers(-4, 4, 2, 3, 9, 5)),
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=2),
        16,
    ),
    *(
        Case(f"band_part_{index}", (normal(2, 4, 5),), attributes("band_part", lower=low, upper=up))
        for index, (low, up) in enumerate(((-1, 0), (0, -1), (1, 2), (0, 0)))
    ),
    Case("fill_like", (X,), lambda mb, x: mb.fill_like(ref_tensor=x, value=2.5)),
    Case("shape", (X,), attributes("shape")),
    Case("identity", (X,), attributes("identity")),
    Case(
        "attention",
        (normal(2, 3, 6, 8), normal(2, 3, 5, 8), normal(2, 3, 5, 4)),
        lambda mb, q, k, v: mb.scaled_dot_product_attention(query=q, key=k, value=v),
        18,
    ),
    Case(
        "slice_update",
        (normal(6, 7), normal(2, 3)),
        lambda mb, x, u: mb.slice_update(x=x, update=u, begin=[1, 5], end=[5, 0], stride=[2, -2]),
        18,
    ),
]


@pytest.fixture(scope="module")
def results(execute: Callable[..., Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the runtime and coremltools compute, by case."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for opset in sorted({case.opset for case in CASES}):
        cases = [case for case in CASES if case.opset == opset]
        inputs = {
            f"in_{case.name}_{index}": array
            for case in cases
            for index, array in enumerate(case.arrays)
        }
        folded: dict[str, np.ndarray] = {}

        def build(
            mb: Any, cases: list[Case] = cases, folded: dict[str, Any] = folded, **variables: Any
        ) -> dict[str, Any]:
            built = {}
            for case in cases:
                given = [variables[f"in_{case.name}_{index}"] for index in range(len(case.arrays))]
                built[f"out_{case.name}"] = case.build(mb, *given)
                # A copy, because some of coremltools' own folding works in place.
                constants = [mb.const(val=array.copy()) for array in case.arrays]
                folded[case.name] = np.asarray(case.build(mb, *constants).val)
            return built

        computed = execute(build, inputs, opset)
        for case in cases:
            found[case.name] = computed[f"out_{case.name}"], folded[case.name]
    return found


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_operation_agrees_with_coremltools_constant_folding(
    name: str, results: dict[str, tuple[np.ndarray, np.ndarray]]
) -> None:
    value, expected = results[name]
    assert expected.dtype != object, "coremltools folded nothing"
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)
