"""Core ML beside the portable runtime, with a stand-in for Core ML, which only a Mac has."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from packages import converted, small_checkpoint

from mvit_coreml import ValidateOptions, validate
from mvit_coreml.errors import InputError
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package

pytestmark = pytest.mark.fast

OFFSET = 0.25


class OffsetModel:
    """Answers like the package, but for an offset on every score."""

    def __init__(self, path: str, compute_units: Any) -> None:
        self.runtime = Runtime(load_package(path))

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        answer = self.runtime.run({name: np.asarray(image) for name, image in inputs.items()})
        return {"logits": answer["logits"] + OFFSET}


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has the real one")
def test_both_engines_are_compared_output_by_output(monkeypatch: pytest.MonkeyPatch) -> None:
    package, _ = converted("mobilenet_v2", output="logits")
    checkpoint = small_checkpoint("mobilenet_v2")
    with pytest.raises(InputError, match="needs macOS"):
        validate(package.path, checkpoint, options=ValidateOptions(engine="both", pictures=1))
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(load_coremltools().models, "MLModel", OffsetModel)
    report = validate(
        package.path,
        checkpoint,
        options=ValidateOptions(engine="both", structure=False, pictures=3),
    )
    assert report.engine == "coreml"
    assert report.engines is not None
    assert report.engines["logits"].max_error == pytest.approx(OFFSET, rel=1e-3)
    # Core ML is the one that is judged.
    assert report.outputs["logits"].max_error > OFFSET / 2
    assert not report.passed
    alone = validate(
        package.path,
        checkpoint,
        options=ValidateOptions(engine="portable", structure=False, pictures=3),
    )
    assert alone.engines is None
    assert alone.passed
