"""Hugging Face folders against transformers itself."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mvit_coreml.checkpoints.load import load_checkpoint
from mvit_coreml.errors import CheckpointError, ConfigError
from mvit_coreml.models.base import build_model
from mvit_coreml.preprocessing.image_processor import ImageProcessor

CLASSES = [
    f"{family}{suffix}"
    for family in ("MobileViT", "MobileViTV2", "MobileNetV2")
    for suffix in ("Model", "ForImageClassification", "ForSemanticSegmentation")
]
TASKS = {
    "Model": "backbone",
    "ForImageClassification": "image-classification",
    "ForSemanticSegmentation": "semantic-segmentation",
}


# Two modules with the same weights differ in the last bits: kernels of torch add in another order
# where memory is aligned otherwise. These models make that some 1e-6 of the largest value.
TWO_MODULES = 1e-5


def first_output(output):
    return output.logits if "logits" in output.keys() else output.last_hidden_state  # noqa: SIM118


def assert_same_weights(module, expected):
    ours, theirs = module.state_dict(), expected.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.fast
@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_model_answers_the_same_after_loading(
    name, build_hf, save_hf, rebuilt, image, assert_close
):
    model = build_hf(name)
    checkpoint = load_checkpoint(save_hf(model))

    assert checkpoint.provenance.format == "huggingface"
    assert checkpoint.task == next(task for end, task in TASKS.items() if name.endswith(end))
    assert checkpoint.family == model.config.model_type
    with torch.no_grad():
        expected = first_output(model(image()))
        again = rebuilt(checkpoint)
        assert_same_weights(again, model)
        assert_close(first_output(again(image())), expected, TWO_MODULES)
        assert_close(first_output(build_model(checkpoint)(image())), expected, 1e-4)


def shard_safetensors(folder):
    tensors = load_file(folder / "model.safetensors")
    write_shards(folder, tensors, "model-{}-of-00002.safetensors", save_file)
    (folder / "model.safetensors").unlink()


def to_bin(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def shard_bin(folder):
    tensors = load_file(folder / "model.safetensors")
    write_shards(folder, tensors, "pytorch_model-{}-of-00002.bin", torch.save)
    (folder / "model.safetensors").unlink()


def write_shards(folder, tensors, pattern, save):
    names = sorted(tensors)
    files = [pattern.format(f"{i:05}") for i in (1, 2)]
    weight_map = {name: files[i % 2] for i, name in enumerate(names)}
    for file in files:
        save({n: tensors[n] for n in names if weight_map[n] == file}, folder / file)
    index = (
        "model.safetensors.index.json"
        if "safetensors" in pattern
        else ("pytorch_model.bin.index.json")
    )
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def legacy_pickle(folder):
    torch.save(
        load_file(folder / "model.safetensors"),
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=False,
    )
    (folder / "model.safetensors").unlink()


@pytest.mark.fast
@pytest.mark.parametrize("change", [shard_safetensors, to_bin, shard_bin, legacy_pickle])
def test_every_layout_of_weight_files_gives_the_same_weights(change, build_hf, save_hf):
    model = build_hf("MobileViTForImageClassification")
    folder = save_hf(model)
    change(folder)
    checkpoint = load_checkpoint(folder)
    expected = model.state_dict()
    assert set(checkpoint.weights) == set(expected)
    assert all(torch.equal(checkpoint.weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_become_float32(dtype, build_hf, save_hf):
    model = build_hf("MobileNetV2ForImageClassification").to(dtype)
    checkpoint = load_checkpoint(save_hf(model))
    expected = model.state_dict()["classifier.weight"].float()
    assert checkpoint.weights["classifier.weight"].dtype == torch.float32
    assert torch.equal(checkpoint.weights["classifier.weight"], expected)


def test_counters_of_batch_norm_may_be_absent(build_hf, save_hf, edit_weights):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    edit_weights(
        folder,
        lambda weights: [weights.pop(n) for n in list(weights) if n.endswith("_tracked")],
    )
    weights = load_checkpoint(folder).weights
    assert weights["mobilevit.conv_stem.normalization.num_batches_tracked"] == 0


@pytest.mark.parametrize("name", [n for n in CLASSES if n.endswith("ForImageClassification")])
def test_the_backbone_of_a_classifier_answers_as_transformers_backbone(
    name, build_hf, save_hf, rebuilt, image, assert_close
):
    model = build_hf(name)
    folder = save_hf(model)
    again = rebuilt(load_checkpoint(folder, task="backbone"))
    backbone = getattr(transformers, name.replace("ForImageClassification", "Model"))
    expected = backbone.from_pretrained(folder)
    assert_same_weights(again, expected)
    with torch.no_grad():
        assert_close(
            again(image()).last_hidden_state, expected(image()).last_hidden_state, TWO_MODULES
        )


def test_another_head_than_the_checkpoints_is_refused(build_hf, save_hf):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder, task="semantic-segmentation")
    assert str(error.value) == (
        "model: holds a model for image-classification, not for semantic-segmentation; "
        "only its backbone can be taken out"
    )


@pytest.mark.parametrize("name", CLASSES)
def test_a_configuration_without_architectures_is_told_by_its_weights(name, build_hf, save_hf):
    checkpoint = load_checkpoint(save_hf(build_hf(name), architectures=None))
    assert checkpoint.task == next(task for end, task in TASKS.items() if name.endswith(end))
    assert f"the weights are those of {name}." in " ".join(checkpoint.notes)


def test_output_stride_can_be_overridden(build_hf, save_hf, image):
    folder = save_hf(build_hf("MobileViTForSemanticSegmentation"))
    checkpoint = load_checkpoint(folder, output_stride=8)
    assert checkpoint.config.output_stride == 8
    assert build_model(checkpoint)(image()).logits.shape[-2:] == (8, 8)


def test_the_folders_image_processor_is_read(build_hf, save_hf):
    checkpoint = load_checkpoint(save_hf(build_hf("MobileViTForImageClassification")))
    assert checkpoint.image_processor == ImageProcessor.for_mobilevit(image_size=64, resize_edge=72)
    assert not any("preprocessor_config.json" in note for note in checkpoint.notes)


def test_a_missing_image_processor_is_said_and_can_be_named(build_hf, save_hf, tmp_path):
    folder = save_hf(build_hf("MobileViTForImageClassification"), processor=False)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.image_processor == ImageProcessor.for_mobilevit(image_size=64)
    assert (
        "No preprocessor_config.json was found: shortest edge 96, centre crop 64, BGR were "
        "assumed, as published for the family; --image-processor names another."
    ) in checkpoint.notes

    named = ImageProcessor.for_mobilevit(image_size=48, do_flip_channel_order=False)
    (tmp_path / "other.json").write_text(json.dumps(named.to_dict()))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "preprocessor_config.json").write_text(json.dumps(named.to_dict()))
    for choice in (named, tmp_path / "other.json", str(tmp_path / "folder")):
        checkpoint = load_checkpoint(folder, image_processor=choice)
        assert checkpoint.image_processor == named
        assert not any("preprocessor" in note for note in checkpoint.notes)


def test_the_color_order_can_be_overridden(build_hf, save_hf):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    assert load_checkpoint(folder).image_processor.do_flip_channel_order
    rgb = load_checkpoint(folder, color_order="RGB")
    assert not rgb.image_processor.do_flip_channel_order


@pytest.mark.parametrize("name", CLASSES)
def test_what_save_pretrained_writes_transformers_loads(
    name, build_hf, save_hf, image, assert_close, tmp_path
):
    model = build_hf(name)
    checkpoint = load_checkpoint(save_hf(model))
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    checkpoint.save_pretrained(out)

    again, info = type(model).from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert_same_weights(again, model)
    with torch.no_grad():
        assert_close(first_output(again(image())), first_output(model(image())), TWO_MODULES)
    assert again.config.id2label == dict(checkpoint.id2label)
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    assert processor.size["shortest_edge"] == 72
    assert (out / "README.md").read_text() == "mine"
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }


def test_a_failing_save_leaves_the_folder_as_it_was(build_hf, save_hf, monkeypatch, tmp_path):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    checkpoint = load_checkpoint(folder)
    monkeypatch.setattr("safetensors.torch.save", fail)
    with pytest.raises(CheckpointError, match=r"cannot be written: No space left on device"):
        checkpoint.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_files_are_prepared_on_the_disk_that_they_are_renamed_on(
    build_hf, save_hf, monkeypatch, tmp_path
):
    checkpoint = load_checkpoint(save_hf(build_hf("MobileViTForImageClassification")))
    monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
    checkpoint.save_pretrained(tmp_path / "out")


def test_provenance_names_the_weights_and_no_path(build_hf, save_hf):
    import hashlib

    folder = save_hf(build_hf("MobileViTForImageClassification"))
    provenance = load_checkpoint(folder).provenance
    assert provenance.name == "model"
    assert provenance.revision is None
    assert provenance.files == ("model.safetensors",)
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert provenance.sha256 == expected
    assert str(folder.parent) not in repr(provenance)


def test_a_configuration_that_contradicts_the_weights_names_both_shapes(build_hf, save_hf):
    folder = save_hf(build_hf("MobileViTForImageClassification"), hidden_sizes=[16, 24, 40])
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    assert str(error.value) == (
        "model: weight 'mobilevit.encoder.layer.4.conv_1x1.convolution.weight' is (32, 16, 1, 1), "
        "but the configuration makes it (40, 16, 1, 1)"
    )


def test_missing_weights_are_counted_and_named(build_hf, save_hf, edit_weights):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    edit_weights(
        folder,
        lambda weights: (
            weights.pop("classifier.bias"),
            weights.pop("mobilevit.conv_stem.convolution.weight"),
        ),
    )
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    assert str(error.value) == (
        "model: 2 weights of MobileViTForImageClassification are missing, the first is "
        "'mobilevit.conv_stem.convolution.weight'"
    )


def test_weights_without_a_place_are_counted_and_named(build_hf, save_hf, edit_weights):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    edit_weights(folder, lambda weights: weights.update(stray=torch.zeros(2)))
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(folder)
    assert str(error.value) == (
        "model: 1 weights have no place in MobileViTForImageClassification, the first is 'stray'"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_named(bad, build_hf, save_hf, edit_weights):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    edit_weights(folder, lambda weights: weights["classifier.weight"].view(-1)[5:6].fill_(bad))
    with pytest.raises(CheckpointError, match=r"'classifier\.weight' holds NaN or infinite"):
        load_checkpoint(folder)


def test_large_finite_weights_are_no_infinities(build_hf, save_hf, edit_weights):
    folder = save_hf(build_hf("MobileViTForImageClassification"))
    edit_weights(folder, lambda weights: weights["classifier.weight"].fill_(3e38))
    assert load_checkpoint(folder).weights["classifier.weight"].max() == 3e38


def test_an_unsupported_model_names_the_supported_ones(build_hf, save_hf):
    folder = save_hf(build_hf("MobileViTForImageClassification"), model_type="vit")
    with pytest.raises(ConfigError) as error:
        load_checkpoint(folder)
    assert str(error.value) == (
        "model: config: model_type 'vit' is not supported; "
        "supported are mobilevit, mobilevitv2, mobilenet_v2"
    )


def test_trained_checkpoints_load_and_answer_alike(real_data, rebuilt, image, assert_close):
    for name in (
        "mobilenet_v2_1.0_224",
        "deeplabv3_mobilenet_v2_1.0_513_os16",
        "mobilevit_xxs_cifar10_64",
    ):
        checkpoint = load_checkpoint(real_data / name)
        cls = transformers.AutoConfig.from_pretrained(real_data / name).architectures[0]
        model = getattr(transformers, cls).from_pretrained(real_data / name).eval()
        again = rebuilt(checkpoint)
        assert_same_weights(again, model)
        with torch.no_grad():
            assert_close(again(image()).logits, model(image()).logits, TWO_MODULES)
        assert checkpoint.notes == ()
