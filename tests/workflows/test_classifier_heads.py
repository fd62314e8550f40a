"""Several labels, and values, against transformers' image-classification pipeline."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from package_cache import converted_package
from packages import SavedPackage, small_checkpoint
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score
from standins import pictures, transformers_name
from transformers.models.mobilenet_v2.image_processing_pil_mobilenet_v2 import (
    MobileNetV2ImageProcessorPil,
)

from mvit_coreml import ConvertedPackage, ConvertOptions, build_report, convert
from mvit_coreml.cli import cli
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.targets import PackageTarget
from mvit_coreml.mil.package_reader import load_package
from mvit_coreml.mil.predictor import Predictor
from mvit_coreml.reports.write_report import write_report
from mvit_coreml.validation.gates import judge
from mvit_coreml.workflows.package_options import fill_in
from mvit_coreml.workflows.validate import ValidateOptions, validate

FAMILY = "mobilenet_v2"
NAMES = ("beach", "boat", "city", "dog", "forest", "people", "sunset")
SEVERAL, REGRESSION = "multi_label_classification", "regression"


def checkpoint(problem: str | None = SEVERAL, labels: int = len(NAMES)) -> Any:
    return small_checkpoint(
        FAMILY, problem_type=problem, id2label=_frozen(dict(enumerate(NAMES[:labels])))
    )


class _frozen(dict[int, str]):  # noqa: N801  (an argument of a cached function)
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def package(problem: str | None = SEVERAL, **options: Any) -> ConvertedPackage:
    labels = options.pop("labels", len(NAMES))
    return converted_package(checkpoint(problem, labels), ConvertOptions(bits=None, **options))


@cache
def photos(count: int = 6) -> list[Image.Image]:
    pixels = (255 * pictures(count, (72, 90), 3)).byte().movedim(1, -1).numpy()
    return [Image.fromarray(one) for one in pixels]


@cache
def pipeline(problem: str | None = SEVERAL, labels: int = len(NAMES)) -> Any:
    """Return transformers' pipeline with the small checkpoint's weights."""
    source = checkpoint(problem, labels)
    fields = source.config.to_dict() | {"id2label": dict(source.config.id2label)}
    del fields["model_type"]
    name = transformers_name(source.config, "image-classification")
    model = getattr(transformers, name)(transformers.MobileNetV2Config(**fields)).eval()
    model.load_state_dict(source.weights)
    processor = MobileNetV2ImageProcessorPil(
        size={"shortest_edge": 96}, crop_size={"height": 64, "width": 64}, resample=2
    )
    return transformers.pipeline("image-classification", model=model, image_processor=processor)


def expected(problem: str | None = SEVERAL, labels: int = len(NAMES)) -> np.ndarray:
    """Return the pipeline's (photos, labels) scores."""
    with torch.no_grad():
        answers = pipeline(problem, labels)(photos(), top_k=labels)
    by_name = [{one["label"]: one["score"] for one in answer} for answer in answers]
    return np.array([[answer[name] for name in NAMES[:labels]] for answer in by_name])


def answered(made: ConvertedPackage) -> np.ndarray:
    target = PackageTarget(Predictor(made.path, engine="portable"))
    return np.array([next(iter(a.outputs.values())).ravel() for a in target.answer(photos())])


def run(*arguments: Any) -> Any:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("problem", "labels", "last"),
    [
        (SEVERAL, 7, "sigmoid"),
        # transformers takes a single label for a yes or no.
        (None, 1, "sigmoid"),
        (REGRESSION, 7, None),
        (REGRESSION, 1, None),
        ("single_label_classification", 7, "softmax"),
        (None, 7, "softmax"),
    ],
)
def test_the_answer_is_what_the_problem_type_means(
    problem: str | None, labels: int, last: str | None
) -> None:
    made = package(problem, labels=labels)
    saved = SavedPackage(made.path)
    found = {op for op in saved.census() if op in ("softmax", "sigmoid")}
    assert found == ({last} if last else set())
    if last is None:
        assert saved.interface() == {"values": ("float32", (1, labels))}
        assert json.loads(saved.user_defined["mvit_coreml.labels"]) == [*NAMES[:labels]]
    else:
        assert saved.interface() == {
            "classLabel": ("string", ()),
            "classLabel_probs": ("dictionary", ()),
        }
    assert saved.user_defined["mvit_coreml.activation"] == (last or "none")
    wanted = expected(problem, labels)
    # Some fifty roundings to 11 bits one after the other; probabilities hide the most of them.
    allowed = 5e-3 if last else 1e-2 * np.abs(wanted).max()
    assert answered(made) == pytest.approx(wanted, abs=allowed)


