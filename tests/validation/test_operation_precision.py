"""Where the error of a package enters."""

from __future__ import annotations

import numpy as np
import pytest
from faults.editor import PackageEditor
from packages import converted

from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.validation.operation_precision import layer_errors

PHOTOS = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8) for seed in range(2)]
OPTIONS = {"precision": "fp32", "output": "logits"}


@pytest.fixture(scope="module")
def exact():
    return load_package(converted("mobilenet_v2", **OPTIONS)[0].path)


def errors(path, exact):
    target = PackageTarget(Predictor(path, engine="portable"))
    return target, layer_errors(target, exact, PHOTOS)


def test_a_package_without_rounding_has_no_error_anywhere(exact):
    _, found = errors(exact.path, exact)
    census = converted("mobilenet_v2", **OPTIONS)[1].census()
    assert len(found) == sum(census.values())
    assert min(layer.snr for layer in found) == 300
    assert {layer.drop for layer in found} == {0}


def test_the_drop_is_largest_where_a_weight_is_wrong(exact):
    editor = PackageEditor(exact.path)
    conv = editor.ops("conv")[20]
    noise = np.random.default_rng(0)
    editor.change(conv, "weight", lambda weight: weight * noise.normal(1, 0.1, weight.shape))
    name = conv.outputs[0].name
    target, found = errors(editor.save(), exact)
    worst = max(found, key=lambda layer: layer.drop)
    place = next(i for i, layer in enumerate(found) if layer is worst)
    assert worst.op_type == "conv"
    # Nothing before it is affected, and its own figure is that of its results.
    assert {layer.snr for layer in found[:place]} == {300}
    signal = power = 0.0
    for photo in PHOTOS:
        pixels = target.preparation(photo).pixels
        one, other = (
            Runtime(package).run({"image": pixels}, [], [name])[name].astype(np.float64)
            for package in (target.package, exact)
        )
        signal, power = signal + (other**2).sum(), power + ((one - other) ** 2).sum()
    assert worst.snr == pytest.approx(10 * np.log10(signal / power), abs=1e-3)
    assert worst.drop == pytest.approx(300 - worst.snr)
