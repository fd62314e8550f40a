"""Building and saving models, and refusing what they cannot process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from standins import SMALL, enliven, pictures, relative_error, transformers_name

from mvit_coreml.errors import ConfigError, InputError
from mvit_coreml.models.base import build_model
from mvit_coreml.models.config import MobileViTV2Config, ModelConfig, Task

pytestmark = pytest.mark.fast

TASKS: tuple[Task, ...] = ("backbone", "image-classification", "semantic-segmentation")


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
@pytest.mark.parametrize("task", TASKS)
def test_saved_folder_is_loaded_by_transformers(
    config: ModelConfig, task: Task, tmp_path: Path
) -> None:
    model = build_model(config.replace(id2label={0: "a", 1: "b", 2: "c"}), task)
    enliven(model, (64, 64))
    model.save_pretrained(tmp_path)
    theirs, info = getattr(transformers, transformers_name(config, task)).from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    images = pictures(1, (64, 64))
    with torch.no_grad():
        assert relative_error(model(images)[0], theirs(images)[0]) <= 1e-5


def test_model_that_transformers_cannot_express_is_not_saved(tmp_path: Path) -> None:
    model = build_model(
        MobileViTV2Config(width_multiplier=0.5, image_size=200, patch_grid="interpolate")
    )
    with pytest.raises(ConfigError, match="patch_grid"):
        model.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_random_weights_follow_initializer_range(config: ModelConfig) -> None:
    model = build_model(config.replace(initializer_range=0.5), "image-classification")
    weight = model.classifier.weight
    assert 0.4 < weight.std() < 0.6
    assert not model.training


@pytest.mark.parametrize("config", SMALL, ids=lambda config: config.model_type)
def test_images_too_small_or_of_the_wrong_shape_are_refused(config: ModelConfig) -> None:
    model = build_model(config)
    model(pictures(1, (33, 33)))
    with pytest.raises(InputError, match=r"31x40.*at least 32"):
        model(pictures(1, (31, 40)))
    with pytest.raises(InputError, match=r"expected \(batch, 3, height, width\)"):
        model(torch.zeros(1, 4, 64, 64))
    with pytest.raises(InputError, match="pixel_values has shape"):
        model(torch.zeros(3, 64, 64))


def test_mobilevitv2_says_when_no_whole_patch_fits() -> None:
    config = MobileViTV2Config(width_multiplier=0.5)
    with pytest.raises(InputError, match="1x1 holds no patch of 2x2"):
        build_model(config)(pictures(1, (32, 32)))
    build_model(config.replace(patch_grid="interpolate"))(pictures(1, (32, 32)))


def test_classifier_without_classes_returns_pooled_features() -> None:
    model = build_model(SMALL[0].replace(id2label={}), "image-classification")
    images = pictures(1, (64, 64))
    with torch.no_grad():
        pooled = model.backbone(images).pooler_output
        assert torch.equal(model(images).logits, pooled)


def test_outputs_answer_by_attribute_name_and_position() -> None:
    with torch.no_grad():
        output = build_model(SMALL[0], "image-classification")(pictures(1, (64, 64)))
    assert output["logits"] is output.logits is output[0]
    assert list(output) == ["logits"]
    with pytest.raises(KeyError):
        output["loss"]
