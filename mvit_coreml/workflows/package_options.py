"""What kind of package to make, and what is made when nothing is said."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.compression.quantization.quantization_plan import QUANTIZATION_IOS
from mvit_coreml.errors import InputError
from mvit_coreml.export.output_heads import OUTPUTS_OF_TASK, MapSize, MapType, OutputKind
from mvit_coreml.export.torch_to_mil import IOS_TARGETS, Precision
from mvit_coreml.files import parse_json
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.preprocessing.geometry import Fit
from mvit_coreml.preprocessing.image_processor import ColorOrder

if TYPE_CHECKING:
    from mvit_coreml.compression.promise import Promise

# What a package's metadata keeps of its options: all that its program depends on.
_STORED = (
    "ios",
    "precision",
    "fp32_operations",
    "output",
    "activation",
    "map_size",
    "map_type",
    "confidence",
    "layers",
    "image_sizes",
    "fit",
    "share_constants",
)
# Those that packages made by earlier versions do not have; what is left out was the only way.
_STORED_LATER = {"activation", "map_type", "confidence", "share_constants"}
# Ways to compute in integers.
Quantize = Literal["w8a8", "auto"]
# First target whose packages may hold several functions.
MULTIFUNCTION_IOS = 18
# First target whose packages may answer 8-bit arrays.
_INT8_IOS = 26


@dataclass(frozen=True, kw_only=True)
class PaletteOptions:
    """How weights are palettized.

    Attributes:
        bits: 8, 6, 4, 3 (from iOS 18), 2 or 1 for every weight that is worth it; ``auto`` shares
            bits out to keep the promise; ``None`` leaves the weights as they are.
        kmeans_only: palettes of k-means alone, fitted neither to images nor to synthetic pictures.
        group_size: output channels that share a look-up table (from iOS 18); 0 for one table a
            weight.
        promise: what the package must keep of the checkpoint's answers, and its size; ``None`` is
            the default promise, see :func:`~mvit_coreml.compression.promise.default_promise`.
        dataset: folder or CSV with labelled images that the promise's loss of accuracy is
            measured on.
        tune_minutes: tune fitted palettes for this long at most; ``None`` does not.
        plan: file of a plan to carry out instead of all these.
        quantize: ``w8a8`` for 8-bit weights and activations instead of palettes, with ``bits``
            ``None`` (from iOS 17 on); ``auto`` leaves the layers in floating point whose rounding
            costs most, where the promise is broken otherwise.
    """

    bits: int | Literal["auto"] | None = "auto"
    kmeans_only: bool = False
    group_size: int = 0
    promise: Promise | None = None
    dataset: Path | None = None
    tune_minutes: float | None = None
    plan: Path | None = None
    quantize: Quantize | None = None

    def check(self, ios: int) -> None:
        """Refuse what excludes each other, or what packages for an iOS version cannot hold."""
        if isinstance(self.bits, str) and self.bits != "auto":
            raise InputError(f"bits is {self.bits!r}; it must be a number, 'auto' or None")
        if self.quantize is not None:
            _check_choice("quantize", self.quantize, get_args(Quantize))
            self._check_quantize(ios)
        if self.kmeans_only and (self.bits == "auto" or self.tune_minutes is not None):
            raise InputError(
                "k-means alone (--no-fit) takes a number of bits (--bits 6), and no tuning"
            )
        promised = self.promise is not None and self.promise.max_drop is not None
        if promised != (self.dataset is not None):
            raise InputError("a promised drop of accuracy and a labelled dataset go together")
        if self.group_size and self.bits is None:
            raise InputError("a group size needs bits")
        if self.bits is not None:
            Choice(8 if self.bits == "auto" else int(self.bits), self.group_size).check_target(ios)
        if self.tune_minutes is not None and not 0 < self.tune_minutes < math.inf:
            raise InputError(f"{self.tune_minutes:g} minutes of tuning: give more than 0")
        if self.tune_minutes is not None and self.bits is None and self.plan is None:
            raise InputError("there is nothing to tune without palettes; give bits")

    def _check_quantize(self, ios: int) -> None:
        if self.bits is not None or self.kmeans_only or self.group_size or self.plan is not None:
            raise InputError(
                "quantizing stores weights as 8-bit numbers; it takes no palettes (leave out"
                " --bits, --no-fit, --group-size and --plan)"
            )
        if self.tune_minutes is not None:
            raise InputError(
                f"there are no palettes to tune with {self.quantize}; leave out --tune"
            )
        if ios < QUANTIZATION_IOS:
            raise InputError(
                f"8-bit activations need iOS {QUANTIZATION_IOS} or newer (--ios"
                f" {QUANTIZATION_IOS}), not iOS {ios}"
            )

    def check_images(self, images: Sequence[Any] | None) -> None:
        """Refuse a promise that takes photos where there are none, before any work is done."""
        promise = self.promise
        if promise is None or images is not None:
            return
        if promise.min_agreement is not None or promise.min_miou is not None:
            raise InputError(
                f"{promise} is promised, but that takes photos (--images); without them promise an"
                " SNR (--min-snr)"
            )


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(PaletteOptions):
    """What kind of package to make: how its weights are palettized, and the following.

    Attributes:
        ios: deployment target: 16, 17, 18 or 26.
        precision: compute precision: ``fp16``, ``fp32``, or ``mixed``: fp16 but for the operations
            whose values leave its safe range on sample images.
        fp32_operations: what a mixed program keeps in fp32, by the names of an fp32 program's
            operations; ``None`` measures it.
        output: what the package answers; ``None`` is the task's first kind: ``probabilities`` of a
            classifier (``values`` of a regression), ``classes`` of a segmenter, ``features`` of a
            backbone.
        activation: what a classifier's logits go through: ``softmax`` where a photo has one label,
            ``sigmoid`` where it may have several, ``none`` where they are the values of a
            regression; ``None`` is what the checkpoint's ``problem_type`` means.
        map_size: size of a segmenter's maps: the input's, the logits' own, or (height, width);
            ``None`` is the input's, but for the ``logits`` output their own. Other models and the
            ``features`` have no map.
        map_type: form of a segmenter's class map: an ``int32`` array, a grayscale ``image``, or
            ``uint8`` for one byte a position: from iOS 26 on an 8-bit array, which holds classes to
            127, else the image, which holds them to 255.
        confidence: add the probability of each position's class to a class map.
        layers: hidden states to add to ``features``, counted from 0.
        image_sizes: (height, width) of the input in pixels; several make a multifunction package
            whose first is the default; none is the size of the checkpoint's processor.
        fit: how a photo is brought to the input: ``crop``, ``stretch`` or ``pad``; ``None`` crops
            for classifiers and backbones, as their processors do, and pads for segmenters, which
            then see the whole photo undistorted.
        color_order: ``RGB`` or ``BGR`` instead of the checkpoint's.
        share_constants: let operations share equal strides, paddings, axes and the like; without,
            every operation has its own, as coremltools writes them.
        author: metadata; ``None`` is the owner of a hub id.
        license: metadata; ``None`` is what the catalogue knows.
        description: metadata; ``None`` is a sentence about the model.
        version: metadata.
    """

    ios: int = 17
    precision: Precision = "fp16"
    fp32_operations: tuple[str, ...] | None = None
    output: OutputKind | None = None
    activation: HeadActivation | None = None
    map_size: MapSize | None = None
    map_type: MapType | None = None
    confidence: bool = False
    layers: tuple[int, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] = ()
    fit: Fit | None = None
    color_order: ColorOrder | None = None
    share_constants: bool = True
    author: str | None = None
    license: str | None = None
    description: str | None = None
    version: str = "1.0"

    def __post_init__(self) -> None:
        _check_choice("ios", self.ios, IOS_TARGETS)
        _check_choice("precision", self.precision, ("fp16", "mixed", "fp32"))
        self.check(self.ios)
        _check_choice("activation", self.activation, (None, "softmax", "sigmoid", "none"))
        _check_choice("map_type", self.map_type, (None, "int32", "uint8", "image"))
        _check_choice("fit", self.fit, (None, "crop", "stretch", "pad"))
        _check_choice("color_order", self.color_order, (None, "RGB", "BGR"))
        _check_sizes("image size", self.image_sizes)
        if isinstance(self.map_size, tuple):
            _check_sizes("map size", (self.map_size,))
        if len(set(self.image_sizes)) != len(self.image_sizes):
            raise InputError("an image size is given twice; give each once")
        if len(self.image_sizes) > 1 and self.ios < MULTIFUNCTION_IOS:
            raise InputError(
                f"several image sizes need iOS {MULTIFUNCTION_IOS} or newer (--ios 18); "
                f"for iOS {self.ios} convert one package for each size"
            )
        if len(self.image_sizes) > 1 and self.quantize is not None:
            raise InputError(
                "quantizing takes one image size, whose activations it measures; convert one"
                " package for each size"
            )

    def to_json(self) -> str:
        """Return what a package's program and preprocessing depend on, as one JSON document."""
        return json.dumps({name: getattr(self, name) for name in _STORED})

    @classmethod
    def from_json(cls, text: str) -> ConvertOptions:
        """Return the options of :meth:`to_json`, without palettes.

        Raises:
            ValueError: the text is damaged.
            InputError: an option has a value that it cannot have.
        """
        stored: Any = parse_json(text)
        keys = set(stored) if isinstance(stored, dict) else set()
        if not set(_STORED) - _STORED_LATER <= keys <= set(_STORED):
            raise ValueError(f"it must have the keys {', '.join(_STORED)}")
        return cls(bits=None, **{name: _as_tuple(value) for name, value in stored.items()})


