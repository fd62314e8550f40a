"""``mvit-coreml palettize``: what it prints, its exit codes, and what it leaves behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fitting import fit_to_few_pictures, fitted_checkpoint, measure_once, write_images
from packages import SavedPackage, read_tree

from mvit_coreml import ConvertOptions, convert
from mvit_coreml.cli import cli
from mvit_coreml.compression.calibration import tuner as tuning
from mvit_coreml.compression.calibration.fine_tuning import FineTuner

pytestmark = pytest.mark.usefixtures("conversions_shared")

COUNT = 20
# k-means alone, quickly, of weights that nothing was trained for.
PLAIN = ("--no-fit", "--min-snr", "-100")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as ``save_pretrained`` writes it, with photos and its package beside it."""
    folder = tmp_path_factory.mktemp("palettize")
    fitted_checkpoint().save_pretrained(folder / "fruit")
    write_images(folder / "photos", COUNT)
    result = run("convert", folder / "fruit", "-o", folder / "plain.mlpackage", "--bits", "none")
    assert result.exit_code == 0, result.output
    return folder / "fruit"


@pytest.fixture(scope="module")
def plain(source: Path) -> Path:
    return source.parent / "plain.mlpackage"


@pytest.fixture(scope="module")
def photos(source: Path) -> Path:
    return source.parent / "photos"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A destination in a folder that holds nothing else."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "x.mlpackage"


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def palettize(package: Path, out: Path, *arguments: Any) -> Result:
    return run("palettize", package, "-o", out, *arguments)


def test_the_summary_says_what_was_made_and_how_it_compares(plain: Path, out: Path) -> None:
    result = palettize(plain, out, "--bits", "6", *PLAIN)
    assert result.exit_code == 0, result.output
    before, after = (sum(map(len, read_tree(p).values())) / 1e6 for p in (plain, out))
    *lines, keeps = result.stdout.splitlines()[:5]
    assert lines == [
        str(out),
        f"  size   {after:.2f} MB instead of {before:.2f} MB, 6-bit palettes",
        f"  plan   {out.with_suffix('.plan.toml')}",
        "  sound  its parts are the original's; name the checkpoint (--against) to check its "
        "numbers",
    ]
    assert re.fullmatch(
        r"  keeps  -?\d+\.\d dB on 12 synthetic pictures: answers like the original "
        r"\(promised: at least -100 dB\)",
        keeps,
    )
    assert [line.split(" … ")[0] for line in result.stderr.splitlines()] == [
        "palettizing the weights",
        "comparing it with the original",
    ]


