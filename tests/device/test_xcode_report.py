"""Performance reports in the shapes that Xcode may export them, reordered, thinned out and broken.

No report of a real Mac was there: these are written by hand after what Xcode shows (estimated µs
and a device for each operation; median prediction, load and compilation in ms).
"""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest

from mvit_coreml.device.report_comparison import compare_reports
from mvit_coreml.device.xcode_report import read_xcode_report
from mvit_coreml.errors import InputError

pytestmark = pytest.mark.fast

HEADER = ["Operation", "Type", "Compute Unit", "Estimated Time (µs)"]
ROWS = [
    ["stem", "conv", "Neural Engine", "12.5"],
    ["act", "silu", "ANE", "1,200.25"],
    ["picked", "gather", "CPU", "30"],
    ["scores", "softmax", "GPU", ""],
]
READ = [
    ("stem", "conv", "Neural Engine", 12.5),
    ("act", "silu", "Neural Engine", 1200.25),
    ("picked", "gather", "CPU", 30.0),
    ("scores", "softmax", "GPU", None),
]


def written(
    path: Path, rows: list[list[str]], delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def operations(path: Path) -> list[tuple[object, ...]]:
    report = read_xcode_report(path)
    return [(one.name, one.op_type, one.device, one.time) for one in report.operations]


def test_columns_are_read_in_any_order_and_case(tmp_path: Path) -> None:
    assert operations(written(tmp_path / "a.csv", [HEADER, *ROWS])) == READ
    order = list(range(4))
    for seed in range(5):
        random.Random(seed).shuffle(order)
        names = [HEADER[place].upper() if seed % 2 else HEADER[place].lower() for place in order]
        rows = [[row[place] for place in order] for row in ROWS]
        assert operations(written(tmp_path / "a.csv", [names, *rows])) == READ


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_encodings_are_told_apart(
    tmp_path: Path, delimiter: str, encoding: str
) -> None:
    file = written(tmp_path / "a.csv", [HEADER, *ROWS], delimiter, encoding)
    assert operations(file) == READ


@pytest.mark.parametrize("left_out", ["Operation", "Type", "Compute Unit", "Estimated Time (µs)"])
def test_a_column_may_be_absent(tmp_path: Path, left_out: str) -> None:
    place = HEADER.index(left_out)
    rows = [[cell for at, cell in enumerate(row) if at != place] for row in [HEADER, *ROWS]]
    empty: tuple[object, ...] = ("", "", "", None)
    expected = [(*one[:place], empty[place], *one[place + 1 :]) for one in READ]
    assert operations(written(tmp_path / "a.csv", rows)) == expected


@pytest.mark.parametrize(
    ("column", "cell", "time"),
    [
        ("Time (µs)", "12", 12),
        ("Time [us]", "12", 12),
        ("Duration (ms)", "1.5", 1500),
        ("Estimated Time", "1.5 ms", 1500),
        ("Estimated Time", "250 ns", 0.25),
        ("Estimated Time", "12", 12),
        ("Time (ms)", "5 µs", 5),
        ("Time (µs)", "1.234,5", 1234.5),
        ("Time (µs)", "0,5", 0.5),
        ("Time (µs)", "12,345", 12345),
        ("Time (µs)", "1 234", 1234),
        ("Time (µs)", "n/a", None),
        ("Time (µs)", "—", None),
    ],
)
def test_times_are_read_in_their_unit(
    tmp_path: Path, column: str, cell: str, time: float | None
) -> None:
    file = written(tmp_path / "a.csv", [["Name", column], ["stem", cell]])
    assert operations(file) == [("stem", "", "", time)]
    said = any("says no unit" in note for note in read_xcode_report(file).notes)
    assert said == (column == "Estimated Time" and cell == "12")


def test_marks_in_a_column_of_each_device_say_where_it_runs(tmp_path: Path) -> None:
    rows = [
        ["Name", "CPU", "GPU", "Neural Engine"],
        ["only", "", "", "✓"],
        ["chosen", "supported", "supported", "selected"],
        ["open", "✓", "✓", ""],
    ]
    devices = [one[2] for one in operations(written(tmp_path / "a.csv", rows))]
    assert devices == ["Neural Engine", "Neural Engine", ""]


def test_a_device_beside_operations_is_where_one_runs(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", [["Layer", "Device"], ["stem", "Neural Engine"]])
    assert operations(file) == [("stem", "", "Neural Engine", None)]


def test_what_stands_before_the_table_and_unknown_columns_are_kept(tmp_path: Path) -> None:
    rows = [
        ["Model", "Classifier"],
        ["Median Prediction (ms)", "1.23"],
        [],
        [*HEADER, "Nonsense"],
        *([*row, f"n{number}"] for number, row in enumerate(ROWS)),
    ]
    report = read_xcode_report(written(tmp_path / "a.csv", rows))
    assert report.facts == {"Model": "Classifier", "Median Prediction (ms)": "1.23"}
    assert [one.others for one in report.operations][:2] == [{"Nonsense": "n0"}, {"Nonsense": "n1"}]
    assert report.notes == ("columns of unknown meaning, kept as they are: Nonsense",)


def test_the_second_column_of_a_kind_is_kept_as_it_is(tmp_path: Path) -> None:
    file = written(tmp_path / "a.csv", [["Name", "Time (µs)", "Duration (µs)"], ["stem", "1", "2"]])
    report = read_xcode_report(file)
    assert report.operations[0].time == 1
    assert report.operations[0].others == {"Duration (µs)": "2"}


def test_times_of_whole_models_are_read(tmp_path: Path) -> None:
    rows = [
        ["Device", "Median Prediction", "Median Load (ms)", "Median Compile (s)"],
        ["iPhone", "1.5", "40", "0.25"],
        ["Mac", "", "30", ""],
    ]
    report = read_xcode_report(written(tmp_path / "a.csv", rows))
    read = [(one.label, one.prediction, one.load, one.compilation) for one in report.times]
    assert read == [("iPhone", 1.5, 40, 250), ("Mac", None, 30, None)]
    assert report.operations == ()
    assert report.notes == ("the column 'Median Prediction' says no unit: taken as ms",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header of a performance report"),
        (b"a,b\n1,2\n", "no header of a performance report.*begins with 'a,b'"),
        (b"Operation,Compute Unit\n", "has a header and no rows"),
        (b"Operation,Time\nstem,soon\n", "line 2: 'soon' in the column 'Time' is no number"),
        (b"Operation,Time\nstem,-3\n", "line 2: '-3' in the column 'Time'"),
        (b"Operation,Time\nstem,inf\n", "line 2: 'inf' in the column 'Time'"),
        (b"Operation,Cost\nstem,much\n", "line 2: 'much' in the column 'Cost'"),
        (b"Operation,Time\nstem,1,2\n", "line 2: 3 cells under 2 columns"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\xff", "is no text"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "broken.csv"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_xcode_report(file)
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_xcode_report(tmp_path / "missing.csv")
    with pytest.raises(InputError, match="is a folder; name a CSV file"):
        read_xcode_report(tmp_path)


def test_a_short_row_lacks_its_last_columns(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("Operation,Type,Time (us)\nstem,conv\n", encoding="utf-8")
    assert operations(file) == [("stem", "conv", "", None)]


def test_what_got_slower_and_what_moved_is_found_whatever_the_order(tmp_path: Path) -> None:
    before = written(
        tmp_path / "before.csv",
        [HEADER, ["a", "conv", "ANE", "10"], ["b", "conv", "ANE", "5"], ["c", "relu", "CPU", "2"],
         ["c", "relu", "CPU", "3"], ["gone", "relu", "CPU", "1"]],
    )  # fmt: skip
    now = written(
        tmp_path / "now.csv",
        [HEADER, ["new", "relu", "CPU", "1"], ["c", "relu", "CPU", "2"], ["b", "conv", "GPU", "25"],
         ["c", "relu", "CPU", "1"], ["a", "conv", "ANE", "12"]],
    )  # fmt: skip
    changes = compare_reports(read_xcode_report(before), read_xcode_report(now))
    assert [(one.name, one.slower) for one in changes.slower] == [("b", 20), ("a", 2)]
    assert [(one.name, one.slower) for one in changes.faster] == [("c", -2)]
    assert [(one.name, one.devices) for one in changes.moved] == [("b", ("Neural Engine", "GPU"))]
    assert (changes.added, changes.removed, changes.compared) == (("new",), ("gone",), 4)
    assert changes.total == (21, 41)
