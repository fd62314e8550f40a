"""What packages lose of their checkpoint's accuracy on labelled images."""

from __future__ import annotations

from pathlib import Path

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.evaluation.accuracy import evaluate
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.labeled_datasets import (
    LabeledImages,
    MaskedImages,
    read_labeled_images,
    read_masked_images,
)
from mvit_coreml.evaluation.targets import PackageTarget, ReferenceTarget, Target
from mvit_coreml.mil.predictor import Predictor


def read_dataset(checkpoint: Checkpoint, path: Path) -> LabeledImages | MaskedImages:
    """Read the labelled images of a data set for the task of a checkpoint.

    Args:
        checkpoint: whose classes the labels are.
        path: folder or CSV, as ``mvit-coreml evaluate`` takes it.

    Raises:
        InputError: the data set cannot be read, or has other classes.
    """
    if checkpoint.task == "semantic-segmentation":
        reduced = checkpoint.image_processor.do_reduce_labels
        return read_masked_images(path, reduce_labels=reduced)
    labels = tuple(checkpoint.id2label.values())
    return read_labeled_images(
        path, ModelClasses(count=checkpoint.config.num_labels, labels=labels)
    )


class AccuracyDrop:
    """Measures how much less often packages are right than the PyTorch reference.

    Args:
        checkpoint: of all packages.
        dataset: folder or CSV, as ``mvit-coreml evaluate`` takes it.
        color_order: order that the reference gets, ``RGB`` or ``BGR``; the checkpoint's own if
            ``None``.

    Raises:
        InputError: the data set cannot be read, or has other classes.
    """

    def __init__(
        self, checkpoint: Checkpoint, dataset: Path, color_order: str | None = None
    ) -> None:
        self.checkpoint, self.color_order = checkpoint, color_order
        self.classes = checkpoint.config.num_labels
        self.dataset: LabeledImages | MaskedImages
        if checkpoint.task == "semantic-segmentation":
            reduced = checkpoint.image_processor.do_reduce_labels
            self.dataset = read_masked_images(dataset, reduce_labels=reduced)
        else:
            labels = tuple(checkpoint.id2label.values())
            known = ModelClasses(count=self.classes, labels=labels)
            self.dataset = read_labeled_images(dataset, known)
        self._original: float | None = None

    def of(self, package: Path) -> float:
        """Return what a package loses, in percentage points; negative if it gains."""
        target = PackageTarget(Predictor(package, engine="portable"))
        if self._original is None:
            self._original = self._accuracy(
                ReferenceTarget(
                    self.checkpoint,
                    target.roles,
                    fit=target.preparation.fit,
                    size=(target.image.height, target.image.width),
                    color_order=self.color_order,
                )
            )
        return 100 * (self._original - self._accuracy(target))

    def _accuracy(self, target: Target) -> float:
        return evaluate([target], self.dataset, self.classes).accuracies[0].main.value
