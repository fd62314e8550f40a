"""Recurrence, control flow, scatters, resampling, boxes beside PyTorch, torchvision and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.inspection.package_contents import inspect_package
from mvit_coreml.mil.digest import program_digest
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package

Execute = Callable[..., dict[str, np.ndarray]]
RANDOM = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def close(value: np.ndarray, expected: Any) -> None:
    np.testing.assert_allclose(value, np.asarray(expected), rtol=1e-4, atol=1e-5)


def gates(weight: torch.Tensor, order: tuple[int, ...]) -> np.ndarray:
    """Reorder a layer's gates from PyTorch's order to MIL's."""
    parts = weight.detach().numpy()
    parts = np.split(parts, len(order))
    return np.concatenate([parts[gate] for gate in order])


def test_recurrent_layers_are_those_of_torch(execute: Execute) -> None:
    torch.manual_seed(0)
    x, h, c = normal(5, 2, 3), normal(2, 2, 4), normal(2, 2, 4)
    lstm = nn.LSTM(3, 4, bidirectional=True)
    gru, rnn = nn.GRU(3, 4), nn.RNN(3, 4)
    ifoz = (0, 1, 3, 2)  # PyTorch's cell gate stands third
    roz = (0, 2, 1)

    def lstm_weights(way: str, suffix: str) -> dict[str, np.ndarray]:
        w = {name: getattr(lstm, f"{name}_l0{way}") for name in ("weight_ih", "weight_hh")}
        bias = getattr(lstm, f"bias_ih_l0{way}") + getattr(lstm, f"bias_hh_l0{way}")
        named = {name + suffix: gates(value, ifoz) for name, value in w.items()}
        return named | {"bias" + suffix: gates(bias, ifoz)}

    def build(mb: Any, x: Any, h: Any, c: Any) -> dict[str, Any]:
        both = {**lstm_weights("", ""), **lstm_weights("_reverse", "_back")}
        y, last_h, last_c = mb.lstm(
            x=x, initial_h=h, initial_c=c, direction="bidirectional", output_sequence=True, **both
        )
        one = mb.slice_by_size(x=h, begin=[0, 0], size=[-1, 4])
        by_gru, gru_h = mb.gru(
            x=x,
            initial_h=one,
            weight_ih=gates(gru.weight_ih_l0, roz),
            weight_hh=gates(gru.weight_hh_l0, roz),
            input_bias=gates(gru.bias_ih_l0, roz),
            bias=gates(gru.bias_hh_l0, roz),
            reset_after=True,
            output_sequence=True,
        )
        by_rnn, rnn_h = mb.rnn(
            x=x,
            initial_h=one,
            weight_ih=rnn.weight_ih_l0.detach().numpy(),
            weight_hh=rnn.weight_hh_l0.detach().numpy(),
            bias=(rnn.bias_ih_l0 + rnn.bias_hh_l0).detach().numpy(),
        )
        backwards, _ = mb.rnn(
            x=x,
            initial_h=one,
            weight_ih=rnn.weight_ih_l0.detach().numpy(),
            weight_hh=rnn.weight_hh_l0.detach().numpy(),
            bias=(rnn.bias_ih_l0 + rnn.bias_hh_l0).detach().numpy(),
            direction="reverse",
            output_sequence=True,
        )
        results = {"y": y, "last_h": last_h, "last_c": last_c, "by_gru": by_gru}
        results["backwards"] = backwards
        return results | {"gru_h": gru_h, "by_rnn": by_rnn, "rnn_h": rnn_h}

    joined = {"h": np.concatenate(h, 1), "c": np.concatenate(c, 1)}
    results = execute(build, {"x": x, **joined}, opset=18)
    with torch.no_grad():
        y, (last_h, last_c) = lstm(torch.tensor(x), (torch.tensor(h), torch.tensor(c)))
        by_gru, gru_h = gru(torch.tensor(x), torch.tensor(h[:1]))
        by_rnn, rnn_h = rnn(torch.tensor(x), torch.tensor(h[:1]))
        backwards, _ = rnn(torch.tensor(x).flip(0), torch.tensor(h[:1]))
    close(results["y"], y)
    close(results["last_h"], torch.cat([*last_h], 1))
    close(results["last_c"], torch.cat([*last_c], 1))
    close(results["by_gru"], by_gru)
    close(results["gru_h"], gru_h[0])
    close(results["by_rnn"], by_rnn[-1:])  # without output_sequence, the last step alone
    close(results["rnn_h"], rnn_h[0])
    close(results["backwards"], backwards)  # in the order of its steps, as coremltools expects