def fit_of(options: ConvertOptions) -> Fit:
    """Return the fit of options with every default filled in."""
    assert options.fit is not None
    return options.fit


def fill_in(options: ConvertOptions, checkpoint: Checkpoint) -> ConvertOptions:
    """Replace every ``None`` by what it stands for with this checkpoint."""
    segments = checkpoint.task == "semantic-segmentation"
    output, activation = _head(options, checkpoint)
    has_map = segments and output not in ("features", "embedding")
    if options.map_size is not None and not has_map:
        raise InputError(
            f"a map size does not apply to the {output} of a model for {checkpoint.task}; "
            "only the classes, probabilities and logits of a segmenter are maps"
        )
    if output != "classes" and (options.map_type is not None or options.confidence):
        option = "a confidence" if options.map_type is None else "a map type"
        raise InputError(
            f"{option} does not apply to the {output} of a model for {checkpoint.task}; only the "
            "classes of a segmenter have one"
        )
    return replace(
        options,
        output=output,
        activation=activation,
        map_size=(options.map_size or ("logits" if output == "logits" else "input"))
        if has_map
        else None,
        map_type=_map_type(options, checkpoint) if output == "classes" else None,
        image_sizes=options.image_sizes or (checkpoint.input_size,),
        fit=options.fit or ("pad" if segments else "crop"),
        color_order=options.color_order or checkpoint.image_processor.color_order,
    )


