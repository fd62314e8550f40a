import json

import pytest

from mvit_coreml.checkpoints.load import load_image_processor
from mvit_coreml.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.fast

HUGGING_FACE = {
    "image_processor_type": "MobileViTImageProcessor",
    "size": {"shortest_edge": 288},
    "crop_size": {"height": 256, "width": 256},
    "resample": 2,
}


def test_a_file_and_its_folder_give_the_same(tmp_path):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(HUGGING_FACE))
    processor = load_image_processor(file)
    assert (processor.size, processor.crop_size) == (288, (256, 256))
    assert load_image_processor(tmp_path) == processor


def test_timms_configuration_is_read_too(tmp_path):
    config = {
        "architecture": "mobilevitv2_100",
        "pretrained_cfg": {
            "input_size": [3, 256, 256],
            "crop_pct": 0.888,
            "interpolation": "bicubic",
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
        },
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = load_image_processor(tmp_path)
    assert processor.size == int(256 / 0.888)
    assert processor.resample.name == "BICUBIC"


def test_sources_without_preprocessing_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"has no preprocessor_config\.json"):
        load_image_processor(tmp_path)
    with pytest.raises(CheckpointError, match="no such file or folder"):
        load_image_processor(tmp_path / "absent.json")
    (tmp_path / "odd.json").write_text('{"size": 3}')
    with pytest.raises(ConfigError, match=r"odd\.json: .*names no image_processor_type"):
        load_image_processor(tmp_path / "odd.json")


@pytest.mark.parametrize("file", ["", "config.json"], ids=["folder", "file"])
def test_a_models_configuration_is_not_taken_for_its_preprocessing(tmp_path, file):
    config = {"model_type": "mobilevit", "architectures": ["MobileViTModel"], "image_size": 256}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"preprocessor_config\.json") as caught:
        load_image_processor(tmp_path / file, model_type="mobilevit")
    assert "\n" not in str(caught.value)
