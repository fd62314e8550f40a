"""``mvit-coreml convert``: what it prints, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import pytest
from click.testing import CliRunner
from packages import SavedPackage, read_tree, small_checkpoint

from mvit_coreml.cli import cli
from mvit_coreml.workflows import build_package

STAGES = {
    "loading the checkpoint",
    "tracing the model",
    "converting to an ML Program",
    "writing the package",
    "validating it against the checkpoint",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder as ``save_pretrained`` writes it."""
    folder = tmp_path_factory.mktemp("checkpoints") / "fruit"
    small_checkpoint("mobilenet_v2").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "scenes"
    small_checkpoint("mobilenet_v2", "semantic-segmentation").save_pretrained(folder)
    return folder


def run(*arguments):
    return CliRunner().invoke(cli, ["convert", *map(str, arguments)])


def start(*arguments, **options):
    code = "import sys; from mvit_coreml.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, "convert", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell ignores interruptions, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def test_a_conversion_tells_its_stages_and_sums_up(source, tmp_path):
    """In a process of its own, where nothing else has silenced torch and coremltools."""
    path = tmp_path / "x.mlpackage"
    process = start(source, "-o", path, "--bits", "none")
    out, err = process.communicate()
    assert process.returncode == 0
    stages = [re.fullmatch(r"(.*) … \d+\.\d s", line) for line in err.splitlines()]
    assert None not in stages, err
    assert [stage[1] for stage in stages] == [
        "loading the checkpoint",
        "tracing the model",
        "converting to an ML Program",
        "writing the package",
        "validating it against the checkpoint",
    ]
    size = sum(len(content) for content in read_tree(path).values()) / 1e6
    lines = out.splitlines()
    sound, keeps = (line for line in lines if line.startswith(("  sound ", "  keeps ")))
    # Half precision alone is some 40 dB away or more.
    assert re.fullmatch(
        r"  sound   yes: PyTorch with its weights answers the same \([4-9]\d\.\d dB\)", sound
    )
    assert re.fullmatch(
        r"  keeps   [3-9]\d\.\d dB on 12 synthetic pictures: answers like the checkpoint "
        r"\(promised: at least 22 dB\)",
        keeps,
    )
    assert [line for line in lines if line not in (sound, keeps)] == [
        str(path),
        f"  size    {size:.2f} MB, fp16, weights not palettized",
        "  target  iOS 17",
        "  input   image, 64x64 pixels, RGB, --fit crop",
        "  output  classLabel: string",
        "  output  classLabel_probs: dictionary",
        "  note    class names that stood twice were made unique: crane (5), maillot (6)",
        "  note    no photos were given: synthetic pictures do not tell how many answers change, "
        "and photos have come out 2 to 6 dB lower; give --images",
    ]


def test_json_is_one_document_and_quiet_leaves_only_that(source, tmp_path):
    path = tmp_path / "x.mlpackage"
    result = run(
        source, "-o", path, "--bits", "none", "--output-kind", "logits", "--json", "--quiet"
    )
    assert result.exit_code == 0
    assert result.stderr == ""
    data = json.loads(result.stdout)
    assert data["path"] == str(path)
    assert data["size"] == sum(len(content) for content in read_tree(path).values())
    assert data["source"] == "fruit"
    assert data["functions"] == {"main": [64, 64]}
    (output,) = data["outputs"]
    assert (output["name"], output["shape"], output["dtype"]) == ("logits", [1, 7], "float32")
    assert data["options"]["bits"] is None
    assert data["options"]["ios"] == 17
    assert data["preprocessing"]["main"]["color_order"] == "RGB"


