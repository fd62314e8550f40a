import json

import pytest
from click.testing import CliRunner
from foreign import program_package, with_two_functions
from packages import LABELS, converted

from mvit_coreml.cli import cli

pytestmark = pytest.mark.fast

FAMILY = "mobilenet_v2"


def run(*arguments):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def test_the_text_says_what_is_in_a_package():
    package, saved = converted(FAMILY, bits=6)
    output = run(package.path).stdout
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert f"size {saved.size / 1e6:.2f} MB" in lines
    assert "target iOS 17 (specification 8)" in lines
    assert "input image: image, 64x64 pixels, RGB" in lines
    assert "baked scale 0.00784314, bias -1: values -1 to 1" in lines
    assert "output classLabel_probs: dictionary" in lines
    assert f"labels {len(LABELS)}: {', '.join(LABELS[:5])}, …" in lines
    assert f"{saved.census()['conv']} conv, " in output
    palettes = saved.census()["constexpr_lut_to_dense"]
    assert any(line.startswith(f"6-bit palette {palettes} tensors") for line in lines)
    assert "nothing to beware of was found" in lines


def test_every_uncompressed_weight_is_listed_on_request():
    path = converted(FAMILY, bits=6)[0].path
    biases = [op for op in converted(FAMILY, bits=6)[1].program() if "bias" in op.inputs]
    assert run(path).stdout.count("1-D") == 1
    assert run(path, "--all").stdout.count("1-D") == 1 + len(biases)


def test_json_is_one_document_with_everything():
    package, saved = converted(FAMILY, bits=6)
    data = json.loads(run(package.path, "--json").stdout)
    assert data["path"] == str(package.path)
    assert data["size"] == saved.size
    assert data["ios"] == 17
    (function,) = data["functions"]
    assert len(function["labels"]) == len(LABELS)
    assert function["inputs"][0]["color_order"] == "rgb"
    assert data["metadata"]["user_defined"] == saved.user_defined
    assert data["cautions"] == []
    assert {group["scheme"] for group in data["weights"]} == {"6-bit palette", "fp16", "fp32"}


def test_what_to_beware_of_is_named_with_its_operations():
    def build(mb, x):
        return mb.square(x=mb.gather(x=x, indices=[1, 0], axis=1, name="picked"), name="squared")

    lines = run(program_package(build)).stdout.splitlines()
    after = [line.strip() for line in lines[lines.index("beware") + 1 :]]
    assert after[0] == "neural engine: 1 gather: reported to leave the Neural Engine"
    assert after[1] == "picked"
    assert after[2].startswith("precision: 1 square in fp16, which overflow")
    assert after[3] == "squared"


def test_every_function_is_described():
    output = run(with_two_functions(converted(FAMILY)[0].path)).stdout
    assert "function first (operations of iOS 18, the default)" in output
    assert "function second (operations of iOS 18)" in output
    assert output.count("64x64 pixels, RGB") == 2


def test_what_is_no_package_is_one_line_of_error(tmp_path):
    result = run(tmp_path / "absent.mlpackage")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"Error: {tmp_path}/absent.mlpackage is no .mlpackage folder: it has no Manifest.json\n"
    )
