"""Reading packages: what apps see of them, what they hold, and what makes them unreadable."""

from __future__ import annotations

import json
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh_process import fresh_process
from torch import nn, zeros

from mvit_coreml.errors import PackageError
from mvit_coreml.mil import package_reader
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_check import check_package
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import ArrayFeature, Constant, ImageFeature
from mvit_coreml.mil.value_types import DATA_TYPES, TensorType, unpack_bits
from mvit_coreml.mil.weight_file import WeightFile

SPECIFICATION = Path("Data/com.apple.CoreML/model.mlmodel")
WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")


def test_package_tells_inputs_outputs_labels_and_target(classifier_package: Path) -> None:
    package = load_package(classifier_package)
    assert package.specification_version == 8
    assert package.function().inputs == (ImageFeature("image", 24, 32, "bgr"),)
    assert [(o.name, o.kind) for o in package.function().outputs] == [
        ("classLabel", "string"),
        ("classLabel_probs", "dictionary"),
    ]
    function = package.function()
    assert function.opset == 17
    assert function.labels == tuple("abcde")
    census = {operation.op_type for operation in function.operations}
    assert {"conv", "silu", "matmul", "softmax", "layer_norm", "classify", "const"} <= census
    with pytest.raises(PackageError, match=r"no function 'other'; it has: main"):
        package.function("other")


def test_metadata_is_what_coremltools_wrote(
    ct: Any, classifier_package: Path, tmp_path: Path
) -> None:
    model = ct.models.MLModel(str(classifier_package), skip_model_load=True)
    model.author, model.license, model.version = "A", "B", "C"
    model.short_description = "D"
    model.input_description["image"] = "a picture"
    model.output_description["classLabel"] = "the label"
    model.user_defined_metadata["key"] = "value"
    model.save(str(tmp_path / "m.mlpackage"))
    package = load_package(tmp_path / "m.mlpackage")
    found = package.metadata
    assert (found.author, found.license, found.version, found.short_description) == tuple("ABCD")
    assert found.user_defined["key"] == "value"
    assert package.function().inputs[0].description == "a picture"
    assert package.function().outputs[0].description == "the label"


def test_weights_are_the_bytes_coremltools_reads(ct: Any, classifier_package: Path) -> None:
    model = ct.models.MLModel(str(classifier_package), skip_model_load=True)
    from coremltools.converters.mil.frontend.milproto.load import load

    program = load(model.get_spec(), 8, model.weights_dir)
    expected = {
        operation.outputs[0].name: operation.outputs[0].val
        for operation in program.functions["main"].operations
        if operation.op_type == "const"
    }
    compared = 0
    for _, operation in load_package(classifier_package).walk():
        if operation.op_type == "const":
            (constant,) = operation.inputs["val"]
            assert isinstance(constant, Constant)
            value = expected[operation.outputs[0].name]
            assert np.array_equal(constant.decode(), value)
            compared += constant.weights is not None
    assert compared >= 8


