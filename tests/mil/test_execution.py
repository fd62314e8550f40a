"""Inputs, outputs, intermediates, memory and batches of a run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mvit_coreml.errors import InputError, PackageError
from mvit_coreml.mil.compiler import compile_function, needed_steps
from mvit_coreml.mil.interpreter import Runtime
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.parallel import map_images
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.mil.program import ArrayFeature, ImageFeature

pytestmark = pytest.mark.fast

_ANSWER_BOUND = 2.0**-9


@pytest.fixture(scope="module")
def runtime(classifier_package: Path) -> Runtime:
    return Runtime(load_package(classifier_package))


def probabilities(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """What torch computes for an RGB image, by the scale and bias of the conversion."""
    blue_first = torch.tensor(pixels[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    bias = torch.tensor([-1, -0.9, -0.8]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        return model(blue_first / 127.5 + bias)[0].numpy()


def same_answer(answer: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two answers of the classifier agree, computed twice with the same rounding.

    The order in which sums are computed may move an fp32 sum over an fp16 rounding boundary, of
    which each of the few layers has one: the probabilities, below 1, stay within a few 2**-11.
    """
    values, others = (list(a["classLabel_probs"].values()) for a in (answer, expected))
    return answer["classLabel"] == expected["classLabel"] and np.allclose(
        values, others, rtol=0, atol=_ANSWER_BOUND
    )


def test_classifier_returns_label_and_probabilities_as_core_ml_does(
    runtime: Runtime, classifier: nn.Module, pixels: np.ndarray
) -> None:
    found = runtime.run({"image": pixels})
    expected = probabilities(classifier, pixels)
    assert list(found) == ["classLabel", "classLabel_probs"]
    assert found["classLabel"] == "abcde"[int(expected.argmax())]
    assert list(found["classLabel_probs"]) == list("abcde")
    np.testing.assert_allclose(list(found["classLabel_probs"].values()), expected, atol=2e-3)


def test_image_may_be_array_tensor_or_pillow_image(runtime: Runtime, pixels: np.ndarray) -> None:
    expected = runtime.run({"image": pixels})
    assert same_answer(runtime.run({"image": Image.fromarray(pixels)}), expected)
    assert same_answer(runtime.run({"image": torch.from_numpy(pixels)}), expected)
    tinted = pixels // np.uint8([1, 2, 4])
    turned = runtime.run({"image": tinted[:, :, ::-1]})
    assert not same_answer(turned, runtime.run({"image": tinted}))


def test_image_arrives_in_the_declared_colour_order(
    ct: Any, convert: Callable[..., Path], pixels: np.ndarray
) -> None:
    example = torch.zeros(1, 3, 24, 32)
    planes = np.moveaxis(pixels, -1, 0)[None].astype(np.float32)
    for layout, expected in (("RGB", planes), ("BGR", planes[:, ::-1])):
        image = ct.ImageType("x", shape=example.shape, color_layout=ct.colorlayout[layout])
        path = convert(nn.ReLU(), example, precision="fp32", inputs=[image])
        assert np.array_equal(Runtime(load_package(path)).run({"x": pixels})["y"], expected)
    image = ct.ImageType("x", shape=(1, 1, 24, 32), color_layout=ct.colorlayout.GRAYSCALE)
    path = convert(nn.ReLU(), example[:, :1], precision="fp32", inputs=[image])
    gray = Runtime(load_package(path))
    assert np.array_equal(gray.run({"x": pixels[:, :, 0]})["y"][0, 0], pixels[:, :, 0])
    picture = Image.fromarray(pixels)
    assert np.array_equal(gray.run({"x": picture})["y"][0, 0], np.asarray(picture.convert("L")))


def test_wrong_inputs_are_refused_with_what_is_expected(
    runtime: Runtime, pixels: np.ndarray
) -> None:
    with pytest.raises(
        InputError, match=r"\[24, 32, 3\], not \[32, 24, 3\]; fit the image to 32x24"
    ):
        runtime.run({"image": pixels.transpose(1, 0, 2)})
    with pytest.raises(InputError, match="uint8 array of 32x24 pixels, not float32"):
        runtime.run({"image": pixels.astype(np.float32)})
    with pytest.raises(InputError, match="not str"):
        runtime.run({"image": "picture.jpg"})
    with pytest.raises(InputError, match="input 'image' is missing"):
        runtime.run({})
    with pytest.raises(InputError, match="unknown input 'picture'; the package has: image"):
        runtime.run({"image": pixels, "picture": pixels})
    with pytest.raises(InputError, match="unknown output 'logits'; the package has: classLabel"):
        runtime.run({"image": pixels}, outputs=["logits"])
    with pytest.raises(InputError, match="no operation of the package is called 'stem'"):
        runtime.run({"image": pixels}, intermediates=["stem"])
    with pytest.raises(InputError, match="arithmetic must be 'program' or 'fp32', not 'fp8'"):
        Runtime(runtime.package, arithmetic="fp8")  # type: ignore[arg-type]


