"""``mvit-coreml list``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mvit_coreml.checkpoints.catalogue import CATALOGUE
from mvit_coreml.cli import cli

pytestmark = pytest.mark.fast


def run(*arguments):
    result = CliRunner().invoke(cli, ["list", *arguments])
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout


def test_the_table_has_one_line_a_checkpoint():
    header, *lines = run().splitlines()
    assert header.split() == ["ID", "FAMILY", "TASK", "FORMAT", "PIXELS", "PARAMS", "PUBLISHED"]
    assert [line.split()[0] for line in lines] == [entry.id for entry in CATALOGUE]
    assert " ".join(lines[0].split()) == (
        "apple/mobilevit-small mobilevit image-classification huggingface 256 5.6 M "
        "78.4 ImageNet top-1 %"
    )


def test_json_is_one_document_with_every_field():
    listed = json.loads(run("--json"))
    assert len(listed) == len(CATALOGUE)
    assert listed[0] == {
        "id": "apple/mobilevit-small",
        "family": "mobilevit",
        "task": "image-classification",
        "format": "huggingface",
        "image_size": 256,
        "parameters": 5578632,
        "metric": {"name": "ImageNet top-1 %", "value": 78.4, "source": "arXiv:2110.02178"},
        "license": None,
        "in_transformers": True,
    }


def test_filters_combine():
    listed = json.loads(run("--json", "--family", "mobilevit", "--task", "semantic-segmentation"))
    assert {(entry["family"], entry["task"]) for entry in listed} == {
        ("mobilevit", "semantic-segmentation")
    }
    assert len(listed) == 6
