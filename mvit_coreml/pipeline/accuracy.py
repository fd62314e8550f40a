"""What packages lose of their checkpoint's accuracy on labelled images."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from mvit_coreml.checkpoints.checkpoint import Checkpoint
from mvit_coreml.imaging.geometry import Fit
from mvit_coreml.parity.class_matching import ModelClasses
from mvit_coreml.parity.datasets import (
    LabeledImages,
    MaskedImages,
    read_labeled_images,
    read_masked_images,
)
from mvit_coreml.parity.evaluation import evaluate
from mvit_coreml.parity.targets import PackageTarget, ReferenceTarget, Target
from mvit_coreml.runtime.predictor import Predictor


class AccuracyDrop:
    """Measures how much less often packages are right than the PyTorch reference.

    Args:
        checkpoint: of all packages.
        dataset: folder or CSV, as ``mvit-coreml evaluate`` takes it.
        fit: how photos are brought to the packages' input.
        size: (height, width) of that.
        color_order: order that the reference gets.

    Raises:
        InputError: the data set cannot be read, or has other classes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        dataset: Path,
        *,
        fit: Fit,
        size: tuple[int, int],
        color_order: str | None = None,
    ) -> None:
        self.classes = checkpoint.config.num_labels
        self.dataset: LabeledImages | MaskedImages
        if checkpoint.task == "semantic-segmentation":
            reduced = checkpoint.image_processor.do_reduce_labels
            self.dataset = read_masked_images(dataset, reduce_labels=reduced)
        else:
            labels = tuple(checkpoint.id2label.values())
            self.dataset = read_labeled_images(
                dataset, ModelClasses(count=self.classes, labels=labels)
            )
        self.reference = ReferenceTarget(checkpoint, fit=fit, size=size, color_order=color_order)

    @cached_property
    def original(self) -> float:
        """Accuracy of the reference, 0 to 1."""
        return self._accuracy(self.reference)

    def of(self, package: Path) -> float:
        """Return what a package loses, in percentage points; negative if it gains."""
        found = self._accuracy(PackageTarget(Predictor(package, engine="portable")))
        return 100 * (self.original - found)

    def _accuracy(self, target: Target) -> float:
        return evaluate([target], self.dataset, self.classes).accuracies[0].main.value