def test_against_a_checkpoint_it_is_compared_with_that(
    source: Path, plain: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_to_few_pictures(monkeypatch)
    arguments = ["--against", source, "--images", photos / "00.png", "--bits", "8", "--json", "-q"]
    result = palettize(plain, out, *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["path"] == str(out)
    assert document["original"] == str(plain)
    assert document["size"] == sum(map(len, read_tree(out).values()))
    assert document["options"]["bits"] == 8
    assert document["parity"]["source"] == "fruit"
    assert document["parity"]["images"] == 1
    assert document["parity"]["differences"] == []
    assert document["parity"]["sound"] is True
    assert document["parity"]["faithful"] == "undecided"
    few, fitted = document["notes"]
    assert few == (
        "1 images are too few to fit palettes to, so synthetic pictures were used; give 16 or more"
    )
    assert fitted.startswith("the palettes were fitted to 24 synthetic pictures; on others ")


def test_convert_and_palettize_keep_a_promised_size_and_say_the_same(
    source: Path, plain: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure_once(monkeypatch)
    asked = ["--images", photos, "--target-size", "200kB"]
    found = palettize(plain, out, *asked)
    assert found.exit_code == 0, found.output
    assert "palettes of mixed bits" in found.stdout
    assert re.search(r"^  note +the palettes were fitted to 13 images", found.stdout, re.MULTILINE)
    size = sum(map(len, read_tree(out).values()))
    assert 190_000 < size <= 200_000
    bits = SavedPackage(out).user_defined["mvit_coreml.bits"].split(", ")
    assert len(bits) > 1
    converted = out.with_name("converted.mlpackage")
    assert run("convert", source, "-o", converted, *asked).exit_code == 0
    assert read_tree(converted) == read_tree(out)


@pytest.mark.parametrize(
    ("command", "asked", "message"),
    [
        (
            "convert",
            ["--target-size", "1kB"],
            r"no plan is under 1\.00 kB; the smallest, \d+ kB, uses .*",
        ),
        (
            "convert",
            ["--min-snr", "99"],
            r".*: not written, as it keeps .* of the answers .* and \d\d\.\d dB on 5 photos of the "
            r"checkpoint, where at least 99 dB is promised; --keep-failed writes it all the same",
        ),
    ],
)
def test_an_impossible_promise_is_one_line_and_3(
    command: str,
    asked: list[str],
    message: str,
    source: Path,
    plain: Path,
    photos: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measure_once(monkeypatch)
    start = source if command == "convert" else plain
    result = run(command, start, "-o", out, "--images", photos, *asked, "-q")
    assert (result.exit_code, result.stdout) == (3, "")
    assert re.fullmatch(f"Error: {message}\n", result.stderr)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("command", ["convert", "palettize"])
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--bits", "3"], "3 bits need iOS 18"),
        (["--bits", "4", "--group-size", "8"], "groups of channels need iOS 18"),
        (["--no-fit"], "k-means alone (--no-fit) takes a number of bits (--bits 6)"),
        (["--no-fit", "--bits", "6", "--tune"], "and no tuning"),
        (["--max-drop", "1"], "--max-drop and --dataset with labelled images go together"),
        (["--dataset", "labelled"], "--max-drop and --dataset with labelled images go together"),
        (["--target-size", "small"], "'small' is no size; write it like 1.2MB"),
        (["--target-size", "0"], "'0' is no size"),
        (["--bits", "none", "--tune"], "there is nothing to "),
        (["--plan", "p.toml", "--bits", "4"], "leave out the others"),
        (["--plan", "p.toml", "--dataset", "labelled"], "leave out the others"),
        (["--plan", "missing.toml"], "missing.toml"),
        (["--min-agreement", "0.5", "--bits", "8", "--no-fit"], "takes photos (--images)"),
        (["--bits", "4", "--images", "damaged"], "broken.jpg"),
        (["--images", "missing"], "missing: no such folder or file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_asked_is_one_line_and_2(
    command: str,
    asked: list[str],
    message: str,
    source: Path,
    plain: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(out.parent.parent)
    write_images(Path("few"), 5)
    write_images(Path("damaged"), COUNT)
    (Path("damaged") / "broken.jpg").write_bytes(b"no image")
    start = source if command == "convert" else plain
    result = run(command, start, "-o", out, *asked, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--max-drop", "1", "--dataset", "."], "name it (--against)"),
        (["--labels", "names.txt"], "--labels says how a checkpoint is loaded; name it with"),
        (["--offline"], "--offline says how a checkpoint is loaded"),
        (["--against", "missing"], "missing"),
    ],
)
def test_what_only_goes_with_a_checkpoint_says_so(
    asked: list[str], message: str, plain: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(out.parent)
    result = palettize(plain, out, *asked, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(out.parent.iterdir()) == []


def test_a_package_that_is_none_is_one_line(tmp_path: Path, out: Path) -> None:
    result = palettize(tmp_path / "missing.mlpackage", out, "-q")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert "missing.mlpackage" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_existing_destination_is_kept_without_force(plain: Path, out: Path) -> None:
    assert palettize(plain, out, "--bits", "8", *PLAIN, "-q").exit_code == 0
    before = read_tree(out)
    result = palettize(plain, out, "-q")
    assert result.exit_code == 2
    assert "use --force" in result.stderr
    assert read_tree(out) == before
    assert palettize(plain, out, "--bits", "6", *PLAIN, "--force", "-q").exit_code == 0
    assert read_tree(out) != before


@pytest.mark.parametrize("command", ["convert", "palettize"])
def test_ctrl_c_while_palettes_are_fitted_leaves_nothing(
    command: str,
    source: Path,
    plain: Path,
    photos: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "reconstruct", interrupted)
    start = source if command == "convert" else plain
    result = run(command, start, "-o", out, "--images", photos, "--bits", "4", "--tune")
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr
    assert list(out.parent.iterdir()) == []


def test_ctrl_c_while_palettes_are_polished_keeps_the_best(
    plain: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is that of the state before, as if there had been no time for more."""
    steps = []

    def interrupted(_: FineTuner) -> None:
        steps.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(FineTuner, "step", interrupted)
    result = palettize(
        plain, out, "--images", photos, "--bits", "4", "--tune", "60", "--min-snr", "-9", "-q"
    )
    assert result.exit_code == 0, result.output
    assert steps == [1]
    plan = out.with_suffix(".plan.toml")
    again = out.with_name("again.mlpackage")
    assert palettize(plain, again, "--plan", plan, "-q").exit_code == 0
    assert read_tree(again) == read_tree(out)


def test_a_promised_drop_is_measured_on_labels(
    source: Path, plain: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are what the package answers without palettes."""
    measure_once(monkeypatch)
    labels = answers(plain, photos)
    table = photos / "labels.csv"
    rows = [f"{name},{index}" for name, index in labels.items()]
    table.write_text("\n".join(["image,label_7", *rows]) + "\n")
    asked = ["--images", photos, "--max-drop", "25", "--dataset", table, "--against", source]
    result = palettize(plain, out, *asked, "-q")
    assert result.exit_code == 0, result.output
    assert "max_drop = 25" in out.with_suffix(".plan.toml").read_text()
    found = answers(out, photos)
    # An image that half precision changed would count on both sides.
    assert sum(found[name] == labels[name] for name in labels) / COUNT >= 0.7
    assert sum(map(len, read_tree(out).values())) < 0.9 * sum(map(len, read_tree(plain).values()))


def answers(package: Path, photos: Path) -> dict[str, int]:
    """Return the class of every photo, by the photo's name."""
    result = run("predict", package, *sorted(photos.glob("*.png")), "--json")
    assert result.exit_code == 0, result.output
    images = json.loads(result.stdout)["images"]
    return {Path(entry["image"]).name: entry["top"][0]["index"] for entry in images}


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['mvit-coreml', 'palettize', '--help']\n"
        "from mvit_coreml.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'coremltools', 'PIL', 'huggingface_hub', 'safetensors'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "mvit-coreml palettize Plain.mlpackage -o Six.mlpackage" in done.stdout


def test_the_package_is_that_of_the_library(plain: Path, out: Path) -> None:
    assert palettize(plain, out, "--bits", "4", *PLAIN, "-q").exit_code == 0
    path = out.with_name("library.mlpackage")
    options = ConvertOptions(bits=4, kmeans_only=True)
    converted = convert(fitted_checkpoint(), options, path, check=False)
    theirs, ours = SavedPackage(converted.path), SavedPackage(out)
    weights = "Data/com.apple.CoreML/weights/weight.bin"
    assert theirs.files()[weights] == ours.files()[weights]
