"""coremltools' own tests of MIL operations, run with the portable runtime in place of Core ML.

The wheel ships them (``coremltools.converters.mil.mil.ops.tests``) with the values that Apple
expects of Core ML. On Linux they convert and stop there; here they predict and compare as well,
with their own tolerances and with ours, which are tighter in fp16.
"""

from __future__ import annotations

import contextlib
import io
import os
import platform
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import pytest

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package

_TESTS = "coremltools.converters.mil.mil.ops.tests"
# Largest error, of the largest expected value: sums of fp16 values in another order differ by
# some units in their last place (2**-10), those of fp32 by far less.
_BOUNDS = {"fp16": 1e-2, "fp32": 1e-3}


@dataclass
class Outcome:
    """What became of one test.

    Attributes:
        name: module, class, function and parameters.
        kind: ``agrees``, ``compares nothing`` (the test predicts nothing), ``skipped``, ``fails``.
        reason: of a skip or failure, its last line.
        error: largest error that was compared, of the largest expected value, by precision.
    """

    name: str
    kind: str = "compares nothing"
    reason: str = ""
    error: dict[str, float] = field(default_factory=dict)


class _Suite:
    """A pytest plugin that samples the tests and notes what becomes of each."""

    def __init__(self, sample: int) -> None:
        self.sample = sample
        self.collected = 0
        self.outcomes: dict[str, Outcome] = {}
        self.current = Outcome("")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.collected = len(items)
        by_function: dict[str, list[pytest.Item]] = defaultdict(list)
        for item in items:
            # Newer versions of an operation have the same tests, in another module.
            by_function[item.nodeid.partition("::")[2].split("[")[0]].append(item)
        chosen = random.Random(0)
        items[:] = [
            item
            for cases in by_function.values()
            for item in chosen.sample(cases, min(self.sample, len(cases)))
        ]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        np.random.seed(0)  # noqa: NPY002 (the tests draw from it)
        name = f"{item.path.parent.name}/{item.path.stem}::{item.nodeid.partition('::')[2]}"
        self.current = self.outcomes[name] = Outcome(name)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.skipped:
            self.current.kind = "fails" if report.failed else "skipped"
            self.current.reason = _last_line(report)

    def predict(self, model: Any, data: dict[str, Any], state: Any = None) -> dict[str, Any]:
        """Stand in for ``MLModel.predict``."""
        if model.package_path is None:
            pytest.skip("it predicts with a neuralnetwork as well")
        if self.current.kind == "compares nothing":
            self.current.kind = "agrees"
        try:
            return Runtime(load_package(model.package_path)).run(data, state=state)
        except PackageError as error:
            # coremltools' error, which some tests ask for.
            message = f"Unable to compute the prediction using ML Program: {error}"
            raise RuntimeError(message) from None

    def compare(self, compare_backend: Any, *args: Any, **kwargs: Any) -> Any:
        """Compare as coremltools does, then with the tighter bound."""
        # Where some values are fp16, an fp32 program rounds them too: its tolerance is too tight.
        if "numpy.float16" in self.current.name or "dtype=fp16" in self.current.name:
            kwargs["dtype"] = "fp16"
        precision = kwargs.get("dtype", "fp32")
        predicted = compare_backend(*args, **kwargs)
        for name, expected in kwargs["expected_outputs"].items():
            error = _relative_error(predicted[name], expected)
            self.current.error[precision] = max(error, self.current.error.get(precision, 0.0))
            assert error <= _BOUNDS[precision], f"an error of {error:.3g} of the largest value"
        return predicted


def _relative_error(value: Any, expected: Any) -> float:
    if not isinstance(value, np.ndarray) or not value.size:
        return 0.0
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    finite = np.isfinite(expected)
    largest = np.abs(expected[finite]).max(initial=0.0)
    return float(np.abs(value - expected)[finite].max(initial=0.0) / max(largest, 1e-6))


def _last_line(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    return " ".join(text.split())[:300]


def run_op_tests(sample: int, *modules: str, opsets: bool = False) -> _Suite:
    """Run up to ``sample`` cases of every test function of some modules, all if none is named.

    Args:
        sample: number of cases, the same ones each time.
        *modules: such as ``iOS14.test_pool``.
        opsets: whether to run each test for every later iOS too.
    """
    suite = _Suite(sample)
    arguments = [f"{_TESTS}.{module}" for module in modules] or [_TESTS]
    with _portable_prediction(suite, opsets), contextlib.redirect_stdout(io.StringIO()) as printed:
        code = pytest.main(
            ["--pyargs", *arguments, "-q", "-p", "no:cacheprovider", "-c", os.devnull],
            plugins=[suite],
        )
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), printed.getvalue()[-2000:]
    return suite


@contextlib.contextmanager
def _portable_prediction(suite: _Suite, opsets: bool) -> Iterator[None]:
    environment = {
        "PYMIL_TEST_TARGETS": "mlprogram",
        "INCLUDE_MIL_FP32_UNIT_TESTS": "1",
        "RUN_BACKWARD_COMPATIBILITY": str(int(opsets)),
    }
    with mock.patch.dict(os.environ, environment), contextlib.ExitStack() as patches:
        import coremltools
        from coremltools.models import utils

        # Read by the tests' modules when they are imported.
        patches.enter_context(mock.patch.object(utils, "_macos_version", return_value=(26, 0)))
        from coremltools.converters.mil import testing_utils
        from coremltools.converters.mil.mil.ops.tests import testing_utils as op_testing_utils

        original = testing_utils.compare_backend

        def compare(*args: Any, **kwargs: Any) -> Any:
            return suite.compare(original, *args, **kwargs)

        def predict(model: Any, data: Any, state: Any = None) -> Any:
            return suite.predict(model, data, state)

        def make_state(model: Any) -> Any:
            return Runtime(load_package(model.package_path)).make_state()

        for owner, name, value in (
            (platform, "machine", lambda: "arm64"),
            (testing_utils, "_IS_MACOS", True),
            (testing_utils, "compare_backend", compare),
            (op_testing_utils, "compare_backend", compare),
            (coremltools.models.MLModel, "predict", predict),
            (coremltools.models.MLModel, "make_state", make_state),
        ):
            patches.enter_context(mock.patch.object(owner, name, value))
        yield


def main() -> None:
    """Print what becomes of a sample: ``python apple_op_tests.py SAMPLE [MODULE ...]``."""
    import sys

    suite = run_op_tests(int(sys.argv[1]), *sys.argv[2:], opsets=True)
    by_kind: dict[str, int] = defaultdict(int)
    for outcome in suite.outcomes.values():
        by_kind[outcome.kind] += 1
        if outcome.kind in ("fails", "skipped"):
            print(f"{outcome.kind}: {outcome.name}: {outcome.reason}")
    print(suite.collected, dict(by_kind))


if __name__ == "__main__":
    main()
