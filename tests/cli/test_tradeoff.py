"""The tradeoff command: its table, its document, its folder, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from packages import image, small_checkpoint
from PIL import Image

from mvit_coreml import ConvertOptions, Tradeoff
from mvit_coreml.cli import cli
from mvit_coreml.compression.palettized_weight import Choice
from mvit_coreml.evaluation.accuracy import Share
from mvit_coreml.workflows import measure_tradeoff as tradeoff_measurement
from mvit_coreml.workflows.measure_tradeoff import TradeoffPoint, WeightSensitivity


def curve() -> Tradeoff:
    def point(name: str, **given: Any) -> TradeoffPoint:
        values: dict[str, Any] = {"bits": None, "average_bits": 16.0, "kl": 0.0, "applied": None}
        values |= {"plan": "uniform", "seconds": 1.25}
        return TradeoffPoint(name=name, **(values | given))

    return Tradeoff(
        source="owner/model",
        ios=17,
        images=100,
        synthetic=False,
        fitted_to=40,
        dataset="labelled",
        metric="top1",
        reference_accuracy=Share.of(90, 100),
        points=(
            point(
                "fp16",
                plan="none",
                palettes="none",
                size=2_013_802,
                snr=55.24,
                agreement=1.0,
                accuracy=Share.of(90, 100),
            ),
            point(
                "mixed-1-fitted",
                plan="mixed",
                palettes="fitted",
                average_bits=4.13,
                size=635_000,
                snr=41.42,
                agreement=0.99,
                accuracy=Share.of(89, 100),
            ),
        ),
        sensitivities=(
            WeightSensitivity(
                name="stem", elements=1432, noise={Choice(6): 0.00125, Choice(2): 0.5}
            ),
            WeightSensitivity(name="head", elements=99, noise={Choice(2): 0.25}),
        ),
        notes=("what to know",),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_checkpoint("mobilenet_v2").save_pretrained(tmp_path / "checkpoint")
    (tmp_path / "photos").mkdir()
    for index in range(3):
        Image.fromarray(image((70, 80), index)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Tradeoff], dict[str, Any]]:
    """Let the measurement find something known; return what it was asked for."""

    def install(found: Tradeoff) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        def measure(checkpoint: Any, options: ConvertOptions, images: Any, **given: Any) -> Any:
            asked.update(given, options=options, images=images)
            return found

        monkeypatch.setattr(tradeoff_measurement, "measure_tradeoff", measure)
        return asked

    return install


def run(folder: Path, *arguments: object) -> Result:
    given = ["tradeoff", str(folder / "checkpoint"), *map(str, arguments)]
    return CliRunner().invoke(cli, given)


def test_the_table_has_a_row_for_every_package(folder: Path, measured: Any) -> None:
    measured(curve())
    result = run(folder)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines == [
        "owner/model, iOS 17: 2 saved packages on 100 images of labelled; "
        "palettes fitted to 40 others",
        "PyTorch in fp32: top-1 90.0% (82.6 to 94.5)",
        "size bits palettes SNR agreement KL top-1 seconds",
        "2.01 MB none 55.2 dB 100.0% 0.0000 90.0% (82.6 to 94.5) 1.2",
        "635 kB mixed, 4.1 fitted 41.4 dB 99.0% 0.0000 89.0% (81.4 to 93.7) 1.2",
        "note: what to know",
    ]


def test_sensitivity_lists_the_weights(folder: Path, measured: Any) -> None:
    measured(curve())
    result = run(folder, "--sensitivity")
    rows = [line.split() for line in result.stdout.splitlines()[-3:]]
    assert rows == [
        ["weight", "elements", "6", "bits", "2", "bits"],
        ["stem", "1,432", "0.0013", "0.5"],
        ["head", "99", "0.25"],
    ]


def test_json_is_one_document_with_the_sensitivities(folder: Path, measured: Any) -> None:
    measured(curve())
    document = json.loads(run(folder, "--json").stdout)
    assert [point["size"] for point in document["points"]] == [2_013_802, 635_000]
    assert document["points"][1]["series"] == "mixed bits, fitted"
    assert document["points"][1]["accuracy"]["value"] == 0.89
    assert document["sensitivities"][0] == {
        "name": "stem",
        "elements": 1432,
        "noise": {"6 bits": 0.00125, "2 bits": 0.5},
    }
    assert document["complete"] is True


def test_the_options_reach_the_measurement(folder: Path, measured: Any) -> None:
    asked = measured(curve())
    arguments = ("--images", folder / "photos", "--ios", 18, "--bits", "6,3", "--steps", 2)
    result = run(folder, *arguments, "--tune", 0.5, "--dataset", "labelled", "--no-coremltools")
    assert result.exit_code == 0, result.output
    assert asked["options"].ios == 18
    assert [path.name for path in asked["images"]] == ["0.png", "1.png", "2.png"]
    assert (asked["bits"], asked["steps"], asked["tune_minutes"]) == ((6, 3), 2, 0.5)
    assert (asked["dataset"], asked["coremltools"]) == (Path("labelled"), False)


def test_the_folder_has_the_figures_and_the_plot(folder: Path, measured: Any) -> None:
    measured(curve())
    arguments = ("-o", folder / "curve", "--plot-format", "svg", "--plot-format", "png")
    assert run(folder, *arguments).exit_code == 0
    found = sorted(path.name for path in (folder / "curve").iterdir())
    assert found == ["tradeoff.json", "tradeoff.png", "tradeoff.svg"]
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert run(folder, *arguments, "--force").exit_code == 0


def test_an_interruption_shows_what_was_measured_and_exits_with_130(
    folder: Path, measured: Any
) -> None:
    partial = curve()
    measured(replace(partial, points=partial.points[:1], complete=False))
    result = run(folder, "-o", folder / "curve")
    assert result.exit_code == 130
    assert "2.01 MB" in result.stdout
    assert "interrupted" in result.stderr
    assert not (folder / "curve").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "photos"), "3 images are too few"),
        (("--images", "nowhere"), "no such folder"),
        (("--bits", "6,x"), "is no list of bits"),
        (("--bits", "3"), "3 bits need iOS 18"),
        (("--force",), "--force replaces the folder of -o"),
        (("-o", "nowhere/curve"), "does not exist; create it first"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(folder)
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
