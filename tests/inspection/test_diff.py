"""What a comparison of two packages says, one planted difference at a time."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from foreign import (
    WEIGHTS,
    compressed,
    constant,
    edited,
    new_path,
    operations,
    program_package,
    random_weight,
    with_two_functions,
)
from packages import LABELS, converted

from mvit_coreml.errors import PackageError
from mvit_coreml.inspection.diff import compare_packages

FAMILY = "mobilenet_v2"


@pytest.fixture(scope="module")
def plain():
    return converted(FAMILY)[0].path


def changes(first, second):
    """Return the changes as (section, what, first, second)."""
    found = compare_packages(first, second)
    assert not found.weights
    return [(c.section, c.what, c.first, c.second) for c in found.changes]


def test_a_copy_is_equal_and_so_is_a_package_with_other_internal_names(plain):
    copy = new_path()
    shutil.copytree(plain, copy)
    assert compare_packages(plain, copy).equal

    def rename(spec):
        body = spec.mlProgram.functions["main"]
        for op in body.block_specializations[body.opset].operations:
            if op.type == "conv":
                op.attributes["name"].immediateValue.tensor.strings.values[0] += "_renamed"

    found = compare_packages(plain, edited(plain, rename))
    assert found.equal
    assert found.compared_weights == found.equal_weights > 0


def test_palettized_weights_have_the_noise_that_coremltools_decodes(plain):
    path = converted(FAMILY, bits=6)[0].path
    found = compare_packages(plain, path)
    assert [(c.section, c.what) for c in found.changes] == [
        ("metadata", "mvit_coreml.bits"),
        ("metadata", "mvit_coreml.program_sha256"),
    ]
    ours = {op.name: op for op in converted(FAMILY)[1].program()}
    expected = {}
    for op in converted(FAMILY, bits=6)[1].program():
        weight = op.inputs.get("weight")
        if weight is not None and weight.op.op_type == "constexpr_lut_to_dense":
            decoded = weight.op.materialized_val_inference().astype(np.float64)
            original = ours[op.name].inputs["weight"].val.astype(np.float64)
            noise = ((decoded - original) ** 2).sum()
            snr = 10 * math.log10((original**2).sum() / noise)
            expected[op.name] = (snr, np.abs(decoded - original).max())
    assert {w.operation for w in found.weights} == set(expected)
    for weight in found.weights:
        assert (weight.snr, weight.max_error) == pytest.approx(expected[weight.operation])
        assert (weight.first_scheme, weight.second_scheme) == ("fp16", "6-bit palette")
    ratios = [weight.snr for weight in found.weights]
    assert ratios == sorted(ratios)
    assert found.compared_weights - found.equal_weights == len(expected)


@pytest.mark.parametrize(
    "kinds", ["linear", "sparse", "grouped palette", "grouped palette, linear", "sparse, palette"]
)
def test_compressed_weights_decode_to_what_coremltools_decompresses(kinds):
    def compress(cto, model):
        return compressed(kinds)(cto, model)

    def decompress(cto, model):
        return cto.decompress_weights(compress(cto, model))

    first, second = (
        program_package(
            lambda mb, x: mb.conv(x=x, weight=random_weight(64, 32, 1, 1), name="c"),
            (1, 32, 4, 4),
            ios=18,
            compress=step,
        )
        for step in (compress, decompress)
    )
    (weight,) = compare_packages(first, second).weights
    assert weight.max_error == 0
    assert weight.first_scheme != weight.second_scheme == "fp16"


def test_one_changed_value_is_found_in_its_weight(plain):
    saved = converted(FAMILY)[1]
    target = next(op for op in reversed(saved.program()) if op.op_type == "conv")
    values = target.inputs["weight"].val
    content = bytearray((plain / WEIGHTS).read_bytes())
    place = content.find(values.tobytes())
    assert content.count(values.tobytes()) == 1
    path = new_path()
    shutil.copytree(plain, path)
    content[place : place + 2] = np.float16(values.flat[0] + 2).tobytes()
    (path / WEIGHTS).write_bytes(content)
    found = compare_packages(plain, path)
    assert not found.changes
    (weight,) = found.weights
    assert (weight.operation, weight.parameter) == (target.name, "weight")
    assert weight.max_error == pytest.approx(2, rel=1e-2)
    power = (values.astype(np.float64) ** 2).sum()
    assert weight.snr == pytest.approx(10 * math.log10(power / weight.max_error**2))
    assert weight.max_first == np.abs(values).max()


def test_a_changed_attribute_is_named_with_both_values(plain):
    def widen(spec):
        pad = constant(spec, operations(spec, "conv")[0], "pad")
        pad.immediateValue.tensor.ints.values[0] += 1

    path = edited(plain, widen)
    found = [change for change in changes(plain, path) if change[1].endswith(": pad")]
    assert found
    for section, what, first, second in found:
        assert section == "graph"
        assert what.startswith("conv ")
        assert second == [first[0] + 1, *first[1:]]


def test_labels_colour_order_and_metadata_are_compared(plain):
    def edit(spec):
        classes = constant(spec, operations(spec, "classify")[0], "classes")
        stored = classes.immediateValue.list.values
        texts = [value.immediateValue.tensor.strings.values for value in stored]
        texts[1][0], texts[4][0] = texts[4][0], texts[1][0]
        spec.description.input[0].type.imageType.colorSpace = 30
        spec.description.metadata.author = "somebody"
        described = spec.description.metadata.userDefined
        preprocessing = json.loads(described["mvit_coreml.preprocessing"])
        preprocessing["main"]["fit"] = "stretch"
        described["mvit_coreml.preprocessing"] = json.dumps(preprocessing)
        del described["mvit_coreml.task"]

    assert changes(plain, edited(plain, edit)) == [
        ("interface", "input image: color order", "rgb", "bgr"),
        ("interface", "label of class 1", LABELS[1], LABELS[4]),
        ("interface", "label of class 4", LABELS[4], LABELS[1]),
        ("metadata", "author", "owner", "somebody"),
        ("metadata", "mvit_coreml.preprocessing/main/fit", "crop", "stretch"),
        ("metadata", "mvit_coreml.task", "image-classification", None),
    ]


def test_a_changed_scale_shows_in_the_preprocessing(plain):
    def rescale(spec):
        scale = next(op for op in operations(spec, "mul") if op.outputs[0].name.startswith("image"))
        constant(spec, scale, "y").immediateValue.tensor.floats.values[0] *= 2

    found = changes(plain, edited(plain, rescale))
    section, what, first, second = found[0]
    assert (section, what) == ("interface", "preprocessing: scale")
    assert first == pytest.approx([2 / 255] * 3)
    assert second == pytest.approx([4 / 255] * 3)
    assert [change[1] for change in found[1:]] == ["mul image__scaled__: y"]


def test_rounding_to_fp16_changes_no_attribute():
    def build(mb, x):
        return mb.layer_norm(x=mb.mul(x=x, y=kind(0.1)), axes=[1], epsilon=kind(1e-5))

    kind = np.float16
    half = program_package(build)
    kind = np.float32
    single = program_package(build, dtype="fp32")
    for first, second, kinds in (
        (half, single, ("fp16", "fp32")),
        (single, half, ("fp32", "fp16")),
    ):
        assert [change for change in changes(first, second) if change[0] == "graph"] == [
            ("graph", "element type of 3 results", *kinds)
        ]


def test_a_small_change_of_an_fp32_attribute_is_no_rounding():
    first, second = (
        program_package(
            lambda mb, x, epsilon=epsilon: mb.layer_norm(x=x, axes=[1], epsilon=epsilon),
            dtype="fp32",
        )
        for epsilon in (np.float32(1e-3), np.float32(1.0001e-3))
    )
    ((_, what, _, _),) = changes(first, second)
    assert what.endswith(": epsilon")


def chain(*steps):
    """A program of operations, each of the result before it."""

    def build(mb, x):
        for index, (op_type, options) in enumerate(steps):
            x = getattr(mb, op_type)(x=x, name=f"{op_type}_{index}", **options)
        return x

    return program_package(build)


def test_an_inserted_operation_is_the_only_one_that_differs():
    weights = [{"weight": random_weight(8, 8, 1, 1, seed=seed)} for seed in range(3)]
    layers = [("conv", weights[0]), ("relu", {}), ("conv", weights[1]), ("relu", {})]
    last = [("conv", weights[2]), ("relu", {})]
    found = compare_packages(chain(*layers, *last), chain(*layers, ("sigmoid", {}), *last))
    assert not found.weights
    assert found.compared_weights == 3
    assert [(c.what, c.first, c.second) for c in found.changes] == [
        ("number of sigmoid", 0, 1),
        ("sigmoid sigmoid_4", None, "present"),
        ("conv conv_5: x", "relu_3", "sigmoid_4"),
    ]


def test_other_connections_are_found():
    def first(mb, x):
        a, b = mb.relu(x=x, name="a"), mb.sigmoid(x=x, name="b")
        return mb.sub(x=a, y=b, name="c")

    def second(mb, x):
        a, b = mb.relu(x=x, name="a"), mb.sigmoid(x=x, name="b")
        return mb.sub(x=b, y=a, name="c")

    assert changes(program_package(first), program_package(second)) == [
        ("graph", "sub c: x", "a", "b"),
        ("graph", "sub c: y", "b", "a"),
    ]


def test_the_order_of_independent_operations_does_not_matter():
    def build(names):
        def program(mb, x):
            made = {n: mb.clip(x=x, alpha=np.float16(0), beta=limits[n], name=n) for n in names}
            return mb.sub(x=made["a"], y=made["b"], name="c")

        return program_package(program)

    limits = {"a": np.float16(1), "b": np.float16(2)}
    assert changes(build("ab"), build("ba")) == []


def test_weights_of_other_shapes_have_no_ratio():
    first, second = (
        program_package(
            lambda mb, x, size=size: mb.conv(x=x, weight=random_weight(4, 8, size, size), name="c")
        )
        for size in (1, 3)
    )
    found = compare_packages(first, second)
    (weight,) = found.weights
    assert (weight.first_shape, weight.shape) == ((4, 8, 1, 1), (4, 8, 3, 3))
    assert weight.snr is None
    assert ("conv c: shape of the result", (1, 4, 4, 4), (1, 4, 2, 2)) in [
        (c.what, c.first, c.second) for c in found.changes
    ]


def test_packages_are_compared_function_by_function(plain):
    both = with_two_functions(plain)

    def forget(spec):
        del spec.description.functions[1]
        del spec.mlProgram.functions["second"]

    one = edited(both, forget)
    assert changes(both, one) == [("interface", "functions", ["first", "second"], ["first"])]
    found = compare_packages(both, with_two_functions(plain))
    assert found.equal
    assert found.compared_weights == 2 * compare_packages(plain, plain).compared_weights

    def widen(spec):
        relu = operations(spec, "relu6", "second")[0]
        relu.outputs[0].type.tensorType.dimensions[1].constant.size += 1

    (change,) = compare_packages(both, edited(both, widen)).changes
    assert (change.function, change.section) == ("second", "graph")
    # A single function is compared whatever its name.
    assert {what for section, what, _, _ in changes(plain, one) if section == "interface"} == {
        "deployment target",
        "functions",
        "default function",
    }


def test_a_package_that_cannot_be_read_is_an_error(plain, tmp_path):
    with pytest.raises(PackageError, match=r"no \.mlpackage folder"):
        compare_packages(plain, tmp_path)
