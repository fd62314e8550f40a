"""``metadata.json`` of compiled models, whole, thinned out and broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mvit_coreml.device.compiled_metadata import read_compiled_metadata
from mvit_coreml.errors import InputError

pytestmark = pytest.mark.fast

# After what Apple's compiler writes beside model.mil; written by hand.
CONTENT: dict[str, Any] = {
    "metadataOutputVersion": "3.0",
    "storagePrecision": "Mixed (Float16, Palettized (6 bits))",
    "computePrecision": "Mixed (Float16, Int32)",
    "specificationVersion": 8,
    "availability": {"iOS": "17.0", "macOS": "14.0"},
    "mlProgramOperationTypeHistogram": {
        "Ios17.conv": 35,
        "Ios16.constexprLutToDense": 30,
        "conv": 1,
    },
    "inputSchema": [{"name": "image", "formattedType": "Image (Color 224 x 224)", "type": "Image"}],
    "outputSchema": [{"name": "classLabel", "type": "String"}],
    "isUpdatable": "0",
    "license": "",
}  # fmt: skip


def test_an_array_of_one_object_is_read_from_the_file_or_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "Model.mlmodelc"
    folder.mkdir()
    (folder / "metadata.json").write_text(json.dumps([CONTENT]), encoding="utf-8")
    for path in (folder, folder / "metadata.json"):
        read = read_compiled_metadata(path)
        assert read.operations == {"conv": 36, "constexpr_lut_to_dense": 30}
        assert read.inputs == {"image": "Image (Color 224 x 224)"}
        assert read.outputs == {"classLabel": "String"}
        assert read.facts["availability"] == "iOS 17.0, macOS 14.0"
        assert read.facts["specificationVersion"] == "8"
        assert "license" not in read.facts


def test_nothing_in_it_is_required(tmp_path: Path) -> None:
    file = tmp_path / "metadata.json"
    file.write_text("[{}]", encoding="utf-8")
    read = read_compiled_metadata(file)
    assert (read.facts, read.operations, read.inputs, read.outputs) == ({}, {}, {}, {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "is no JSON"),
        ("[]", "an array of one object"),
        ("[{}, {}]", "an array of one object"),
        ('"text"', "an array of one object"),
        ('[{"mlProgramOperationTypeHistogram": {"conv": "many"}}]', "a number for each type"),
        ('[{"mlProgramOperationTypeHistogram": [1]}]', "a number for each type"),
    ],
)
def test_broken_files_are_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "metadata.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message) as raised:
        read_compiled_metadata(file)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_compiled_metadata(tmp_path / "missing.json")
