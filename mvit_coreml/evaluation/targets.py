"""What answers photos: a saved package, and the PyTorch reference beside it.

Both take the same photos and give the same kind of :class:`Answer`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.metrics import sigmoid, softmax
from mvit_coreml.evaluation.read_metadata import (
    Preparation,
    choose_preparation,
    class_labels,
    image_input,
)
from mvit_coreml.mil.interpreter import RangeRecorder
from mvit_coreml.mil.parallel import parallel_map
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.mil.program import (
    Function,
    OutputFeature,
    classified_value,
    head_activation,
    holds_classes,
    raw_scores_name,
)
from mvit_coreml.models.base import Backbone, ImageClassifier, SemanticSegmenter, build_model
from mvit_coreml.models.config import HeadActivation
from mvit_coreml.preprocessing.geometry import Fit, Placement
from mvit_coreml.preprocessing.image_processor import FittedImage, ImageProcessor, fit_image
from mvit_coreml.preprocessing.segmentation_maps import (
    post_process_semantic_segmentation,
    unfit_map,
)

# In a photo's class map: a pixel that the fit cut off, which the package never saw.
NOT_SEEN = -1

Kind = Literal[
    "probabilities",
    "logits",
    "map_probabilities",
    "map_logits",
    "classes",
    "confidence",
    "features",
    "values",
]
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one photo led to.

    Attributes:
        outputs: every output by its name in the package: float32 or int32 arrays; a classifier's
            probabilities as (num_labels,) in class order.
        placement: where the input lay in the photo.
        raw_scores: what a final softmax, sigmoid or argmax is taken of, which hide how far the
            scores are off; ``None`` where there is none, or Core ML runs the package.
        activation: what a classifier's logits go through: ``sigmoid`` where a photo may have
            several labels, ``none`` where they are the values of a regression.
    """

    outputs: dict[str, Array] = field(repr=False)
    placement: Placement
    raw_scores: Array | None = field(default=None, repr=False)
    activation: HeadActivation = "softmax"

    def scores(self) -> Array | None:
        """(num_labels,) probabilities or logits of a classifier."""
        value = None if self.activation == "none" else self._of_classes()
        return None if value is None or value.ndim > 2 else value.reshape(-1)

    def _of_classes(self) -> Array | None:
        return self.outputs.get("probabilities", self.outputs.get("logits"))

    def probabilities(self) -> Array | None:
        """(num_labels,) probabilities of a classifier: its answer, or those of its logits."""
        scores = self.scores()
        if scores is None or "probabilities" in self.outputs:
            return scores
        return sigmoid(scores) if self.activation == "sigmoid" else softmax(scores)

    def label_scores(self) -> Array | None:
        """(num_labels,) scores of several labels: one above 0 is likelier there than not."""
        scores = self.scores() if self.activation == "sigmoid" else None
        return scores if scores is None or "logits" in self.outputs else scores - 0.5

    def class_map(self) -> Array | None:
        """(h, w) class indices of a segmenter over its whole input."""
        if "classes" in self.outputs:
            return self.outputs["classes"].reshape(self.outputs["classes"].shape[-2:])
        value = self._of_classes()
        return None if value is None or value.ndim != 4 else value[0].argmax(0).astype(np.int32)

    def photo_confidence(self) -> Array | None:
        """(H, W) probability of the class that :meth:`photo_map` has there, if it is answered."""
        confidence = self.outputs.get("confidence")
        if confidence is None:
            return None
        return unfit_map(np.asarray(confidence, np.float32), self.placement, fill=NOT_SEEN)

    def photo_map(self) -> Array | None:
        """Lay a segmenter's classes on the whole photo.

        Scores of a map coarser than the input are resized to it bilinearly before the highest is
        taken; the map then comes to the photo by nearest neighbour.

        Returns:
            (H, W) int32 class indices of the photo's size, :data:`NOT_SEEN` where the fit cut it
            off; ``None`` for others than segmenters.
        """
        scores = self._of_classes()
        if "classes" in self.outputs or scores is None or scores.ndim != 4:
            classes = self.class_map()
        else:
            size = self.placement.input_size
            (classes,) = post_process_semantic_segmentation(scores.astype(np.float32), [size])
        if classes is None:
            return None
        return unfit_map(np.asarray(classes, np.int32), self.placement, fill=NOT_SEEN)


