"""The training script: its schedule, what it returns, and that the bundle is what it makes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import train_checkpoint as script
from click.testing import CliRunner
from measure_checkpoint import measure
from train_checkpoint import RECIPES, train

from mvit_coreml import build_model, load_checkpoint
from mvit_coreml.demo import KINDS, Kind, demo_checkpoint


@pytest.mark.parametrize("kind", KINDS)
def test_bundled_checkpoint_is_of_the_recipe(kind: Kind) -> None:
    checkpoint, recipe = load_checkpoint(demo_checkpoint(kind)), RECIPES[kind]
    assert (checkpoint.config, checkpoint.task) == (recipe.config, recipe.task)
    assert checkpoint.image_processor == recipe.image_processor


def test_learning_rate_warms_up_then_falls_as_a_cosine() -> None:
    recipe = dataclasses.replace(
        RECIPES["classifier"], pictures=330, batch_size=32, epochs=10, warmup=0.1
    )
    assert recipe.steps == 100
    assert recipe.rate(0) == pytest.approx(0.1)
    assert recipe.rate(9) == pytest.approx(1.0)
    assert recipe.rate(10) == pytest.approx(1.0)
    assert recipe.rate(55) == pytest.approx(0.5)
    assert recipe.rate(100) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_and_returns_half_precision(
    kind: Kind, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "_REPORT_EVERY", 6)
    recipe = dataclasses.replace(RECIPES[kind], pictures=16, epochs=12, batch_size=8)
    checkpoint = train(recipe, seed=1)
    losses = [
        float(line.split("loss ")[1].split(",")[0])
        for line in capfd.readouterr().err.splitlines()
        if "loss" in line
    ]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    dtypes = {weight.dtype for weight in checkpoint.weights.values()}
    assert dtypes == {torch.float16, torch.int64}
    checkpoint.save_pretrained(tmp_path)
    again = build_model(load_checkpoint(tmp_path)).state_dict()
    for name, weight in checkpoint.weights.items():
        assert torch.equal(again[name], weight.to(again[name].dtype)), name


def test_command_names_the_folder_it_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tiny = dataclasses.replace(RECIPES["classifier"], pictures=8, epochs=1, batch_size=8)
    monkeypatch.setitem(script.RECIPES, "classifier", tiny)
    result = CliRunner().invoke(script.main, ["classifier", "--output", str(tmp_path / "made")])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "made")
    assert load_checkpoint(tmp_path / "made").task == "image-classification"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_stored_figures_are_measured_again(kind: Kind) -> None:
    stored = json.loads((demo_checkpoint(kind) / "figures.json").read_text(encoding="utf-8"))
    measured = measure(demo_checkpoint(kind))
    assert measured.keys() == stored.keys()
    for name, value in stored.items():
        if isinstance(value, float):
            assert measured[name] == pytest.approx(value, abs=0.003), name
