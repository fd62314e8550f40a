"""What class names of data sets mean to a model."""

from __future__ import annotations

import json

import pytest

from mvit_coreml.checkpoints.class_names import imagenet_names
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses, match_classes

pytestmark = pytest.mark.fast

IMAGENET = ModelClasses(count=1000, labels=imagenet_names())
IMAGENET_1001 = ModelClasses(count=1001, labels=("background", *imagenet_names()))
ANIMALS = ModelClasses(count=3, labels=("cat", "dog, hound", "great white-shark"))


def match(names, classes=ANIMALS, **options):
    return match_classes(names, classes, "data", **options)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("cat", 0),
        ("Cat", 0),
        ("dog, hound", 1),
        ("dog", 1),
        ("hound", 1),
        ("great_white_shark", 2),
        ("n01484850_great_white_shark", 2),
    ],
)
def test_a_class_is_known_by_its_name_a_synonym_or_after_a_synset_id(name, index):
    assert match([name]).indices == {name: index}


def test_a_whole_name_wins_over_a_synonym_of_another_class():
    # ImageNet's 638 is "maillot" and its 639 "maillot, tank suit".
    assert match(["maillot"], IMAGENET).indices == {"maillot": 638}
    assert match(["tank suit"], IMAGENET).indices == {"tank suit": 639}


def test_a_name_of_two_classes_is_refused_and_its_numbered_form_accepted():
    with pytest.raises(InputError, match=r"'crane' is the name of 2 .*'crane \(517\)'"):
        match(["crane"], IMAGENET)
    assert match(["crane (134)", "crane (517)"], IMAGENET).indices == {
        "crane (134)": 134,
        "crane (517)": 517,
    }


def test_a_name_that_a_package_made_unique_is_still_ambiguous():
    packaged = ModelClasses(count=3, labels=("crane", "ox", "crane (2)"))
    with pytest.raises(InputError, match="2 of the model's classes"):
        match(["crane"], packaged)
    assert match(["crane (2)", "crane (0)"], packaged).indices == {"crane (2)": 2, "crane (0)": 0}


def test_numbers_are_class_indices():
    assert match(["0", "02"]).indices == {"0": 0, "02": 2}
    assert match(["7"], ModelClasses(count=8)).indices == {"7": 7}


def test_names_that_are_numbers_win_over_indices():
    digits = ModelClasses(count=3, labels=("2", "1", "0"))
    assert match(["0", "2"], digits).indices == {"0": 2, "2": 0}


def test_an_index_beyond_the_classes_is_refused():
    with pytest.raises(InputError, match="label 3 would be class 3, but the model has 3 classes"):
        match(["3"])


def test_an_offset_is_added_to_indices():
    assert match(["1", "3"], offset=-1).indices == {"1": 0, "3": 2}
    with pytest.raises(InputError, match="'cat'"):
        match(["cat"], offset=1)


def test_unmatched_classes_are_listed():
    with pytest.raises(InputError, match=r"2 of 3 classes match none .*: 'train', 'val'"):
        match(["cat", "train", "val"])


def test_many_unmatched_classes_are_counted():
    with pytest.raises(InputError, match="and 2 more"):
        match([f"x{number}" for number in range(12)])


def test_labels_without_background_are_shifted_when_0_tells_it():
    found = match(["0", "999"], IMAGENET_1001)
    assert found.indices == {"0": 1, "999": 1000}
    assert "1 was added" in found.notes[0]


def test_labels_that_reach_1000_count_the_background():
    assert match(["1", "1000"], IMAGENET_1001).indices == {"1": 1, "1000": 1000}


def test_labels_that_may_or_may_not_count_the_background_are_refused():
    with pytest.raises(InputError, match="--label-offset 0 if 1 is 'tench, Tinca tinca'"):
        match(["5", "998"], IMAGENET_1001)
    assert match(["5", "998"], IMAGENET_1001, offset=1).indices == {"5": 6, "998": 999}


@pytest.mark.parametrize(("classes", "first"), [(3, 0), (4, 1)])
def test_a_complete_set_of_synsets_is_numbered_in_sorted_order(classes, first):
    labels = ("background", "a", "b", "c")[4 - classes :]
    found = match(
        ["n00000009", "n00000002", "n00000005"], ModelClasses(count=classes, labels=labels)
    )
    assert found.indices == {
        "n00000002": first,
        "n00000005": first + 1,
        "n00000009": first + 2,
    }
    assert "sorted" in found.notes[0]


def test_an_incomplete_set_of_synsets_needs_a_list():
    with pytest.raises(InputError, match=r"synset_words\.txt"):
        match(["n00000002"])


@pytest.mark.parametrize("name", ["synset_words.txt", "imagenet_class_index.json"])
def test_a_list_of_synsets_gives_their_classes(name, tmp_path):
    order = ["n00000005", "n00000002", "n00000009"]
    text = "\n".join(f"{synset} some, names" for synset in order)
    if name.endswith("json"):
        text = json.dumps({str(index): [synset, "x"] for index, synset in enumerate(order)})
    (tmp_path / name).write_text(text)
    found = match(["n00000002", "n00000009"], mapping_folders=[tmp_path])
    assert found.indices == {"n00000002": 1, "n00000009": 2}
    assert name in found.notes[0]
    with pytest.raises(InputError, match="'n00000001'"):
        match(["n00000001"], mapping_folders=[tmp_path])


def test_a_list_of_synsets_of_another_length_is_refused(tmp_path):
    (tmp_path / "synset_words.txt").write_text("n00000001 a\n")
    with pytest.raises(InputError, match="lists 1 synsets for a model of 3"):
        match(["n00000001"], mapping_folders=[tmp_path])


def test_a_damaged_list_of_synsets_is_named(tmp_path):
    (tmp_path / "imagenet_class_index.json").write_text("[]")
    with pytest.raises(InputError, match=r"imagenet_class_index\.json: is no list"):
        match(["n00000001"], mapping_folders=[tmp_path])