def _map_type(options: ConvertOptions, checkpoint: Checkpoint) -> MapType:
    """Return the form of a class map; a byte a position takes the form that the target has."""
    classes, map_type = checkpoint.config.num_labels, options.map_type or "int32"
    if map_type == "uint8" and (options.ios < _INT8_IOS or classes > 128):
        map_type = "image"
    if map_type == "image" and classes > 256:
        raise InputError(
            f"{classes} classes do not fit into a map of one byte a position, which holds 256; "
            "leave its type at int32 (--map-type)"
        )
    return map_type


def _head(
    options: ConvertOptions, checkpoint: Checkpoint
) -> tuple[OutputKind, HeadActivation | None]:
    """Return what a package answers, and what its logits go through if it classifies."""
    output, activation = options.output, options.activation
    if checkpoint.task != "image-classification" or output in ("features", "embedding"):
        output = output or OUTPUTS_OF_TASK[checkpoint.task][0]
        if activation is not None:
            raise InputError(
                f"an activation does not apply to the {output} of a model for {checkpoint.task}; "
                "only the probabilities, logits and values of a classifier have one"
            )
        return output, None
    activation = activation or ("none" if output == "values" else checkpoint.config.head_activation)
    output = output or ("values" if activation == "none" else "probabilities")
    if (output == "values") != (activation == "none"):
        raise InputError(
            f"the output {output!r} does not go with the activation {activation!r}; values take "
            "none, probabilities and logits softmax or sigmoid (--activation)"
        )
    return output, activation


def _as_tuple(value: Any) -> Any:
    """Make tuples of what JSON has lists for."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _check_sizes(name: str, sizes: Sequence[tuple[int, int]]) -> None:
    for height, width in sizes:
        if height < 1 or width < 1:
            raise InputError(f"{name} {height}x{width} is empty; give it in pixels")


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        listed = ", ".join(str(choice) for choice in choices if choice is not None)
        raise InputError(f"{name} is {value!r}; it must be one of {listed}")