def test_arrays_must_have_the_declared_shape(execute: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"\[2, 3\], not \[3, 2\]"):
        execute_with(execute, np.zeros((3, 2), np.float32))


def execute_with(execute: Callable[..., Any], given: np.ndarray) -> Any:
    class Swapped(dict[str, np.ndarray]):
        """Declares one shape and hands over another."""

        def __getitem__(self, name: str) -> np.ndarray:
            return given

    return execute(lambda mb, x: {"y": mb.relu(x=x)}, Swapped(x=np.zeros((2, 3), np.float32)))


def test_intermediates_are_the_values_torch_computes(
    runtime: Runtime, classifier: nn.Module, pixels: np.ndarray, snr: Callable[..., float]
) -> None:
    blue_first = torch.tensor(pixels[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        scaled = blue_first / 127.5 + torch.tensor([-1, -0.9, -0.8]).reshape(1, 3, 1, 1)
        expected: Tensor = torch.nn.functional.silu(classifier.stem(scaled))  # type: ignore[operator]
    (name,) = [o.name for o in runtime.function.operations if o.op_type == "silu"]
    found = runtime.run({"image": pixels}, outputs=["classLabel"], intermediates=[name])
    assert list(found) == ["classLabel", name]
    assert snr(found[name], expected) > 55
    parts = next(o for o in runtime.function.operations if o.op_type == "split")
    pieces = runtime.run({"image": pixels}, outputs=[], intermediates=[parts.name])[parts.name]
    assert [piece.shape for piece in pieces] == [(1, 32, 192)] * 3
    value = parts.outputs[1].name
    one = runtime.run({"image": pixels}, outputs=[], intermediates=[value])[value]
    assert snr(one, pieces[1]) > 60  # the same operations, run twice
    assert name in runtime.operations


def test_nothing_is_computed_that_is_not_asked_for(runtime: Runtime) -> None:
    compiled = compile_function(runtime.function)
    first = compiled.steps[0]
    assert [step for step, _ in needed_steps(compiled, first.outputs)] == [first]


def test_values_are_released_after_their_last_use(execute: Callable[..., Any]) -> None:
    depth = 12

    def build(mb: Any, x: Any) -> dict[str, Any]:
        for _ in range(depth):
            x = mb.exp(x=mb.mul(x=x, y=np.float32(-1.0)))
        return {"y": x}

    import mvit_coreml.mil.interpreter as executor

    alive: list[int] = []
    original = executor.Runtime._execute

    def counted(self: Any, step: Any, values: list[Any], headroom: Any) -> None:
        original(self, step, values, headroom)
        alive.append(sum(isinstance(v, Tensor) and v.numel() == 1000 for v in values))

    executor.Runtime._execute = counted  # type: ignore[method-assign]
    try:
        x = np.random.default_rng(0).normal(size=1000).astype(np.float32)
        found = execute(build, {"x": x})["y"]
    finally:
        executor.Runtime._execute = original  # type: ignore[method-assign]
    for _ in range(depth):
        x = np.exp(-x)
    np.testing.assert_allclose(found, x, rtol=1e-5)
    assert len(alive) == 2 * depth + 1
    assert max(alive) == 2


def test_results_are_the_callers_own(execute: Callable[..., Any], runtime: Runtime) -> None:
    name = next(o.name for o in runtime.function.operations if o.op_type == "softmax")
    pixels = np.zeros((24, 32, 3), np.uint8)
    first = runtime.run({"image": pixels}, intermediates=[name])[name]
    expected = first.copy()
    first[:] = -1
    again = runtime.run({"image": pixels}, intermediates=[name])[name]
    # Run twice; softmax is at most 1, and overwritten values would be -1.
    np.testing.assert_allclose(again, expected, rtol=0, atol=2.0**-9)


def test_failing_operation_is_named(execute: Callable[..., Any]) -> None:
    def build(mb: Any, x: Any, n: Any) -> dict[str, Any]:
        return {"y": mb.reshape(x=x, shape=n, name="fold")}

    inputs = {"x": np.zeros((2, 3), np.float32), "n": np.array([4, 2], np.int32)}
    with pytest.raises(PackageError, match=r"reshape 'fold' in function 'main': .*invalid"):
        execute(build, inputs)


def test_flexible_shapes_run_at_every_size(ct: Any, convert: Callable[..., Path]) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    size = ct.RangeDim(8, 32, default=16)
    path = convert(
        module,
        torch.zeros(1, 3, 16, 16),
        precision="fp32",
        inputs=[ct.TensorType("x", shape=(1, 3, size, size))],
    )
    runtime = Runtime(load_package(path))
    for height, width in ((16, 16), (9, 31)):
        x = torch.rand(1, 3, height, width)
        with torch.no_grad():
            expected = module(x).numpy()
        np.testing.assert_allclose(runtime.run({"x": x})["y"], expected, atol=1e-5)


def test_images_are_mapped_in_order_whatever_the_number_of_workers(runtime: Runtime) -> None:
    random = np.random.default_rng(0)
    tints = 0.05 + 0.95 * np.resize(np.eye(3), (20, 1, 1, 3))
    images = list((random.integers(0, 256, (20, 24, 32, 3)) * tints).astype(np.uint8))
    expected = [runtime.run({"image": image}) for image in images]
    # Neighbours answer otherwise, or a wrong order would go unnoticed.
    assert not any(same_answer(one, other) for one, other in itertools.pairwise(expected))
    threads = torch.get_num_threads()
    for workers in (1, 3):
        results = list(map_images(runtime, images, workers=workers))
        assert len(results) == len(expected)
        assert all(map(same_answer, results, expected))
    assert torch.get_num_threads() == threads
    labels = map_images(runtime, range(20), load=images.__getitem__, outputs=["classLabel"])
    assert [found["classLabel"] for found in labels] == [f["classLabel"] for f in expected]


def test_images_are_read_only_a_little_ahead(runtime: Runtime, pixels: np.ndarray) -> None:
    read = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal read
        for _ in itertools.count():
            read += 1
            yield pixels

    results = map_images(runtime, endless(), workers=2)
    for _ in range(5):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert read <= 5 + 2 * 2 + 1
    assert threading.active_count() < 20


def test_mapping_raises_what_a_run_raises_and_refuses_impossible_requests(
    runtime: Runtime, pixels: np.ndarray, save_program: Callable[..., Path]
) -> None:
    results = map_images(runtime, [pixels, pixels[1:], pixels], workers=2)
    next(results)
    with pytest.raises(InputError, match="fit the image"):
        next(results)
    with pytest.raises(InputError, match="workers must be positive, not 0"):
        map_images(runtime, [], workers=0)
    two = {"x": np.zeros(2, np.float32), "z": np.zeros(2, np.float32)}
    path = save_program(lambda mb, x, z: {"y": mb.add(x=x, y=z)}, two)
    with pytest.raises(InputError, match="one input; this one has 2"):
        map_images(Runtime(load_package(path)), [])


def test_predictor_runs_the_portable_engine_off_the_mac(
    classifier_package: Path, runtime: Runtime, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    predictor = Predictor(classifier_package)
    assert predictor.engine == "portable"
    expected = runtime.run({"image": pixels})
    assert same_answer(predictor.run({"image": pixels}), expected)
    (mapped,) = map_images(predictor, [pixels])
    assert same_answer(mapped, expected)
    with pytest.raises(InputError, match="'coreml' needs macOS; use 'portable'"):
        Predictor(classifier_package, engine="coreml")
    with pytest.raises(InputError, match="engine must be auto, coreml or portable, not 'mlx'"):
        Predictor(classifier_package, engine="mlx")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"compute units must be one of all, .*, not 'tpu'"):
        Predictor(classifier_package, compute_units="tpu")


def test_predictor_hands_core_ml_pillow_images_and_arrays(
    ct: Any, classifier_package: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for MLModel checks the calls; Core ML itself exists only on a Mac."""
    made: list[Any] = []

    class Model:
        def __init__(self, path: str, compute_units: Any) -> None:
            made.append((path, compute_units))

        def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
            (name,) = inputs
            assert name == "image"
            assert isinstance(inputs["image"], Image.Image)
            assert np.array_equal(np.asarray(inputs["image"]), pixels)
            return {"classLabel_probs": {"a": 1.0}, "classLabel": "a"}

    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(ct.models, "MLModel", Model)
    predictor = Predictor(classifier_package, compute_units="cpu_and_ne")
    assert predictor.engine == "coreml"
    assert made == [(str(classifier_package), ct.ComputeUnit.CPU_AND_NE)]
    assert predictor.run({"image": pixels}) == {"classLabel": "a", "classLabel_probs": {"a": 1.0}}
    assert predictor.run({"image": pixels}, ["classLabel"]) == {"classLabel": "a"}
    with pytest.raises(InputError, match="'intermediates' needs the engine 'portable'"):
        predictor.run({"image": pixels}, intermediates=["silu"])
    with pytest.raises(InputError, match="input 'image' is missing"):
        predictor.run({})
    portable = Predictor(classifier_package, engine="portable")
    assert portable.engine == "portable"


def test_inputs_of_a_package_with_arrays_are_described(
    convert: Callable[..., Path],
) -> None:
    path = convert(nn.ReLU(), torch.zeros(1, 3, 4, 5), precision="fp32")
    (feature,) = load_package(path).function().inputs
    assert feature == ArrayFeature("x", (1, 3, 4, 5), "fp32")
    assert not isinstance(feature, ImageFeature)
