"""What inspection says of a package, against coremltools' own reading of it."""

from __future__ import annotations

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
from packages import LABELS, LAYOUT_OPS, converted

from mvit_coreml.errors import PackageError
from mvit_coreml.inspection.package_contents import inspect_package

FAMILY = "mobilenet_v2"


@pytest.fixture(scope="module")
def classifier():
    return converted(FAMILY)


@pytest.fixture(scope="module")
def palettized():
    return converted(FAMILY, bits=6)


def kinds(path):
    return {caution.kind for caution in inspect_package(path).cautions}


def messages(path):
    return " | ".join(caution.message for caution in inspect_package(path).cautions)


def test_operations_ranks_and_sizes_are_those_that_coremltools_reads(classifier):
    package, saved = classifier
    inspection = inspect_package(package.path)
    (function,) = inspection.functions
    census = saved.census()
    assert dict(function.operations) == census
    assert function.largest_rank == max(saved.ranks())
    assert inspection.size == saved.size
    assert set(inspection.files) == set(saved.files())
    assert [output.name for output in function.outputs] == list(saved.interface())


def test_layout_operations_are_those_that_move_values_about():
    def build(mb, x):
        a, b = mb.split(x=mb.transpose(x=x, perm=[0, 2, 1, 3]), num_splits=2, axis=1)
        x = mb.squeeze(x=mb.expand_dims(x=mb.concat(values=[a, b], axis=1), axes=[0]), axes=[0])
        return mb.reshape(
            x=mb.slice_by_index(x=mb.relu(x=x), begin=[0] * 4, end=[1, 4, 8, 2]), shape=[8, 8]
        )

    (function,) = inspect_package(program_package(build)).functions
    assert set(function.layout_operations) == LAYOUT_OPS - {"slice_by_size"}
    assert set(function.layout_operations.values()) == {1}
    assert function.operations["relu"] == 1
    assert (function.largest_rank, function.largest_rank_at) == (5, "expand_dims_0")


def test_labels_come_with_those_that_stand_twice(classifier):
    package, _ = classifier
    (function,) = inspect_package(package.path).functions
    assert function.labels[:5] == LABELS[:5]
    assert function.repeated_labels == ()

    def repeat(spec):
        names = constant(spec, operations(spec, "classify")[0], "classes")
        values = names.immediateValue.list.values
        values[1].immediateValue.tensor.strings.values[0] = "ox"

    path = edited(package.path, repeat)
    assert inspect_package(path).functions[0].repeated_labels == ("ox",)
    assert kinds(path) == {"labels"}


def test_labels_of_a_segmenter_come_from_its_preview():
    package, saved = converted(FAMILY, "semantic-segmentation")
    (function,) = inspect_package(package.path).functions
    assert function.labels is not None
    assert f'"{function.labels[-1]}"' in saved.user_defined["com.apple.coreml.model.preview.params"]
    assert len(function.labels) == len(LABELS)


def test_baked_preprocessing_is_the_processors_arithmetic(classifier):
    # (x / 255 - 0.5) / 0.5
    (function,) = inspect_package(classifier[0].path).functions
    assert function.preprocessing.color_order == "rgb"
    assert function.preprocessing.scale == pytest.approx([2 / 255] * 3)
    assert function.preprocessing.bias == pytest.approx([-1] * 3)
    assert np.allclose(function.preprocessing.ranges, [(-1, 1)] * 3, atol=1e-6)


def test_baked_preprocessing_of_other_forms_is_composed():
    def build(mb, x):
        x = mb.sub(x=x, y=np.array([104, 117, 123], np.float32).reshape(1, 3, 1, 1))
        x = mb.real_div(x=x, y=np.float32(58.0))
        x = mb.sub(x=np.float32(1.0), y=x)
        return mb.relu(x=x)

    path = program_package(build, (1, 3, 8, 8), dtype="fp32", image=True)
    (function,) = inspect_package(path).functions
    assert function.preprocessing.scale == pytest.approx([-1 / 58] * 3)
    assert function.preprocessing.bias == pytest.approx([1 + v / 58 for v in (104, 117, 123)])


