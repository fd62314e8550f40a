"""The validate command: exit codes, messages and the JSON document."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from faults.editor import PackageEditor
from faults.planting import store_digest
from foreign import WEIGHTS
from packages import small_checkpoint
from PIL import Image

from mvit_coreml import ConvertOptions, convert, load_checkpoint
from mvit_coreml.cli import cli

pytestmark = pytest.mark.usefixtures("conversions_shared")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, its package with 8 bits, and photos."""
    folder = tmp_path_factory.mktemp("validate")
    small_checkpoint("mobilenet_v2").save_pretrained(folder / "checkpoint")
    convert(
        load_checkpoint(folder / "checkpoint"),
        ConvertOptions(bits=8, kmeans_only=True),
        folder / "Good.mlpackage",
        check=False,
    )
    (folder / "photos").mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (70, 80, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    return folder


def run(package, folder, *arguments):
    given = ["validate", package, "--against", folder / "checkpoint", *arguments]
    return CliRunner().invoke(cli, [str(argument) for argument in given])


def test_a_sound_package_exits_with_0_and_says_what_was_measured(folder):
    result = run(folder / "Good.mlpackage", folder, "--images", folder / "photos", "--layers")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    # None of four answers lost does not tell that 97 % are kept.
    assert " ".join(lines[0]) == "UNDECIDED: Good.mlpackage against checkpoint"
    assert " ".join(lines[1]) == "4 photos, fp16, 8-bit palettes, engine portable"
    words = [line[0] for line in lines]
    said = {line[0]: " ".join(line[1:]) for line in lines}
    assert said["sound"].startswith("yes: PyTorch with its weights answers the same (")
    assert said["keeps"].startswith("100.0% of the answers (")
    assert "too few to tell whether it keeps at least 97% of the answers; about " in said["keeps"]
    assert words.count("gate") == 4
    assert words.count("layer") == 10
    assert "agreement" in words
    assert "differs" not in words
    assert result.stderr == ""


def test_json_is_one_document_with_everything(folder):
    result = run(
        folder / "Good.mlpackage", folder, "--images", folder / "photos", "--limit", 2, "--json"
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["passed"] is True
    assert (report["images"], report["bits"], report["precision"]) == (2, 8, "fp16")
    assert (report["sound"], report["faithful"]) == (True, "undecided")
    assert report["keeps"].endswith(" on 2 photos")
    assert report["differences"] == []
    assert {gate["name"] for gate in report["gates"]} == {
        "decoded_weights",
        "consistency",
        "top1_agreement",
        "structure",
    }
    # Two of four photos, spread evenly.
    assert sorted(result["image"] for result in report["worst"]) == ["0.png", "2.png"]


def test_a_fault_exits_with_3_and_is_named(folder):
    editor = PackageEditor(folder / "Good.mlpackage")
    texts = [item.immediateValue.tensor.strings.values for item in editor.labels()]
    texts[1][0], texts[4][0] = texts[4][0], texts[1][0]
    path = store_digest(editor.save())
    result = run(path, folder, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["passed"] is False
    assert result.stderr == (
        f"Error: {path}: is not sound: structure is 1 difference, must be at most 0 differences; "
        "the package is not what this checkpoint converts to; convert it again; first difference: "
        "label main/labels class 1 is 'ox' instead of 'tench'\n"
    )


def test_a_gate_of_ones_own_decides(folder):
    result = run(folder / "Good.mlpackage", folder, "--gate", "snr=200", "--gate", "structure=5")
    assert result.exit_code == 3
    assert result.stdout.startswith("FAILED: Good.mlpackage against checkpoint\n")
    assert "must be at least 200 dB: FAILS" in result.stdout
    assert re.search(
        r"keeps +\S+ dB on 12 .*: LESS than promised \(at least 200 dB\)", result.stdout
    )
    assert re.fullmatch(
        r"Error: .*: keeps \d+\.\d dB on 12 synthetic pictures of the checkpoint, where at least "
        r"200 dB is promised\n",
        result.stderr,
    )


def test_what_keeps_the_promise_of_synthetic_pictures_passes(folder):
    result = run(folder / "Good.mlpackage", folder, "--gate", "snr=0")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("PASSED: Good.mlpackage against checkpoint\n")
    assert "agreement" not in [line.split()[0] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gate", "psnr=3"], "unknown gate 'psnr'; there are decoded_weights, "),
        (["--gate", "top1_agreement=0.9"], "takes photos (--images)"),
        (["--gate", "snr"], "'snr' is no gate; give NAME=NUMBER"),
        (["--limit", "2"], "--limit chooses among photos; name them with --images"),
        (["--images", "absent"], "absent: no such folder or file; --images names photos"),
        (["--function", "other"], "has no function 'other'; it has: main"),
        (["--engine", "coreml"], "needs macOS; use 'portable'"),
    ],
)
def test_what_cannot_be_done_exits_with_2(folder, arguments, message):
    result = run(folder / "Good.mlpackage", folder, *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in " ".join(result.stderr.split())


def test_a_package_that_cannot_be_read_exits_with_2(folder):
    result = run(folder / "absent.mlpackage", folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "absent.mlpackage is no .mlpackage folder" in result.stderr
    damaged = PackageEditor(folder / "Good.mlpackage").path
    content = (damaged / WEIGHTS).read_bytes()
    (damaged / WEIGHTS).write_bytes(content[:-64])
    result = run(damaged, folder)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "it is truncated" in result.stderr
    assert result.stderr.count("\n") == 1