def test_an_activation_can_be_named_and_is_said() -> None:
    made = package(None, activation="sigmoid")
    assert answered(made) == pytest.approx(expected(SEVERAL), abs=5e-3)
    assert any("--activation sigmoid" in note for note in made.notes)
    assert any("where the checkpoint says softmax" in note for note in made.notes)
    assert answered(package(SEVERAL, activation="softmax")).sum(1) == pytest.approx(1, abs=5e-3)
    plain = package(None, activation="none")
    assert answered(plain) == pytest.approx(expected(REGRESSION), abs=2e-2)
    assert [output.name for output in package(SEVERAL, output="logits").outputs] == ["logits"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "probabilities", "activation": "none"}, "'probabilities' does not go with"),
        ({"output": "values", "activation": "sigmoid"}, "'values' does not go with"),
        ({"output": "features", "activation": "sigmoid"}, "does not apply to the features"),
    ],
)
def test_an_activation_that_does_not_fit_is_refused(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fill_in(ConvertOptions(**options), checkpoint())


def test_a_regression_gives_no_probabilities_unless_told_how() -> None:
    with pytest.raises(InputError, match="--activation"):
        fill_in(ConvertOptions(output="probabilities"), checkpoint(REGRESSION))
    told = fill_in(ConvertOptions(activation="softmax"), checkpoint(REGRESSION))
    assert told.output == "probabilities"


def test_a_segmenter_has_no_activation() -> None:
    segmenter = small_checkpoint(FAMILY, "semantic-segmentation")
    with pytest.raises(InputError, match="does not apply to the classes"):
        fill_in(ConvertOptions(activation="sigmoid"), segmenter)


def test_predict_lists_the_labels_above_a_threshold(tmp_path: Any) -> None:
    made, files = package(), []
    for index, photo in enumerate(photos()):
        files.append(tmp_path / f"{index}.png")
        photo.save(files[-1])
    for threshold in (0.5, 0.2, 0.999999):
        extra = () if threshold == 0.5 else ("--threshold", threshold)
        document = json.loads(run("predict", made.path, *files, *extra, "--json"))
        for entry, scores in zip(document["images"], expected(), strict=True):
            listed = {one["label"]: one["probability"] for one in entry["labels"]}
            # Those at the threshold may fall on either side.
            sure = {n for n, p in zip(NAMES, scores, strict=True) if p > threshold + 5e-3}
            may = {n for n, p in zip(NAMES, scores, strict=True) if p > threshold - 5e-3}
            assert sure <= set(listed) <= may
            assert list(listed.values()) == sorted(listed.values(), reverse=True)
            for name, value in listed.items():
                assert value == pytest.approx(scores[NAMES.index(name)], abs=5e-3)
    text = run("predict", made.path, files[0], "--threshold", "0.999999")
    assert "no label above 0.999999" in text
    logits = json.loads(run("predict", package(output="logits").path, files[0], "--json"))
    found = {one["label"] for one in logits["images"][0]["labels"]}
    assert found == {n for n, p in zip(NAMES, expected()[0], strict=True) if p > 0.5}
    values = json.loads(run("predict", package(REGRESSION).path, files[0], "--json"))
    listed = [one["value"] for one in values["images"][0]["values"]]
    assert listed == pytest.approx(expected(REGRESSION)[0].tolist(), abs=2e-2)
    assert [one["label"] for one in values["images"][0]["values"]] == [*NAMES]


def test_a_threshold_is_for_several_labels(tmp_path: Any) -> None:
    photos()[0].save(tmp_path / "a.png")
    arguments = ["predict", str(package(None).path), str(tmp_path / "a.png"), "--threshold", "0.3"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "does not tell several labels" in result.stderr


def test_evaluate_gives_the_figures_of_scikit_learn(tmp_path: Any) -> None:
    random, rows = np.random.default_rng(0), []
    scores = expected()
    truth = scores > random.uniform(0.1, 0.9, scores.shape)
    for index, (photo, labels) in enumerate(zip(photos(), truth, strict=True)):
        photo.save(tmp_path / f"{index}.png")
        rows.append([f"{index}.png", "|".join(np.array(NAMES)[labels])])
    with (tmp_path / "tags.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "labels"], *rows])
    made = package()
    report = tmp_path / "report.md"
    document = json.loads(
        run("evaluate", made.path, tmp_path / "tags.csv", "--json", "--report", report)
    )
    (target,) = document["targets"]
    # A package's own scores, which half precision may put in another order.
    own = answered(made)
    occurring = truth.any(0)
    wanted = average_precision_score(truth[:, occurring], own[:, occurring])
    assert target["mean_ap"]["value"] == pytest.approx(wanted)
    assert target["f1"]["value"] == pytest.approx(f1_score(truth, own > 0.5, average="micro"))
    assert [one["name"] for one in target["per_class"]] == [*NAMES]
    text = run("evaluate", made.path, tmp_path / "tags.csv", "--per-class")
    assert "mAP" in text
    assert "precision" in text
    assert "| sunset |" in report.read_text(encoding="utf-8")


def test_the_labels_of_a_photo_are_what_validate_judges(tmp_path: Any) -> None:
    made, source = package(), checkpoint()
    report = validate(made.path, source, photos())
    assert report.passed
    assert {gate.name for gate in report.gates} >= {"label_agreement", "consistency", "structure"}
    own = answered(made) > 0.5
    same = own == (expected() > 0.5)
    assert report.agreement["label_sets"] == pytest.approx(same.all(1).mean())
    assert report.agreement["labels"] == pytest.approx(same.mean())
    shown = validate(made.path, source, photos(), ValidateOptions(samples=3))
    for name, words in (
        ("report.html", "all the same labels"),
        ("report.md", "all the same labels"),
        ("report.json", '"label_sets"'),
    ):
        parts = build_report(package=made.path, parity=shown, checkpoint=source)
        write_report(parts, tmp_path / name)
        assert words in (tmp_path / name).read_text("utf-8")


def test_a_lost_label_is_a_lost_answer() -> None:
    """One label of seven, turned round on every photo, leaves no photo its labels."""
    source = checkpoint()
    weights = {name: tensor.clone() for name, tensor in source.weights.items()}
    weights["classifier.weight"][2] *= -1
    weights["classifier.bias"][2] *= -1
    report = validate(package().path, replace(source, weights=weights), photos())
    assert report.agreement["label_sets"] == 0
    assert report.agreement["labels"] == pytest.approx(6 / 7)
    assert {g.name: g.verdict for g in report.gates}["label_agreement"] == "broken"


def test_a_gate_can_be_set_for_labels() -> None:
    report = validate(
        package().path, checkpoint(), photos(), ValidateOptions(bounds={"label_agreement": 0.2})
    )
    (gate,) = [gate for gate in report.gates if gate.name == "label_agreement"]
    assert gate.bound == 0.2
    assert judge({"label_agreement": 0.1}, "fp16", report.promise)[0].verdict == "broken"


def test_values_are_judged_by_their_noise() -> None:
    report = validate(package(REGRESSION).path, checkpoint(REGRESSION), photos())
    assert report.passed
    assert report.agreement == {}
    assert {gate.name for gate in report.gates} >= {"snr", "decoded_weights"}
    wanted, own = expected(REGRESSION), answered(package(REGRESSION))
    noise = 10 * np.log10((wanted**2).sum() / ((wanted - own) ** 2).sum())
    assert report.scores.snr == pytest.approx(noise, abs=1)


def test_palettes_are_fitted_to_labels_and_keep_them(tmp_path: Any) -> None:
    images = [np.asarray(photo) for photo in photos(40)]
    made = convert(checkpoint(), ConvertOptions(bits=6), tmp_path / "Tags.mlpackage", images=images)
    assert made.parity is not None
    assert made.parity.agreement["label_sets"] > 0.5
    package = load_package(made.path)
    stored = json.loads(package.metadata.user_defined["mvit_coreml.options"])
    assert stored["activation"] == "sigmoid"
