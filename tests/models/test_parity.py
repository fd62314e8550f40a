"""Our models against transformers' own, on every output."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
import transformers
from pairwise import pairwise
from standins import PUBLISHED, SMALL, enliven, pictures, reference, relative_error

from mvit_coreml.models.base import build_model
from mvit_coreml.models.config import (
    ACTIVATIONS,
    CONFIG_CLASSES,
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    ModelConfig,
    Task,
)
from mvit_coreml.models.layers import ACTIVATION_FUNCTIONS
from mvit_coreml.models.mobilevit import MobileViTModel
from mvit_coreml.models.mobilevitv2 import MobileViTV2Model

BOUND = 1e-5
TASKS: tuple[Task, ...] = ("backbone", "image-classification", "semantic-segmentation")
FAST_PUBLISHED = (
    "mobilevit-xx-small",
    "mobilevit-small",
    "deeplabv3-mobilevit-xx-small",
    "mobilevitv2-0.5",
    "mobilevitv2-1.0",
    "mobilenet_v2_0.35_96",
    "mobilenet_v2_1.4_224",
    "deeplabv3_mobilenet_v2_1.0_513",
)


def assert_same_outputs(config: ModelConfig, task: Task, size: tuple[int, int], seed: int) -> None:
    oracle = reference(config, task, size, seed)
    ours = build_model(config, task)
    ours.load_state_dict(oracle.state_dict(), strict=True)
    images = pictures(2, size, seed + 1, config.num_channels)
    with torch.no_grad():
        expected = oracle(images, output_hidden_states=True)
        got = ours(images, output_hidden_states=True)
    assert list(got.keys()) == list(expected.keys())
    for name in expected:
        if name == "hidden_states":
            pairs = list(zip(got[name], expected[name], strict=True))
        else:
            pairs = [(got[name], expected[name])]
            # Two images that score alike would make any comparison pass.
            assert relative_error(expected[name][:1], expected[name][1:]) > 1e-3
        for index, (value, oracle_value) in enumerate(pairs):
            error = relative_error(value, oracle_value)
            if error > BOUND:
                # Some random networks amplify rounding so much that float32 cannot tell: then
                # the reference itself must be as far from its own float64 result.
                exact = in_float64(oracle, images)[name]
                exact = exact[index] if name == "hidden_states" else exact
                assert error <= 2 * relative_error(oracle_value.double(), exact), (config, name)
                ours64 = in_float64(ours, images)[name]
                ours64 = ours64[index] if name == "hidden_states" else ours64
                assert relative_error(ours64, exact) <= 1e-11, (config, name)


def in_float64(model: Any, images: torch.Tensor) -> Any:
    with torch.no_grad():
        return copy.deepcopy(model).double()(images.double(), output_hidden_states=True)


@pytest.mark.parametrize("name", FAST_PUBLISHED)
def test_published_architecture_answers_like_transformers(name: str) -> None:
    """Segmenters at half their size, which is odd where that is."""
    config, task, size = PUBLISHED[name]
    if task == "semantic-segmentation":
        size = (size + 1) // 2
    assert_same_outputs(config, task, (size, size), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, (_, task, _) in PUBLISHED.items()
        if name not in FAST_PUBLISHED or task == "semantic-segmentation"
    ],
)
def test_other_published_architecture_answers_like_transformers(name: str) -> None:
    config, task, size = PUBLISHED[name]
    assert_same_outputs(config, task, (size, size), seed=0)


def random_config(draw: random.Random) -> tuple[ModelConfig, Task, tuple[int, int]]:
    """Draw any configuration that transformers can build, and an input size."""
    task = draw.choice(TASKS)
    size = (draw.randint(32, 150), draw.randint(32, 150))
    common: dict[str, Any] = {
        "num_channels": draw.choice((1, 3, 3, 4)),
        "output_stride": draw.choice((8, 16, 32)),
        "hidden_act": draw.choice(
            ("silu", "relu", "gelu", "relu6", "gelu_new", "quick_gelu", "tanh")
        ),
        "layer_norm_eps": draw.choice((1e-6, 1e-5, 1e-3)),
        "id2label": {index: str(index) for index in range(draw.choice((1, 2, 5, 30)))},
    }
    vit: dict[str, Any] = {
        "patch_size": draw.choice((1, 2, 2, 3, 4)),
        "expand_ratio": draw.choice((1.0, 1.5, 2.0, 4.0)),
        "aspp_out_channels": draw.choice((8, 24, 40)),
        "atrous_rates": tuple(sorted(draw.sample(range(1, 19), 3))),
    }
    family = draw.choice(("mobilevit", "mobilevitv2", "mobilenet_v2"))
    if family == "mobilevit":
        heads = draw.choice((1, 2, 4))
        return (
            MobileViTConfig(
                **common,
                **vit,
                num_attention_heads=heads,
                hidden_sizes=tuple(heads * draw.randint(3, 12) for _ in range(3)),
                neck_hidden_sizes=tuple(draw.randint(4, 40) for _ in range(7)),
                mlp_ratio=draw.choice((1.0, 1.5, 2.0, 3.0)),
                conv_kernel_size=draw.choice((1, 3, 5)),
                qkv_bias=draw.choice((True, False)),
            ),
            task,
            size,
        )
    if family == "mobilevitv2":
        # A map smaller than one patch stops transformers too.
        vit["patch_size"] = draw.choice((1, 2)) if min(size) >= 64 else 1
        return (
            MobileViTV2Config(
                **common,
                **vit,
                width_multiplier=draw.choice((0.25, 0.3, 0.5, 0.6)),
                n_attn_blocks=tuple(draw.randint(1, 3) for _ in range(3)),
                base_attn_unit_dims=tuple(draw.choice((32, 64, 96)) for _ in range(3)),
                ffn_multiplier=draw.choice((2, 3)),
                conv_kernel_size=draw.choice((1, 3, 5)),
            ),
            task,
            size,
        )
    return (
        MobileNetV2Config(
            **common,
            depth_multiplier=draw.choice((0.2, 0.35, 0.5, 1.1)),
            depth_divisible_by=draw.choice((4, 8, 16)),
            min_depth=draw.choice((4, 8, 16)),
            expand_ratio=draw.choice((1.0, 3.0, 6.0)),
            first_layer_is_expansion=draw.choice((True, False)),
            finegrained_output=draw.choice((True, False)),
            tf_padding=draw.choice((True, False)),
        ),
        task,
        size,
    )


def assert_random_configs_agree(seeds: range) -> None:
    for seed in seeds:
        config, task, size = random_config(random.Random(seed))
        assert_same_outputs(config, task, size, seed)


def test_random_configurations_answer_like_transformers() -> None:
    assert_random_configs_agree(range(24))


@pytest.mark.slow
def test_many_more_random_configurations_answer_like_transformers() -> None:
    assert_random_configs_agree(range(24, 240))


@pytest.mark.parametrize(
    ("config", "task", "hidden"),
    pairwise(SMALL, TASKS, [True, False]),
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_tuples_hold_what_transformers_puts_there(
    config: ModelConfig, task: Task, hidden: bool
) -> None:
    size = (64, 96)
    oracle = reference(config, task, size)
    ours = build_model(config, task)
    ours.load_state_dict(oracle.state_dict())
    images = pictures(1, size, 3)
    with torch.no_grad():
        expected = oracle(images, output_hidden_states=hidden, return_dict=False)
        got = ours(images, output_hidden_states=hidden, return_dict=False)
    assert isinstance(got, tuple)
    assert len(got) == len(expected)
    for value, oracle_value in zip(got, expected, strict=True):
        if isinstance(oracle_value, tuple):
            assert [v.shape for v in value] == [v.shape for v in oracle_value]
        else:
            assert relative_error(value, oracle_value) <= BOUND


@pytest.mark.parametrize(
    ("prefix", "backbone"), [("MobileViT", MobileViTModel), ("MobileViTV2", MobileViTV2Model)]
)
def test_backbone_without_expansion_answers_like_transformers(prefix: str, backbone: Any) -> None:
    theirs = getattr(transformers, f"{prefix}Config")()
    oracle = getattr(transformers, f"{prefix}Model")(theirs, expand_output=False)
    enliven(oracle, (64, 64))
    ours = backbone(CONFIG_CLASSES[prefix.lower()](), expand_output=False).eval()
    ours.load_state_dict(oracle.state_dict())
    images = pictures(1, (64, 64))
    with torch.no_grad():
        expected, got = oracle(images), ours(images)
    assert got.pooler_output is None
    assert expected.pooler_output is None
    assert relative_error(got.last_hidden_state, expected.last_hidden_state) <= BOUND


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_the_one_transformers_means(activation: str) -> None:
    x = torch.linspace(-12, 12, 1001)
    assert torch.allclose(
        ACTIVATION_FUNCTIONS[activation](x),
        transformers.activations.ACT2FN[activation](x),
        atol=1e-6,
    )
