"""``precision="mixed"``: in fp32 stays what leaves fp16's range, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packages import small_checkpoint

from mvit_coreml import Checkpoint, ConvertOptions, ValidateOptions, convert, validate
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError
from mvit_coreml.mil.package_reader import load_package

# The stem's output feeds nothing but the first block's expansion: a linear pair.
PROJECTION = (
    "conv_stem.reduce_1x1.normalization.weight",
    "conv_stem.reduce_1x1.normalization.bias",
)
EXPANSION = "layer.0.expand_1x1.convolution.weight"


def rescaled(factor: float) -> Checkpoint:
    """A MobileNetV2 whose values between two convolutions are ``factor`` times as large."""
    checkpoint = small_checkpoint("mobilenet_v2")
    weights = {name: value.clone() for name, value in checkpoint.weights.items()}
    scaled = [name for name in weights if name.endswith(PROJECTION)]
    unscaled = [name for name in weights if name.endswith(EXPANSION)]
    assert (len(scaled), len(unscaled)) == (2, 1)
    for name in scaled:
        weights[name] *= factor
    weights[unscaled[0]] /= factor
    return replace(checkpoint, weights=weights)


@pytest.fixture(scope="module")
def far() -> Checkpoint:
    """Values in the millions."""
    return rescaled(1e6)


def fp32_results(path: Path) -> list[str]:
    """Types of the operations that compute in fp32, but for casts and the input's scaling."""
    function = load_package(path).function(None)
    return [
        operation.op_type
        for operation in function.operations
        if not operation.is_constant
        and operation.op_type not in ("cast", "classify", "mul", "add")
        and "fp32" in str(getattr(operation.outputs[0].type, "data_type", ""))
    ]


def test_half_precision_alone_fails_its_gate(far: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="--precision mixed"):
        convert(far, ConvertOptions(bits=None), tmp_path / "far.mlpackage")
    assert not (tmp_path / "far.mlpackage").exists()


@pytest.mark.parametrize("bits", [None, 6])
def test_the_operations_out_of_range_stay_in_fp32(
    far: Checkpoint, tmp_path: Path, bits: Any
) -> None:
    path = tmp_path / "far.mlpackage"
    options = ConvertOptions(
        precision="mixed",
        bits=bits,
        kmeans_only=bits is not None,
        promise=None if bits is None else Promise(min_snr=-100),
    )
    package = convert(far, options, path)
    # The convolution that gives the large values, and the one that takes them.
    assert fp32_results(path) == ["conv", "conv"]
    assert package.options.fp32_operations is not None
    assert len(package.options.fp32_operations) == 2
    (note,) = [note for note in package.notes if "kept in fp32" in note]
    assert "reaches" in note
    assert note.count("conv") == 2
    if bits is None:
        assert package.parity is not None
        assert package.parity.scores.snr > 35


def test_a_mixed_package_is_compared_with_what_it_ought_to_be(
    far: Checkpoint, tmp_path: Path
) -> None:
    path = tmp_path / "far.mlpackage"
    convert(far, ConvertOptions(precision="mixed", bits=None), path, check=False)
    report = validate(path, far, options=ValidateOptions(pictures=2))
    assert report.differences == ()
    stored = load_package(path).metadata.user_defined["mvit_coreml.fp32_operations"]
    assert len(json.loads(stored)) == 2


def test_a_model_within_range_is_all_fp16(tmp_path: Path) -> None:
    path = tmp_path / "near.mlpackage"
    options = ConvertOptions(precision="mixed", bits=None)
    package = convert(small_checkpoint("mobilenet_v2"), options, path)
    assert fp32_results(path) == []
    assert any("every operation is safe in fp16" in note for note in package.notes)


def test_tiny_values_stay_in_fp32(tmp_path: Path) -> None:
    options = ConvertOptions(precision="mixed", bits=None)
    package = convert(rescaled(1e-7), options, tmp_path / "tiny.mlpackage")
    assert fp32_results(tmp_path / "tiny.mlpackage") == ["conv", "conv"]
    assert any("is typically" in note for note in package.notes)
