"""Compressed weights beside what coremltools itself decompresses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn, zeros

from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package


def palettes(bits: int, **options: Any) -> Callable[[Any, Any], Any]:
    def compress(cto: Any, model: Any) -> Any:
        config = cto.OpPalettizerConfig(nbits=bits, weight_threshold=256, **options)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))

    return compress


def quantised(dtype: str, mode: str = "linear_symmetric", **options: Any) -> Callable[..., Any]:
    def compress(cto: Any, model: Any) -> Any:
        config = cto.OpLinearQuantizerConfig(
            mode=mode, dtype=dtype, weight_threshold=256, **options
        )
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))

    return compress


def pruned(sparsity: float) -> Callable[[Any, Any], Any]:
    def compress(cto: Any, model: Any) -> Any:
        config = cto.OpMagnitudePrunerConfig(target_sparsity=sparsity, weight_threshold=256)
        return cto.prune_weights(model, cto.OptimizationConfig(global_config=config))

    return compress


def joint_palettes(cto: Any, model: Any) -> Any:
    config = cto.OpPalettizerConfig(nbits=4, weight_threshold=256)
    return cto.palettize_weights(
        pruned(0.6)(cto, model),
        cto.OptimizationConfig(global_config=config),
        joint_compression=True,
    )


def joint_quantised(cto: Any, model: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=256)
    return cto.linear_quantize_weights(
        pruned(0.6)(cto, model),
        cto.OptimizationConfig(global_config=config),
        joint_compression=True,
    )


def quantised_palettes(cto: Any, model: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(
        mode="linear_symmetric", granularity="per_tensor", weight_threshold=1
    )
    return cto.linear_quantize_weights(
        palettes(4)(cto, model),
        cto.OptimizationConfig(global_config=config),
        joint_compression=True,
    )


# name: (opset, operations that must appear in the package, compression)
VARIANTS: dict[str, tuple[int, set[str], Callable[[Any, Any], Any]]] = {
    **{
        f"palettes of {bits} bits": (16, {"constexpr_lut_to_dense"}, palettes(bits))
        for bits in (1, 2, 4, 6, 8)
    },
    "affine int8": (16, {"constexpr_affine_dequantize"}, quantised("int8")),
    "affine uint8": (16, {"constexpr_affine_dequantize"}, quantised("uint8", "linear")),
    "sparse": (16, {"constexpr_sparse_to_dense"}, pruned(0.7)),
    **{
        f"palettes of {bits} bits, iOS 18": (18, {"constexpr_lut_to_dense"}, palettes(bits))
        for bits in (1, 3, 6)
    },
    "grouped palettes": (
        18,
        {"constexpr_lut_to_dense"},
        palettes(4, granularity="per_grouped_channel", group_size=8),
    ),
    "grouped palettes over inputs": (
        18,
        {"constexpr_lut_to_dense"},
        palettes(3, granularity="per_grouped_channel", group_size=4, channel_axis=1),
    ),
    "vector palettes": (18, {"constexpr_lut_to_dense"}, palettes(4, cluster_dim=2)),
    "blockwise int4": (
        18,
        {"constexpr_blockwise_shift_scale"},
        quantised("int4", granularity="per_block", block_size=8),
    ),
    "blockwise uint4 with offset": (
        18,
        {"constexpr_blockwise_shift_scale"},
        quantised("uint4", "linear", granularity="per_channel"),
    ),
    "sparse, iOS 18": (18, {"constexpr_sparse_to_dense"}, pruned(0.7)),
    "sparse palettes": (
        18,
        {"constexpr_lut_to_sparse", "constexpr_sparse_to_dense"},
        joint_palettes,
    ),
    "sparse int8": (
        18,
        {"constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"},
        joint_quantised,
    ),
    "palettes of int8 values": (
        18,
        {"constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"},
        quantised_palettes,
    ),
}


@pytest.fixture(scope="module")
def models(ct: Any, convert: Callable[..., Path], classifier: nn.Module) -> dict[int, Any]:
    """The classifier as MLModel objects, by opset."""
    example = zeros(1, 3, 24, 32)
    paths = {opset: convert(classifier, example, opset) for opset in (16, 18)}
    return {
        opset: ct.models.MLModel(str(path), skip_model_load=True) for opset, path in paths.items()
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_compressed_package_runs_like_its_decompression(
    ct: Any, models: dict[int, Any], variant: str, tmp_path: Path
) -> None:
    opset, expected_operations, compress = VARIANTS[variant]
    compressed = compress(ct.optimize.coreml, models[opset])
    compressed.save(str(tmp_path / "compressed.mlpackage"))
    plain = ct.optimize.coreml.decompress_weights(compressed)
    plain.save(str(tmp_path / "plain.mlpackage"))
    packages = [load_package(tmp_path / f"{name}.mlpackage") for name in ("compressed", "plain")]
    found = {operation.op_type for _, operation in packages[0].walk()}
    assert expected_operations <= found
    assert not any(operation.op_type.startswith("constexpr") for _, operation in packages[1].walk())
    x = np.random.default_rng(0).normal(size=(1, 3, 24, 32)).astype(np.float32)
    value, expected = (
        Runtime(package, arithmetic="fp32").run({"x": x})["y"] for package in packages
    )
    assert np.abs(value - expected).max() <= 1e-4 * np.abs(expected).max()


def test_half_precision_constants_can_be_stored_for_fp32_programs(
    execute: Callable[..., dict[str, np.ndarray]],
) -> None:
    stored = np.linspace(-3, 3, 12, dtype=np.float16)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        return {"y": mb.add(x=x, y=mb.constexpr_cast(source_val=stored, output_dtype="fp32"))}

    for opset in (16, 18):
        found = execute(build, {"x": np.zeros(12, np.float32)}, opset)["y"]
        assert np.array_equal(found, stored.astype(np.float32))


def test_vector_palettes_follow_the_documented_example(
    execute: Callable[..., dict[str, np.ndarray]], ct: Any
) -> None:
    from coremltools.converters.mil.mil import types

    indices = np.array([[[0, 0], [1, 0]], [[1, 1], [0, 0]]])
    indices = indices.astype(types.nptype_from_builtin(types.uint1))
    lut = np.arange(6, dtype=np.float32).reshape(1, 1, 1, 2, 3)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        middle = mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=np.int32(1))
        last = mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=np.int32(2))
        return {"middle": mb.add(x=middle, y=x), "last": mb.add(x=last, y=x)}

    found = execute(build, {"x": np.zeros(1, np.float32)}, 18)
    assert found["middle"][0].T.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2]]
    assert found["middle"][1].T.tolist() == [[3, 4, 5, 0, 1, 2], [3, 4, 5, 0, 1, 2]]
    assert found["last"][0].tolist() == [[0, 1, 2, 0, 1, 2], [3, 4, 5, 0, 1, 2]]
    assert found["last"][1].tolist() == [[3, 4, 5, 3, 4, 5], [0, 1, 2, 0, 1, 2]]