def test_a_loop_runs_until_its_condition_fails_and_a_condition_picks_a_branch(
    execute: Execute,
) -> None:
    def build(mb: Any, x: Any, n: Any) -> dict[str, Any]:
        step = mb.const(val=np.float32(2))

        def body(value: Any, left: Any) -> Any:
            # A condition in a loop; both take a value from outside.
            odd = mb.equal(x=mb.mod(x=left, y=2), y=1)
            value = mb.cond(
                pred=odd,
                _true_fn=lambda: mb.add(x=value, y=x),
                _false_fn=lambda: mb.mul(x=value, y=step),
            )
            return value, mb.sub(x=left, y=1)

        left = mb.squeeze(x=n)
        y, rest = mb.while_loop(
            _cond=lambda value, left: mb.greater(x=left, y=0), _body=body, loop_vars=(x, left)
        )
        return {"y": y, "rest": mb.expand_dims(x=rest, axes=[0])}

    for count in (0, 4, 5):
        x = value = np.array([1.0, -3.0], np.float32)
        for left in range(count, 0, -1):
            value = value + x if left % 2 else value * 2
        results = execute(build, {"x": x, "n": np.array([count], np.int32)})
        close(results["y"], value)
        assert results["rest"] == [0]


def test_a_scalar_picks_an_element_of_a_vector(execute: Execute) -> None:
    results = execute(
        lambda mb, x, n: {"y": mb.expand_dims(x=mb.gather(x=x, indices=mb.squeeze(x=n)), axes=[0])},
        {"x": np.array([5, 7, 9], np.float32), "n": np.array([2], np.int32)},
    )
    assert results["y"] == [9]


@pytest.mark.parametrize("opset", [16, 17])
def test_scatters_combine_like_numpy(execute: Execute, opset: int) -> None:
    x = normal(4, 3)
    updates = RANDOM.uniform(0.5, 2, (3, 3)).astype(np.float32)
    rows = np.array([2, 0, 2], np.int32)
    taken = rows if opset == 17 else rows - 4  # negative ones count from the end until iOS 16
    ufuncs = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    ufuncs |= {"max": np.maximum, "min": np.minimum}

    def build(mb: Any, x: Any, u: Any) -> dict[str, Any]:
        results = {}
        for mode in [*ufuncs, "update"]:
            # Of two updates of one place the last one or any other may stay.
            indices = taken if mode != "update" else taken[:2]
            of = u if mode != "update" else mb.slice_by_size(x=u, begin=[0, 0], size=[2, -1])
            results[mode] = mb.scatter(data=x, indices=indices, updates=of, mode=mode)
            column = np.repeat(indices[:, None], 3, 1)
            results[f"{mode}_along"] = mb.scatter_along_axis(
                data=x, indices=column, updates=of, axis=0, mode=mode
            )
            results[f"{mode}_nd"] = mb.scatter_nd(
                data=x, indices=indices[:, None], updates=of, mode=mode
            )
        return results

    results = execute(build, {"x": x, "u": updates}, opset=opset)
    for mode, ufunc in ufuncs.items():
        expected = x.copy()
        ufunc.at(expected, rows, updates)
        for kind in ("", "_along", "_nd"):
            close(results[mode + kind], expected)
    expected = x.copy()
    expected[rows[:2]] = updates[:2]
    for kind in ("", "_along", "_nd"):
        close(results["update" + kind], expected)


