"""Files that are no good, each refused in one line that says why."""

from __future__ import annotations

import json
import os
import zipfile

import pytest
import torch
from fresh_process import fresh_process
from safetensors.torch import load_file, save_file

from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.errors import CheckpointError, InputError


@pytest.fixture
def folder(build_hf, save_hf):
    return save_hf(build_hf("MobileViTForImageClassification"))


def refusal(source, **options):
    """Return the one line that loading fails with."""
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(source, **options)
    message = str(error.value)
    assert "\n" not in message
    assert error.value.__cause__ is None
    return message


def replace_by_bin(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return folder / "pytorch_model.bin"


class Malicious:
    """Unpickles into a call that creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "net.pt"])
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(name, zipped, folder, tmp_path):
    marker = tmp_path / "executed"
    (folder / "model.safetensors").unlink()
    content = {"classifier.weight": torch.zeros(2), "surprise": Malicious(marker)}
    torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)
    message = refusal(folder if name == "pytorch_model.bin" else folder / name)
    assert not marker.exists()
    assert "refused: reading it would run posix.system" in message
    assert name in message

    # The file does what it threatens where it is trusted, so the test above means something.
    torch.load(folder / name, weights_only=False)
    assert marker.exists()


def test_a_truncated_safetensors_file_is_called_so(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "model.safetensors: truncated or damaged (" in refusal(folder)


def test_a_truncated_zip_is_called_so(folder):
    file = replace_by_bin(folder)
    file.write_bytes(file.read_bytes()[:2000])
    assert "pytorch_model.bin: truncated, damaged or no PyTorch weights (" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x02}q\x00."])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    (tmp_path / "net.pt").write_bytes(content)
    assert "net.pt: " in refusal(tmp_path / "net.pt")


def test_a_damaged_member_of_a_zip_is_refused(folder):
    file = replace_by_bin(folder)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, b"\x80\x02garbage" if name.endswith("data.pkl") else data)
    assert "pytorch_model.bin: truncated, damaged or no PyTorch weights" in refusal(folder)


def test_a_git_lfs_pointer_is_called_so(folder):
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 22000000\n"
    )
    assert refusal(folder).endswith(
        "model.safetensors: a Git LFS pointer, not the weights; run 'git lfs pull' in its folder"
    )


def test_a_folder_without_weights_names_the_files_that_would_do(folder):
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == (
        "model: no weights: none of model.safetensors, model.safetensors.index.json, "
        "pytorch_model.bin, pytorch_model.bin.index.json is there; "
        "a file of another name can be given by its own path"
    )


@pytest.mark.parametrize(
    "shard",
    ["../outside.safetensors", "/etc/passwd", "sub/model.safetensors", "..\\x.bin", "a.py", ""],
)
def test_an_index_cannot_point_out_of_its_folder(shard, folder, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"classifier.weight": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert f"lists {shard!r}; only file names in the same folder are read" in refusal(folder)


def test_a_missing_shard_is_named(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"classifier.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refusal(folder) == (
        "model: model-00001-of-00001.safetensors, which model.safetensors.index.json lists, "
        "is missing"
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 1}}'])
def test_an_unreadable_index_is_named(content, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json: " in refusal(folder)


@pytest.mark.parametrize("content", ["{", "[1]", ""])
def test_an_unreadable_configuration_is_named(content, folder):
    (folder / "config.json").write_text(content)
    assert f"{folder / 'config.json'}: " in refusal(folder)


def test_a_configuration_of_no_known_library_is_refused(folder):
    (folder / "config.json").write_text('{"layers": 3}')
    assert refusal(folder) == (
        "model: config.json has neither the model_type of Hugging Face nor the architecture of timm"
    )


def test_transformers_weights_alone_ask_for_their_configuration(folder):
    (folder / "config.json").unlink()
    expected = "weights of Hugging Face transformers need their config.json beside them"
    assert refusal(folder / "model.safetensors") == f"model.safetensors: {expected}"
    assert refusal(folder) == f"model: {expected}"


def test_weights_of_another_model_name_what_is_supported(tmp_path):
    save_file({"embed.weight": torch.zeros(2)}, tmp_path / "bert.safetensors")
    message = refusal(tmp_path / "bert.safetensors")
    assert message.startswith("bert.safetensors: weights of an unknown model, such as 'embed.weig")
    assert "MobileViT, MobileViTV2 and MobileNetV2" in message


def test_integer_weights_are_named(folder, edit_weights):
    edit_weights(
        folder,
        lambda weights: weights.update({"classifier.bias": torch.zeros(7, dtype=torch.int8)}),
    )
    assert "weight 'classifier.bias' is torch.int8; only floating-point" in refusal(folder)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
def test_a_file_without_a_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "net.pt")
    assert "no state dict" in refusal(tmp_path / "net.pt") or "no weights" in refusal(
        tmp_path / "net.pt"
    )


@pytest.mark.parametrize(
    "source", ["./missing", "/no/such/folder", "~/missing", "a/b/c", "mobilevit_s", "x/net.pt"]
)
def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub(source):
    expected = "no such file or folder; a model on the hub is named owner/name"
    assert refusal(source) == f"{source}: {expected}"


def test_a_revision_of_a_local_folder_is_refused(folder):
    with pytest.raises(InputError, match="revision 'main' only applies to a model on the hub"):
        load_checkpoint(folder, revision="main")


def test_a_color_order_that_is_none_is_refused(folder):
    with pytest.raises(InputError, match="color_order is 'GBR'; it must be RGB or BGR"):
        load_checkpoint(folder, color_order="GBR")


def test_loading_neither_imports_transformers_nor_timm(tmp_path_factory):
    assert fresh_process(tmp_path_factory).after_loading == []
