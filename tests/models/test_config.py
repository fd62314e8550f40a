"""Configurations: transformers' defaults and JSON, and errors that name the field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from mvit_coreml.errors import ConfigError
from mvit_coreml.models.config import (
    CONFIG_CLASSES,
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    make_divisible,
    read_config,
)

pytestmark = pytest.mark.fast

FAMILIES = list(CONFIG_CLASSES.values())


@pytest.mark.parametrize("cls", FAMILIES, ids=lambda cls: cls.model_type)
def test_defaults_are_those_of_transformers(cls: Any) -> None:
    theirs = getattr(transformers, f"{cls.architecture_prefix}Config")().to_dict()
    for name, value in cls().to_dict().items():
        expected = theirs.get(name)
        assert value == (list(expected) if isinstance(expected, tuple) else expected) or (
            name in ("id2label", "label2id")
        ), name


@pytest.mark.parametrize("cls", FAMILIES, ids=lambda cls: cls.model_type)
def test_json_is_read_by_transformers_to_the_same_fields(cls: Any, tmp_path: Path) -> None:
    config = cls(output_stride=16, id2label={0: "cat", 1: "dog", 2: "cow"})
    data = config.to_dict() | {"architectures": [f"{cls.architecture_prefix}Model"]}
    (tmp_path / "config.json").write_text(json.dumps(data))
    theirs = getattr(transformers, f"{cls.architecture_prefix}Config").from_pretrained(tmp_path)
    assert theirs.id2label == {0: "cat", 1: "dog", 2: "cow"}
    assert theirs.output_stride == 16
    again, task = read_config(json.loads(theirs.to_json_string(use_diff=False)))
    assert again == config
    assert task == "backbone"


@pytest.mark.parametrize(
    ("cls", "field", "value"),
    [
        (MobileViTConfig, "num_channels", 0),
        (MobileViTConfig, "hidden_act", "swosh"),
        (MobileViTConfig, "output_stride", 4),
        (MobileViTConfig, "hidden_sizes", (144, 192)),
        (MobileViTConfig, "hidden_sizes", (145, 192, 240)),
        (MobileViTConfig, "neck_hidden_sizes", (16, 32)),
        (MobileViTConfig, "num_attention_heads", 0),
        (MobileViTConfig, "conv_kernel_size", 2),
        (MobileViTConfig, "patch_size", 0),
        (MobileViTConfig, "patch_size", (2, 2, 2)),
        (MobileViTConfig, "mlp_ratio", -1),
        (MobileViTConfig, "qkv_bias", "yes"),
        (MobileViTConfig, "atrous_rates", (6, 12)),
        (MobileViTConfig, "classifier_dropout_prob", 1.5),
        (MobileViTConfig, "layer_norm_eps", 0),
        (MobileViTConfig, "initializer_range", -0.1),
        (MobileViTConfig, "problem_type", "ranking"),
        (MobileViTV2Config, "width_multiplier", 0),
        (MobileViTV2Config, "n_attn_blocks", (2, 4)),
        (MobileViTV2Config, "ffn_multiplier", 2.5),
        (MobileViTV2Config, "patch_grid", "pad"),
        (MobileNetV2Config, "depth_multiplier", 0),
        (MobileNetV2Config, "min_depth", 0),
        (MobileNetV2Config, "tf_padding", 1),
        (MobileNetV2Config, "stage_depths", (1, 2)),
        (MobileNetV2Config, "semantic_loss_ignore_index", None),
    ],
)
def test_impossible_value_is_an_error_that_names_the_field(
    cls: Any, field: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=field) as caught:
        cls(**{field: value})
    assert "\n" not in str(caught.value)
    assert repr(value) in str(caught.value)


def test_misspelt_field_is_an_error_that_names_the_right_one() -> None:
    with pytest.raises(ConfigError, match="hidden_sizes"):
        MobileViTConfig.from_dict({"hidden_size": [64, 80, 96]})


def test_fields_of_transformers_at_large_are_ignored() -> None:
    config = MobileViTConfig.from_dict(
        {"torch_dtype": "float32", "_name_or_path": "x", "num_labels": 3}
    )
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}


@pytest.mark.parametrize("labels", [{0: "a", 2: "b"}, {"x": "a"}, ["a", "b"]])
def test_labels_with_a_gap_or_a_bad_index_are_refused(labels: Any) -> None:
    with pytest.raises(ConfigError, match="id2label"):
        MobileViTConfig(id2label=labels)


def test_unsupported_families_and_architectures_name_what_is_supported() -> None:
    with pytest.raises(ConfigError, match=r"'resnet'.*mobilevit, mobilevitv2, mobilenet_v2"):
        read_config({"model_type": "resnet"})
    with pytest.raises(ConfigError, match=r"MobileViTForPose.*MobileViTForImageClassification"):
        read_config({"model_type": "mobilevit", "architectures": ["MobileViTForPose"]})


def test_extension_fields_are_reported_as_beyond_transformers() -> None:
    assert MobileViTV2Config().unsupported_by_transformers() is None
    # At 256 pixels every patch grid is even, and both libraries compute the same.
    assert MobileViTV2Config(patch_grid="interpolate").unsupported_by_transformers() is None
    odd = MobileViTV2Config(patch_grid="interpolate", image_size=200)
    reason = odd.unsupported_by_transformers()
    assert reason is not None
    assert "patch_grid" in reason


def test_channel_rounding_is_that_of_transformers() -> None:
    from transformers.models.mobilenet_v2.modeling_mobilenet_v2 import make_divisible as oracle

    for value in range(1, 300):
        for divisor in (4, 8, 16):
            for least in (None, 8, 24):
                assert make_divisible(value, divisor, least) == oracle(value, divisor, least)


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MobileViTConfig().image_size = 3  # type: ignore[misc]
