"""Programs: targets, precision, palettes, several sizes, and the same bytes every time."""

from __future__ import annotations

import numpy as np
import pytest
from fresh_process import CASES, fresh_process
from package_cache import converted_package
from packages import converted, make_checkpoint, read_tree
from standins import PUBLISHED

from mvit_coreml import ConvertOptions

SEGMENTER = "semantic-segmentation"
SIZES = ((64, 64), (96, 64))
# With palettes.
SEVERAL_SIZES = {"bits": 4, "ios": 18, "image_sizes": SIZES}
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
# Deployment target to version of the specification.
SPECIFICATIONS = {16: 7, 17: 8, 18: 9, 26: 10}


@pytest.mark.parametrize("ios", SPECIFICATIONS)
def test_every_target_has_its_specification_and_opset(ios):
    _, package = converted("mobilenet_v2", ios=ios)
    assert package.spec.specificationVersion == SPECIFICATIONS[ios]
    assert package.spec.WhichOneof("Type") == "mlProgram"
    opset = package.spec.mlProgram.functions["main"].opset
    assert opset == f"CoreML{SPECIFICATIONS[ios] - 1 if ios < 26 else 9}"


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", np.float16), ("fp32", np.float32)])
def test_all_weights_have_the_chosen_precision(precision, dtype):
    _, package = converted("mobilevit", precision=precision)
    program = package.program()
    weights = [op.weight.val for op in program if op.op_type in ("conv", "linear")]
    assert {weight.dtype for weight in weights} == {np.dtype(dtype)}
    assert ("cast" in package.census()) == (precision == "fp16")


def test_outputs_are_single_precision_whatever_the_program_computes_in():
    _, package = converted("mobilenet_v2", output="logits")
    assert package.program()[-1].outputs[0].dtype.__name__ == "fp32"
    assert package.interface()["logits"][0] == "float32"


def test_half_precision_halves_the_weights():
    half, single = (
        len(converted("mobilevit", precision=precision)[1].files()[WEIGHTS])
        for precision in ("fp16", "fp32")
    )
    assert half < 0.6 * single


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_palettes_have_as_many_entries_as_the_bits_allow(bits):
    _, package = converted("mobilenet_v2", bits=bits)
    # Read with the tables as operations, not with the weights that they stand for.
    found = [op.lut.val.size for op in package.program() if op.op_type == "constexpr_lut_to_dense"]
    assert len(found) > 10
    assert set(found) == {2**bits}
    assert package.size < converted("mobilenet_v2")[1].size
    assert package.user_defined["mvit_coreml.bits"] == str(bits)


def test_functions_of_several_sizes_share_their_weights():
    result, package = converted("mobilenet_v2", ios=18, image_sizes=SIZES)
    _, single = converted("mobilenet_v2", ios=18)
    assert result.functions == {"size_64x64": (64, 64), "size_96x64": (96, 64)}
    assert len(package.spec.mlProgram.functions) == 2
    assert len(package.files()[WEIGHTS]) <= 1.02 * len(single.files()[WEIGHTS])


def test_weights_of_a_full_size_model_are_shared():
    """Two sizes of one package cost two programs but one set of weights: 2 % more in all."""
    config, task, _ = PUBLISHED["mobilenet_v2_1.0_224"]
    checkpoint = make_checkpoint(config, task, 96)
    size = {}
    for name, sizes in (("one", ((96, 96),)), ("two", ((96, 96), (128, 128)))):
        options = ConvertOptions(bits=None, ios=18, image_sizes=sizes)
        size[name] = converted_package(checkpoint, options).size
    assert size["two"] <= 1.02 * size["one"]


def test_the_first_size_is_the_default_function():
    _, package = converted("mobilenet_v2", ios=18, image_sizes=SIZES)
    description = package.spec.description
    assert description.defaultFunctionName == "size_64x64"
    inputs = {f.name: f.input[0].type.imageType for f in description.functions}
    assert {name: (i.height, i.width) for name, i in inputs.items()} == {
        "size_64x64": (64, 64),
        "size_96x64": (96, 64),
    }
    assert all(f.predictedFeatureName == "classLabel" for f in description.functions)


def test_several_sizes_of_a_segmenter_answer_maps_of_their_size():
    _, package = converted("mobilenet_v2", SEGMENTER, **SEVERAL_SIZES)
    shapes = [
        tuple(f.output[0].type.multiArrayType.shape) for f in package.spec.description.functions
    ]
    assert shapes == [(64, 64), (96, 64)]


def test_two_processes_write_the_same_bytes(tmp_path_factory):
    folder = fresh_process(tmp_path_factory).folder
    for name, (family, task, options) in CASES.items():
        here, _ = converted(family, task, **options)
        there = folder / f"{name}.mlpackage"
        assert read_tree(there) == read_tree(here.path), name
        assert len(read_tree(there)) == 3
        plan = there.with_suffix(".plan.toml")
        assert plan.exists() == (here.plan is not None)
        if here.plan is not None:
            assert plan.read_bytes() == here.plan.read_bytes()


def test_the_manifest_changes_with_what_is_converted():
    _, package = converted("mobilenet_v2")
    _, other = converted("mobilenet_v2", output="logits")
    assert package.files()["Manifest.json"] != other.files()["Manifest.json"]
