"""Losses, gradients and batch-norm statistics against transformers in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from standins import SMALL, pictures, reference

from mvit_coreml.errors import InputError
from mvit_coreml.models.base import build_model
from mvit_coreml.models.config import ModelConfig, Task

SIZE = (64, 64)
FIVE = {index: str(index) for index in range(5)}


def without_dropout(config: ModelConfig, **changes: Any) -> ModelConfig:
    names = [name for name in vars(config) if "dropout" in name]
    return config.replace(**dict.fromkeys(names, 0.0), **changes)


def run(model: Any, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
    model.double().train()
    loss = model(images.double(), labels=labels).loss
    loss.backward()
    return {
        "loss": loss.detach(),
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        "buffers": dict(model.named_buffers()),
    }


def assert_trains_alike(config: ModelConfig, task: Task, labels: torch.Tensor) -> None:
    oracle = reference(config, task, SIZE)
    ours = build_model(config, task)
    ours.load_state_dict(oracle.state_dict())
    images = pictures(len(labels), SIZE, 7)
    expected, got = run(oracle, images, labels), run(ours, images, labels)
    assert abs(got["loss"] - expected["loss"]) <= 1e-9 * abs(expected["loss"])
    # transformers also trains a last convolution that feeds nothing in MobileNetV2 segmenters.
    for name, gradient in got["gradients"].items():
        theirs = expected["gradients"][name]
        assert (gradient - theirs).abs().max() <= 1e-9 * max(theirs.abs().max(), 1.0), name
    unseen = {n for n in expected["gradients"] if n not in got["gradients"]}
    assert all(expected["gradients"][name].abs().max() == 0 for name in unseen)
    for name, buffer in got["buffers"].items():
        if "conv_1x1." not in name or task != "semantic-segmentation":
            assert torch.allclose(buffer, expected["buffers"][name], rtol=1e-9), name


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_classification_loss_and_gradients(config: ModelConfig) -> None:
    config = without_dropout(config, id2label=FIVE)
    assert_trains_alike(config, "image-classification", torch.tensor([0, 3, 4, 1]))


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_regression_loss_and_gradients(config: ModelConfig) -> None:
    config = without_dropout(config, id2label={0: "score"})
    labels = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    assert_trains_alike(config, "image-classification", labels)


def test_multi_label_loss_and_gradients() -> None:
    config = without_dropout(SMALL[0], id2label=FIVE)
    labels = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0]], dtype=torch.float64)
    assert_trains_alike(config, "image-classification", labels)


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_segmentation_loss_skips_the_ignored_label(config: ModelConfig) -> None:
    config = without_dropout(config, id2label=FIVE, semantic_loss_ignore_index=9)
    labels = torch.randint(0, 5, (3, 50, 70), generator=torch.Generator().manual_seed(0))
    labels[:, :10] = 9
    assert_trains_alike(config, "semantic-segmentation", labels)


def test_segmenter_with_one_class_refuses_labels() -> None:
    model = build_model(SMALL[0].replace(id2label={0: "only"}), "semantic-segmentation")
    with pytest.raises(InputError, match="one class"):
        model(pictures(1, SIZE), labels=torch.zeros(1, 64, 64, dtype=torch.long))


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_dropout_acts_in_training_only(config: ModelConfig) -> None:
    model = build_model(config.replace(classifier_dropout_prob=0.5), "semantic-segmentation")
    images = pictures(2, SIZE)
    with torch.no_grad():
        assert torch.equal(model(images).logits, model(images).logits)
        model.train()
        assert not torch.equal(model(images).logits, model(images).logits)
