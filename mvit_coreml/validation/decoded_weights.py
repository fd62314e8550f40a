"""Whether a package computes what is stored in it, whatever its bits.

PyTorch computes with the weights that a package decodes to, and must answer like the package. What
palettes take from the weights is then in both answers, so that faults of the program far below the
noise of palettization show: only the rounding of half precision is left between the two.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.evaluation.metrics import ClosenessMeter
from mvit_coreml.evaluation.targets import OutputRole, PackageTarget, ReferenceTarget, shape_of
from mvit_coreml.export.image_input import bake_preprocessing
from mvit_coreml.mil.activation_pairs import read_pairs, without_pairs
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.parallel import parallel_map
from mvit_coreml.mil.stored_weights import Constants
from mvit_coreml.models.base import Model, backbone_of, build_model
from mvit_coreml.models.folding import prepare_for_export
from mvit_coreml.models.layers import ConvLayer
from mvit_coreml.preprocessing.image_processor import ColorOrder

Array = NDArray[Any]

# Distance, relative to the longer of the two, up to which a stored weight is taken for one of the
# network. The coarsest palette, of one bit, is 0.6 away from normally distributed weights; weights
# that have nothing to do with each other are 1 apart and more.
_FARTHEST = 0.75
# How much nearer another parameter must be before a stored weight's name is not believed; training
# can take a weight far from what it was.
_NAME_COUNTS = 0.5
# Share of the network's numbers below which the answer would be that of another network.
_LEAST_MATCHED = 0.5
# What conversions add to the names of parameters.
_ADDED_TO_NAMES = re.compile(r"^model_|(_to_fp16|_palettized|_quantized)+$")


@dataclass(frozen=True, kw_only=True)
class DecodedWeights:
    """How closely a package answers like PyTorch with the package's own weights.

    Attributes:
        snr: signal to noise in dB of the package's scores before softmax, sigmoid or argmax (of its
            first output, where it gives features), all images together.
        replaced: number of parameters taken from the package.
        unmatched: parameters of the network for which the package stores nothing alike; they keep
            the checkpoint's values.
    """

    snr: float
    replaced: int
    unmatched: tuple[str, ...]


def check_decoded_weights(
    target: PackageTarget,
    checkpoint: Checkpoint,
    images: Sequence[Any],
    *,
    color_order: ColorOrder | None = None,
) -> DecodedWeights | None:
    """Compare a package with PyTorch computing with the weights that the package decodes to.

    The stored weights are matched to the parameters of the network, one to one, by shape, values
    and names. The network is the folded one that this project converts, or, for packages of other
    tools, the checkpoint's own with its batch normalizations folded or not. A package that rounds
    activations to 8 bits is run without that, as PyTorch does not.

    Args:
        target: the package, of this project or of another tool.
        checkpoint: what it was made from.
        images: paths, Pillow images or arrays; PyTorch gets the pixels that the package gets.
        color_order: order of the network's channels, if it is not the checkpoint's.

    Returns:
        ``None`` where less than half of the network's numbers are matched, as of a package that
        folds its weights in ways unknown here or is another network's, and where the package gives
        nothing to compare: neither scores before a softmax or argmax nor features.

    Raises:
        PackageError: a weight cannot be decoded, or the package cannot be run.
        InputError: an output that the checkpoint has no counterpart for.
    """
    compared = _compared_value(target)
    if compared is None or not images:
        return None
    fit = target.preparation.fit
    reference = ReferenceTarget(checkpoint, (compared,), fit, target.image.size, color_order)
    match = _best_match(target, reference, images[0])
    if match.share < _LEAST_MATCHED:
        return None
    reference.model = match.model
    # Assigned, not copied into: the parameters may be the checkpoint's own tensors.
    reference.model.load_state_dict(match.decoded, strict=False, assign=True)
    # PyTorch does not round activations to 8 bits, so neither may the package here.
    function = without_pairs(target.function)
    rounded = {pair.rounded: pair.value for pair in read_pairs(target.function)}
    name = rounded.get(compared.name, compared.name)
    package = replace(target.package, functions={function.name: function})
    runtime = Runtime(package, function.name, target.predictor.arithmetic)

    def run(image: Any) -> tuple[Array, Array]:
        fitted = target.preparation(image)
        inputs = {target.image.name: fitted.pixels}
        value = runtime.run(inputs, [], intermediates=[name])[name]
        answer = reference.answer_fitted(fitted)
        expected = answer.raw_scores
        return value, answer.outputs[compared.role] if expected is None else expected

    meter = ClosenessMeter()
    for value, expected in parallel_map(run, images, target.workers):
        if value.size != expected.size:
            return None
        meter.add(value, expected)
    return DecodedWeights(
        snr=meter.result().snr, replaced=len(match.decoded), unmatched=match.unmatched
    )


def _compared_value(target: PackageTarget) -> OutputRole | None:
    """Return the value that is compared, by its name in the program."""
    name = target.raw_scores
    if name is not None:
        return OutputRole(name=name, role="logits", shape=shape_of(name, target.function))
    kinds = ("logits", "map_logits", "features", "values")
    return next((role for role in target.roles if role.kind in kinds), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Match:
    """A network whose parameters were looked for in a package.

    Attributes:
        model: the network.
        decoded: values from the package by the names of parameters and buffers.
        unmatched: names of the others that take part in the answer.
        share: of the numbers of all that take part, the share that was matched.
    """

    model: Model[Any]
    decoded: dict[str, Tensor] = field(repr=False)
    unmatched: tuple[str, ...]
    share: float


def _best_match(target: PackageTarget, reference: ReferenceTarget, image: Any) -> _Match:
    """Return the form of the network that most of a package's weights belong to."""
    stored = _decoded_constants(Constants(target.function))
    best: _Match | None = None
    for model in _forms_of(reference):
        match = _match(stored, model, reference, lambda: target.preparation(image))
        if best is None or match.share > best.share:
            best = match
        if not match.unmatched:
            break
    assert best is not None
    return best


