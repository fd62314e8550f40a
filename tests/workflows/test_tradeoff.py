"""The size-quality curve: its figures are those of the saved packages, measured independently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packages import make_checkpoint
from PIL import Image

from mvit_coreml import (
    Checkpoint,
    ConvertOptions,
    MobileNetV2Config,
    Tradeoff,
    ValidateOptions,
    build_model,
    convert,
    measure_tradeoff,
    validate,
    write_tradeoff,
)
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.export.coremltools_import import load_coremltools
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.workflows import measure_tradeoff as tradeoff_measurement

pytestmark = pytest.mark.usefixtures("conversions_shared")

LABELS = ("ant", "bee", "cat", "dog", "elk")


@cache
def checkpoint() -> Checkpoint:
    """A MobileNetV2 that is converted and fitted in seconds."""
    config = MobileNetV2Config(
        depth_multiplier=0.2,
        finegrained_output=False,
        image_size=64,
        id2label=dict(enumerate(LABELS)),
    )
    return make_checkpoint(config, "image-classification", 64)


def stop_before(title: str) -> Callable[..., None]:
    """Press Ctrl-C as something begins."""

    def progress(stage: str, detail: str = "", /) -> None:
        if stage.startswith(title):
            raise KeyboardInterrupt

    return progress


def photos(folder: Path, count: int, seed: int) -> list[Path]:
    """Blurred noise, as files."""
    folder.mkdir(parents=True)
    paths = []
    for index in range(count):
        coarse = np.random.default_rng([seed, index]).integers(0, 256, (9, 11, 3), np.uint8)
        paths.append(folder / f"{index:02}.png")
        Image.fromarray(coarse).resize((96, 80), Image.Resampling.BILINEAR).save(paths[-1])
    return paths


def size_of(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos to fit to, and eight labelled ones of which PyTorch has six right."""
    folder = tmp_path_factory.mktemp("tradeoff")
    photos(folder / "photos", 20, seed=0)
    model = build_model(checkpoint()).eval()
    for index, path in enumerate(photos(folder / "others", 8, seed=1)):
        with Image.open(path) as photo, torch.inference_mode():
            pixels = checkpoint().image_processor.preprocess(np.asarray(photo))
            found = int(model(pixels).logits.argmax())
        label = LABELS[found if index < 6 else (found + 1) % 5]
        (folder / "labelled" / label).mkdir(parents=True, exist_ok=True)
        path.rename(folder / "labelled" / label / path.name)
    return folder


@pytest.fixture(scope="module")
def curve(folder: Path) -> Tradeoff:
    found = measure_tradeoff(
        checkpoint(),
        images=sorted((folder / "photos").iterdir()),
        bits=(2,),
        dataset=folder / "labelled",
    )
    write_tradeoff(found, folder / "curve", plot_suffixes=(".svg", ".png"))
    return found


def judged(folder: Path) -> list[Path]:
    return sorted((folder / "labelled").rglob("*.png"))


def test_there_is_a_package_of_every_kind(curve: Tradeoff) -> None:
    assert [point.name for point in curve.points] == [
        "fp16",
        "uniform-2-kmeans",
        "uniform-2-coremltools",
        "uniform-2-fitted",
        "mixed-1-fitted",
    ]
    assert curve.complete
    # Of the 20 photos some are held out, and some are searched by.
    assert (curve.images, curve.fitted_to, curve.synthetic) == (8, 13, False)


@pytest.mark.parametrize("name", ["uniform-2-kmeans", "uniform-2-fitted", "mixed-1-fitted"])
def test_the_figures_are_those_of_the_package_that_the_plan_leads_to(
    curve: Tradeoff, folder: Path, tmp_path: Path, name: str
) -> None:
    options = ConvertOptions(plan=folder / "curve" / f"{name}.plan.toml")
    package = convert(checkpoint(), options, tmp_path / "again.mlpackage", check=False).path
    report = validate(package, checkpoint(), judged(folder), ValidateOptions(structure=False))
    (point,) = (point for point in curve.points if point.name == name)
    assert point.size == size_of(package)
    assert point.snr == pytest.approx(report.scores.snr, rel=1e-9)
    assert point.agreement == report.agreement["top1"]
    assert point.kl == pytest.approx(report.agreement["kl"], rel=1e-9)
    target = PackageTarget(Predictor(package, engine="portable"))
    found = [
        int(answer.outputs["probabilities"].argmax()) for answer in target.answer(judged(folder))
    ]
    right = sum(
        LABELS[label] == path.parent.name for label, path in zip(found, judged(folder), strict=True)
    )
    assert point.accuracy is not None
    assert point.accuracy.value == right / 8


