"""Operations that coremltools does not fold, beside torch, NumPy and numbers worked out by hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvit_coreml.errors import PackageError

Execute = Callable[..., dict[str, np.ndarray]]


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run_one(execute: Execute, op_type: str, x: np.ndarray, opset: int = 17, **given: Any) -> Any:
    return execute(lambda mb, x: {"y": getattr(mb, op_type)(x=x, **given)}, {"x": x}, opset)["y"]


def run_all(
    execute: Execute, opset: int = 17, **calls: tuple[str, np.ndarray, dict[str, Any]]
) -> Any:
    """Run several operations as one program; conversion takes longer than running."""

    def build(mb: Any, **variables: Any) -> dict[str, Any]:
        return {
            name: getattr(mb, op_type)(x=variables[f"in_{name}"], **given)
            for name, (op_type, _, given) in calls.items()
        }

    return execute(build, {f"in_{name}": call[1] for name, call in calls.items()}, opset)


def close(value: np.ndarray, expected: torch.Tensor | np.ndarray) -> None:
    expected = np.asarray(expected)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


# size, kernel, stride, dilation, (before, after) by TensorFlow's SAME rule
SAME_PADDING = [
    (7, 3, 2, 1, (1, 1)),
    (8, 3, 2, 1, (0, 1)),
    (8, 4, 1, 1, (1, 2)),
    (9, 5, 3, 1, (1, 1)),
    (9, 3, 1, 2, (2, 2)),
    (10, 3, 2, 3, (2, 3)),
    (5, 1, 2, 1, (0, 0)),
]


def test_same_padding_puts_the_odd_pixel_last_and_same_lower_first(execute: Execute) -> None:
    calls, expected = {}, {}
    for size, kernel, stride, dilation, (few, many) in SAME_PADDING:
        x, weight = normal(1, 2, size, size), normal(3, 2, kernel, kernel, seed=1)
        for pad_type, before, after in (("same", few, many), ("same_lower", many, few)):
            name = f"{pad_type}_{size}_{kernel}_{stride}_{dilation}"
            given = {"weight": weight, "strides": [stride] * 2, "dilations": [dilation] * 2}
            calls[name] = ("conv", x, {**given, "pad_type": pad_type})
            padded = F.pad(torch.tensor(x), (before, after, before, after))
            expected[name] = F.conv2d(
                padded, torch.tensor(weight), stride=stride, dilation=dilation
            )
    found = run_all(execute, **calls)
    for name, value in expected.items():
        close(found[name], value)


def test_convolution_takes_uneven_padding_groups_bias_and_one_or_three_axes(
    execute: Execute,
) -> None:
    x, weight, bias = normal(2, 4, 6, 7), normal(6, 2, 3, 2, seed=1), normal(6, seed=2)
    padded = F.pad(torch.tensor(x), (2, 0, 1, 3))
    close(
        run_one(
            execute, "conv", x, 15, weight=weight, bias=bias, groups=2, strides=[2, 1],
            pad_type="custom", pad=[1, 3, 2, 0],
        ),
        F.conv2d(padded, torch.tensor(weight), torch.tensor(bias), stride=(2, 1), groups=2),
    )  # fmt: skip
    x, weight = normal(1, 2, 9), normal(3, 2, 3, seed=1)
    close(
        run_one(execute, "conv", x, weight=weight, pad_type="custom", pad=[1, 1]),
        F.conv1d(torch.tensor(x), torch.tensor(weight), padding=1),
    )
    x, weight = normal(1, 2, 4, 5, 6), normal(3, 2, 2, 3, 1, seed=1)
    close(
        run_one(execute, "conv", x, weight=weight), F.conv3d(torch.tensor(x), torch.tensor(weight))
    )


def test_transposed_convolution_is_the_gradient_of_convolution(execute: Execute) -> None:
    x, bias = normal(1, 4, 5, 6), normal(3, seed=2)
    calls, expected = {}, {}
    for kernel, stride in itertools.product((2, 3, 4), (1, 2, 3)):
        name, weight = f"y_{kernel}_{stride}", normal(4, 3, kernel, kernel, seed=1)
        target = torch.zeros(1, 3, 5 * stride, 6 * stride, requires_grad=True)
        total = max(kernel - stride, 0)
        padded = F.pad(target, (total // 2, total - total // 2) * 2)
        F.conv2d(padded, torch.tensor(weight), stride=stride).backward(torch.tensor(x))
        assert target.grad is not None
        expected[name] = target.grad + torch.tensor(bias)[:, None, None]
        given = {"weight": weight, "bias": bias, "strides": [stride] * 2, "pad_type": "same"}
        calls[name] = ("conv_transpose", x, given)
    found = run_all(execute, **calls)
    for name, value in expected.items():
        close(found[name], value)


def test_transposed_convolution_takes_custom_padding_groups_and_dilation(execute: Execute) -> None:
    x, weight = normal(1, 4, 5, 6), normal(4, 3, 3, 3, seed=1)
    tensors = torch.tensor(x), torch.tensor(weight)
    value = run_one(
        execute, "conv_transpose", x, weight=weight, strides=[2, 1], groups=2, dilations=[1, 2],
        pad_type="custom", pad=[1, 1, 2, 2],
    )  # fmt: skip
    expected = F.conv_transpose2d(
        *tensors, stride=(2, 1), padding=(1, 2), groups=2, dilation=(1, 2)
    )
    close(value, expected)
    close(
        run_one(execute, "conv_transpose", x, weight=weight, strides=[2, 2]),
        F.conv_transpose2d(*tensors, stride=2),
    )
    asymmetric = run_one(
        execute, "conv_transpose", x, weight=weight, strides=[2, 2], pad_type="custom",
        pad=[1, 0, 0, 1],
    )  # fmt: skip
    close(asymmetric, F.conv_transpose2d(*tensors, stride=2)[:, :, 1:, :-1])


def test_pooling_is_that_of_torch(execute: Execute) -> None:
    x = normal(1, 2, 8, 11)
    calls, expected = {}, {}
    for pad, ceil_mode, exclude in itertools.product((0, 1), (False, True), (False, True)):
        name = f"{pad}_{ceil_mode}_{exclude}"
        given = {
            "kernel_sizes": [3, 2],
            "strides": [2, 3],
            "pad_type": "custom",
            "pad": [pad] * 4,
            "ceil_mode": ceil_mode,
        }
        options = {"kernel_size": (3, 2), "stride": (2, 3), "padding": pad, "ceil_mode": ceil_mode}
        average = {**given, "exclude_padding_from_average": exclude}
        calls[f"average_{name}"] = ("avg_pool", x, average)
        calls[f"largest_{name}"] = ("max_pool", x, given)
        expected[f"average_{name}"] = F.avg_pool2d(
            torch.tensor(x), count_include_pad=not exclude, **options
        )
        expected[f"largest_{name}"] = F.max_pool2d(torch.tensor(x), **options)
    found = run_all(execute, **calls)
    for name, value in expected.items():
        close(found[name], value)


def test_same_pooling_pads_after_and_ignores_padding_in_the_maximum(execute: Execute) -> None:
    x = -np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5)
    same = {"kernel_sizes": [2], "strides": [2], "pad_type": "same"}
    found = run_all(
        execute,
        largest=("max_pool", x, same),
        mean=("avg_pool", x, same),
        mean_inside=("avg_pool", x, {**same, "exclude_padding_from_average": True}),
        mean_lower=("avg_pool", x, {**same, "pad_type": "same_lower"}),
        length=("l2_pool", x[:, :, 2:4], {"kernel_sizes": [2], "pad_type": "valid"}),
    )
    assert found["largest"].tolist() == [[[-1, -3, -5]]]
    assert found["mean"].tolist() == [[[-1.5, -3.5, -2.5]]]
    assert found["mean_inside"].tolist() == [[[-1.5, -3.5, -5]]]
    assert found["mean_lower"].tolist() == [[[-0.5, -2.5, -4.5]]]
    assert found["length"].tolist() == [[[pytest.approx(5.0, rel=1e-6)]]]


# Grid points of an axis with two elements, from the documentation of resize_bilinear.
GRIDS = {
    ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
    ("STRICT_ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("UNALIGN_CORNERS", 6): [0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0],
    ("STRICT_ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    ("ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    ("DEFAULT", 6): [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0],
    ("OFFSET_CORNERS", 6): [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12],
    ("STRICT_ALIGN_CORNERS", 1): [0.0],
    ("ALIGN_CORNERS", 1): [0.5],
}


def test_sampling_modes_are_the_documented_grids(execute: Execute) -> None:
    x = np.array([[[[0.0, 1.0]]]], np.float32)
    older, newer = {}, {}
    for mode, size in GRIDS:
        given: dict[str, Any] = {"sampling_mode": mode}
        older[f"{mode}_{size}"] = ("resize_bilinear", x, {**given, "target_size_width": size})
        shape = np.array([1, size], np.int32)
        newer[f"{mode}_{size}"] = (
            "resize", x, {**given, "shape": shape, "resized_dims": np.uint32(2)},
        )  # fmt: skip
    for found in (run_all(execute, 15, **older), run_all(execute, 17, **newer)):
        for (mode, size), grid in GRIDS.items():
            close(found[f"{mode}_{size}"], np.array([[[grid]]]))


def test_bilinear_upsampling_is_that_of_torch(execute: Execute) -> None:
    x, pair = normal(1, 3, 5, 7), np.array([[[[0.0, 1.0]]]], np.float32)
    calls: dict[str, Any] = {}
    for align in (False, True):
        for height, width in ((2, 3), (2.5, 1.6)):
            calls[f"y_{align}_{int(5 * height)}_{int(7 * width)}"] = ("upsample_bilinear", x, {
                "scale_factor_height": height,
                "scale_factor_width": width,
                "align_corners": align,
            })  # fmt: skip
    calls["from_first_pixel"] = ("upsample_bilinear", pair, {
        "scale_factor_width": 2, "align_corners": False, "half_pixel_centers": False,
    })  # fmt: skip
    found = run_all(execute, **calls)
    for align, size in itertools.product((False, True), ((10, 21), (12, 11))):
        expected = F.interpolate(torch.tensor(x), size, mode="bilinear", align_corners=align)
        close(found[f"y_{align}_{size[0]}_{size[1]}"], expected)
    assert found["from_first_pixel"].tolist() == [[[[0.0, 0.5, 1.0, 1.0]]]]


def test_nearest_neighbours_are_those_of_torch(execute: Execute) -> None:
    x = normal(1, 2, 4, 6)
    factors = [
        {"scale_factor_height": h, "scale_factor_width": w} for h, w in ((2, 3), (1.75, 1.5))
    ]
    found = run_all(
        execute,
        whole=("upsample_nearest_neighbor", x, factors[0]),
        fraction=("upsample_nearest_neighbor", x, factors[1]),
        size=("resize_nearest_neighbor", x, {"target_size_height": 3, "target_size_width": 9}),
        centred=("resize", x, {
            "shape": np.array([9, 13], np.int32),
            "resized_dims": np.uint32(2),
            "interpolation_mode": "NEAREST_NEIGHBOR",
            "sampling_mode": "UNALIGN_CORNERS",
        }),
    )  # fmt: skip
    tensor = torch.tensor(x)
    for name, size in (("whole", (8, 18)), ("fraction", (7, 9)), ("size", (3, 9))):
        close(found[name], F.interpolate(tensor, size))
    close(found["centred"], F.interpolate(tensor, (9, 13), mode="nearest-exact"))


def test_resize_takes_the_nearest_grid_point_and_keeps_sizes_given_as_zero(
    execute: Execute,
) -> None:
    # Expected output of coremltools' own test of this operation on a Mac.
    x = np.array([-6.174, 9.371], np.float32).reshape(1, 1, 1, 2, 1)
    given = {"resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"}
    value = run_one(execute, "resize", x, shape=np.array([1, 1, 3, 2], np.int32), **given)
    assert value.reshape(3, 2).tolist() == [[x.min()] * 2, [x.max()] * 2, [x.max()] * 2]
    value = run_one(execute, "resize", x, shape=np.array([0, 2], np.int32), **given)
    assert value.shape == (1, 1, 1, 2, 2)


def test_pixel_shuffle_keeps_the_pixels_of_a_channel_adjacent(execute: Execute) -> None:
    x = normal(1, 18, 2, 4)
    expected = np.zeros((1, 2, 6, 12), np.float32)
    for c, i, j in np.ndindex(2, 3, 3):
        expected[:, c, i::3, j::3] = x[:, 9 * c + 3 * i + j]
    close(run_one(execute, "pixel_shuffle", x, upscale_factor=3), expected)
    factor = {"downscale_factor": np.uint32(3)}
    close(run_one(execute, "pixel_unshuffle", expected, 16, **factor), x)


def test_depth_to_space_keeps_the_channels_of_a_place_adjacent(execute: Execute) -> None:
    x = normal(1, 18, 2, 4)
    expected = np.zeros((1, 2, 6, 12), np.float32)
    for c, i, j in np.ndindex(2, 3, 3):
        expected[:, c, i::3, j::3] = x[:, 2 * (3 * i + j) + c]
    close(run_one(execute, "depth_to_space", x, block_size=3), expected)
    close(run_one(execute, "space_to_depth", expected, block_size=3), x)


def test_normalisations_are_those_of_torch(execute: Execute) -> None:
    x, gamma, beta = normal(2, 3, 4, 5), normal(3, seed=1), normal(3, seed=2)
    mean, variance = normal(3, seed=3), np.square(normal(3, seed=4)) + 0.1
    tensors = [torch.tensor(array) for array in (gamma, beta)]
    statistics = torch.tensor(mean), torch.tensor(variance)
    stored, scaled = {"mean": mean, "variance": variance}, {"gamma": gamma, "beta": beta}
    found = run_all(
        execute,
        batch=("batch_norm", x, {**stored, **scaled, "epsilon": 0.1}),
        plain_batch=("batch_norm", x, stored),
        instance=("instance_norm", x, {**scaled, "epsilon": 0.1}),
        response=("local_response_norm", x, {"size": 3, "alpha": 0.3, "beta": 0.6, "k": 1.5}),
        silu=("silu", x, {}),
    )
    tensor = torch.tensor(x)
    close(found["batch"], F.batch_norm(tensor, *statistics, *tensors, eps=0.1))
    close(found["plain_batch"], F.batch_norm(tensor, *statistics))
    close(found["instance"], F.instance_norm(tensor, weight=tensors[0], bias=tensors[1], eps=0.1))
    close(found["response"], F.local_response_norm(tensor, 3, 0.3, 0.6, 1.5))
    close(found["silu"], x / (1 + np.exp(-x)))


def test_joins_and_windows_follow_their_documented_examples(execute: Execute) -> None:
    first, second = np.float32([[1, 2], [3, 4], [5, 6]]), np.float32([[7, 8], [9, 10], [11, 12]])

    def build(mb: Any, x: Any, y: Any) -> dict[str, Any]:
        return {
            "rows": mb.concat(values=(x, y), axis=0, interleave=True),
            "columns": mb.concat(values=(x, y), axis=-1, interleave=True),
            "windows": mb.sliding_windows(x=x, axis=0, size=2),
            "taken": mb.gather_nd(x=x, indices=np.array([[2, 0], [0, 1]], np.int32)),
            "taken_rows": mb.gather_nd(x=x, indices=np.array([[2], [0]], np.int32)),
            "like": mb.reshape_like(
                x=x, ref_tensors=(y, y), begins=(1, 0), ends=(2, 1), end_masks=(False, False)
            ),
            "hot": mb.one_hot(
                indices=np.array([1, 0], np.int32),
                one_hot_vector_size=3, axis=0, on_value=5.0, off_value=-1.0,
            ),
        }  # fmt: skip

    found = execute(build, {"x": first, "y": second})
    assert found["rows"].tolist() == [[1, 2], [7, 8], [3, 4], [9, 10], [5, 6], [11, 12]]
    assert found["columns"].tolist() == [[1, 7, 2, 8], [3, 9, 4, 10], [5, 11, 6, 12]]
    assert found["windows"].tolist() == [[[1, 2], [3, 4]], [[3, 4], [5, 6]]]
    assert found["taken"].tolist() == [5, 2]
    assert found["taken_rows"].tolist() == [[5, 6], [1, 2]]
    assert found["like"].shape == (2, 3)
    assert found["hot"].tolist() == [[-1, 5], [5, -1], [-1, -1]]


def test_shapes_computed_while_running_decide_the_result(execute: Execute) -> None:
    x = normal(2, 3, 4)

    def build(mb: Any, x: Any, n: Any) -> dict[str, Any]:
        sizes = mb.concat(
            values=(mb.slice_by_size(x=mb.shape(x=x), begin=[0], size=[1]), n), axis=0
        )
        return {
            "reshaped": mb.reshape(x=x, shape=sizes),
            "filled": mb.fill(shape=sizes, value=2.0),
            "counted": mb.range_1d(start=0, end=mb.squeeze(x=n), step=5),
            "where": mb.non_zero(x=x),
        }

    found = execute(build, {"x": x, "n": np.array([12], np.int32)})
    assert np.array_equal(found["reshaped"], x.reshape(2, 12))
    assert np.array_equal(found["filled"], np.full((2, 12), 2.0))
    assert found["counted"].tolist() == [0, 5, 10]
    assert found["where"].shape == (24, 3)


def test_quantised_activations_round_half_to_even_and_saturate(execute: Execute) -> None:
    x = np.array([[-9.0, 0.25, 0.75], [1.25, 100.0, 0.5]], np.float32)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        whole = mb.quantize(input=x, scale=np.float32(0.5), output_dtype="int8")
        scales, zeros = np.float32([0.5, 0.25]), np.uint8([10, 20])
        rows = mb.quantize(input=x, scale=scales, zero_point=zeros, axis=0, output_dtype="uint8")
        return {
            "whole": mb.cast(x=whole, dtype="int32"),
            "rows": mb.cast(x=rows, dtype="int32"),
            "back": mb.dequantize(input=rows, scale=scales, zero_point=zeros, axis=0),
        }

    found = execute(build, {"x": x})
    assert found["whole"].tolist() == [[-18, 0, 2], [2, 127, 1]]
    assert found["rows"].tolist() == [[0, 10, 12], [25, 255, 22]]
    assert found["back"].tolist() == [[-5.0, 0.0, 1.0], [1.25, 58.75, 0.5]]


def test_from_ios_17_on_a_negative_index_is_an_error_that_names_the_operation(
    execute: Execute,
) -> None:
    x, indices = normal(3, 4), np.array([-1], np.int32)

    def build(mb: Any, x: Any, i: Any) -> dict[str, Any]:
        return {"y": mb.gather(x=x, indices=i, axis=0, name="pick")}

    assert np.array_equal(execute(build, {"x": x, "i": indices}, 16)["y"], x[-1:])
    with pytest.raises(PackageError, match=r"gather 'pick' in function 'main': .*index"):
        execute(build, {"x": x, "i": indices}, 17)