def _forms_of(reference: ReferenceTarget) -> Iterator[Model[Any]]:
    """Yield the network as this project converts it, and as others may."""
    features = reference.roles[0].kind == "features"
    model, merged = reference.model, build_model(reference.checkpoint)
    if features:
        model, merged = backbone_of(model), backbone_of(merged)
    yield prepare_for_export(model)
    for layer in merged.modules():
        if isinstance(layer, ConvLayer) and layer.normalization is not None:
            layer.convolution = fuse_conv_bn_eval(layer.convolution, layer.normalization)
            layer.normalization = None
    yield merged
    yield model


@dataclass(frozen=True, eq=False)
class _Stored:
    """A weight of a package.

    Attributes:
        name: of the parameter it was made from, as far as it tells.
        values: decoded, without axes of length one.
        uses: number of operations that take it; equal weights are stored once.
    """

    name: str
    values: Array
    uses: int


@dataclass(frozen=True, eq=False)
class _Form:
    """A parameter in one of the forms that packages store it in.

    Attributes:
        parameter: its name.
        values: the checkpoint's in this form, without axes of length one.
        restore: turns stored values of this form into the parameter's.
    """

    parameter: str
    values: Array
    restore: Callable[[Array], Array]


def _decoded_constants(constants: Constants) -> list[_Stored]:
    return [
        _Stored(
            name=_ADDED_TO_NAMES.sub("", weight.name),
            values=np.squeeze(np.asarray(constants.decode(weight.argument), np.float32)),
            uses=len(weight.users),
        )
        for weight in constants.weights()
        if weight.type.data_type.is_float
    ]


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's parameters and buffers of floats by name."""
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in named.items() if tensor.is_floating_point()}


