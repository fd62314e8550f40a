"""Recipes: what stands in their files, and those of the published checkpoints."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from fitting import fit_to_few_pictures
from hub_cache import publish_stand_in

from mvit_coreml.checkpoints.catalogue import CATALOGUE
from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import InputError
from mvit_coreml.workflows import recipe_file as module
from mvit_coreml.workflows.build_recipes import build_recipes
from mvit_coreml.workflows.package_options import ConvertOptions
from mvit_coreml.workflows.recipe_file import Recipe, Tolerances, find_recipes, read_recipe

FOLDER = Path(__file__).resolve().parents[2] / "convert"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
FILES = sorted(FOLDER.glob("*.toml"))
ON_THE_HUB = {entry.id: entry for entry in CATALOGUE if entry.format != "cvnets"}
FAST = "google_mobilenet_v2_0.35_96"


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, text: str) -> Recipe:
    return read_recipe(write(folder, text))


def test_every_checkpoint_on_the_hub_has_a_recipe_named_after_it():
    recipes = {recipe.name: recipe.source for recipe in find_recipes([FOLDER])}
    assert recipes == {name.replace("/", "_"): name for name in ON_THE_HUB}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_published_recipe_agrees_with_the_catalogue(path: Path):
    recipe = read_recipe(path)
    entry, options = ON_THE_HUB[recipe.source], recipe.options
    segments = entry.task == "semantic-segmentation"
    assert options.image_sizes == ((entry.image_size, entry.image_size),)
    assert (options.output, options.fit, options.map_size) == (
        ("classes", "pad", "input") if segments else ("probabilities", "crop", None)
    )
    assert recipe.license_note is not None
    if entry.license is not None:
        assert recipe.license_note.lower().startswith(entry.license.lower())
    # They keep what every package must, and have room for the weights at that many bits.
    bounds = recipe.tolerances
    assert (bounds.min_snr, bounds.min_agreement) == (None, None)
    weights = entry.parameters / 1e6 * options.bits / 8
    assert weights < bounds.max_size_mb < weights * 1.02 + 0.4


def test_published_recipes_feed_the_order_that_the_weights_were_trained_with():
    orders = {
        (ON_THE_HUB[recipe.source].family, ON_THE_HUB[recipe.source].format): (
            recipe.options.color_order
        )
        for recipe in find_recipes([FOLDER])
    }
    assert orders == {
        ("mobilevit", "huggingface"): "BGR",
        ("mobilevit", "timm"): "RGB",
        ("mobilevitv2", "huggingface"): None,  # the checkpoint's, which is to be measured
        ("mobilevitv2", "timm"): "RGB",
        ("mobilenet_v2", "huggingface"): "RGB",
        ("mobilenet_v2", "timm"): "RGB",
    }


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=() if path.stem == FAST else pytest.mark.slow)
        for path in FILES
    ],
)
def test_a_published_recipe_builds_from_random_weights_of_the_same_shape(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fit_to_few_pictures(monkeypatch)
    recipe = read_recipe(path)
    publish_stand_in(tmp_path / "cache", recipe.source)
    (result,) = build_recipes(
        [recipe], tmp_path / "out", cache_dir=tmp_path / "cache", local_files_only=True
    )
    side = ON_THE_HUB[recipe.source].image_size
    assert (result.outcome, result.message) == ("built", None)
    assert result.entry.source == recipe.source
    assert result.entry.functions == {"main": (side, side)}
    assert (tmp_path / "out" / f"{path.stem}.mlpackage").is_dir()


def test_the_readme_names_every_key_and_its_recipe_is_one(tmp_path: Path):
    (example,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my-mobilevit").mkdir()
    recipe = read(tmp_path, example)
    assert recipe.source == tmp_path / "my-mobilevit"
    assert recipe.options.bits == tomllib.loads(example)["bits"]
    assert recipe.tolerances == Tolerances(min_snr=25, min_agreement=0.98, max_size_mb=1.5)
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("| `")]
    named = {name.strip("[]") for row in rows for name in re.findall(r"`(.*?)`", row)}
    assert named == set(module._RecipeTable.model_fields)


def test_only_a_source_is_needed(tmp_path: Path):
    recipe = read(tmp_path, 'source = "owner/name"')
    assert recipe == Recipe(name="mine", source="owner/name")
    assert recipe.options == ConvertOptions()
    assert recipe.tolerances == Tolerances()


def test_every_key_reaches_its_place(tmp_path: Path):
    recipe = read(
        tmp_path,
        """
        source = "owner/name"
        revision = "v1"
        labels = "names.txt"
        image_processor = "owner/other"
        output_stride = 16
        license_note = "Ask."
        ios = 18
        bits = 3
        group_size = 16
        tune_minutes = 2.5
        plan = "my.plan.toml"
        precision = "mixed"
        image_sizes = [64, [96, 128]]
        output_kind = "features"
        map_size = [32, 16]
        layers = [2, 4]
        fit = "stretch"
        color_order = "bgr"
        author = "A"
        license = "L"
        description = "D"
        version = "2"
        [tolerances]
        min_snr = 20
        min_agreement = 0.9
        max_size_mb = 1.5
        """,
    )
    assert recipe == Recipe(
        name="mine",
        source="owner/name",
        revision="v1",
        labels=tmp_path / "names.txt",
        image_processor="owner/other",
        output_stride=16,
        license_note="Ask.",
        options=ConvertOptions(
            ios=18,
            bits=3,
            group_size=16,
            tune_minutes=2.5,
            plan=tmp_path / "my.plan.toml",
            precision="mixed",
            image_sizes=((64, 64), (96, 128)),
            output="features",
            map_size=(32, 16),
            layers=(2, 4),
            fit="stretch",
            color_order="BGR",
            author="A",
            license="L",
            description="D",
            version="2",
        ),
        tolerances=Tolerances(min_snr=20.0, min_agreement=0.9, max_size_mb=1.5),
    )


@pytest.mark.parametrize(
    ("bits", "fields"),
    [
        ("8", {"bits": 8}),
        ('"none"', {"bits": None}),
        (
            '{ min_agreement = 0.98, target_size = "1.2MB" }',
            {"bits": "auto", "promise": Promise(min_agreement=0.98, target_size=1_200_000)},
        ),
        ("{ min_snr = 20 }", {"bits": "auto", "promise": Promise(min_snr=20.0)}),
    ],
)
def test_bits_are_a_number_none_or_promises(bits: str, fields: dict, tmp_path: Path):
    recipe = read(tmp_path, f'source = "owner/name"\nbits = {bits}')
    assert recipe.options == ConvertOptions(**fields)


@pytest.mark.parametrize(("written", "order"), [("auto", None), ("bgr", "BGR"), ("rgb", "RGB")])
def test_colour_orders(written: str, order: str | None, tmp_path: Path):
    recipe = read(tmp_path, f'source = "owner/name"\ncolor_order = "{written}"')
    assert recipe.options.color_order == order


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ('bit = 8\nsource = "a/b"', 1, "unknown key 'bit', did you mean 'bits'? the keys are"),
        ('source = "a/b"\n\nbits = "8"', 3, "bits must be a whole number, \"none\", or a table"),
        ('source = "a/b"\nbits = true', 2, "bits must be a whole number"),
        ('source = "a/b"\nbits = 5', 2, "5 bits: a palette has indices of"),
        ('source = "a/b"\nbits = 3\nios = 17', 2, "3 bits need iOS 18"),
        ('source = "a/b"\nbits = {}', 2, "nothing is promised"),
        ('source = "a/b"\nbits = { max_drop = 1 }', 2, "unknown key 'max_drop'; the keys"),
        ('source = "a/b"\nbits = { target_size = "big" }', 2, "bits.target_size must be a size"),
        ('source = "a/b"\n[bits]\nmin_snr = 9\nmin_agreement = 98', 4, "an agreement of 98"),
        ('source = "a/b"\nios = 15', 2, "ios is 15; it must be one of 16, 17, 18, 26"),
        ('source = "a/b"\nios = "17"', 2, "ios must be a whole number, not '17'"),
        ('source = "a/b"\nios = 17.0', 2, "ios must be a whole number, not 17.0"),
        ("source = 1", 1, "source must be a text in quotes"),
        ('source = " "', 1, "source must be a text in quotes"),
        ("bits = 8", None, "source is missing"),
        ('source = "a/b"\nfit = "zoom"', 2, "fit is 'zoom'; it must be one of crop"),
        ('source = "a/b"\noutput_kind = "boxes"', 2, 'output_kind must be one of "probabilities"'),
        ('source = "a/b"\nprecision = "int8"', 2, "precision is 'int8'"),
        ('source = "a/b"\ncolor_order = "BGR"', 2, 'color_order must be "auto", "bgr" or "rgb"'),
        ('source = "a/b"\nimage_sizes = 256', 2, "image_sizes must be a list of sizes"),
        ('source = "a/b"\nimage_sizes = [[1, 2, 3]]', 2, "image_sizes must be a list of sizes"),
        ('source = "a/b"\nimage_sizes = [0]', 2, "image size 0x0 is empty"),
        ('source = "a/b"\nimage_sizes = [64, 96]', 2, "several image sizes need iOS 18"),
        ('source = "a/b"\nmap_size = "big"', 2, 'map_size must be "input", "logits"'),
        ('source = "a/b"\nlayers = [1.5]', 2, "layers must be a list of whole numbers"),
        ('source = "a/b"\noutput_stride = 4', 2, "output_stride must be 8, 16 or 32, not 4"),
        ('source = "a/b"\ntolerances = 3', 2, "tolerances must be a table"),
        (
            'source = "a/b"\nlayers = [\n  2,\n]\n# min_snr = 1\n[tolerances]\nmin_snr = "x"',
            7,
            "tolerances.min_snr must be a number",
        ),
        ('source = "a/b"\n[tolerances]\nmin_snr = nan', 3, "tolerances.min_snr must be a number"),
        ('source = "a/b"\n[tolerances]\nsnr = 3', 3, "unknown key 'snr', did you mean 'min_snr'?"),
        ('source = "a/b"\n"tolerances" . \'snr\' = 3', 2, "unknown key 'snr'"),
        ('source = "a/b"\ntolerances = { snr = 3 }', 2, "unknown key 'snr'"),
        ('source = "a/b"\n[[tolerances]]\nsnr = 3', 2, "tolerances must be a table"),
        (
            'source = "a/b"\n[tolerances]\nmin_snr = 3\nmin_agreement = 95',
            4,
            "min_agreement is 95; it must be from 0 to 1",
        ),
        ('source = "a/b"\n[tolerances]\nmax_size_mb = 0', 3, "max_size_mb is 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_file_and_line(
    text: str, line: int | None, message: str, tmp_path: Path
):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    place = f"{path}: " if line is None else f"{path}, line {line}: "
    assert str(error.value).startswith(place + message)
    assert "\n" not in str(error.value)


def test_what_is_no_toml_is_refused_with_its_file_and_line(tmp_path: Path):
    path = write(tmp_path, 'source = "a/b"\nbits = \n')
    with pytest.raises(InputError, match=r"mine\.toml: not valid TOML: .*line 2"):
        read_recipe(path)


def test_files_that_cannot_be_recipes_are_refused(tmp_path: Path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name, message in {
        "missing.toml": "cannot read the recipe",
        "binary.toml": "not UTF-8",
        "recipe.json": "must end in .toml",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            read_recipe(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)


def test_paths_are_relative_to_the_recipe_and_ids_stay_ids(tmp_path: Path):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert read(tmp_path, 'source = "owner/name"').source == tmp_path / "owner/name"
    assert read(tmp_path, 'source = "./gone"').source == tmp_path / "gone"
    assert read(tmp_path, 'source = "/gone"').source == Path("/gone")
    assert read(tmp_path, 'source = "owner/gone"').source == "owner/gone"


def test_folders_are_read_in_order_without_plans_and_nothing_twice(tmp_path: Path):
    for name in ("b.toml", "a.toml"):
        write(tmp_path, 'source = "a/b"', name)
    write(tmp_path, "no recipe", "a.plan.toml")
    (tmp_path / "README.md").write_text("text")
    found = find_recipes([tmp_path / "b.toml", tmp_path, str(tmp_path / "a.toml")])
    assert [recipe.name for recipe in found] == ["b", "a"]


def test_two_recipes_of_one_name_and_empty_folders_are_refused(tmp_path: Path):
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="other: holds no recipe"):
        find_recipes([tmp_path / "other"])
    paths = [write(folder, 'source = "a/b"') for folder in (tmp_path, tmp_path / "other")]
    with pytest.raises(InputError, match="makes the same package as"):
        find_recipes(paths)


def test_the_name_of_the_version_before_works_with_a_hint_and_its_line(tmp_path: Path):
    path = write(tmp_path, 'source = "a/b"\noutput = "logits"')
    recipe = read_recipe(path)
    assert recipe.options.output == "logits"
    assert recipe.hints == (f"{path}: output is now output_kind; the old name will go",)
    with pytest.raises(InputError, match="line 2: output_kind must be one of"):
        read(tmp_path, 'source = "a/b"\noutput = "boxes"')