def test_weights_are_counted_by_bits_with_their_bytes(palettized):
    package, saved = palettized
    inspection = inspect_package(package.path)
    groups = {group.scheme: group for group in inspection.weights}
    shapes = [
        op.outputs[0].shape for op in saved.program() if op.op_type == "constexpr_lut_to_dense"
    ]
    sizes = [math.prod(shape) for shape in shapes]
    assert groups["6-bit palette"].tensors == len(sizes) > 0
    assert groups["6-bit palette"].elements == sum(sizes)
    # The indices packed, and 64 values of fp16.
    assert groups["6-bit palette"].stored_bytes == sum((6 * n + 7) // 8 + 128 for n in sizes)
    # Batch norms are folded: per layer one weight and one bias, and nothing else.
    layers = saved.census()["conv"] + saved.census()["linear"]
    assert groups["fp16"].tensors == 2 * layers - len(sizes)


def test_every_uncompressed_weight_has_its_reason(palettized):
    package, _ = palettized
    inspection = inspect_package(package.path)
    threshold = 2048
    for weight in inspection.plain_weights:
        expected = "1-D" if len(weight.shape) == 1 else f"no more than {threshold} elements"
        assert weight.reason == expected
        assert len(weight.shape) == 1 or math.prod(weight.shape) <= threshold
    plain = inspect_package(converted(FAMILY)[0].path).plain_weights
    assert {weight.reason for weight in plain} == {"nothing is compressed"}


@pytest.mark.parametrize(
    ("kind", "ios", "scheme", "bits"),
    [
        ("linear", 17, "8-bit linear", 8),
        ("linear", 18, "8-bit linear", 8),
        ("sparse", 17, "sparse", 16),
        ("sparse", 18, "sparse", 16),
        ("palette", 18, "3-bit palette", 3),
        ("grouped palette", 18, "3-bit grouped palette", 3),
        ("grouped palette, linear", 18, "3-bit grouped palette + 8-bit linear table", 3),
        ("sparse, palette", 18, "sparse + 3-bit palette", 3),
        ("sparse, linear", 18, "sparse + 8-bit linear", 8),
    ],
)
def test_compressions_of_coremltools_are_told_apart(kind, ios, scheme, bits):
    weight = random_weight(64, 32, 1, 1)
    path = program_package(
        lambda mb, x: mb.conv(x=x, weight=weight),
        (1, 32, 4, 4),
        ios=ios,
        compress=compressed(kind),
    )
    inspection = inspect_package(path)
    (group,) = inspection.weights
    assert (group.scheme, group.bits, group.elements) == (scheme, bits, weight.size)
    assert group.stored_bytes < weight.nbytes
    assert inspection.plain_weights == ()
    assert inspection.cautions == ()


def test_weights_that_functions_share_count_once(classifier):
    package, _ = classifier
    one = inspect_package(package.path)
    two = inspect_package(with_two_functions(package.path))
    assert [function.name for function in two.functions] == ["first", "second"]
    assert two.default_function == "first"
    assert two.ios == 18
    # What stands in the program itself, and not in the weight file, is there twice.
    matrices = [w.stored_bytes for w in one.plain_weights if len(w.shape) > 1]
    doubled = [w.stored_bytes for w in two.plain_weights if len(w.shape) > 1]
    assert sum(doubled) - sum(matrices) < 100 < sum(matrices)
    assert two.cautions == ()


def test_the_projects_own_packages_need_no_caution(classifier, palettized):
    segmenter = converted(FAMILY, "semantic-segmentation")
    for package, _ in (classifier, palettized, segmenter):
        assert inspect_package(package.path).cautions == ()


UNFOLD = np.zeros((32, 8, 2, 2), np.float16)
for _channel in range(32):
    UNFOLD[_channel, _channel // 4, _channel % 4 // 2, _channel % 2] = 1


@pytest.mark.fast
@pytest.mark.parametrize(
    ("build", "kind", "words"),
    [
        (lambda mb, x: mb.gather(x=x, indices=[0, 2], axis=1), "neural engine", "1 gather:"),
        (
            lambda mb, x: mb.reshape(x=x, shape=[1, 2, 4, 4, 4]),
            "neural engine",
            "3 values of rank 5",
        ),
        (lambda mb, x: mb.relu(x=mb.cast(x=x, dtype="fp32")), "neural engine", "in fp32"),
        (
            lambda mb, x: mb.conv(x=x, weight=UNFOLD, strides=[2, 2]),
            "neural engine",
            "only select pixels",
        ),
        (
            lambda mb, x: mb.sqrt(x=mb.add(x=mb.reduce_mean(x=x, axes=[1]), y=np.float16(1e-3))),
            "neural engine",
            "1 normalisation spelled out",
        ),
        (lambda mb, x: mb.square(x=x), "precision", "1 square in fp16"),
        (lambda mb, x: mb.mul(x=x, y=x), "precision", "1 square in fp16"),
        (lambda mb, x: mb.pow(x=x, y=np.float16(2)), "precision", "1 square in fp16"),
    ],
)
def test_patterns_to_beware_of_are_found(build, kind, words):
    def program(mb, x):
        return mb.relu(x=build(mb, mb.relu(x=x)))

    found = inspect_package(program_package(program)).cautions
    assert [caution.kind for caution in found] == [kind]
    assert words in found[0].message
    assert found[0].operations


@pytest.mark.parametrize(
    "build",
    [
        lambda mb, x: mb.reshape(x=x, shape=[1, 4, 8, 4]),
        lambda mb, x: mb.conv(x=x, weight=UNFOLD * np.float16(0.5), strides=[2, 2]),
        lambda mb, x: mb.conv(x=x, weight=np.maximum(UNFOLD, np.float16(0.5)), strides=[2, 2]),
        lambda mb, x: mb.mul(x=x, y=mb.sigmoid(x=x)),
        lambda mb, x: mb.pow(x=x, y=np.float16(3)),
        lambda mb, x: mb.reduce_mean(x=x, axes=[2, 3], keep_dims=True),
    ],
)
def test_what_only_looks_like_such_a_pattern_is_not(build):
    assert messages(program_package(lambda mb, x: mb.relu(x=build(mb, x)))) == ""


def test_large_values_with_a_last_axis_of_one_are_found():
    def build(mb, x):
        return mb.reduce_sum(x=x, axes=[3], keep_dims=True)

    assert "last axis of 1" in messages(program_package(build, (1, 64, 64, 2)))
    assert "last axis of 1" not in messages(program_package(build, (1, 63, 64, 2)))


def test_a_program_in_fp32_throughout_is_said_to_be():
    path = program_package(lambda mb, x: mb.relu(x=x), dtype="fp32")
    assert messages(path) == (
        "the program computes in fp32: reported to stay off the Neural Engine"
    )


def older(opset, version):
    def edit(spec):
        body = spec.mlProgram.functions["main"]
        body.block_specializations[opset].CopyFrom(body.block_specializations[body.opset])
        del body.block_specializations[body.opset]
        body.opset = opset
        spec.specificationVersion = version

    return edit


def test_features_newer_than_the_target_are_found():
    path = program_package(
        lambda mb, x: mb.conv(x=x, weight=random_weight(64, 32, 1, 1)),
        (1, 32, 4, 4),
        ios=18,
        compress=compressed("grouped palette"),
    )
    found = inspect_package(edited(path, older("CoreML7", 8))).cautions
    targets = [caution.message for caution in found if caution.kind == "target"]
    assert any("constexpr_lut_to_dense as it stands here needs iOS 18" in text for text in targets)

    def shrink(spec):
        for op in operations(spec, "constexpr_lut_to_dense"):
            op.attributes["lut"].type.tensorType.dimensions[0].constant.size = 8

    palettized = converted(FAMILY, bits=6)[0].path
    assert "a palette of 8 values needs iOS 18" in messages(edited(palettized, shrink))
    unfolded = program_package(lambda mb, x: mb.pixel_unshuffle(x=x, downscale_factor=np.uint32(2)))
    text = messages(edited(unfolded, older("CoreML5", 6)))
    assert "pixel_unshuffle as it stands here needs iOS 16, the function is for iOS 15" in text


def test_several_functions_and_newer_operations_need_their_target(classifier):
    package = with_two_functions(classifier[0].path)

    def age(spec):
        spec.specificationVersion = 8

    text = messages(edited(package, age))
    assert "several functions need iOS 18, the package is for iOS 17" in text
    assert "operations of iOS 18 in a package whose specification is of iOS 17" in text


def test_metadata_that_contradicts_the_program_is_found(classifier):
    package, _ = classifier

    def rescale(spec):
        scale = next(op for op in operations(spec, "mul") if op.outputs[0].name.startswith("image"))
        stored = constant(spec, scale, "y").immediateValue.tensor.floats
        stored.values[0] *= 2

    def reorder(spec):
        spec.description.input[0].type.imageType.colorSpace = 30

    assert "says scale 0.00784314, the program has 0.0156863" in messages(
        edited(package.path, rescale)
    )
    assert "says RGB, the image input is BGR" in messages(edited(package.path, reorder))


def test_a_package_that_cannot_run_is_inspected_all_the_same(classifier):
    package, saved = classifier
    path = new_path()
    shutil.copytree(package.path, path)
    content = (path / WEIGHTS).read_bytes()
    (path / WEIGHTS).write_bytes(content[: len(content) // 2])
    inspection = inspect_package(path)
    assert dict(inspection.functions[0].operations) == saved.census()
    assert "the portable runtime cannot run it" in messages(path)


def test_what_is_no_package_is_said_to_be_none(tmp_path):
    with pytest.raises(PackageError, match=r"no \.mlpackage folder"):
        inspect_package(tmp_path)
