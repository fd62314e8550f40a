import json

import pytest
from click.testing import CliRunner
from foreign import edited, program_package, random_weight
from packages import converted

from mvit_coreml.cli import cli

FAMILY = "mobilenet_v2"


def run(*arguments):
    return CliRunner().invoke(cli, ["diff", *map(str, arguments)])


@pytest.fixture(scope="module")
def plain():
    return converted(FAMILY)[0].path


@pytest.fixture(scope="module")
def palettized():
    return converted(FAMILY, bits=6)[0].path


def test_equal_packages_exit_with_0(plain):
    result = run(plain, plain)
    assert result.exit_code == 0
    assert result.stdout.endswith("equal in interface, graph, weights and metadata\n")
    assert json.loads(run(plain, plain, "--json").stdout)["equal"] is True


def test_different_packages_exit_with_1_and_list_the_worst_weight_first(plain, palettized):
    result = run(plain, palettized)
    assert result.exit_code == 1
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["interface:", "equal"] in lines
    assert ["graph:", "equal"] in lines
    ratios = [float(line[0]) for line in lines if line[1:2] == ["dB"]]
    assert ratios == sorted(ratios)
    assert len(ratios) == converted(FAMILY, bits=6)[1].census()["constexpr_lut_to_dense"]
    assert ["mvit_coreml.bits", "empty", "->", "6"] in lines
    assert "fp16 -> 6-bit palette" in result.stdout


def test_a_package_that_cannot_be_read_exits_with_2(plain, tmp_path):
    result = run(plain, tmp_path)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")


def test_json_is_one_document_with_everything(plain, palettized):
    result = run(plain, palettized, "--json")
    assert result.exit_code == 1
    data = json.loads(result.stdout)
    assert data["equal"] is False
    assert (data["first"], data["second"]) == (str(plain), str(palettized))
    bits, digest = data["changes"]
    assert bits == {
        "section": "metadata",
        "function": "",
        "what": "mvit_coreml.bits",
        "first": "",
        "second": "6",
    }
    assert digest["what"] == "mvit_coreml.program_sha256"
    assert data["weights"][0]["second_scheme"] == "6-bit palette"
    assert data["compared_weights"] - data["equal_weights"] == len(data["weights"])


def test_long_lists_are_cut_unless_everything_is_asked_for():
    def build(seed):
        def program(mb, x):
            for index in range(25):
                x = mb.conv(x=x, weight=random_weight(8, 8, 1, 1, seed=seed + index))
            return x

        return program_package(program)

    first, second = build(0), build(100)
    short, full = run(first, second), run(first, second, "--all")
    assert short.stdout.count(" dB ") == 20
    assert "and 5 more; --all lists them" in short.stdout
    assert full.stdout.count(" dB ") == 25
    assert "more;" not in full.stdout


def test_what_one_package_lacks_is_shown_as_none(plain):
    def forget(spec):
        del spec.description.metadata.userDefined["mvit_coreml.task"]

    lines = run(plain, edited(plain, forget)).stdout.splitlines()
    assert "  mvit_coreml.task  image-classification  ->  none" in lines
