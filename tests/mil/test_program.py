"""Where a function's raw scores are, whatever it makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from packages import converted, image

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import (
    Function,
    NamedValue,
    Operation,
    OutputFeature,
    Reference,
    Scores,
    find_scores,
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


@pytest.mark.parametrize(
    ("chain", "outputs", "wanted"),
    [
        ("w=const a=conv b=softmax", {"probabilities": "b"}, Scores("a", True)),
        ("a=linear b=softmax c=cast d=classify", {"label": "d"}, Scores("a", True)),
        (
            "a=conv b=upsample_bilinear c=reduce_argmax d=squeeze",
            {"classes": "d"},
            Scores("a", True),
        ),
        ("a=conv b=cast c=resize_bilinear d=cast e=softmax", {"maps": "e"}, Scores("a", True)),
        ("a=linear b=cast", {"logits": "b"}, Scores("a", True)),
        ("a=conv b=resize_bilinear c=identity", {"logits": "b"}, Scores("a", True)),
        ("a=conv b=relu", {"features": "b"}, Scores("b", False)),
        ("a=conv b=relu c=reduce_mean", {"features": "b", "pooled": "c"}, Scores("b", False)),
        # The softmax of an attention is none of scores.
        ("a=linear b=softmax c=matmul", {"features": "c"}, Scores("c", False)),
        ("a=linear b=softmax c=matmul d=softmax", {"probabilities": "d"}, Scores("c", True)),
        ("a=conv b=softmax k=const", {"probabilities": "b"}, Scores("a", True)),
    ],
)
def test_scores_are_what_the_answer_is_made_of(
    chain: str, outputs: dict[str, str], wanted: Scores
) -> None:
    assert find_scores(function(chain, outputs)) == wanted


def test_only_a_final_softmax_or_argmax_names_raw_scores() -> None:
    assert raw_scores_name(function("a=conv b=softmax c=cast", {"p": "c"})) == "a"
    assert (
        raw_scores_name(function("a=conv b=upsample_bilinear c=reduce_argmax", {"p": "c"})) == "b"
    )
    assert raw_scores_name(function("a=conv b=softmax c=mul", {"p": "c"})) is None
    assert raw_scores_name(function("a=conv", {"p": "a"})) is None
    assert raw_scores_name(function("", {})) is None


def test_a_function_without_scores_or_arrays_is_refused() -> None:
    with pytest.raises(PackageError, match="'main' returns neither scores nor arrays"):
        find_scores(function("a=conv b=relu", {"label": "b"}, "string"))


def test_a_picture_counts_where_there_is_nothing_else() -> None:
    assert find_scores(function("a=conv b=relu", {"picture": "b"}, "image")) == Scores("b", False)


def test_outputs_that_do_not_follow_from_each_other_count_together() -> None:
    detector = function("a=conv b=relu c=conv(a) d=cast(b)", {"b": "b", "c": "c", "d": "d"})
    assert find_scores(detector) == Scores("b", False, ("c",))
    # Boxes are no less of an answer because the scores beside them come last, behind a softmax.
    softmax = function("a=conv b=relu c=conv(a) d=softmax", {"boxes": "b", "scores": "d"})
    assert find_scores(softmax) == Scores("b", False, ("d",))


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
    assert find_scores(changed, num_labels) == Scores("a", of_classes)


def test_the_first_array_counts_where_there_are_no_scores() -> None:
    mixed = function("a=conv b=relu", {"picture": "a", "features": "b"})
    outputs = (OutputFeature("picture", "image"), OutputFeature("features", "array"))
    changed = Function(**{**vars(mixed), "outputs": outputs})
    assert find_scores(changed) == Scores("b", False)


@pytest.mark.parametrize(
    ("family", "task"),
    [("mobilevit", "image-classification"), ("mobilenet_v2", "semantic-segmentation")],
)
def test_the_scores_of_a_package_lead_to_its_answer(family: str, task: str) -> None:
    saved, _ = converted(family, task)
    package = load_package(saved.path)
    scores = find_scores(package.function())
    assert scores.of_classes
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