def test_resampling_and_affine_maps_are_those_of_torch(execute: Execute) -> None:
    x = normal(2, 3, 5, 7)
    grid = RANDOM.uniform(-2.5, 2.5, (2, 4, 6, 2)).astype(np.float32)
    matrix = (np.array([[1, 0.2, 0.1, -0.3, 0.9, 0.4]]) * np.ones((2, 1))).astype(np.float32)
    # PyTorch's reflection is about the centres of the corner pixels if they are aligned, else
    # about their edges.
    cases = [
        (mode, padding, aligned, theirs)
        for mode in ("bilinear", "nearest")
        for aligned in (True, False)
        for padding, theirs in (
            ("constant", "zeros"),
            ("border", "border"),
            ("reflection" if aligned else "symmetric", "reflection"),
        )
    ]

    def build(mb: Any, x: Any, grid: Any, matrix: Any) -> dict[str, Any]:
        results = {
            f"y{number}": mb.resample(
                x=x,
                coordinates=grid,
                sampling_mode=mode,
                padding_mode=padding,
                padding_value=0.0,
                coordinates_mode="normalized_minus_one_to_one",
                align_corners=aligned,
            )
            for number, (mode, padding, aligned, _) in enumerate(cases)
        }
        results["affine"] = mb.affine(
            x=x,
            transform_matrix=matrix,
            output_height=4,
            output_width=3,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        )
        return results

    results = execute(build, {"x": x, "grid": grid, "matrix": matrix})
    x_, grid_ = torch.tensor(x), torch.tensor(grid)
    for number, (mode, _, aligned, theirs) in enumerate(cases):
        close(results[f"y{number}"], F.grid_sample(x_, grid_, mode, theirs, aligned))
    points = F.affine_grid(torch.tensor(matrix).reshape(2, 2, 3), [2, 3, 4, 3], True)
    close(results["affine"], F.grid_sample(x_, points, "bilinear", "zeros", True))


def test_crops_are_torchvisions_regions_of_interest(execute: Execute) -> None:
    x = normal(2, 3, 9, 11)
    boxes = np.array([[1, 2, 6, 8], [0, 0, 8, 10], [3, 1, 5, 4]], np.float32)  # rows first
    images = np.array([1, 0, 1], np.int32)
    results = execute(
        lambda mb, x, boxes: {
            "y": mb.crop_resize(
                x=x,
                boxes=boxes,
                box_indices=images,
                target_height=4,
                target_width=5,
                sampling_mode="OFFSET_CORNERS",
            )
        },
        {"x": x, "boxes": boxes},
    )
    rows_last = np.concatenate([images[:, None], boxes[:, [1, 0, 3, 2]]], 1).astype(np.float32)
    expected = torchvision.ops.roi_align(
        torch.tensor(x), torch.tensor(rows_last), (4, 5), sampling_ratio=1
    )
    close(results["y"], expected)


@pytest.mark.parametrize("by_class", [False, True])
def test_boxes_that_stay_are_torchvisions(execute: Execute, by_class: bool) -> None:
    boxes = np.concatenate([RANDOM.uniform(0, 30, (40, 2)), RANDOM.uniform(5, 15, (40, 2))], 1)
    boxes, scores = boxes.astype(np.float32)[None], RANDOM.uniform(0, 1, (1, 40, 3))
    scores = scores.astype(np.float32)

    def build(mb: Any, boxes: Any, scores: Any) -> dict[str, Any]:
        kept, values, indices, count = mb.non_maximum_suppression(
            boxes=boxes,
            scores=scores,
            iou_threshold=0.3,
            score_threshold=0.6,
            max_boxes=30,
            per_class_suppression=by_class,
        )
        return {"kept": kept, "values": values, "indices": indices, "count": count}

    results = execute(build, {"boxes": boxes, "scores": scores}, opset=15)
    corners = torchvision.ops.box_convert(torch.tensor(boxes[0]), "cxcywh", "xyxy")
    best, label = torch.tensor(scores[0]).max(-1)
    places = (best >= 0.6).nonzero()[:, 0]
    labels = label if by_class else torch.zeros_like(label)
    expected = places[
        torchvision.ops.batched_nms(corners[places], best[places], labels[places], 0.3)
    ].numpy()
    count = len(expected)
    assert 3 < count < 30
    assert results["count"] == [count]
    assert results["indices"][0].tolist() == [*expected, *[-1] * (30 - count)]
    close(results["kept"][0, :count], boxes[0, expected])
    close(results["values"][0, :count], scores[0, expected])
    assert not results["kept"][0, count:].any()


def test_random_numbers_follow_their_distribution_and_seed(execute: Execute) -> None:
    shape = np.array([100, 100], np.int32)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        normals = {"shape": shape, "mean": 3.0, "stddev": 2.0}
        return {
            "uniform": mb.random_uniform(shape=shape, low=-1.0, high=3.0, seed=1),
            "normal": mb.random_normal(**normals, seed=1),
            "again": mb.random_normal(**normals, seed=1),
            "other": mb.random_normal(**normals, seed=2),
            "unseeded": mb.random_normal(**normals),
            "bernoulli": mb.random_bernoulli(shape=shape, prob=0.2, seed=1),
            "drawn": mb.random_categorical(x=x, mode="probs", size=10000, seed=1),
        }

    results = execute(build, {"x": np.array([[0.1, 0.6, 0.3]], np.float32)})
    assert abs(results["uniform"].mean() - 1) < 0.05
    assert results["uniform"].min() >= -1
    assert results["uniform"].max() < 3
    assert abs(results["normal"].mean() - 3) < 0.1
    assert abs(results["normal"].std() - 2) < 0.1
    assert (results["normal"] == results["again"]).all()
    assert (results["normal"] != results["other"]).any()
    assert (results["normal"] != results["unseeded"]).any()
    assert abs(results["bernoulli"].mean() - 0.2) < 0.02
    assert results["drawn"].shape == (1, 10000)
    shares = np.bincount(results["drawn"][0].astype(int)) / 10000
    np.testing.assert_allclose(shares, [0.1, 0.6, 0.3], atol=0.02)


