"""Reading lists of files."""

from __future__ import annotations

import pytest

from mvit_coreml.errors import InputError
from mvit_coreml.evaluation.csv_tables import read_table


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