def test_functions_of_a_package_share_its_weights(
    ct: Any, convert: Callable[..., Path], tmp_path: Path
) -> None:
    module = nn.Conv2d(3, 8, 3)
    descriptor = ct.utils.MultiFunctionDescriptor()
    for size in (8, 16):
        path = convert(module, zeros(1, 3, size, size), 18)
        descriptor.add_function(str(path), "main", f"size_{size}")
    descriptor.default_function_name = "size_16"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    package = load_package(tmp_path / "both.mlpackage")
    assert package.default_function == "size_16"
    assert package.function().inputs == (ArrayFeature("x", (1, 3, 16, 16), "fp16"),)
    offsets = {
        operation.inputs["val"][0].offset  # type: ignore[union-attr]
        for _, operation in package.walk()
        if operation.op_type == "const" and "weight" in operation.name
    }
    assert len(offsets) == 1
    x = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float16)
    value = Runtime(package, "size_8").run({"x": x})["y"]
    expected = module(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(value, expected, atol=5e-3)


@pytest.mark.parametrize("name", ["uint1", "uint2", "uint3", "uint4", "uint6", "int4"])
def test_narrow_integers_are_packed_as_coremltools_packs_them(
    ct: Any, name: str, tmp_path: Path
) -> None:
    from coremltools.converters.mil.mil import types
    from coremltools.libmilstoragepython import _BlobStorageWriter
    from coremltools.optimize._utils import pack_elements_into_bits

    data_type = DATA_TYPES[name]
    low = -(2 ** (data_type.bits - 1)) if data_type.numpy.kind == "i" else 0
    values = np.random.default_rng(0).integers(low, low + 2**data_type.bits, 37)
    values = values.astype(data_type.numpy)
    packed = pack_elements_into_bits(values, data_type.bits)
    assert np.array_equal(unpack_bits(packed, data_type, 37), values)
    builtin = types.string_to_builtin(name)
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    stored = values.astype(types.nptype_from_builtin(builtin))
    offset = getattr(writer, f"write_{name}_data")(stored)
    del writer
    found = WeightFile(tmp_path / "weight.bin").read(offset, TensorType(data_type, (37,)))
    assert np.array_equal(found, values)


def test_message_classes_load_without_coremltools_and_are_shared_with_a_later_import(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    fresh = fresh_process(tmp_path_factory)
    assert fresh.after_messages == []
    assert fresh.messages == [7, True]


def test_message_classes_are_shared_with_an_earlier_import_of_coremltools(
    ct: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "coremltools.proto.Model_pb2")
    private = package_reader.model_messages.__wrapped__()
    assert private is not ct.proto.Model_pb2
    assert private.Model is ct.proto.Model_pb2.Model


# Faults of the package's files, each with a part of the message it must lead to.


def no_manifest(root: Path) -> None:
    (root / "Manifest.json").unlink()


def empty_manifest(root: Path) -> None:
    (root / "Manifest.json").write_text("{}")


def manifest_points_outside(root: Path) -> None:
    manifest = json.loads((root / "Manifest.json").read_text())
    for entry in manifest["itemInfoEntries"].values():
        entry["path"] = "../../other"
    (root / "Manifest.json").write_text(json.dumps(manifest))


def no_specification(root: Path) -> None:
    (root / SPECIFICATION).unlink()


def truncated_specification(root: Path) -> None:
    path = root / SPECIFICATION
    path.write_bytes(path.read_bytes()[:-500])


def no_weights(root: Path) -> None:
    (root / WEIGHTS).unlink()


def empty_weights(root: Path) -> None:
    (root / WEIGHTS).write_bytes(b"")


def truncated_weights(root: Path) -> None:
    path = root / WEIGHTS
    path.write_bytes(path.read_bytes()[:-300])


def overwritten_descriptor(root: Path) -> None:
    path = root / WEIGHTS
    data = bytearray(path.read_bytes())
    data[64:68] = b"\0\0\0\0"
    path.write_bytes(bytes(data))


def shorter_constant(root: Path) -> None:
    path = root / WEIGHTS
    data = bytearray(path.read_bytes())
    data[72:80] = struct.pack("<Q", 16)
    path.write_bytes(bytes(data))


def other_element_type(root: Path) -> None:
    path = root / WEIGHTS
    data = bytearray(path.read_bytes())
    data[68:72] = struct.pack("<I", 7)
    path.write_bytes(bytes(data))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (no_manifest, "has no Manifest.json"),
    "empty manifest": (empty_manifest, "names no model"),
    "manifest points outside": (manifest_points_outside, "outside the package"),
    "no specification": (no_specification, "lacks com.apple.CoreML/model.mlmodel"),
    "truncated specification": (truncated_specification, "is damaged"),
    "no weights": (no_weights, "needs @model_path/weights/weight.bin"),
    "empty weights": (empty_weights, "holds 0 bytes: it is truncated"),
    "truncated weights": (truncated_weights, "const '.*' in function 'main': .*truncated"),
    "overwritten descriptor": (overwritten_descriptor, "const '.*' in function 'main': .*damaged"),
    "shorter constant": (shorter_constant, "const '.*' in function 'main': .* stores 16 bytes"),
    "other element type": (other_element_type, "const '.*' in function 'main': .*stores uint16"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_package_is_refused_with_one_line(
    classifier_package: Path, fault: str, tmp_path: Path
) -> None:
    root = tmp_path / "damaged.mlpackage"
    shutil.copytree(classifier_package, root)
    check_package(load_package(root))
    damage, message = FAULTS[fault]
    damage(root)
    with pytest.raises(PackageError, match=message) as error:
        check_package(load_package(root))
    assert "\n" not in str(error.value)
    if "truncated" in str(error.value) or "const" in str(error.value):
        assert "weight.bin" in str(error.value)


def test_something_else_than_a_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"is no \.mlpackage folder"):
        load_package(tmp_path / "missing.mlpackage")
    (tmp_path / "file.mlpackage").write_bytes(b"")
    with pytest.raises(PackageError, match=r"is no \.mlpackage folder"):
        load_package(tmp_path / "file.mlpackage")


# Faults of the program, planted in its message.


def operation_of(function: Any, op_type: str) -> Any:
    block = function.block_specializations[function.opset]
    return next(operation for operation in block.operations if operation.type == op_type)


def unknown_operation(function: Any) -> None:
    operation_of(function, "silu").type = "sparkle"


def unknown_parameter(function: Any) -> None:
    operation = operation_of(function, "silu")
    operation.inputs["glitter"].CopyFrom(operation.inputs["x"])


def missing_parameter(function: Any) -> None:
    del operation_of(function, "matmul").inputs["y"]


def undefined_value(function: Any) -> None:
    operation_of(function, "silu").inputs["x"].arguments[0].name = "nothing"


def wrong_order(function: Any) -> None:
    operations = function.block_specializations[function.opset].operations
    silu = operation_of(function, "silu")
    moved = type(silu)()
    moved.CopyFrom(silu)
    operations.remove(silu)
    operations.insert(0, moved)


def defined_twice(function: Any) -> None:
    silu = operation_of(function, "silu")
    silu.outputs[0].name = silu.inputs["x"].arguments[0].name


def wrong_shape(function: Any) -> None:
    dimensions = operation_of(function, "silu").outputs[0].type.tensorType.dimensions
    dimensions[2].constant.size += 1


def weight_of_another_shape(function: Any) -> None:
    """Swap two axes of a weight: as many bytes, another shape."""
    weight = operation_of(function, "linear").inputs["weight"].arguments[0].name
    block = function.block_specializations[function.opset]
    constant = next(o for o in block.operations if o.outputs and o.outputs[0].name == weight)
    for tensor in (constant.outputs[0].type.tensorType, constant.attributes["val"].type.tensorType):
        first, second = tensor.dimensions
        first.constant.size, second.constant.size = second.constant.size, first.constant.size


def lost_output(function: Any) -> None:
    function.block_specializations[function.opset].outputs[0] = "nothing"


def returns_nothing(function: Any) -> None:
    function.block_specializations[function.opset].outputs.append("nothing")


def other_input(function: Any) -> None:
    function.inputs[0].name = "picture"


def unknown_opset(function: Any) -> None:
    block = function.block_specializations.pop(function.opset)
    function.opset = "CoreML99"
    function.block_specializations["CoreML99"].CopyFrom(block)


def weights_outside(function: Any) -> None:
    for operation in function.block_specializations[function.opset].operations:
        if operation.type == "const" and operation.attributes["val"].HasField("blobFileValue"):
            operation.attributes["val"].blobFileValue.fileName = "@model_path/../../../x.bin"


PROGRAM_FAULTS: dict[str, tuple[Callable[[Any], None], str]] = {
    "unknown operation": (unknown_operation, "sparkle '.*' in function 'main': .*not implement"),
    "unknown parameter": (unknown_parameter, "silu '.*' in function 'main': .*'glitter'"),
    "missing parameter": (missing_parameter, "matmul '.*' in function 'main': .*'y' is missing"),
    "undefined value": (undefined_value, "silu '.*' in function 'main': 'nothing' is used before"),
    "wrong order": (wrong_order, "silu '.*' in function 'main': '.*' is used before it is defined"),
    "defined twice": (defined_twice, "silu '.*' in function 'main': .* is defined twice"),
    "wrong shape": (wrong_shape, r"silu '.*' in function 'main' gives shape \[1, 32, 12, 16\]"),
    "weight of another shape": (weight_of_another_shape, "linear '.*' in function 'main'"),
    "lost output": (lost_output, "the output 'classLabel', which its program does not return"),
    "returns nothing": (returns_nothing, "'nothing', which nothing defines"),
    "other input": (other_input, "the input 'image' only in its description|'picture' only"),
    "unknown opset": (unknown_opset, "opset 'CoreML99'"),
    "weights outside": (weights_outside, "weights outside the package"),
}


@pytest.mark.parametrize("fault", PROGRAM_FAULTS)
def test_inconsistent_program_is_refused_before_it_runs(
    ct: Any, classifier_package: Path, fault: str, tmp_path: Path
) -> None:
    root = tmp_path / "faulty.mlpackage"
    shutil.copytree(classifier_package, root)
    model = ct.proto.Model_pb2.Model()
    model.ParseFromString((root / SPECIFICATION).read_bytes())
    plant, message = PROGRAM_FAULTS[fault]
    plant(model.mlProgram.functions["main"])
    (root / SPECIFICATION).write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=message) as error:
        Runtime(load_package(root))
    assert "\n" not in str(error.value)


def test_operation_newer_than_the_opset_is_refused(
    ct: Any, save_program: Callable[..., Path], tmp_path: Path
) -> None:
    x = np.zeros((1, 2, 4, 4), np.float32)
    path = save_program(
        lambda mb, x: {"y": mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2))}, {"x": x}, 16
    )
    model = ct.proto.Model_pb2.Model()
    model.ParseFromString((path / SPECIFICATION).read_bytes())
    function = model.mlProgram.functions["main"]
    function.block_specializations["CoreML5"].CopyFrom(function.block_specializations["CoreML6"])
    function.opset = "CoreML5"
    shutil.copytree(path, tmp_path / "older.mlpackage")
    (tmp_path / "older.mlpackage" / SPECIFICATION).write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match="needs iOS 16, the function is for iOS 15"):
        check_package(load_package(tmp_path / "older.mlpackage"))


def test_model_of_another_kind_is_refused(
    ct: Any, classifier_package: Path, tmp_path: Path
) -> None:
    root = tmp_path / "network.mlpackage"
    shutil.copytree(classifier_package, root)
    model = ct.proto.Model_pb2.Model(specificationVersion=4)
    model.neuralNetwork.SetInParent()
    (root / SPECIFICATION).write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match="neuralNetwork, not an ML Program"):
        load_package(root)