@dataclass(frozen=True, kw_only=True)
class OutputRole:
    """What an output of a package means, and its name among an :class:`Answer`'s outputs.

    Attributes:
        name: in the package.
        role: ``probabilities``, ``logits`` or ``classes``, or the name.
        shape: of an array, () where that is open.
        is_image: whether it is a picture, (1, channels, height, width) from 0 to 255.
    """

    name: str
    role: str
    shape: tuple[int, ...] = ()
    is_image: bool = False

    @property
    def kind(self) -> Kind:
        """What it holds; class maps and scores of all pixels have four axes."""
        if self.is_image:
            return "features"
        if self.role == "probabilities":
            return "map_probabilities" if len(self.shape) == 4 else "probabilities"
        if self.role == "logits":
            return "map_logits" if len(self.shape) == 4 else "logits"
        own: tuple[Kind, ...] = ("classes", "confidence", "values")
        return next((kind for kind in own if kind == self.role), "features")

    @property
    def is_map(self) -> bool:
        """Whether it tells the class of every pixel."""
        return self.kind in ("classes", "map_logits", "map_probabilities")

    @property
    def is_scores(self) -> bool:
        """Whether it holds a score for every class."""
        return self.kind not in ("classes", "confidence", "features", "values")


class Target(Protocol):
    """Something that answers photos."""

    @property
    def name(self) -> str:
        """What to call it in a report."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in class order, if it knows them."""

    def answer(self, images: Iterable[Any]) -> Generator[Answer, None, None]:
        """Answer photos, in order."""