def test_first_elements_are_reversed_and_blocks_go_to_batches_and_back(execute: Execute) -> None:
    x = normal(2, 3, 4, 6)
    lengths = np.array([3, 0, 6], np.int32)

    def build(mb: Any, x: Any) -> dict[str, Any]:
        blocks = mb.space_to_batch(x=x, block_shape=[2, 3], paddings=[[0, 2], [3, 0]])
        return {
            "reversed": mb.reverse_sequence(x=x, lengths=lengths, seq_axis=3, batch_axis=1),
            "blocks": blocks,
            "back": mb.batch_to_space(x=blocks, block_shape=[2, 3], crops=[[0, 2], [3, 0]]),
        }

    results = execute(build, {"x": x})
    expected = x.copy()
    for channel, length in enumerate(lengths):
        expected[:, channel, :, :length] = x[:, channel, :, :length][..., ::-1]
    close(results["reversed"], expected)
    padded = np.pad(x, ((0, 0), (0, 0), (0, 2), (3, 0)))
    for number in range(12):
        offset, image = divmod(number, 2)
        row, column = divmod(offset, 3)
        close(results["blocks"][number], padded[image, :, row::2, column::3])
    close(results["back"], x)


def test_mixed_types_are_multiplied_in_the_wider(execute: Execute) -> None:
    x, whole = normal(2, 3), np.array([[1, 2], [3, 4], [5, 6]], np.int32)
    results = execute(lambda mb, x: {"y": mb.matmul(x=x, y=whole)}, {"x": x})
    close(results["y"], x @ whole)


@pytest.fixture
def counter(ct: Any, tmp_path: Path) -> Path:
    """A program that adds its input to a state of two numbers and returns it."""
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    @mb.program(
        input_specs=[mb.TensorSpec((2,), types.fp16), mb.StateTensorSpec((2,), types.fp16)],
        opset_version=ct.target.iOS18,
    )
    def program(x: Any, total: Any) -> Any:
        read = mb.read_state(input=total)
        return mb.coreml_update_state(state=total, value=mb.add(x=read, y=x), name="y")

    model = ct.convert(program, minimum_deployment_target=ct.target.iOS18, skip_model_load=True)
    model.save(str(tmp_path / "counter.mlpackage"))
    return tmp_path / "counter.mlpackage"


def test_a_state_is_kept_between_calls_and_apart_from_others(counter: Path) -> None:
    runtime = Runtime(load_package(counter))
    first, second = runtime.make_state(), runtime.make_state()
    x = np.array([1.5, -2], np.float16)
    (name,) = runtime.run({"x": x}, state=first)
    assert runtime.run({"x": x}, state=first)[name].tolist() == [3, -4]
    assert runtime.run({"x": x}, state=second)[name].tolist() == [1.5, -2]
    assert first["total"].tolist() == [3, -4]
    with pytest.raises(InputError, match="keeps the state 'total' between calls"):
        runtime.run({"x": x})


