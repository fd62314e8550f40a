"""Faults of weights that are stored as they are."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
from faults.planting import TRAINED, altered, checkpoint_of, convert_base, fault
from foreign import WEIGHTS
from standins import enliven

from mvit_coreml import Checkpoint, build_model


def changed(array, place, value):
    """Return a copy with one element replaced."""
    array = array.copy()
    array.flat[place] = value
    return array


def _bits_up(values, place, bits):
    """Move a number up by so many last bits."""
    number = values.flat[place]
    for _ in range(bits):
        number = np.nextafter(number, number.dtype.type(np.inf))
    return changed(values, place, number)


def _swap(package, first, second, parameter):
    one, other = package.value(first, parameter), package.value(second, parameter)
    values = package.array(one), package.array(other)
    assert values[0].shape == values[1].shape
    package.store(one, values[1])
    package.store(other, values[0])


def _equal_shaped(package, operations, parameter):
    """Return the last two operations whose stored arrays have one shape and are not shared."""
    seen = {}
    for op in reversed(operations):
        if package._defining(op, parameter).type != "const":
            continue
        value = package.value(op, parameter)
        shape = package.array(value).shape
        if shape in seen and seen[shape][1] != value.blobFileValue.offset:
            return op, seen[shape][0]
        seen[shape] = op, value.blobFileValue.offset
    raise AssertionError("no two weights of equal shape")


@fault("classifier", "decoded_weights", "two weights of equal shape exchanged", "2 of 53")
def _(package):
    _swap(package, *_equal_shaped(package, package.convs(kernel=1), "weight"), "weight")


@fault("transformer", "decoded_weights", "a weight transposed", "1 square matrix of 16 x 16")
def _(package):
    conv = next(
        conv
        for conv in package.convs(kernel=1)
        if package.array(package.value(conv, "weight")).shape == (16, 16, 1, 1)
    )
    package.change(conv, "weight", lambda weight: weight.swapaxes(0, 1))


@fault("classifier", "snr", "an output channel zeroed", "1 of 8 in the first convolution")
def _(package):
    package.change(
        package.ops("conv")[0], "weight", lambda weight: np.r_[weight[:-1], 0 * weight[-1:]]
    )


@fault("classifier", "weight", "a number of a weight changed", "3 last bits")
def _(package):
    package.change(package.ops("linear")[0], "weight", lambda weight: _bits_up(weight, 100, 3))


@fault("fp32 classifier", "weight", "a number of a float32 weight changed", "16 last bits")
def _(package):
    package.change(package.ops("linear")[0], "weight", lambda w: _bits_up(w, w.argmax(), 16))


@fault("classifier", "decoded_weights", "a number of a weight is NaN", "1 of 8960")
def _(package):
    package.change(package.ops("linear")[0], "weight", lambda weight: changed(weight, 9, np.nan))


@fault("classifier", "weight", "a bias element changed", "3 last bits")
def _(package):
    package.change(package.ops("conv")[7], "bias", lambda bias: _bits_up(bias, 5, 3))


@fault(TRAINED, "weight", "a bias element changed", "3 last bits")
def _(package):
    package.change(package.ops("conv")[20], "bias", lambda bias: _bits_up(bias, 5, 3))


@fault("classifier", "weight", "biases of two convolutions exchanged", "2 of 53")
def _(package):
    _swap(package, *_equal_shaped(package, package.convs(kernel=1), "bias"), "bias")


def _another(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of the same architecture that was trained otherwise, so to speak."""
    # A model's parameters are the checkpoint's tensors themselves.
    model = copy.deepcopy(build_model(checkpoint))
    enliven(model, (64, 64), seed=1)
    return replace(checkpoint, weights=model.state_dict())


@altered("6-bit segmenter", "weight", "weights of another checkpoint", "same architecture")
def _(checkpoint):
    return _another(checkpoint)


@cache
def _other_weights() -> bytes:
    path = convert_base("classifier", _another(checkpoint_of("classifier")))
    return (path / WEIGHTS).read_bytes()


@fault("classifier", "snr", "weight.bin is another checkpoint's", "same architecture")
def _(package):
    assert len(_other_weights()) == len(package.weights)
    package.weights[:] = _other_weights()


def _gamma_up(checkpoint: Checkpoint, part: str) -> Checkpoint:
    """Make the scale of one channel of a normalization 1 % larger."""
    name = next(name for name in checkpoint.weights if part in name and name.endswith("weight"))
    weights = dict(checkpoint.weights)
    weights[name] = weights[name].clone()
    weights[name][3] *= 1.01
    return replace(checkpoint, weights=weights)


@altered("6-bit classifier", "weight", "gamma of a batch norm", "1 % in one of 240 channels")
def _(checkpoint):
    return _gamma_up(checkpoint, "layer.12.expand_1x1.normalization")


@altered("6-bit transformer", "weight", "gamma of a layer norm", "1 % in one of 32 channels")
def _(checkpoint):
    return _gamma_up(checkpoint, "encoder.layer.4.transformer.layer.0.layernorm_before")


def _query_scaled(package, factor):
    conv = package.ops("conv")[_first_attention(package)]

    def scale(array):
        array = array.copy()
        array[: len(array) // 3] *= factor
        return array

    package.change(conv, "weight", scale)
    package.change(conv, "bias", scale)


def _first_attention(package):
    shapes = [
        package.array(package.value(conv, "bias")).shape if "bias" in conv.inputs else ()
        for conv in package.ops("conv")
    ]
    return shapes.index((48,))


@fault("transformer", "snr", "scale of attention missing", "query 2 times: 4 values a head")
def _(package):
    _query_scaled(package, 2.0)


@fault("transformer", "weight", "scale of attention by the wrong size", "query 1 % too large")
def _(package):
    _query_scaled(package, 1.01)


@fault("two sizes", "weight", "one function of two uses another bias", "that of the next layer")
def _(package):
    package.function = "size_32x64"
    one, other = _equal_shaped(package, package.convs(kernel=1), "bias")
    package.value(one, "bias").blobFileValue.offset = package.value(
        other, "bias"
    ).blobFileValue.offset
