"""Apple's values: coremltools' own tests of operations, with the portable runtime predicting."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import pytest
from apple_op_tests import Outcome, run_op_tests

# What fails here, and why. Skipped besides: what predicts with a neuralnetwork, expects values of
# TensorFlow, is for another version of an operation, or is known by Apple to fail on a Mac.
OUT_OF_SCOPE = {
    r"iOS15/\w+::TestCropResize::test_builder_to_backend_smoke": "a box of [2, 2, 1, 1] in units "
    "of the image gives the whole image, which no documented formula does",
    r"iOS1[67]/\w+::TestCropResize::test_builder_to_backend_ios.*fp32": "expects 7.899 of 7.9",
    r"iOS15/\w+::TestResample::test_builder_to_backend_smoke.*fp32": "counts the casts of an fp16 "
    "program, after its values agreed",
    r"iOS17/\w+::Test(Scatter|Gather)\w*::test_\w*invalid_indices": "takes an undefined index that "
    "the program does not have checked; here it is an error anyway",
}
FEW = (
    "iOS14.test_control_flow",
    "iOS14.test_scatter_gather",
    "iOS18.test_states",
)


def failures(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [
        f"{name}: {outcome.reason}"
        for name, outcome in outcomes.items()
        if outcome.kind == "fails" and not any(re.match(scope, name) for scope in OUT_OF_SCOPE)
    ]


def test_loops_lists_gathers_scatters_and_states_give_what_apple_expects() -> None:
    suite = run_op_tests(1, *FEW)
    kinds = Counter(outcome.kind for outcome in suite.outcomes.values())
    assert not failures(suite.outcomes), "\n".join(failures(suite.outcomes))
    assert kinds["agrees"] >= 20


@pytest.mark.slow
def test_a_sample_of_every_test_gives_what_apple_expects() -> None:
    suite = run_op_tests(4, opsets=True)
    kinds = Counter(outcome.kind for outcome in suite.outcomes.values())
    print(dict(kinds), "of", suite.collected)
    assert not failures(suite.outcomes), "\n".join(failures(suite.outcomes))
    assert kinds["agrees"] >= 800