def test_inputs_of_several_sizes_take_these_alone(ct: Any, convert: Any) -> None:
    pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    example = torch.rand(1, 3, 16, 16)
    some = ct.EnumeratedShapes([(1, 3, 16, 16), (1, 3, 20, 24)])
    ranged = ct.Shape((1, 3, ct.RangeDim(8, 32, default=16), 16))
    listed = Runtime(
        load_package(convert(pooled, example, inputs=[ct.TensorType("x", shape=some)]))
    )
    image = Runtime(
        load_package(convert(pooled, example, inputs=[ct.ImageType("x", shape=ranged)]))
    )
    x = normal(1, 3, 20, 24)
    with torch.no_grad():
        expected = pooled(torch.tensor(x)).numpy()
    np.testing.assert_allclose(listed.run({"x": x})["y"], expected, atol=0.01)
    with pytest.raises(InputError, match=r"\(1, 3, 16, 16\) or \(1, 3, 20, 24\), not"):
        listed.run({"x": normal(1, 3, 20, 20)})
    pixels = RANDOM.integers(0, 256, (24, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = pooled(torch.tensor(pixels).permute(2, 0, 1)[None].float()).numpy()
    np.testing.assert_allclose(image.run({"x": pixels})["y"], expected, rtol=0.01, atol=0.5)
    with pytest.raises(InputError, match=r"\(8 to 32, 16\), not \[33, 16, 3\]"):
        image.run({"x": np.zeros((33, 16, 3), np.uint8)})


def test_other_kinds_of_model_are_named(ct: Any, tmp_path: Path) -> None:
    from coremltools.proto import Model_pb2

    for kind, way_out in (
        ("neuralNetwork", "converted with minimum_deployment_target iOS15"),
        ("pipeline", "save its models one by one"),
        ("treeEnsembleClassifier", "converted with minimum_deployment_target iOS15"),
    ):
        model = Model_pb2.Model(specificationVersion=5)
        getattr(model, kind).SetInParent()
        with pytest.raises(PackageError, match=f"holds a {kind}, not an ML Program; .*{way_out}"):
            load_package(package_of(tmp_path / f"{kind}.mlpackage", model))


def package_of(path: Path, model: Any) -> Path:
    folder = path / "Data" / "com.apple.CoreML"
    folder.mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(model.SerializeToString())
    (path / "Manifest.json").write_text(
        '{"itemInfoEntries": {"1": {"path": "com.apple.CoreML/model.mlmodel"}}, '
        '"rootModelIdentifier": "1"}'
    )
    return path


def test_an_element_type_that_is_not_known_is_named(save_program: Any, tmp_path: Path) -> None:
    from coremltools.proto import MIL_pb2

    from mvit_coreml.mil.package_reader import parse_model

    x = normal(2)
    source = save_program(lambda mb, x: {"y": mb.relu(x=x)}, {"x": x})
    (path,) = source.rglob("model.mlmodel")
    model = parse_model(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    block.operations[-1].outputs[0].type.tensorType.dataType = MIL_pb2.BFLOAT16
    with pytest.raises(PackageError, match=r"'identity' 'y' .* element type BFLOAT16"):
        load_package(package_of(tmp_path / "brain.mlpackage", model))


def test_an_operation_that_is_not_known_is_named_in_a_loop_too(
    save_program: Any, tmp_path: Path
) -> None:
    from mvit_coreml.mil.package_reader import parse_model

    def build(mb: Any, x: Any) -> dict[str, Any]:
        y = mb.while_loop(
            _cond=lambda value: mb.less(x=mb.reduce_sum(x=value, axes=[0]), y=9.0),
            _body=lambda value: (mb.add(x=value, y=1.0, name="more"),),
            loop_vars=(x,),
        )
        return {"y": y}

    source = save_program(build, {"x": normal(2)})
    (path,) = source.rglob("model.mlmodel")
    model = parse_model(path.read_bytes())
    (block,) = model.mlProgram.functions["main"].block_specializations.values()
    (loop,) = (o for o in block.operations if o.type == "while_loop")
    (added,) = (o for o in loop.blocks[1].operations if o.type == "add")
    added.type = "add_up"
    package = load_package(package_of(tmp_path / "loop.mlpackage", model))
    with pytest.raises(
        PackageError, match="add_up 'more' in function 'main': the runtime does not"
    ):
        Runtime(package)


def test_the_digest_and_the_inspection_see_into_loops(save_program: Any) -> None:
    def counting(step: float) -> Callable[..., dict[str, Any]]:
        def build(mb: Any, x: Any) -> dict[str, Any]:
            y = mb.while_loop(
                _cond=lambda value: mb.less(x=mb.reduce_sum(x=value, axes=[0]), y=9.0),
                _body=lambda value: (mb.add(x=value, y=step),),
                loop_vars=(x,),
            )
            return {"y": y}

        return build

    x = {"x": normal(2)}
    packages = [load_package(save_program(counting(step), x)) for step in (1.0, 1.0, 2.0)]
    first, same, other = map(program_digest, packages)
    assert first == same != other
    (caution,) = [c for c in inspect_package(packages[0].path).cautions if "loop" in c.message]
    assert caution.operations == ("while_loop_0",)
