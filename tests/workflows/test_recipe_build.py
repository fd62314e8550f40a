"""Building recipes: what is built, what is left alone, what is refused, and what the index says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fitting import write_images
from hub_cache import COMMIT, publish
from packages import SavedPackage, noise, small_checkpoint

from mvit_coreml.compression.promise import Promise
from mvit_coreml.errors import GateError, InputError
from mvit_coreml.workflows import build_recipes as recipe_build
from mvit_coreml.workflows.build_recipes import (
    RecipeReports,
    RecipeResult,
    build_recipes,
)
from mvit_coreml.workflows.package_index import recipe_inputs
from mvit_coreml.workflows.package_options import ConvertOptions
from mvit_coreml.workflows.recipe_file import Recipe, Tolerances

pytestmark = pytest.mark.usefixtures("conversions_shared")

LOGITS = ConvertOptions(bits=None, output="logits")
RECIPES = (
    Recipe(name="one", source="owner/net", revision="main", options=LOGITS, license_note="Ours."),
    Recipe(
        name="too-big", source="owner/net", options=LOGITS, tolerances=Tolerances(max_size_mb=0.01)
    ),
    Recipe(name="gone", source="owner/never-published", options=LOGITS),
    Recipe(
        name="two",
        source="owner/net",
        options=replace(LOGITS, bits=8, kmeans_only=True, promise=Promise(min_snr=10)),
        tolerances=Tolerances(min_snr=12.0, min_agreement=0.5, max_size_mb=5.0),
    ),
)
ONE, TOO_BIG, GONE, TWO = RECIPES


@dataclasses.dataclass
class Built:
    """A finished build of all recipes."""

    folder: Path
    cache: Path
    results: list[RecipeResult]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("recipes")
    publish(root / "cache", "owner/net", small_checkpoint("mobilenet_v2").save_pretrained)
    results = build(root, *RECIPES).results
    return Built(root, root / "cache", results)


@pytest.fixture
def built(whole: Built, tmp_path: Path) -> Built:
    """A copy that a test may change."""
    shutil.copytree(whole.folder, tmp_path / "copy", symlinks=True)
    return Built(tmp_path / "copy", tmp_path / "copy" / "cache", whole.results)


@dataclasses.dataclass
class Run:
    results: list[RecipeResult]
    touched: list[str]

    @property
    def outcomes(self) -> dict[str, str]:
        return {result.entry.name: result.outcome for result in self.results}


def build(root: Path, *recipes: Recipe, **options: Any) -> Run:
    """Build into ``root/out`` with the hub's cache in ``root/cache``."""
    touched: list[str] = []

    def note(recipe: Recipe, stage: str) -> None:
        if stage == "load":
            touched.append(recipe.name)

    hub = {"cache_dir": root / "cache", "local_files_only": True}
    options = {"progress": note} | hub | options
    return Run(build_recipes(recipes, root / "out", **options), touched)


def index(root: Path) -> dict[str, dict[str, Any]]:
    data = json.loads((root / "out" / "index.json").read_text(encoding="utf-8"))
    assert set(data) == {"format", "packages"}
    assert data["format"] == 1
    names = [entry["name"] for entry in data["packages"]]
    assert names == sorted(set(names))
    return {entry["name"]: entry for entry in data["packages"]}


def files(root: Path) -> set[str]:
    return {path.name for path in (root / "out").iterdir()}


def test_failures_do_not_stop_the_others(whole: Built):
    outcomes = {result.entry.name: result.outcome for result in whole.results}
    assert outcomes == {"one": "built", "too-big": "failed", "gone": "error", "two": "built"}
    assert files(whole.folder) == {
        "index.json", "one.mlpackage", "two.mlpackage", "two.plan.toml"
    }  # fmt: skip


