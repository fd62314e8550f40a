"""Input that is broken or absurd: one line that names it, exit code 2, and nothing written."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from packages import converted, small_checkpoint
from safetensors.torch import load_file

from mvit_coreml.cli import cli
from mvit_coreml.cli.main import _end_cleanly


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    small_checkpoint("mobilevit").save_pretrained(folder)
    return folder


def copy_of(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def refusal(*arguments: str | Path) -> str:
    """Run a command that must refuse its input; return the line that it says."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    return last


CHANGES: list[tuple[str, str, Any, str]] = [
    ("config.json", "architectures", 5, "architectures is 5; it must be a list of names"),
    ("config.json", "hidden_sizes", [10**12] * 3, "must be three whole numbers from 1 to 65536"),
    ("config.json", "patch_size", 10**12, "patch_size is 1000000000000; it must be"),
    ("config.json", "image_size", 10**9, "image_size is 1000000000; it must be"),
    ("config.json", "mlp_ratio", float("inf"), "mlp_ratio is inf; it must be"),
    ("preprocessor_config.json", "crop_size", {"height": 10**12, "width": 9}, "crop_size is"),
    ("preprocessor_config.json", "size", {"shortest_edge": 10**12}, "size is"),
]


@pytest.mark.parametrize(("file", "key", "value", "message"), CHANGES)
def test_absurd_configurations_are_refused(
    file: str, key: str, value: Any, message: str, source: Path, tmp_path: Path
) -> None:
    broken = copy_of(source, tmp_path / "broken")
    content = json.loads((broken / file).read_text())
    (broken / file).write_text(json.dumps({**content, key: value}))
    said = refusal("convert", broken, "-o", tmp_path / "X.mlpackage")
    assert message in said
    assert not list(tmp_path.glob("*X.mlpackage*"))


NESTED = {"list": "[" * 100_000, "object": '{"a":' * 100_000, "number": "9" * 5000}


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_json_that_python_does_not_read_is_refused(
    file: str, text: str, source: Path, tmp_path: Path
) -> None:
    broken = copy_of(source, tmp_path / "broken")
    (broken / file).write_text(text)
    assert file in refusal("convert", broken, "-o", tmp_path / "X.mlpackage")


@pytest.mark.parametrize("text", NESTED.values(), ids=NESTED)
def test_a_manifest_that_python_does_not_read_is_refused(text: str, tmp_path: Path) -> None:
    package = tmp_path / "Broken.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text(text)
    assert "Manifest.json is damaged" in refusal("inspect", package)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000])
@pytest.mark.parametrize("option", ["--plan", None])
def test_toml_that_python_does_not_read_is_refused(
    option: str | None, text: str, source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "broken.toml"
    file.write_text(text)
    arguments = ["convert", source, option, file] if option else ["build", file]
    assert "broken.toml" in refusal(*arguments, "-o", tmp_path / "X.mlpackage")


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("option", ["--min-snr", "--tune"])
def test_numbers_that_are_none_are_refused(
    option: str, number: str, source: Path, tmp_path: Path
) -> None:
    refusal("convert", source, f"{option}={number}", "-o", tmp_path / "X.mlpackage")


@pytest.mark.parametrize("command", ["convert", "inspect", "predict"])
def test_names_that_are_too_long_are_refused(command: str) -> None:
    said = refusal(command, "a" * 5000, *(["photo.jpg"] if command == "predict" else []))
    assert len(said) < 400


def test_metadata_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    from faults.editor import PackageEditor

    editor = PackageEditor(converted("mobilenet_v2")[0].path)
    editor.metadata["mvit_coreml.preprocessing"] = "[" * 100_000
    refusal("predict", editor.save(), tmp_path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_an_end_from_outside_runs_what_cleans_up(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        _end_cleanly()
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number


def nested(weights: dict[str, Any]) -> dict[str, Any]:
    saved = dict(weights)
    saved["state_dict"] = saved
    return saved


WEIGHTS: dict[str, tuple[Any, str]] = {
    "meta": (lambda w, name: {**w, name: w[name].to("meta")}, "is empty"),
    "sparse": (lambda w, name: {**w, name: w[name].to_sparse()}, "is sparse"),
    "fp8": (lambda w, name: {**w, name: w[name].to(torch.float8_e4m3fn)}, "float8_e4m3fn"),
    "integers": (lambda w, name: {**w, name: w[name].to(torch.int8)}, "int8"),
    "nested": (lambda w, name: nested(w), "holds itself"),
    "variance": (
        lambda w, name: w | {key: -v for key, v in w.items() if key.endswith("running_var")},
        "variances below zero",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_are_none_are_refused(kind: str, source: Path, tmp_path: Path) -> None:
    change, message = WEIGHTS[kind]
    broken = copy_of(source, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    name = next(name for name, value in weights.items() if value.dim() == 4)
    (broken / "model.safetensors").unlink()
    torch.save(change(weights, name), broken / "pytorch_model.bin")
    said = refusal("convert", broken, "-o", tmp_path / "X.mlpackage")
    assert message in said
    assert "pytorch_model.bin" in said


@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_a_report_replaces_nothing_but_a_report(name: str, source: Path, tmp_path: Path) -> None:
    folder = copy_of(source, tmp_path / "checkpoint")
    (folder / "README.md").write_text("# Mine\n")
    before = (folder / name).read_bytes()
    output = tmp_path / "X.mlpackage"
    said = refusal("convert", folder, "-o", output, "--report", folder / name)
    assert "exists and is no report" in said
    assert (folder / name).read_bytes() == before
    package = tmp_path / "Old.mlpackage"
    package.mkdir()
    said = refusal("convert", folder, "-o", output, "--report", package / "report.html")
    assert "lies inside a package" in said
