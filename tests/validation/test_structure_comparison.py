"""What the comparison with a fresh conversion says, beyond the faults of test_faults.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from faults.editor import PackageEditor
from foreign import compressed, edited, operations, program_package, random_weight
from packages import converted

from mvit_coreml.errors import PackageError
from mvit_coreml.mil.digest import DIGEST_KEY, program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.validation.structure_comparison import (
    VALUES_KEY,
    compare_structure,
    palette_values,
    stored_precision,
)

FAMILY = "mobilenet_v2"


def without_digest(path):
    """Load a package without its digest, which every change here would break."""
    package = load_package(path)
    described = {k: v for k, v in package.metadata.user_defined.items() if k != DIGEST_KEY}
    return replace(package, metadata=replace(package.metadata, user_defined=described))


@pytest.fixture(scope="module")
def plain():
    return without_digest(converted(FAMILY)[0].path)


@pytest.fixture(scope="module")
def palettized():
    return converted(FAMILY, bits=6)[0].path


def compare(path, expected):
    return [(d.aspect, d.place) for d in compare_structure(without_digest(path), expected)]


def with_metadata(package, **changes):
    described = {**package.metadata.user_defined, **changes}
    return replace(package, metadata=replace(package.metadata, user_defined=described))


def test_names_of_values_and_operations_do_not_matter(plain):
    def rename(spec):
        body = spec.mlProgram.functions["main"]
        kept = {feature.name for feature in [*spec.description.input, *spec.description.output]}
        for op in body.block_specializations[body.opset].operations:
            given = [binding for value in op.inputs.values() for binding in value.arguments]
            for named in [*given, *op.outputs]:
                if named.name and named.name not in kept:
                    named.name += "_renamed"

    assert compare(edited(plain.path, rename), plain) == []


@pytest.mark.parametrize(
    "kinds", ["sparse", "sparse, palette", "linear", "grouped palette, linear"]
)
def test_every_output_of_a_compressed_constant_is_told_apart(kinds):
    """Sparse palettes have two outputs, a mask and the values; the decoded weight needs both."""

    def build(mb, x):
        return mb.conv(x=x, weight=random_weight(64, 32, 1, 1), name="c")

    def decompress(cto, model):
        return cto.decompress_weights(compressed(kinds)(cto, model))

    stored, dense = (
        program_package(build, (1, 32, 4, 4), ios=18, compress=step)
        for step in (compressed(kinds), decompress)
    )
    assert compare(stored, load_package(dense)) == []


def grouped_palette(indices, table):
    """A convolution with two tables, one for each half of its four output channels."""

    def build(mb, x):
        from coremltools.converters.mil.mil import types

        kind = types.nptype_from_builtin(types.string_to_builtin("uint2"))
        weight = mb.constexpr_lut_to_dense(
            indices=indices.astype(kind), lut=table.reshape(2, 1, 1, 1, 4, 1)
        )
        return mb.conv(x=x, weight=weight, name="c")

    return program_package(build, (1, 4, 2, 2), ios=18)


def test_grouped_palettes_are_checked_group_by_group():
    table = np.array([[-1, -0.25, 0.25, 1], [-8, -2, 2, 8]], np.float16)
    indices = np.tile(np.arange(4, dtype=np.uint8), (4, 1)).reshape(4, 4, 1, 1)
    # Two channels share a table: one lies above its entries by as much as the other below.
    weights = table[np.array([0, 0, 1, 1])][..., None, None] + np.array(
        [0.0625, -0.0625, 0.5, -0.5], np.float16
    ).reshape(4, 1, 1, 1)
    expected = load_package(
        program_package(lambda mb, x: mb.conv(x=x, weight=weights, name="c"), (1, 4, 2, 2), ios=18)
    )
    assert compare(grouped_palette(indices, table), expected) == []
    wrong = indices.copy()
    wrong[3, 1] = 2
    assert compare(grouped_palette(wrong, table), expected) == [("weight", "main/c.weight")]
    moved = table.copy()
    moved[1, 2] = 2.25
    assert compare(grouped_palette(indices, moved), expected) == [("weight", "main/c.weight")]
    assert compare(grouped_palette(indices, table[::-1]), expected) == [("weight", "main/c.weight")]


def test_results_are_found_by_their_names(plain):
    main = plain.functions["main"]
    turned = replace(plain, functions={"main": replace(main, results=main.results[::-1])})
    assert compare_structure(turned, plain) == []
    other = main.operations[-2].outputs[0].name
    wrong = replace(plain, functions={"main": replace(main, results=(main.results[0], other))})
    (found,) = compare_structure(wrong, plain)
    assert (found.aspect, found.place) == ("graph", "main/results")


def test_features_exchanged_under_their_names_are_found():
    package = without_digest(
        converted("mobilevit", "image-classification", output="features")[0].path
    )
    main = package.functions["main"]
    names = dict(zip(main.results, main.results[::-1], strict=True))
    steps = tuple(
        replace(
            step,
            outputs=tuple(replace(o, name=names.get(o.name, o.name)) for o in step.outputs),
        )
        for step in main.operations
    )
    wrong = replace(package, functions={"main": replace(main, operations=steps)})
    found = compare_structure(wrong, package)
    assert ("graph", "main/results") in [(d.aspect, d.place) for d in found]


def test_a_difference_of_the_interface_names_the_field(plain):
    def recolor(spec):
        spec.description.input[0].type.imageType.colorSpace = 30
        spec.description.output[0].shortDescription = "The class."

    found = compare_structure(without_digest(edited(plain.path, recolor)), plain)
    assert [(d.place, d.detail) for d in found] == [
        ("main/inputs", "image.color_order is 'bgr' instead of 'rgb'"),
        (
            "main/outputs",
            "classLabel.description is 'The class.' instead of 'Name of the most likely class.'",
        ),
    ]


def test_a_difference_of_the_metadata_names_the_key(plain):
    editor = PackageEditor(plain.path)
    editor.prepare(resize={"shortest_edge": 68})
    (found,) = compare_structure(without_digest(editor.save()), plain)
    assert found.place == "mvit_coreml.preprocessing"
    assert found.detail == "main.resize.shortest_edge is 68 instead of 96"


def test_free_metadata_may_differ(plain):
    def describe(spec):
        metadata = spec.description.metadata
        metadata.author, metadata.license = "somebody", "MIT"
        metadata.userDefined["somebody.key"] = "value"
        metadata.userDefined["mvit_coreml.versions"] = "{}"
        metadata.userDefined["mvit_coreml.source"] = "my-folder"

    assert compare(edited(plain.path, describe), plain) == []


def test_another_operation_is_named_with_its_place(plain):
    def widen(spec):
        operations(spec, "relu6")[1].type = "relu"

    (found,) = compare_structure(without_digest(edited(plain.path, widen)), plain)
    assert found.detail == "operation 6 is relu instead of relu6"


@pytest.mark.parametrize(
    ("stated", "right"),
    [("6", True), ("4, 6", True), ("4, 8", False), ("4", False), ("", False), (None, True)],
)
def test_stated_bits_are_held_against_the_palettes(palettized, plain, stated, right):
    package = without_digest(palettized)
    described = dict(package.metadata.user_defined)
    described.pop("mvit_coreml.bits")
    if stated is not None:
        described["mvit_coreml.bits"] = stated
    package = replace(package, metadata=replace(package.metadata, user_defined=described))
    found = [(d.aspect, d.place) for d in compare_structure(package, plain)]
    assert found == ([] if right else [("metadata", "mvit_coreml.bits")])


def moved_entry(palettized):
    """Move an entry within the range of its weights, and a bias, as training would."""
    editor = PackageEditor(palettized)
    lut = editor.value(editor.palettes()[0], "lut")
    table = editor.array(lut)
    table[30] += np.float16(0.02 * (table[31] - table[30]))
    editor.store(lut, table)
    conv = next(op for op in editor.ops("conv") if len(editor.array(editor.value(op, "bias"))) > 9)
    editor.change(conv, "bias", lambda bias: bias + np.float16(0.01))
    return editor.save()


def test_trained_values_may_be_moved_but_only_if_the_package_says_so(palettized, plain):
    package = without_digest(moved_entry(palettized))
    aspects = [d.aspect for d in compare_structure(package, plain)]
    assert aspects == ["weight", "weight"]
    trained = with_metadata(package, **{VALUES_KEY: "trained"})
    assert compare_structure(trained, plain) == []
    # Nothing but the digest can tell such a change from training.
    with_old_digest = with_metadata(
        trained, **{DIGEST_KEY: program_digest(load_package(palettized))}
    )
    (found,) = compare_structure(with_old_digest, plain)
    assert (found.aspect, found.place) == ("digest", DIGEST_KEY)
    with_new_digest = with_metadata(trained, **{DIGEST_KEY: program_digest(package)})
    assert compare_structure(with_new_digest, plain) == []


def test_how_values_came_about_must_be_known(plain):
    assert palette_values(plain) == "means"
    with pytest.raises(PackageError, match=r"palette_values is 'magic'; known are means, trained"):
        palette_values(with_metadata(plain, **{VALUES_KEY: "magic"}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("fp16", None)),
        ({"precision": "fp32"}, ("fp32", None)),
        ({"bits": 6}, ("fp16", 6)),
    ],
)
def test_precision_and_bits_are_read_from_the_program(options, expected):
    package = load_package(converted(FAMILY, **options)[0].path)
    assert stored_precision(package.function()) == expected
