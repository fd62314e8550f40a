"""Where a function's raw scores are, whatever it makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from packages import converted, image

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import (
    Function,
    Metadata,
    NamedValue,
    Operation,
    OutputFeature,
    Package,
    Reference,
    Scores,
    find_scores,
    head_activation,
    raw_scores_name,
)
from mvit_coreml.mil.value_types import DATA_TYPES, TensorType

pytestmark = pytest.mark.fast


def function(chain: str, outputs: dict[str, str], kind: str = "array") -> Function:
    """Build a function whose operations each take the one before: ``a=conv b=softmax``.

    An operation that takes another value is written ``b=softmax(a)``.
    """
    operations, before = [], "image"
    for part in chain.split():
        name, _, op_type = part.partition("=")
        op_type, _, source = op_type.rstrip(")").partition("(")
        given = {} if op_type == "const" else {"x": (Reference(source or before),)}
        value = NamedValue(name, TensorType(next(iter(DATA_TYPES.values())), (1,)))
        operations.append(Operation(op_type, name, given, (value,)))
        if op_type != "const":
            before = name
    return Function(
        name="main",
        opset=17,
        inputs=(),
        outputs=tuple(OutputFeature(output, kind) for output in outputs),  # type: ignore[arg-type]
        arguments=(),
        results=tuple(outputs.values()),
        operations=tuple(operations),
    )


def package_of(function: Function, activation: str | None = None) -> Package:
    """Return a package of one function whose metadata names an activation."""
    stored = {} if activation is None else {"mvit_coreml.activation": activation}
    return Package(
        path=Path("chain.mlpackage"),
        specification_version=8,
        functions={"main": function},
        default_function="main",
        metadata=Metadata(user_defined=stored),
    )


def scores_of(function: Function) -> Scores:
    return find_scores(package_of(function), function)


@pytest.mark.parametrize(
    ("chain", "outputs", "wanted"),
    [
        ("w=const a=conv b=softmax", {"probabilities": "b"}, Scores("a", "softmax")),
        ("a=linear b=softmax c=cast d=classify", {"label": "d"}, Scores("a", "softmax")),
        (
            "a=conv b=upsample_bilinear c=reduce_argmax d=squeeze",
            {"classes": "d"},
            Scores("a", "softmax"),
        ),
        ("a=conv b=cast c=resize_bilinear d=cast e=softmax", {"maps": "e"}, Scores("a", "softmax")),
        ("a=linear b=cast", {"logits": "b"}, Scores("a", "softmax")),
        ("a=conv b=resize_bilinear c=identity", {"logits": "b"}, Scores("a", "softmax")),
        ("a=conv b=relu", {"features": "b"}, Scores("b", "none")),
        ("a=conv b=relu c=reduce_mean", {"features": "b", "pooled": "c"}, Scores("b", "none")),
        # The softmax of an attention is none of scores.
        ("a=linear b=softmax c=matmul", {"features": "c"}, Scores("c", "none")),
        ("a=linear b=softmax c=matmul d=softmax", {"probabilities": "d"}, Scores("c", "softmax")),
        ("a=conv b=softmax k=const", {"probabilities": "b"}, Scores("a", "softmax")),
        ("a=linear b=sigmoid c=cast d=classify", {"label": "d"}, Scores("a", "sigmoid")),
        # A gate inside the network is no activation of scores.
        ("a=linear b=sigmoid c=mul", {"features": "c"}, Scores("c", "none")),
        # Of a map, the largest probability is the confidence.
        ("a=conv b=softmax c=reduce_max d=squeeze", {"confidence": "d"}, Scores("a", "softmax")),
    ],
)
def test_scores_are_what_the_answer_is_made_of(
    chain: str, outputs: dict[str, str], wanted: Scores
) -> None:
    assert scores_of(function(chain, outputs)) == wanted


def test_only_a_final_softmax_or_argmax_names_raw_scores() -> None:
    assert raw_scores_name(function("a=conv b=softmax c=cast", {"p": "c"})) == "a"
    assert (
        raw_scores_name(function("a=conv b=upsample_bilinear c=reduce_argmax", {"p": "c"})) == "b"
    )
    assert raw_scores_name(function("a=conv b=softmax c=mul", {"p": "c"})) is None
    assert raw_scores_name(function("a=conv", {"p": "a"})) is None
    assert raw_scores_name(function("", {})) is None


def test_the_program_says_what_scores_go_through_and_of_logits_the_metadata() -> None:
    logits = function("a=linear", {"logits": "a"})
    ends = function("a=linear b=sigmoid c=classify", {"label": "c"})
    assert head_activation(package_of(ends, "softmax"), ends) == "sigmoid"
    assert head_activation(package_of(logits), logits) == "softmax"
    assert head_activation(package_of(logits, "of another time"), logits) == "softmax"
    for activation in ("softmax", "sigmoid", "none"):
        package = package_of(logits, activation)
        assert head_activation(package, logits) == activation
        assert find_scores(package, logits) == Scores("a", activation)


def test_a_function_without_scores_or_arrays_is_refused() -> None:
    with pytest.raises(PackageError, match="'main' returns neither scores nor arrays"):
        scores_of(function("a=conv b=relu", {"label": "b"}, "string"))


def test_a_picture_counts_where_there_is_nothing_else() -> None:
    assert scores_of(function("a=conv b=relu", {"picture": "b"}, "image")) == Scores("b", "none")


def test_outputs_that_do_not_follow_from_each_other_count_together() -> None:
    detector = function("a=conv b=relu c=conv(a) d=cast(b)", {"b": "b", "c": "c", "d": "d"})
    assert scores_of(detector) == Scores("b", "none", ("c",))
    # Boxes are no less of an answer because the scores beside them come last, behind a softmax.
    softmax = function("a=conv b=relu c=conv(a) d=softmax", {"boxes": "b", "scores": "d"})
    assert scores_of(softmax) == Scores("b", "none", ("d",))


@pytest.mark.parametrize(
    ("shape", "num_labels", "of_classes"),
    [((1, 1000), None, True), ((1, 512), None, False), ((1, 512), 512, True), ((1, 512), 9, False)],
)
def test_a_vector_is_of_classes_if_it_is_as_long(
    shape: tuple[int, ...], num_labels: int | None, of_classes: bool
) -> None:
    plain = function("a=linear", {"var_7": "a"})
    outputs = (OutputFeature("var_7", "array", shape),)
    changed = Function(**{**vars(plain), "outputs": outputs})
    activation = "softmax" if of_classes else "none"
    assert find_scores(package_of(changed), changed, num_labels) == Scores("a", activation)


def test_the_first_array_counts_where_there_are_no_scores() -> None:
    mixed = function("a=conv b=relu", {"picture": "a", "features": "b"})
    outputs = (OutputFeature("picture", "image"), OutputFeature("features", "array"))
    changed = Function(**{**vars(mixed), "outputs": outputs})
    assert scores_of(changed) == Scores("b", "none")


@pytest.mark.parametrize(
    ("family", "task"),
    [("mobilevit", "image-classification"), ("mobilenet_v2", "semantic-segmentation")],
)
def test_the_scores_of_a_package_lead_to_its_answer(family: str, task: str) -> None:
    saved, _ = converted(family, task)
    package = load_package(saved.path)
    scores = find_scores(package, package.function())
    assert scores.activation == "softmax"
    runtime = Runtime(package, arithmetic="fp32")
    (name,) = [feature.name for feature in package.function().inputs]
    answer = runtime.run({name: image()}, intermediates=[scores.name])
    found = answer[scores.name]
    if task == "image-classification":
        shown = next(value for value in answer.values() if isinstance(value, dict))
        powers = np.exp(found[0] - found.max())
        # Of labels that stand twice, each has its own entry.
        np.testing.assert_allclose(list(shown.values()), powers / powers.sum(), rtol=1e-4)
    else:
        classes = next(value for key, value in answer.items() if key != scores.name)
        best = found[0].argmax(0)
        rows, columns = (
            np.arange(extent) * part // extent
            for extent, part in zip(classes.shape[-2:], best.shape, strict=True)
        )
        coarse = best[rows][:, columns]
        assert np.mean(coarse == classes.reshape(coarse.shape)) > 0.6