def _match(
    stored: Sequence[_Stored],
    model: Model[Any],
    reference: ReferenceTarget,
    fitted: Callable[[], Any],
) -> _Match:
    parameters = _parameters(model)
    groups: dict[tuple[int, ...], tuple[list[_Stored], list[_Form]]] = defaultdict(lambda: ([], []))
    for one in stored:
        groups[one.values.shape][0].append(one)
    first = backbone_of(model).first_convolution.weight
    for name, tensor in parameters.items():
        scales = _input_scales(reference) if tensor is first else (1.0,)
        for form in _stored_forms(name, tensor, scales):
            groups[form.values.shape][1].append(form)
    decoded: dict[str, Tensor] = {}
    for constants, forms in groups.values():
        for one, form in _pairs(constants, forms, decoded):
            shape = parameters[form.parameter].shape
            values = np.ascontiguousarray(form.restore(one.values).reshape(shape), np.float32)
            decoded[form.parameter] = torch.from_numpy(values)
    unmatched = [name for name in parameters if name not in decoded]
    if unmatched:
        used = _used(model, reference, fitted())
        unmatched = [name for name in unmatched if id(parameters[name]) in used]
    matched = sum(values.numel() for values in decoded.values())
    total = matched + sum(parameters[name].numel() for name in unmatched)
    return _Match(
        model=model, decoded=decoded, unmatched=tuple(unmatched), share=matched / max(total, 1)
    )


def _input_scales(reference: ReferenceTarget) -> tuple[Any, ...]:
    """Return the factors on the input channels that the first convolution may hold."""
    config, processor = reference.checkpoint.config, reference.processor
    scale = bake_preprocessing(processor, config.num_channels, config.image_hw).weight_scale
    return (1.0,) if scale is None else (1.0, np.asarray(scale, np.float32)[:, None, None])


def _stored_forms(name: str, tensor: Tensor, scales: Sequence[Any]) -> Iterator[_Form]:
    """Yield the forms that a parameter may be stored in."""
    values = tensor.detach().numpy()
    for scale in scales:
        yield _Form(name, np.squeeze(values * scale), partial(np.multiply, 1 / scale))
    matrix = np.squeeze(values)
    if matrix.ndim == 2:
        yield _Form(name, matrix.T, np.transpose)


def _pairs(
    constants: Sequence[_Stored], forms: Sequence[_Form], taken: dict[str, Tensor]
) -> list[tuple[_Stored, _Form]]:
    """Pair stored weights with parameters of their shape, the nearest first."""
    if not constants or not forms:
        return []
    distances = _distances([one.values for one in constants], [form.values for form in forms])
    named = np.array([[_named_after(one, form) for form in forms] for one in constants])
    distances[named] = np.minimum(_NAME_COUNTS * distances[named], _FARTHEST)
    uses = [one.uses for one in constants]
    pairs: dict[str, tuple[_Stored, _Form]] = {}
    for flat in np.argsort(distances, axis=None, kind="stable"):
        row, column = divmod(int(flat), len(forms))
        if distances[row, column] > _FARTHEST:
            break
        parameter = forms[column].parameter
        if uses[row] and parameter not in pairs and parameter not in taken:
            uses[row] -= 1
            pairs[parameter] = constants[row], forms[column]
    return list(pairs.values())


def _named_after(stored: _Stored, form: _Form) -> bool:
    return stored.name == form.parameter.replace(".", "_")


def _distances(one: Sequence[Array], other: Sequence[Array]) -> NDArray[np.float64]:
    """Return the distance of every two arrays, relative to the longer of the two."""
    left, right = (np.stack([a.ravel() for a in side]).astype(np.float64) for side in (one, other))
    powers = np.square(left).sum(1)[:, None], np.square(right).sum(1)[None, :]
    squares = powers[0] + powers[1] - 2 * left @ right.T
    longest = np.maximum(*powers)
    ratios = np.divide(squares, longest, out=np.zeros_like(squares), where=longest != 0)
    # Numbers that are not finite are near nothing; rounding can take a square below zero.
    return np.sqrt(np.clip(np.nan_to_num(ratios, nan=np.inf, posinf=np.inf), 0, None))


class _UseRecorder(TorchFunctionMode):
    """Takes note of the tensors that are computed with."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[int] = set()

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.used |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return function(*args, **(kwargs or {}))


def _used(model: Model[Any], reference: ReferenceTarget, fitted: Any) -> set[int]:
    """Return the identities of the tensors that take part in a network's answer."""
    before, reference.model = reference.model, model
    with _UseRecorder() as recorder:
        reference.answer_fitted(fitted)
    reference.model = before
    return recorder.used