def test_quiet_prints_nothing(source, tmp_path):
    result = run(source, "-o", tmp_path / "x.mlpackage", "--bits", "none", "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_verbose_shows_what_coremltools_prints(source, tmp_path):
    result = run(source, "-o", tmp_path / "x.mlpackage", "--bits", "none", "-v")
    assert result.exit_code == 0
    assert "Converting PyTorch Frontend ==> MIL Ops" in result.stderr


def test_every_option_reaches_the_package(segmenter, tmp_path):
    path = tmp_path / "x.mlpackage"
    result = run(
        segmenter, "-o", path, "--bits", "none", "--ios", "18", "--precision", "fp32",
        "--output-kind", "probabilities", "--map-size", "32x16", "--image-size", "64",
        "--image-size", "96x64", "--fit", "stretch", "--color-order", "bgr", "--author", "A",
        "--license", "L", "--description", "D", "--package-version", "7",
        "--labels", labels(tmp_path),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "(function size_96x64)" in result.stdout
    package = SavedPackage(path)
    assert package.spec.specificationVersion == 9
    functions = package.spec.description.functions
    assert [f.name for f in functions] == ["size_64x64", "size_96x64"]
    assert all(f.input[0].type.imageType.colorSpace == 30 for f in functions)
    assert tuple(functions[1].output[0].type.multiArrayType.shape) == (1, 7, 32, 16)
    metadata = package.spec.description.metadata
    assert (metadata.author, metadata.license) == ("A", "L")
    assert (metadata.shortDescription, metadata.versionString) == ("D", "7")
    assert package.user_defined["mvit_coreml.precision"] == "fp32"
    stored = json.loads(package.user_defined["mvit_coreml.preprocessing"])
    assert {image["fit"] for image in stored.values()} == {"stretch"}
    names = json.loads(package.user_defined["mvit_coreml.labels"])
    assert names == [f"name {index}" for index in range(7)]


def labels(folder):
    path = folder / "labels.txt"
    path.write_text("\n".join(f"name {index}" for index in range(7)))
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output-kind", "classes"], "'classes' does not apply to image-classification"),
        (["--output-kind", "features", "--layers", "1,99"], "layer 99 does not exist"),
        (["--output-kind", "features", "--layers", "1,1"], "given twice"),
        (["--layers", "1"], "come with output 'features' only"),
        (["--map-size", "32"], "map size does not apply"),
        (["--image-size", "0"], "image size 0x0 is empty"),
        (["--image-size", "8"], "too small"),
        (["--image-size", "64", "--image-size", "96"], "need iOS 18 or newer (--ios 18)"),
        (["--labels", "missing.txt"], "missing.txt"),
        (["--image-processor", "missing.json"], "missing.json"),
        (["-o", "x.mlmodel"], "must end in .mlpackage"),
        (["-o", "missing/x.mlpackage"], "create it first"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_2(arguments, message, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(source, "--bits", "none", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    *stages, error = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert message in error
    # The stage that failed stands on a line of its own, without a time.
    assert all(stage.split(" … ")[0].removesuffix(" …") in STAGES for stage in stages)
    assert list(tmp_path.iterdir()) == []


def test_a_destination_is_checked_before_a_checkpoint_is_looked_for(tmp_path):
    (tmp_path / "x.mlpackage").mkdir()
    result = run("owner/never-downloaded", "-o", tmp_path / "x.mlpackage")
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {tmp_path / 'x.mlpackage'}: exists already; use --force to replace it\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bits", "5"],
        ["--ios", "15"],
        ["--image-size", "big"],
        ["--image-size", "64x"],
        ["--image-size", "-64"],
        ["--layers", "1,,2"],
        ["--layers", "a"],
        ["--map-size", "output"],
        ["--output-kind", "boxes"],
        ["--no-such-option"],
        [],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2_and_no_traceback(arguments, source):
    result = run(*([source] if arguments else []), *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['mvit-coreml', 'convert', '--help']\n"
        "from mvit_coreml.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'coremltools', 'PIL', 'huggingface_hub', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def wait_for(process, text):
    """Read a process's progress until ``text`` appears."""
    seen = ""
    while text not in seen:
        piece = process.stderr.read(1)
        assert piece, f"ended before {text!r}: {seen}"
        seen += piece
    return seen


@pytest.mark.parametrize("stage", ["converting", pytest.param("writing", marks=pytest.mark.slow)])
def test_ctrl_c_leaves_nothing_anywhere(stage, source, tmp_path):
    temporary, target = tmp_path / "tmp", tmp_path / "target"
    temporary.mkdir()
    target.mkdir()
    process = start(
        source, "-o", target / "x.mlpackage", "--bits", "none",
        env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip
    wait_for(process, stage)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "Exception" not in err
    assert list(target.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_an_interruption_as_the_package_is_finished_leaves_nothing(source, tmp_path, monkeypatch):
    temporary, target = tmp_path / "tmp", tmp_path / "target"
    temporary.mkdir()
    target.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(build_package, "finish_package", interrupted)
    result = run(source, "-o", target / "x.mlpackage", "--bits", "none")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr
    assert list(target.iterdir()) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.1, 0.2, 0.3, 0.4, 0.6])
def test_a_killed_conversion_leaves_the_old_package_or_the_new_one(delay, source, tmp_path):
    path, wanted = tmp_path / "x.mlpackage", tmp_path / "new" / "x.mlpackage"
    wanted.parent.mkdir()
    assert run(source, "-o", path, "--bits", "none", "--output-kind", "logits", "-q").exit_code == 0
    assert run(source, "-o", wanted, "--bits", "none", "-q").exit_code == 0
    old, new = read_tree(path), read_tree(wanted)
    process = start(source, "-o", path, "--bits", "none", "--force")
    wait_for(process, "writing")
    time.sleep(delay)
    process.kill()
    process.communicate()
    assert read_tree(path) in (old, new)


PUBLISH_FOREVER = """
import sys, shutil
from pathlib import Path
from mvit_coreml.export.atomic_package import publish
old, new, target = map(Path, sys.argv[1:])
print("started", flush=True)
count = 0
while True:
    copy = target.parent / f"staging{count}.mlpackage"
    shutil.copytree((new, old)[count % 2], copy)
    publish(copy, target)
    count += 1
"""


@pytest.mark.skipif(sys.platform != "linux", reason="relies on renameat2")
def test_a_process_killed_while_it_replaces_leaves_a_whole_package(tmp_path):
    """The last step alone, over and over, killed at random moments."""
    for name in ("old", "new", "x.mlpackage"):
        (tmp_path / name).mkdir()
        for part in ("Manifest.json", "a", "b"):
            (tmp_path / name / part).write_text("old" if name == "x.mlpackage" else name)
    paths = [tmp_path / name for name in ("old", "new", "x.mlpackage")]
    for attempt in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", PUBLISH_FOREVER, *map(str, paths)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(0.01 + 0.0137 * attempt)
        process.kill()
        process.communicate()
        assert read_tree(paths[2]) in (read_tree(paths[0]), read_tree(paths[1]))
        for leftover in tmp_path.glob("staging*"):
            leftover.rename(tmp_path / f"done{attempt}{leftover.name}")