class PackageTarget:
    """A saved package, run by the portable runtime or by Core ML.

    Args:
        predictor: the package and its engine.
        preparation: how photos are prepared; by default as the package's metadata says, or
            stretched to the input where it says nothing.
        num_labels: number of classes, to tell outputs apart in packages of other tools.
        workers: number of threads; all cores by default.
        others: values of further inputs by name.

    Raises:
        PackageError: the package does not take one image, and these inputs.
    """

    def __init__(
        self,
        predictor: Predictor,
        preparation: Preparation | None = None,
        num_labels: int | None = None,
        workers: int | None = None,
        others: Mapping[str, Array] | None = None,
    ) -> None:
        self.predictor, self.others = predictor, dict(others or {})
        self.package, self.function = predictor.package, predictor.function
        self.image = image_input(self.package, self.function, self.others)
        self.preparation: Preparation = (
            preparation or choose_preparation(self.package, self.function, others=self.others)[0]
        )
        self.workers = workers
        self.roles = output_roles(self.function, num_labels)
        self.raw_scores = raw_scores_name(self.function)
        self.activation = head_activation(self.package, self.function)

    @property
    def name(self) -> str:
        """The package's file name."""
        return self.package.path.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in class order, ``None`` where the package has none."""
        return class_labels(self.package, self.function)

    def answer(
        self, images: Iterable[Any], headroom: RangeRecorder | None = None
    ) -> Generator[Answer, None, None]:
        """Answer photos, in order, spread over the workers.

        Args:
            images: paths, Pillow images or arrays.
            headroom: takes note of how close each operation comes to the limits of fp16; needs
                the portable engine.
        """
        raw = self.raw_scores if self.predictor.engine == "portable" else None
        options: dict[str, Any] = {} if raw is None else {"intermediates": [raw]}
        if headroom is not None:
            options["headroom"] = headroom
        placements: dict[int, Placement] = {}

        def load(item: tuple[int, Any]) -> Array:
            fitted = self.preparation(item[1])
            placements[item[0]] = fitted.placement
            return fitted.pixels

        def run(item: tuple[int, Any]) -> dict[str, Any]:
            return self.run_pixels(load(item), **options)

        results = parallel_map(run, enumerate(images), self.workers)
        for index, result in enumerate(results):
            yield Answer(
                outputs=self._outputs(result),
                placement=placements.pop(index),
                raw_scores=None if raw is None else result[raw],
                activation=self.activation,
            )

    def run_pixels(self, pixels: Array, **options: Any) -> dict[str, Any]:
        """Run prepared (H, W, 3) uint8 RGB pixels; options as for ``Runtime.run``."""
        return self.predictor.run({self.image.name: pixels, **self.others}, **options)

    def _outputs(self, result: dict[str, Any]) -> dict[str, Array]:
        outputs = {}
        for role in self.roles:
            value = result[role.name]
            if isinstance(value, dict):
                labels = self.function.labels
                assert labels is not None
                value = np.array([value[label] for label in labels], np.float32)
            value = np.asarray(value)
            # Smaller numbers and images hold the same class indices.
            outputs[role.role] = value.astype(np.int32) if role.kind == "classes" else value
        return outputs


class PackageReference:
    """A package in the place of the PyTorch reference.

    Args:
        target: the package.
        roles: of the outputs that it is compared by, in its own order; by default its own.
    """

    def __init__(self, target: PackageTarget, roles: Sequence[OutputRole] | None = None) -> None:
        self.target = target
        self.renamed = {} if roles is None else _paired(target.roles, roles)

    @classmethod
    def matching(cls, target: PackageTarget, original: PackageTarget) -> PackageReference:
        """Return the reference that answers what a package answers, whatever it calls that.

        Raises:
            InputError: the two have other outputs.
        """
        sizes, others = (
            [(role.kind, role.shape) for role in one.roles] for one in (target, original)
        )
        if sizes != others:
            raise InputError(
                f"{target.name} and {original.name} do not compare: one returns"
                f" {_outputs_in_words(target)}, the other {_outputs_in_words(original)}"
            )
        return cls(original, target.roles)

    @property
    def name(self) -> str:
        """The package's file name."""
        return self.target.name

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in class order, if the package has them."""
        return self.target.labels

    def answer(self, images: Iterable[Any]) -> Generator[Answer, None, None]:
        """Answer photos, in order, with the raw scores."""
        with closing(self.target.answer(images)) as answers:
            for answer in answers:
                outputs = {self.renamed.get(n, n): value for n, value in answer.outputs.items()}
                yield replace(answer, outputs=outputs)


def _paired(own: Sequence[OutputRole], roles: Sequence[OutputRole]) -> dict[str, str]:
    return {one.role: other.role for one, other in zip(own, roles, strict=True)}


def _outputs_in_words(target: PackageTarget) -> str:
    return ", ".join(
        f"{role.name} ({'x'.join(map(str, role.shape)) or role.kind})" for role in target.roles
    )


def output_roles(function: Function, num_labels: int | None = None) -> tuple[OutputRole, ...]:
    """Say what each output of a function is, by its kind and shape.

    Args:
        function: of any tool's package.
        num_labels: number of classes, if known.
    """
    roles: dict[str, OutputRole] = {}
    for output in function.outputs:
        role = _output_role(output, function, num_labels)
        if role is not None and role.role in roles:
            # One output of each meaning; what else could have it goes by its own name.
            role = OutputRole(name=role.name, role=role.name, shape=role.shape)
        if role is not None:
            roles[role.role] = role
    return tuple(roles.values())


def _output_role(
    output: OutputFeature, function: Function, num_labels: int | None
) -> OutputRole | None:
    if output.kind == "dictionary":
        source = classified_value(function)
        known = source is None or _ends_in(("softmax", "sigmoid"), source, function)
        return OutputRole(name=output.name, role="probabilities" if known else "logits")
    if output.kind not in ("array", "image"):
        return None  # the label repeats what the probabilities say
    shape = output.shape or shape_of(output.name, function)
    role = output.name
    if output.kind == "image" and (role, output.color_order) == ("classes", "grayscale"):
        return OutputRole(name=role, role="classes", shape=shape)
    if output.kind == "image":
        return OutputRole(name=role, role=role, shape=shape, is_image=True)
    if output.data_type in ("int32", "int8"):
        # (height, width) of a map, behind axes of one element
        role = "classes" if len(shape) > 1 and set(shape[:-2]) <= {1} else role
    elif role == "probabilities" or (
        len(shape) in (0, 2, 4) and _ends_in(("softmax",), role, function)
    ):
        role = "probabilities"
    elif role not in _OWN_ROLES and "hidden_state" not in role:
        role = "logits" if holds_classes(shape, num_labels) else role
    return OutputRole(name=output.name, role=role, shape=shape)


# Outputs of this project's packages that are no scores, however many there are.
_OWN_ROLES = ("last_hidden_state", "pooler_output", "embedding", "confidence", "values")


def shape_of(name: str, function: Function) -> tuple[int, ...]:
    """Return the shape of a value of a program, 0 for what only a run decides."""
    producer = function.producers.get(name)
    values = [] if producer is None else [v for v in producer.outputs if v.name == name]
    return tuple(int(size or 0) for value in values for size in getattr(value.type, "shape", ()))


def _ends_in(op_types: tuple[str, ...], name: str, function: Function) -> bool:
    producer = function.producers.get(name)
    while producer is not None and producer.op_type in ("cast", "squeeze", "identity"):
        source = producer.inputs["x"][0]
        producer = function.producers.get(getattr(source, "name", ""))
    return producer is not None and producer.op_type in op_types


class ReferenceTarget:
    """The PyTorch reference, with the checkpoint's own image processor.

    Args:
        checkpoint: what to run.
        roles: the outputs to compute; by default the logits.
        fit: how photos are brought to the input.
        size: (height, width) of the input; by default the checkpoint's own.
        color_order: ``RGB`` or ``BGR`` instead of the checkpoint's.
        activation: what a classifier's logits go through instead of what its configuration says.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        roles: tuple[OutputRole, ...] = (OutputRole(name="logits", role="logits"),),
        fit: Fit = "crop",
        size: tuple[int, int] | None = None,
        color_order: str | None = None,
        activation: HeadActivation | None = None,
    ) -> None:
        self.checkpoint, self.roles, self.fit = checkpoint, roles, fit
        self.activation = activation or head_activation_of(checkpoint)
        trained = checkpoint.input_size
        processor = checkpoint.image_processor.for_input_size(size or trained, trained)
        if color_order is not None:
            processor = processor.replace(do_flip_channel_order=color_order == "BGR")
        self.processor: ImageProcessor = processor
        self.model = build_model(checkpoint)

    @classmethod
    def matching(
        cls, target: PackageTarget, checkpoint: Checkpoint, color_order: str | None = None
    ) -> ReferenceTarget:
        """Return the reference that answers what a package answers, on the same view of photos.

        Args:
            target: the package.
            checkpoint: what it was made from.
            color_order: ``RGB`` or ``BGR`` instead of the checkpoint's.
        """
        fit = target.preparation.fit
        size, activation = target.image.size, target.activation
        return cls(checkpoint, target.roles, fit, size, color_order, activation)

    @property
    def name(self) -> str:
        """The checkpoint's name."""
        return self.checkpoint.provenance.name

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return tuple(self.checkpoint.id2label.values())

    def answer(self, images: Iterable[Any]) -> Generator[Answer, None, None]:
        """Answer photos, in order, spread over all cores."""

        def run(image: Any) -> Answer:
            return self.answer_fitted(fit_image(image, self.processor, self.fit))

        return parallel_map(run, images)

    def answer_fitted(self, fitted: FittedImage) -> Answer:
        """Answer one photo that is at the input's size already."""
        pixel_values = self.processor.preprocess(
            fitted.pixels, do_resize=False, do_center_crop=False, input_data_format="channels_last"
        )
        with torch.inference_mode():
            if any(role.kind == "features" for role in self.roles):
                return Answer(outputs=self._features(pixel_values), placement=fitted.placement)
            logits = self._logits(pixel_values)
            outputs = {role.role: self._as_role(logits, role) for role in self.roles}
            raw = _resized(logits, self.roles[0]).numpy()
        return Answer(
            outputs=outputs,
            placement=fitted.placement,
            raw_scores=raw,
            activation=self.activation,
        )

    def _logits(self, pixel_values: torch.Tensor) -> torch.Tensor:
        model = self.model
        if isinstance(model, Backbone):
            raise InputError(f"{self.name} is a backbone and has no classes")
        logits: torch.Tensor = model(pixel_values).logits
        return logits

    def _features(self, pixel_values: torch.Tensor) -> dict[str, Array]:
        model = self.model
        if isinstance(model, ImageClassifier | SemanticSegmenter):
            model = model.backbone
        assert isinstance(model, Backbone)
        hidden_states: list[torch.Tensor] = []
        features = model.expand(model.forward_features(pixel_values, hidden_states))
        pooled = features.mean(dim=(-2, -1))
        known = {
            "last_hidden_state": features,
            "pooler_output": pooled,
            "embedding": F.normalize(pooled),
        }
        for index, state in enumerate(hidden_states):
            known[f"hidden_state_{index}"] = state
        unknown = [role.name for role in self.roles if role.role not in known]
        if unknown:
            raise InputError(
                f"the package's output {unknown[0]!r} has no counterpart in {self.name}"
            )
        return {role.role: known[role.role].numpy() for role in self.roles}

    def _as_role(self, logits: torch.Tensor, role: OutputRole) -> Array:
        """Bring the logits into the form of a package's output."""
        if role.kind in ("logits", "probabilities", "values"):
            scores: Array = logits.numpy().reshape(-1)
            if role.kind != "probabilities":
                return scores
            activate = sigmoid if self.activation == "sigmoid" else softmax
            return activate(scores).astype(np.float32)
        logits = _resized(logits, role)
        if role.kind == "classes":
            return logits.argmax(dim=1)[0].numpy().astype(np.int32)
        if role.kind == "confidence":
            return logits.softmax(dim=1).amax(dim=1)[0].numpy()
        return (logits.softmax(dim=1) if role.kind == "map_probabilities" else logits).numpy()


def head_activation_of(checkpoint: Checkpoint) -> HeadActivation:
    """Return what the logits of a checkpoint go through: of others than classifiers a softmax."""
    classifies = checkpoint.task == "image-classification"
    return checkpoint.config.head_activation if classifies else "softmax"


def _resized(logits: torch.Tensor, role: OutputRole) -> torch.Tensor:
    """Bring a map of logits to the size of a package's output; others stay as they are."""
    size = role.shape[-2:]
    if logits.ndim != 4 or len(size) != 2 or not all(size) or tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
