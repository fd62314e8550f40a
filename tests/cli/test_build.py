"""``mvit-coreml build``: what it prints, its exit codes, and the recipe of the documentation."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fitting import fit_to_few_pictures
from hub_cache import publish
from packages import noise, small_checkpoint
from PIL import Image

from mvit_coreml.cli import cli
from mvit_coreml.workflows import build_recipes as recipe_build

pytestmark = pytest.mark.usefixtures("conversions_shared")

README = Path(__file__).resolve().parents[2] / "convert" / "README.md"
GOOD = 'source = "owner/net"\noutput_kind = "logits"\nbits = "none"\n'
POOR = GOOD + "[tolerances]\nmax_size_mb = 0.01\n"
GONE = 'source = "owner/never-published"\n'


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["build", *map(str, arguments)])


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Options that make a filled cache the hub."""
    cache = tmp_path_factory.mktemp("cache")
    publish(cache, "owner/net", small_checkpoint("mobilenet_v2").save_pretrained)
    return ["--offline", "--cache-dir", cache]


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, text in {"good": GOOD, "poor": POOR, "gone": GONE}.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def test_a_table_at_the_end_and_a_line_for_each_recipe(
    recipes: Path, hub: list[object], tmp_path: Path
):
    out = tmp_path / "out"
    result = run(recipes, "-o", out, *hub)
    assert result.exit_code == 3
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["PACKAGE", "SIZE", "SNR", "AGREEMENT", "RESULT", "TIME"]
    patterns = (
        r"gone +- +- +- +ERROR +-",
        r"good\.mlpackage +\d\.\d\d MB +\d+\.\d dB +- +pass +\d+\.\d s",
        r"poor +\d\.\d\d MB +\d+\.\d dB +- +FAIL +\d+\.\d s",
    )
    for row, pattern in zip(rows, patterns, strict=True):
        assert re.fullmatch(pattern, row), row
    *lines, error = result.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["[1/3] gone", "[2/3] good", "[3/3] poor"]
    assert ": error, " in lines[0]
    assert "not in the local cache" in lines[0]
    assert re.search(r"failed, \d+\.\d s: it takes \S+ MB, the recipe allows 0\.01 MB", lines[2])
    assert error == (
        "Error: 1 of 3 packages fell short: poor; 1 of 3 packages could not be built: gone; "
        f"{out / 'index.json'} says why"
    )
    again = run(recipes / "good.toml", "-o", out, *hub)
    assert again.exit_code == 0
    assert again.stderr == "[1/1] good: up to date\n"
    assert "pass, up to date" in again.stdout


def test_json_is_one_document_and_what_cannot_be_built_exits_with_2(
    recipes: Path, hub: list[object], tmp_path: Path
):
    result = run(recipes / "gone.toml", "-o", tmp_path / "out", "--json", "--quiet", *hub)
    assert result.exit_code == 2
    (found,) = json.loads(result.stdout)
    (listed,) = json.loads((tmp_path / "out" / "index.json").read_text())["packages"]
    assert found == {"outcome": "error", "entry": listed, "message": listed["message"]}
    assert len(result.stderr.splitlines()) == 1


def test_the_options_reach_the_build(
    recipes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, Any] = {}

    def record(found: Any, folder: Path, **options: Any) -> list[Any]:
        seen.update(options, names=[recipe.name for recipe in found], folder=folder)
        return []

    monkeypatch.setattr(recipe_build, "build_recipes", record)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    arguments = ["--force", "--fail-fast", "--keep-failed", "--images", photo, "--token", "T", "-v"]
    assert run(recipes, *arguments, "--cache-dir", tmp_path, "--offline").exit_code == 0
    del seen["progress"], seen["done"]
    assert seen == {
        "names": ["gone", "good", "poor"],
        "folder": Path("packages"),
        "force": True,
        "keep_going": False,
        "keep_failed": True,
        "images": [photo],
        "reports": None,
        "token": "T",
        "cache_dir": tmp_path,
        "local_files_only": True,
        "verbose": True,
    }
    assert run(recipes).exit_code == 0
    assert (seen["force"], seen["keep_going"], seen["images"]) == (False, True, None)


def test_a_wrong_recipe_is_refused_before_anything_is_built(recipes: Path, tmp_path: Path):
    (recipes / "wrong.toml").write_text('source = "a/b"\nbits = "six"\n')
    result = run(recipes, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {recipes / 'wrong.toml'}, line 2: bits must be")
    assert not (tmp_path / "out").exists()


def test_photos_that_are_missing_are_refused_first(recipes: Path, tmp_path: Path):
    result = run(recipes, "-o", tmp_path / "out", "--images", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_exits_with_130(
    recipes: Path, hub: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(recipe_build, "convert", interrupt)
    result = run(recipes, "-o", tmp_path / "out", *hub)
    assert result.exit_code == 130
    assert result.stdout == ""
    # What was done before is listed.
    (entry,) = json.loads((tmp_path / "out" / "index.json").read_text())["packages"]
    assert entry["name"] == "gone"


def test_the_recipe_of_the_readme_builds_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The recipe for one's own model, and the commands below it."""
    fit_to_few_pictures(monkeypatch)
    _, _, own = README.read_text(encoding="utf-8").partition("## Your own model")
    (text,) = re.findall(r"```toml\n(.*?)```", own, re.DOTALL)
    (commands,) = re.findall(r"```bash\n(.*?)```", own, re.DOTALL)
    (tmp_path / "my-mobilevit.toml").write_text(text)
    small_checkpoint("mobilevit").save_pretrained(tmp_path / "my-mobilevit")
    (tmp_path / "photos").mkdir()
    noise((90, 80), 60).save(tmp_path / "photos" / "1.jpg")
    monkeypatch.chdir(tmp_path)
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "mvit-coreml"
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0, result.output
    (entry,) = json.loads((tmp_path / "packages" / "index.json").read_text())["packages"]
    assert (entry["name"], entry["passed"], entry["images"]) == ("my-mobilevit", True, 1)
    assert entry["license_note"] == "Ours; photos under CC BY 4.0."
    assert Path("packages", entry["path"]).is_dir()


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['mvit-coreml', 'build', '--help']\n"
        "from mvit_coreml.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'coremltools', 'PIL', 'huggingface_hub', 'pydantic', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
