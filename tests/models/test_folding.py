"""The folded copy computes the same function."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pairwise import pairwise
from standins import PUBLISHED, SMALL, XXS, enliven, pictures, relative_error
from torch import nn

from mvit_coreml.models.base import build_model
from mvit_coreml.models.config import (
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    ModelConfig,
    Task,
)
from mvit_coreml.models.folding import prepare_for_export

TASKS: tuple[Task, ...] = ("backbone", "image-classification", "semantic-segmentation")


def assert_export_agrees(
    config: ModelConfig, task: Task, size: tuple[int, int], batch: int = 1
) -> None:
    """Exact in float64; in float32 only rounding is left."""
    model = build_model(config, task)
    enliven(model, size)
    images = pictures(batch, size, 5)
    exact = outputs(copy.deepcopy(model).double(), images.double())
    folded = outputs(prepare_for_export(copy.deepcopy(model).double()), images.double())
    original, exported = outputs(model, images), outputs(prepare_for_export(model), images)
    assert len(exported) == len(original)
    for index, truth in enumerate(exact):
        assert relative_error(folded[index], truth) <= 1e-11, (config, task, size)
        # Some random networks amplify rounding beyond 1e-5; the original shows how much.
        rounding = relative_error(original[index].double(), truth)
        error = relative_error(exported[index], original[index])
        assert error <= max(1e-5, 2 * rounding), (config, task, size)


def outputs(model: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """All outputs of a model, hidden states included, in a row."""
    with torch.no_grad():
        found = model(images, output_hidden_states=True)
    return [*found.to_tuple()[:-1], *found.hidden_states]


@pytest.mark.parametrize(
    ("config", "task", "stride"),
    pairwise(SMALL, TASKS, [8, 32]),
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_folding_keeps_every_output(config: ModelConfig, task: Task, stride: int) -> None:
    assert_export_agrees(config.replace(output_stride=stride), task, (96, 128))


@pytest.mark.parametrize(
    "config",
    [
        MobileViTConfig(**XXS),
        MobileViTConfig(patch_size=(2, 3), qkv_bias=False, **XXS),
        MobileViTV2Config(width_multiplier=0.5),
        MobileViTV2Config(width_multiplier=0.5, patch_grid="interpolate"),
        MobileViTV2Config(width_multiplier=0.5, patch_size=(1, 3)),
        MobileNetV2Config(depth_multiplier=0.5, tf_padding=False, first_layer_is_expansion=False),
    ],
    ids=lambda config: f"{config.model_type}-{getattr(config, 'patch_size', '')}",
)
@pytest.mark.parametrize("batch", [1, 2])
def test_folding_keeps_every_output_where_patches_do_not_fit(
    config: ModelConfig, batch: int
) -> None:
    assert_export_agrees(config, "backbone", (200, 137), batch)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_folding_keeps_every_output_of_published_architectures(name: str) -> None:
    config, task, size = PUBLISHED[name]
    assert_export_agrees(config, task, (size, size))


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_folded_copy_has_no_batch_norm_dropout_or_affine_normalisation(config: ModelConfig) -> None:
    for task in TASKS:
        folded = prepare_for_export(build_model(config, task))
        unwanted = (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.Dropout, nn.Dropout2d)
        assert not [m for m in folded.modules() if isinstance(m, unwanted)]
        assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_original_is_left_alone() -> None:
    model = build_model(SMALL[0], "image-classification")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepare_for_export(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_convolution_that_feeds_nothing_is_dropped_from_mobilenet_v2_segmenters() -> None:
    model = build_model(MobileNetV2Config(), "semantic-segmentation")
    folded = prepare_for_export(model)
    assert not [name for name, _ in folded.named_parameters() if "mobilenet_v2.conv_1x1" in name]
