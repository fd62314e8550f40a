"""Data sets of labelled images, in every layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mvit_coreml.checkpoints.class_names import imagenet_names
from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.class_matching import ModelClasses
from mvit_coreml.evaluation.labeled_datasets import (
    VOID,
    LabeledImages,
    read_labeled_images,
    read_mask,
    read_masked_images,
    read_table,
)

pytestmark = pytest.mark.fast

ANIMALS = ModelClasses(count=3, labels=("cat", "dog", "ox"))
# From the list of colours in VOC's development kit.
BLACK, AEROPLANE, BIRD, PERSON, TV = (
    (0, 0, 0),
    (128, 0, 0),
    (128, 128, 0),
    (192, 128, 128),
    (0, 64, 128),
)
BORDER = (224, 224, 192)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(images):
    return [image.name for image in images]


def test_class_folders_are_read_in_order(tmp_path):
    touch(tmp_path, "ox/1.jpg", "cat/b.PNG", "cat/deep/a.jpg", "cat/notes.txt", ".git/x.jpg")
    touch(tmp_path, "cat/._b.PNG", "cat/.trash/c.jpg", "ox/deep/._1.jpg")
    data = read_labeled_images(tmp_path, ANIMALS)
    assert names(data.images) == ["b.PNG", "a.jpg", "1.jpg"]
    assert data.labels == (0, 0, 2)


def test_an_unmatched_class_folder_is_an_error_that_lists_it(tmp_path):
    touch(tmp_path, "cat/1.jpg", "wolf/1.jpg")
    with pytest.raises(InputError, match=r"1 of 2 classes match none of the model's 3.*'wolf'"):
        read_labeled_images(tmp_path, ANIMALS)


def test_an_empty_folder_is_an_error(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="no class folders with images"):
        read_labeled_images(tmp_path, ANIMALS)


def test_a_missing_or_foreign_data_set_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no such data set"):
        read_labeled_images(tmp_path / "none", ANIMALS)
    touch(tmp_path, "a.zip")
    with pytest.raises(InputError, match="neither a folder nor a CSV"):
        read_labeled_images(tmp_path / "a.zip", ANIMALS)


def csv_of(folder, text, *images):
    touch(folder, *images)
    (folder / "list.csv").write_text(text)
    return folder / "list.csv"


@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.jpg,dog\nb.jpg,ox\n",
        "Label,Image\n1,a.jpg\n2,b.jpg\n",
        "a.jpg,dog\nb.jpg,ox\n",
        "picture,what\na.jpg,1\nb.jpg,2\n",
    ],
)
def test_csv_columns_are_found_whatever_they_are_called(text, tmp_path):
    data = read_labeled_images(csv_of(tmp_path, text, "a.jpg", "b.jpg"), ANIMALS)
    assert names(data.images) == ["a.jpg", "b.jpg"]
    assert data.labels == (1, 2)


def test_the_label_column_with_the_models_class_count_is_read_and_said(tmp_path):
    path = csv_of(tmp_path, "file,label_2,label_3,name\na.jpg,0,1,x\n", "a.jpg")
    data = read_labeled_images(path, ANIMALS)
    assert data.labels == (1,)
    assert "'label_3'" in data.notes[0]


def test_a_label_column_can_be_named(tmp_path):
    path = csv_of(tmp_path, "file,label,truth\na.jpg,0,ox\n", "a.jpg")
    assert read_labeled_images(path, ANIMALS).labels == (0,)
    assert read_labeled_images(path, ANIMALS, label_column="truth").labels == (2,)


def test_uncertain_columns_are_refused(tmp_path):
    path = csv_of(tmp_path, "file,first,second\na.jpg,0,1\n", "a.jpg")
    with pytest.raises(InputError, match="first, second; name it with --label-column"):
        read_labeled_images(path, ANIMALS)


@pytest.mark.parametrize("background", [False, True])
def test_the_two_numberings_of_imagenet_name_the_same_classes(background, real_data):
    labels = imagenet_names()
    classes = (
        ModelClasses(count=1001, labels=("background", *labels))
        if background
        else ModelClasses(count=1000, labels=labels)
    )
    path = real_data / "imagenet" / "evaluation.csv"
    by_number = read_labeled_images(path, classes)
    assert f"'label_{classes.count}'" in by_number.notes[0]
    by_name = [line.split(",", 3)[3].strip('"\n') for line in path.open()][1:]
    assert [classes.name(label) for label in by_number.labels] == by_name


def test_limit_keeps_each_image_with_its_label(tmp_path):
    images = tuple(tmp_path / f"{index}" for index in range(9))
    data = LabeledImages(name="x", images=images, labels=tuple(range(9))).limited(3)
    assert names(data.images) == ["0", "3", "6"]
    assert data.labels == (0, 3, 6)


def test_voc_layout_pairs_masks_with_their_images(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg", "JPEGImages/c.jpg")
    touch(tmp_path, "SegmentationClass/a.png", "SegmentationClass/c.png")
    data = read_masked_images(tmp_path)
    assert names(data.images) == ["a.jpg", "c.jpg"]
    assert names(data.masks) == ["a.png", "c.png"]


def test_of_vocs_development_kit_the_validation_images_are_read(tmp_path):
    touch(tmp_path, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    touch(tmp_path, "SegmentationClass/a.png", "SegmentationClass/b.png")
    touch(tmp_path, "ImageSets/Segmentation/val.txt")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    data = read_masked_images(tmp_path)
    assert names(data.masks) == ["b.png"]
    assert "val.txt" in data.notes[0]


def test_name_patterns_pair_images_and_masks(tmp_path):
    touch(tmp_path, "1_image.png", "1_target.png", "bird.bmp", "bird_mask.bmp", "loose.jpg")
    data = read_masked_images(tmp_path)
    pairs = list(zip(names(data.images), names(data.masks), strict=True))
    assert pairs == [("1_image.png", "1_target.png"), ("bird.bmp", "bird_mask.bmp")]


def test_a_csv_of_images_and_masks_is_read(tmp_path):
    path = csv_of(tmp_path, "image,mask\na.jpg,m/a.png\n", "a.jpg", "m/a.png")
    data = read_masked_images(path)
    assert (names(data.images), names(data.masks)) == (["a.jpg"], ["a.png"])
    path.write_text("a.jpg,m/a.png\n")
    assert names(read_masked_images(path).masks) == ["a.png"]


def test_what_macos_leaves_beside_images_is_no_mask(tmp_path):
    touch(tmp_path, "a_image.jpg", "a_target.png", "._a_image.jpg", "._a_target.png")
    data = read_masked_images(tmp_path)
    assert names(data.images) == ["a_image.jpg"]
    assert names(data.masks) == ["a_target.png"]


def test_masks_without_images_are_named(tmp_path):
    touch(tmp_path, "1_target.png")
    with pytest.raises(InputError, match=r"no image to '1_target\.png'"):
        read_masked_images(tmp_path)


def test_a_folder_without_masks_is_an_error(tmp_path):
    touch(tmp_path, "a.jpg")
    with pytest.raises(InputError, match="no images with masks"):
        read_masked_images(tmp_path)


def test_a_mask_in_vocs_colours_gives_vocs_classes(tmp_path):
    colors = np.array([[BLACK, AEROPLANE, BIRD], [PERSON, TV, BORDER]], np.uint8)
    for mode in ("RGB", "RGBA"):
        Image.fromarray(colors).convert(mode).save(tmp_path / "mask.png")
        assert read_mask(tmp_path / "mask.png", 21).tolist() == [[0, 1, 3], [15, 20, VOID]]


def test_a_foreign_colour_is_named(tmp_path):
    Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: the colour \(1, 2, 3\) is none of VOC's"):
        read_mask(tmp_path / "mask.png", 21)


def test_a_palettes_indices_are_the_classes(tmp_path):
    mask = Image.fromarray(np.array([[0, 2], [1, 255]], np.uint8))
    mask.putpalette([7, 7, 7] * 256)
    mask.save(tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").mode == "P"
    assert read_mask(tmp_path / "mask.png", 3).tolist() == [[0, 2], [1, VOID]]


def test_masks_that_count_from_1_are_lowered_and_their_0_is_void(tmp_path):
    Image.fromarray(np.array([[0, 1, 2, 255]], np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 2, reduce_labels=True).tolist() == [[VOID, 0, 1, VOID]]


def test_a_class_that_the_model_lacks_is_named(tmp_path):
    Image.new("L", (2, 2), 21).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png: holds class 21, but the model has 21"):
        read_mask(tmp_path / "mask.png", 21)


def test_an_unreadable_mask_is_named(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"mask\.png"):
        read_mask(tmp_path / "mask.png", 21)


def test_real_masks_hold_the_classes_they_are_of(real_data):
    data = read_masked_images(real_data / "voc")
    found = {mask.name: set(np.unique(read_mask(mask, 21)).tolist()) for mask in data.masks}
    assert found == {
        "1_target.png": {0, 1, VOID},
        "114_target.png": {0, 3, VOID},
        "23_target.png": {0, 17, VOID},
        "bird_segmentation_mask.bmp": {0, 1, 2, 3},
    }


@pytest.fixture
def table(tmp_path):
    def write(text, name="list.csv"):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_table(path)

    return write


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_are_parted_by_comma_semicolon_or_tab(mark, table):
    read = table(f"file{mark}label\na.jpg{mark}3\n")
    assert read.columns == ("file", "label")
    assert read.column("label") == ["3"]


def test_quotes_keep_a_comma_and_a_line_end_in_a_cell(table):
    assert table('file,name\na.jpg,"tench,\n Tinca"\n').column("name") == ["tench,\n Tinca"]


def test_a_first_row_with_an_image_is_no_header(table):
    read = table("a.JPEG,3\nb.png,4\n")
    assert read.columns == ("1", "2")
    assert read.column("2") == ["3", "4"]


def test_byte_order_mark_empty_lines_and_spaces_do_not_matter(table):
    read = table("\ufefffile , label\r\n\r\n a.jpg , 3 \r\n")
    assert read.columns == ("file", "label")
    assert read.column("file") == ["a.jpg"]


def test_a_missing_file_is_named_with_its_line(table, tmp_path):
    (tmp_path / "a.jpg").touch()
    with pytest.raises(InputError, match=r"line 3: there is no file .*b\.jpg"):
        table("file\na.jpg\nb.jpg\n").files("file")


def test_a_row_of_another_length_is_named(table):
    with pytest.raises(InputError, match="line 2: has 3 columns where there are 2"):
        table("file,label\na.jpg,tench, Tinca\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "is empty"), ("file,label\n", "lists no images"), (b"\xff\xfe\x00", "no CSV in UTF-8")],
)
def test_a_file_without_rows_is_refused(content, message, table):
    with pytest.raises(InputError, match=message):
        table(content)


def test_an_unknown_column_is_refused_with_the_known_ones(table):
    with pytest.raises(InputError, match="no column 'x'; it has: file, label"):
        table("file,label\na.jpg,1\n").column("x")
