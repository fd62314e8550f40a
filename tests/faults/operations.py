"""Faults of operations and their connections."""

from __future__ import annotations

from dataclasses import replace

from faults.planting import TRAINED, altered, fault


@fault("transformer", "attribute", "epsilon of a layer norm changed", "1e-6 for 1e-5")
@fault(TRAINED, "attribute", "epsilon of a layer norm changed", "1e-6 for 1e-5")
def _(package):
    package.set(package.ops("layer_norm")[0], "epsilon", 1e-6)


@fault("classifier", "consistency", "softmax over the wrong axis", "0 for -1")
def _(package):
    package.set(package.ops("softmax")[0], "axis", 0)


@fault(
    "separable transformer",
    "decoded_weights",
    "softmax of an attention over the wrong axis",
    "-2 for -1",
)
def _(package):
    package.set(package.ops("softmax")[0], "axis", -2)


@fault("segmenter", "snr", "class map off by one", "every pixel")
def _(package):
    argmax = package.ops("reduce_argmax")[0]
    add = type(argmax).FromString(argmax.SerializeToString())
    add.type = "add"
    for name in [name for name in add.inputs if name != "x"]:
        del add.inputs[name]
    del add.attributes["name"]
    one = add.inputs["y"].arguments.add().value
    one.type.tensorType.dataType = 23  # int32
    one.immediateValue.tensor.ints.values.append(1)
    argmax.outputs[0].name = "unshifted"
    add.inputs["x"].arguments[0].name = "unshifted"
    package.insert_after(argmax, add)


@fault("6-bit segmenter", "graph", "class map from the least likely class", "negated scores")
def _(package):
    argmax = package.ops("reduce_argmax")[0]
    argmax.type = "reduce_argmin"


@fault("segmenter", "error", "argmax over the wrong axis", "2 for 1")
def _(package):
    package.set(package.ops("reduce_argmax")[0], "axis", 2)


@fault("segmenter", "attribute", "upsampling with aligned corners", "the flag")
def _(package):
    package.set(package.ops("upsample_bilinear")[0], "align_corners", True)


@fault("segmenter", "attribute", "a dilation changed", "11 for 12, with its padding")
def _(package):
    conv = next(
        c for c in package.convs(kernel=3) if package.array(package.value(c, "dilations"))[0] == 12
    )
    package.set(conv, "dilations", 11, 11)
    package.set(conv, "pad", 11, 11, 11, 11)


@fault("classifier", "error", "strides of a convolution changed", "1 for 2")
def _(package):
    package.set(package.ops("conv")[0], "strides", 1, 1)


@fault("classifier", "error", "stride of a convolution is zero", "0 for 1")
def _(package):
    package.set(package.ops("conv")[1], "strides", 0, 0)


@fault("classifier", "error", "a cast to an unknown type", "'double precision' for 'fp16'")
def _(package):
    value = package.own(package.ops("cast")[0], "dtype")
    value.immediateValue.tensor.strings.values[0] = "double precision"


@fault("classifier", "error", "a text where a tensor belongs", "1 operand")
def _(package):
    cast = package.ops("cast")[0]
    package.ops("relu6")[0].inputs["x"].CopyFrom(cast.inputs["dtype"])


@fault("classifier", "decoded_weights", "padding of a convolution on the other side", "1 pixel")
def _(package):
    package.set(package.ops("conv")[0], "pad_type", "same_lower")


@fault("classifier", "graph", "relu6 became relu", "the first of 35")
def _(package):
    package.ops("relu6")[0].type = "relu"


@fault("transformer", "graph", "silu became relu", "the last of 34")
def _(package):
    package.ops("silu")[-1].type = "relu"


@fault(
    "transformer", "decoded_weights", "a residual connection from another value", "the first of 21"
)
def _(package):
    package.reconnect(package.ops("add")[0], "x")


@fault("transformer", "decoded_weights", "query and key exchanged", "one head block of 9")
def _(package):
    matmul = package.ops("matmul")[0]
    x, y = matmul.inputs["x"].arguments[0], matmul.inputs["y"].arguments[0]
    x.name, y.name = y.name, x.name


@fault("transformer", "decoded_weights", "parts of a concatenation exchanged", "1 of 3")
def _(package):
    one, other = package.ops("concat")[0].inputs["values"].arguments
    one.name, other.name = other.name, one.name


@fault("transformer", "decoded_weights", "patches and channels exchanged", "1 of 6 transposes")
def _(package):
    package.set(package.ops("transpose")[0], "perm", 1, 3, 2, 0)


@fault("transformer", "error", "patches not brought to the front", "perm 0 1 2 3 for 1 0 2 3")
def _(package):
    package.set(package.ops("transpose")[0], "perm", 0, 1, 2, 3)


@altered("segmenter", "graph", "output stride of the backbone", "8 for 16")
def _(checkpoint):
    return replace(checkpoint, config=checkpoint.config.replace(output_stride=8))
