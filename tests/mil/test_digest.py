"""The digest of what a package computes: what it does not depend on, and what it does."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest
from faults.editor import PackageEditor
from foreign import constant, edited, operations, program_package, random_weight, with_two_functions
from packages import converted

from mvit_coreml.mil.digest import program_digest
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.program import Package


def digest(path):
    return program_digest(load_package(path))


@pytest.fixture(scope="module")
def palettized():
    return converted("mobilenet_v2", bits=6)[0].path


@pytest.fixture(scope="module")
def expected(palettized):
    return digest(palettized)


def each_operation(package: Package, change):
    functions = {
        name: replace(function, operations=tuple(map(change, function.operations)))
        for name, function in package.functions.items()
    }
    return replace(package, functions=functions)


def test_it_is_a_sha_256_in_hexadecimal(expected):
    assert len(expected) == 64
    assert int(expected, 16)


def test_names_of_values_do_not_matter(palettized, expected):
    def rename(spec):
        body = spec.mlProgram.functions["main"]
        kept = {feature.name for feature in [*spec.description.input, *spec.description.output]}
        for op in body.block_specializations[body.opset].operations:
            if op.attributes["name"].ByteSize():
                op.attributes["name"].immediateValue.tensor.strings.values[0] += "_renamed"
            given = [binding for value in op.inputs.values() for binding in value.arguments]
            for named in [*given, *op.outputs]:
                if named.name and named.name not in kept:
                    named.name += "_renamed"

    assert digest(edited(palettized, rename)) == expected


def test_the_order_of_maps_and_of_results_does_not_matter(palettized, expected):
    package = load_package(palettized)
    turned = each_operation(
        package, lambda op: replace(op, inputs=dict(reversed(list(op.inputs.items()))))
    )
    main = turned.functions["main"]
    turned = replace(turned, functions={"main": replace(main, results=main.results[::-1])})
    assert program_digest(turned) == expected


def test_descriptions_and_metadata_do_not_matter(palettized, expected):
    def describe(spec):
        spec.description.metadata.author = "somebody"
        spec.description.metadata.userDefined["mvit_coreml.bits"] = "3"
        spec.description.input[0].shortDescription = "A picture."

    assert digest(edited(palettized, describe)) == expected


def test_it_does_not_matter_where_a_constant_is_stored(palettized, expected):
    package = PackageEditor(palettized)
    conv = next(
        op for op in package.ops("conv") if package.value(op, "bias").HasField("blobFileValue")
    )
    package.own(conv, "strides")
    bias = package.value(conv, "bias")
    offset = bias.blobFileValue.offset
    start, size = package._blob(bias)
    # A copy of the bias at the end of the file, 64 bytes after its descriptor.
    descriptor = bytearray(package.weights[offset : offset + 64])
    struct.pack_into("<Q", descriptor, 16, len(package.weights) + 64)
    bias.blobFileValue.offset = len(package.weights)
    package.weights += descriptor + package.weights[start : start + size]
    assert digest(package.save()) == expected


@pytest.mark.parametrize("stored", ["indices", "lut"])
def test_one_bit_of_a_palette_matters(palettized, expected, stored):
    package = PackageEditor(palettized)
    value = package.value(package.palettes()[0], stored)
    start, _ = package._blob(value)
    package.weights[start] ^= 1
    assert digest(package.save()) != expected


def test_types_shapes_and_the_interface_matter(palettized, expected):
    def opset(spec):
        spec.specificationVersion += 1

    def colors(spec):
        spec.description.input[0].type.imageType.colorSpace = 30

    def output(spec):
        spec.description.output[1].name = "probabilities"

    def dimension(spec):
        relu = operations(spec, "relu6")[0]
        relu.outputs[0].type.tensorType.dimensions[1].constant.size += 1

    def label(spec):
        (classify,) = operations(spec, "classify")
        values = constant(spec, classify, "classes").immediateValue.list.values
        values[3].immediateValue.tensor.strings.values[0] = "trout"

    changes = opset, colors, output, dimension, label
    digests = {digest(edited(palettized, change)) for change in changes}
    assert len(digests | {expected}) == len(changes) + 1


def test_connections_matter():
    def first(mb, x):
        a, b = mb.relu(x=x), mb.sigmoid(x=x)
        return mb.sub(x=a, y=b)

    def second(mb, x):
        a, b = mb.relu(x=x), mb.sigmoid(x=x)
        return mb.sub(x=b, y=a)

    assert digest(program_package(first)) != digest(program_package(second))
    assert digest(program_package(first)) == digest(program_package(first))


def test_equal_constants_of_other_types_differ():
    def build(kind):
        def program(mb, x):
            weight = random_weight(4, 8, 1, 1).astype(np.float16).astype(kind)
            return mb.conv(x=x, weight=weight)

        return program_package(program, dtype="fp16" if kind is np.float16 else "fp32")

    assert digest(build(np.float16)) != digest(build(np.float32))


def test_every_function_and_the_default_one_matter():
    package = with_two_functions(converted("mobilenet_v2")[0].path)

    def default(spec):
        spec.description.defaultFunctionName = "second"

    def second(spec):
        operations(spec, "relu6", "second")[0].type = "relu"

    digests = {digest(package), digest(edited(package, default)), digest(edited(package, second))}
    assert len(digests) == 3