def test_the_index_says_what_is_on_disk(whole: Built):
    entries = index(whole.folder)
    assert set(entries) == {"one", "too-big", "gone", "two"}
    one, two = entries["one"], entries["two"]
    package = SavedPackage(whole.folder / "out" / one["path"])
    weights = whole.cache / f"models--owner--net/snapshots/{COMMIT}/model.safetensors"
    assert one["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert one["size"] == package.size
    lines = [
        f"{name} {hashlib.sha256(data).hexdigest()}\n" for name, data in package.files().items()
    ]
    assert one["package_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert one["source"] == "owner/net"
    assert one["revision"] == COMMIT
    assert one["license_note"] == "Ours."
    assert one["functions"] == {"main": [64, 64]}
    assert one["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [1, 7]}]
    assert one["options"]["bits"] is None
    assert one["options"]["color_order"] == "RGB"
    assert one["versions"] == json.loads(package.user_defined["mvit_coreml.versions"])
    assert (one["passed"], one["message"], one["plan"]) == (True, None, None)
    assert one["synthetic"] is True
    assert one["snr"] > 30
    assert two["plan"] == "two.plan.toml"
    assert two["size"] < one["size"]
    assert "/" not in one["path"] + two["path"]
    assert str(whole.folder) not in (whole.folder / "out" / "index.json").read_text()


def test_tolerances_are_judged_on_what_was_measured(whole: Built):
    entries = index(whole.folder)
    two = {check["name"]: check for check in entries["two"]["checks"]}
    assert two["min_snr"] == {
        "name": "min_snr", "value": two["snr"]["value"], "bound": 12.0, "passed": True
    }  # fmt: skip
    assert two["max_size_mb"]["value"] == entries["two"]["size"] / 1e6
    # On synthetic pictures agreement says little, so it is not judged, and that is said.
    assert "min_agreement" not in two
    assert "min_agreement was not judged" in " ".join(entries["two"]["notes"])
    big = entries["too-big"]
    assert (big["passed"], big["path"], big["plan"]) == (False, None, None)
    assert big["message"] == (f"it takes {big['size'] / 1e6:.4g} MB, the recipe allows 0.01 MB")


def test_what_cannot_be_loaded_is_in_the_index_with_the_reason(whole: Built):
    gone = index(whole.folder)["gone"]
    assert (gone["passed"], gone["path"], gone["source"]) == (False, None, "owner/never-published")
    assert gone["message"].startswith("owner/never-published: not in the local cache")


def test_a_second_build_touches_nothing(built: Built):
    before = {path: path.stat().st_mtime_ns for path in (built.folder / "out").rglob("*")}
    run = build(built.folder, ONE, TWO)
    assert (run.touched, run.outcomes) == ([], {"one": "up to date", "two": "up to date"})
    assert {path: path.stat().st_mtime_ns for path in (built.folder / "out").rglob("*")} == before


def test_a_changed_recipe_builds_its_package_alone(built: Built):
    before = index(built.folder)
    run = build(built.folder, replace(ONE, license_note="Changed."), TWO)
    assert run.touched == ["one"]
    assert run.outcomes == {"one": "built", "two": "up to date"}
    after = index(built.folder)
    assert after["one"]["license_note"] == "Changed."
    # The same checkpoint and options give the same bytes.
    assert after["one"]["package_sha256"] == before["one"]["package_sha256"]
    assert after["two"] == before["two"]


def test_a_damaged_package_is_built_again_and_a_failed_one_is_tried_again(
    built: Built, monkeypatch: pytest.MonkeyPatch
):
    weights = built.folder / "out/one.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    monkeypatch.setattr(recipe_build, "convert", refuse)
    assert build(built.folder, ONE, TWO).touched == ["one"]
    assert build(built.folder, TOO_BIG).touched == ["too-big"]
    assert build(built.folder, TWO, force=True).touched == ["two"]


def refuse(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("deep\ninside")


def test_an_unexpected_error_is_one_line_and_leaves_the_old_package_listed(
    built: Built, monkeypatch: pytest.MonkeyPatch
):
    before = index(built.folder)["two"]
    monkeypatch.setattr(recipe_build, "convert", refuse)
    run = build(built.folder, TWO, replace(ONE, name="new"), force=True)
    assert run.outcomes == {"two": "error", "new": "error"}
    after = index(built.folder)
    message = "ZeroDivisionError: deep inside"
    assert after["two"] == before | {"message": f"not built anew: {message}"}
    assert (after["new"]["path"], after["new"]["message"]) == (None, message)
    monkeypatch.undo()
    assert build(built.folder, TWO).outcomes == {"two": "up to date"}
    assert index(built.folder)["two"] == before


def test_without_keep_going_the_first_failure_ends_the_build(built: Built):
    run = build(built.folder, GONE, ONE, keep_going=False)
    assert run.outcomes == {"gone": "error"}


def test_a_package_that_falls_short_does_not_replace_a_good_one_unless_asked(
    built: Built, monkeypatch: pytest.MonkeyPatch
):
    good = SavedPackage(built.folder / "out/two.mlpackage").files()
    poor = replace(
        TWO, options=replace(TWO.options, author="Other"), tolerances=Tolerances(min_snr=99.0)
    )
    assert build(built.folder, poor).outcomes == {"two": "failed"}
    assert index(built.folder)["two"]["path"] is None
    assert "the recipe asks for at least 99 dB" in index(built.folder)["two"]["message"]
    assert SavedPackage(built.folder / "out/two.mlpackage").files() == good
    assert build(built.folder, poor, keep_failed=True).outcomes == {"two": "failed"}
    entry = index(built.folder)["two"]
    assert (entry["passed"], entry["path"]) == (False, "two.mlpackage")
    assert SavedPackage(built.folder / "out/two.mlpackage").spec.description.metadata.author == (
        "Other"
    )
    monkeypatch.setattr(recipe_build, "convert", refuse)
    assert build(built.folder, poor).touched == ["two"]  # it is no success to rest on


def test_a_bound_that_convert_itself_finds_broken_is_a_failure(
    built: Built, monkeypatch: pytest.MonkeyPatch
):
    def fall_short(*_: Any, **__: Any) -> Any:
        raise GateError("too poor")

    monkeypatch.setattr(recipe_build, "convert", fall_short)
    assert build(built.folder, replace(ONE, name="new")).outcomes == {"new": "failed"}


@pytest.mark.parametrize("stage", ["load", "convert", "validate"])
def test_an_interrupted_build_goes_on_with_what_is_missing(stage: str, built: Built):
    """After ``one`` was built anew, the build is stopped while ``new`` is under way."""
    first, second = replace(ONE, license_note="Changed."), replace(ONE, name="new")
    entries = index(built.folder)

    def interrupt(recipe: Recipe, at: str) -> None:
        if (recipe.name, at) == ("new", stage):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(built.folder, TWO, second, progress=interrupt)
    assert index(built.folder) == entries
    assert files(built.folder) == {
        "index.json", "one.mlpackage", "two.mlpackage", "two.plan.toml"
    }  # fmt: skip
    if stage == "convert":
        with pytest.raises(KeyboardInterrupt):
            build(built.folder, first, second, TWO, progress=interrupt)
        assert index(built.folder)["one"]["license_note"] == "Changed."
        run = build(built.folder, first, second, TWO)
        assert run.touched == ["new"]
        assert run.outcomes == {"one": "up to date", "new": "built", "two": "up to date"}
        assert index(built.folder)["new"]["passed"]


def test_photos_judge_agreement_and_are_part_of_the_inputs(built: Built, tmp_path: Path):
    photo = tmp_path / "photo.png"
    noise((80, 70), 60).save(photo)
    recipe = replace(TWO, tolerances=Tolerances(min_agreement=1.0))
    assert build(built.folder, recipe, images=[photo]).touched == ["two"]
    entry = index(built.folder)["two"]
    assert (entry["images"], entry["synthetic"]) == (1, False)
    (check,) = [check for check in entry["checks"] if check["name"] == "min_agreement"]
    assert (check["value"], check["bound"]) == (entry["agreement"]["top1"], 1.0)
    assert build(built.folder, recipe, images=[photo]).outcomes == {"two": "up to date"}
    noise((80, 70), 90).save(photo)

    def stop(recipe: Recipe, stage: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(built.folder, recipe, images=[photo], progress=stop)


def test_a_photo_that_cannot_be_read_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"gone\.png: cannot be read"):
        build(tmp_path, ONE, images=[tmp_path / "gone.png"])


def test_a_report_made_later_judges_on_the_images_that_the_build_held_out(
    built: Built, tmp_path: Path
):
    """Not on those that the palettes were fitted to."""
    photos = write_images(tmp_path, 16)
    recipe = replace(
        ONE, name="fitted", options=replace(LOGITS, bits=6, promise=Promise(min_snr=-100))
    )
    assert build(built.folder, recipe, images=photos).outcomes == {"fitted": "built"}
    judged = index(built.folder)["fitted"]["images"]
    assert judged < len(photos)
    paths = {"fitted": tmp_path / "fitted.json"}
    run = build(built.folder, recipe, images=photos, reports=RecipeReports(paths=paths))
    assert run.outcomes == {"fitted": "up to date"}
    report = json.loads(paths["fitted"].read_text(encoding="utf-8"))
    assert report["parity"]["images"] == judged


def inputs(recipe: Recipe, cache: Path) -> str:
    return recipe_inputs(recipe, None, cache_dir=cache, local_files_only=True).sha256


def test_a_new_commit_on_the_hub_is_a_change_but_not_for_a_pinned_recipe(built: Built):
    pinned = replace(ONE, revision=COMMIT)
    before, before_pinned = inputs(ONE, built.cache), inputs(pinned, built.cache)
    assert before == before_pinned  # "main" and its commit are the same files
    write = small_checkpoint("mobilenet_v2").save_pretrained
    publish(built.cache, "owner/net", write, commit="f" * 40)
    assert inputs(ONE, built.cache) != before
    assert inputs(pinned, built.cache) == before_pinned


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "preprocessor_config.json", "labels", "plan"]
)
def test_a_change_of_any_local_file_is_a_change(name: str, tmp_path: Path):
    source = tmp_path / "mine"
    source.mkdir()
    paths = {
        part: source / part
        for part in ("config.json", "model.safetensors", "preprocessor_config.json", "notes.md")
    } | {part: tmp_path / part for part in ("labels", "plan", "processor.json")}
    for path in paths.values():
        path.write_text("old")
    recipe = Recipe(
        name="mine",
        source=source,
        labels=paths["labels"],
        image_processor=paths["processor.json"],
        options=ConvertOptions(plan=paths["plan"]),
    )
    before = inputs(recipe, tmp_path)
    paths["notes.md"].write_text("new")
    assert inputs(recipe, tmp_path) == before
    paths[name].write_text("new")
    assert inputs(recipe, tmp_path) != before


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 2, "packages": []}', "no json", '{"a":'])
def test_a_foreign_index_is_not_overwritten(text: str, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.json").write_text(text)
    with pytest.raises(InputError, match=r"index\.json: is no index that this version"):
        build(tmp_path, ONE)
    assert (tmp_path / "out" / "index.json").read_text() == text


def test_entries_whose_packages_were_deleted_leave_the_index(built: Built):
    shutil.rmtree(built.folder / "out/one.mlpackage")
    build(built.folder, GONE)
    assert set(index(built.folder)) == {"two", "gone", "too-big"}


def test_two_recipes_of_one_name_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="two recipes are named one"):
        build(tmp_path, ONE, ONE)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="out: cannot be made a folder"):
        build(tmp_path, ONE)


def test_labelled_images_that_a_promise_is_measured_on_are_part_of_the_inputs(tmp_path: Path):
    """Also of a recipe that only code can make; files do not name any."""
    (tmp_path / "source").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text(name)
    labels = tmp_path / "labels.csv"
    labels.write_text("file,label\na.png,0\n")
    promise = Promise(max_drop=1.0)
    options = ConvertOptions(bits="auto", promise=promise, dataset=labels)
    recipe = Recipe(name="mine", source=tmp_path / "source", options=options)
    before = inputs(recipe, tmp_path)
    (tmp_path / "b.png").write_text("changed, but not named")
    assert inputs(recipe, tmp_path) == before
    (tmp_path / "a.png").write_text("changed")
    assert inputs(recipe, tmp_path) != before
    folder = replace(recipe, options=replace(options, dataset=tmp_path / "source"))
    assert inputs(folder, tmp_path) != before