def test_the_reference_line_is_the_package_of_coremltools(
    curve: Tradeoff, folder: Path, tmp_path: Path
) -> None:
    options = ConvertOptions(bits=None)
    plain = convert(checkpoint(), options, tmp_path / "plain.mlpackage", check=False).path
    coremltools = load_coremltools()
    from coremltools.optimize import coreml as optimize

    config = optimize.OpPalettizerConfig(mode="kmeans", nbits=2)
    model = coremltools.models.MLModel(str(plain), skip_model_load=True)
    model = optimize.palettize_weights(model, optimize.OptimizationConfig(config))
    model.save(str(tmp_path / "theirs.mlpackage"))
    report = validate(
        tmp_path / "theirs.mlpackage",
        checkpoint(),
        judged(folder),
        ValidateOptions(structure=False),
    )
    (point,) = (point for point in curve.points if point.name == "uniform-2-coremltools")
    assert point.size == size_of(tmp_path / "theirs.mlpackage")
    assert point.snr == pytest.approx(report.scores.snr, rel=1e-9)
    assert curve.points[0].size == size_of(plain)


def test_the_accuracy_of_pytorch_is_measured_too(curve: Tradeoff) -> None:
    assert curve.metric == "top1"
    assert curve.reference_accuracy is not None
    assert curve.reference_accuracy.value == 6 / 8


def test_a_mixed_plan_takes_no_more_than_the_uniform_one_and_is_closer(curve: Tradeoff) -> None:
    points = {point.name: point for point in curve.points}
    uniform, mixed = points["uniform-2-kmeans"], points["mixed-1-fitted"]
    assert 0.97 * uniform.size < mixed.size <= uniform.size
    assert mixed.snr > points["uniform-2-fitted"].snr > uniform.snr
    # Elements that are not worth a palette have 16 bits, and most of the weights are small.
    assert 2 < uniform.average_bits < 16  # type: ignore[operator]


def test_sensitivities_are_of_all_weights_the_worst_first(curve: Tradeoff) -> None:
    plan = next(point.applied.plan for point in curve.points if point.applied is not None)
    shapes = {weight.name: weight.shape for weight in plan.weights}
    assert {w.name: w.elements for w in curve.sensitivities} == {
        name: int(np.prod(shape)) for name, shape in shapes.items()
    }
    worst = [max(weight.noise.values(), default=0.0) for weight in curve.sensitivities]
    assert worst == sorted(worst, reverse=True)
    assert worst[0] > 0


def test_an_interruption_keeps_what_was_measured_on_images_held_out(folder: Path) -> None:
    found = measure_tradeoff(
        checkpoint(),
        images=sorted((folder / "photos").iterdir()),
        bits=(2,),
        progress=stop_before("2 bits, coremltools (3 of 5)"),
    )
    assert not found.complete
    assert [point.name for point in found.points] == ["fp16", "uniform-2-kmeans"]
    assert found.sensitivities == ()
    assert (found.images, found.fitted_to) == (5, 13)
    assert (found.metric, found.points[0].accuracy) == (None, None)


def test_what_is_missing_or_flatters_is_noted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tradeoff_measurement, "missing_requirement", lambda: "scikit-learn")
    found = measure_tradeoff(
        checkpoint(),
        images=[*sorted((folder / "photos").iterdir()), *judged(folder)[:2]],
        bits=(2,),
        dataset=folder / "labelled",
        progress=stop_before("2 bits"),
    )
    assert any("need scikit-learn" in note for note in found.notes)
    assert any(note.startswith("2 of the 8 labelled images are among") for note in found.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": [Path("a.png")] * 15}, "15 images are too few"),
        ({"bits": (3,)}, "3 bits need iOS 18"),
        ({"bits": (5,)}, "5 bits: a palette has indices"),
        ({"bits": ()}, "there are no bits"),
        ({"steps": -1}, "give 0 or more"),
        ({"tune_minutes": 0.0}, "give more than 0"),
        ({"dataset": Path("nowhere")}, "nowhere"),
        (
            {"options": ConvertOptions(output="features", bits=None), "dataset": Path("x")},
            "features have no accuracy",
        ),
        (
            {"options": ConvertOptions(ios=18, image_sizes=((64, 64), (96, 96)))},
            "measured at one",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_before_any_work(
    given: dict[str, Any], message: str
) -> None:
    def worked(stage: str, detail: str = "", /) -> None:
        raise AssertionError(stage)

    with pytest.raises(InputError, match=message) as caught:
        measure_tradeoff(checkpoint(), **given, progress=worked)
    assert "\n" not in str(caught.value)


def test_steps_are_spaced_by_equal_factors() -> None:
    assert tradeoff_measurement._spaced([800, 100], 4) == [800, 400, 200, 100]
    assert tradeoff_measurement._spaced([100, 800], None) == [800, 100]
    assert tradeoff_measurement._spaced([800, 100], 1) == [800]
    assert tradeoff_measurement._spaced([800, 100], 0) == []


def test_a_folder_is_replaced_only_by_force_and_only_if_it_is_a_curves(
    curve: Tradeoff, folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "curve"
    write_tradeoff(curve, path)
    (path / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="--force"):
        write_tradeoff(curve, path)
    assert (path / "mine.txt").exists()
    write_tradeoff(replace(curve, source="another"), path, force=True)
    assert not (path / "mine.txt").exists()
    assert '"source": "another"' in (path / "tradeoff.json").read_text()
    (path / "tradeoff.json").unlink()
    with pytest.raises(InputError, match=r"holds no tradeoff\.json"):
        write_tradeoff(curve, path, force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve"]
