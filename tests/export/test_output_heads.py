"""What packages answer: names, shapes, types, and values against transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from packages import LABELS, converted, image, make_checkpoint, small_checkpoint
from standins import reference, relative_error

from mvit_coreml import ConvertOptions, build_model, convert
from mvit_coreml.errors import InputError
from mvit_coreml.export.image_input import bake_preprocessing
from mvit_coreml.export.output_heads import OUTPUTS_OF_TASK, export_model
from mvit_coreml.models.config import MobileNetV2Config, MobileViTConfig, MobileViTV2Config
from mvit_coreml.models.config import architecture_name as name_of

CLASSIFIER, SEGMENTER, BACKBONE = "image-classification", "semantic-segmentation", "backbone"
FLOAT, INT = "float32", "int32"


def interface(*arguments, **options):
    return converted(*arguments, **options)[1].interface()


def test_a_classifier_answers_a_label_and_its_probabilities():
    _, package = converted("mobilenet_v2")
    assert package.interface() == {
        "classLabel": ("string", ()),
        "classLabel_probs": ("dictionary", ()),
    }
    assert package.spec.description.predictedFeatureName == "classLabel"
    assert package.spec.description.predictedProbabilitiesName == "classLabel_probs"
    census = package.census()
    assert (census["classify"], census["softmax"]) == (1, 1)


def test_class_labels_are_unique_in_order_and_keep_the_background():
    _, package = converted("mobilenet_v2")
    classify = package.program()[-1]
    labels = [str(label) for label in classify.classes.val]
    assert labels == [
        "background",
        "tench",
        "crane",
        "maillot",
        "ox",
        "crane (5)",
        "maillot (6)",
    ]


def test_renamed_classes_are_reported():
    package, _ = converted("mobilenet_v2")
    assert any("crane (5), maillot (6)" in note for note in package.notes)
    assert not any(
        "crane" in note for note in converted("mobilenet_v2", output="features")[0].notes
    )


def test_logits_of_a_classifier_are_a_plain_tensor():
    _, package = converted("mobilenet_v2", output="logits")
    assert package.interface() == {"logits": (FLOAT, (1, len(LABELS)))}
    assert package.spec.description.predictedFeatureName == ""
    assert not {"softmax", "classify"} & set(package.census())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"classes": (INT, (64, 64))}),
        ({"map_size": "logits"}, {"classes": (INT, (4, 4))}),
        ({"map_size": (40, 24)}, {"classes": (INT, (40, 24))}),
        ({"output": "probabilities"}, {"probabilities": (FLOAT, (1, 7, 64, 64))}),
        ({"output": "logits"}, {"logits": (FLOAT, (1, 7, 4, 4))}),
        ({"output": "logits", "map_size": "input"}, {"logits": (FLOAT, (1, 7, 64, 64))}),
        (
            {"output": "features"},
            # The network ends in its 1x1 convolution, as transformers' last_hidden_state does.
            {"last_hidden_state": (FLOAT, (1, 1280, 4, 4)), "pooler_output": (FLOAT, (1, 1280))},
        ),
    ],
    ids=str,
)
def test_outputs_of_a_segmenter(options, expected):
    assert interface("mobilenet_v2", SEGMENTER, **options) == expected


def test_a_map_at_the_size_of_the_logits_is_not_resized():
    assert "upsample_bilinear" in converted("mobilenet_v2", SEGMENTER)[1].census()
    census = converted("mobilenet_v2", SEGMENTER, map_size="logits")[1].census()
    assert not any(name.startswith(("upsample", "resize")) for name in census)


@pytest.mark.parametrize(
    ("family", "task", "width", "last"),
    [
        ("mobilenet_v2", CLASSIFIER, 1280, (8, 8, 8)),
        # Without a last convolution the fourth hidden state is the last of all.
        ("mobilevit", SEGMENTER, 16, (16, 4, 4)),
        ("mobilenet_v2", BACKBONE, 1280, (8, 8, 8)),
    ],
    ids=[CLASSIFIER, SEGMENTER, BACKBONE],
)
def test_features_and_layers_come_from_every_task(family, task, width, last):
    found = interface(family, task, output="features", layers=(4, 0))
    side = 4 if task == SEGMENTER else 2
    expected = {
        "last_hidden_state": (FLOAT, (1, width, side, side)),
        "pooler_output": (FLOAT, (1, width)),
        "hidden_state_4": (FLOAT, (1, *last)),
        "hidden_state_0": (FLOAT, (1, 8, *((32, 32) if family == "mobilevit" else (16, 16)))),
    }
    assert found == expected
    assert list(found) == list(expected)


@pytest.mark.parametrize(
    "arguments",
    [
        ("mobilenet_v2",),
        ("mobilenet_v2", SEGMENTER),
        ("mobilenet_v2", BACKBONE),
    ],
    ids=str,
)
def test_the_result_describes_the_outputs_of_the_saved_package(arguments):
    options = {"output": "features", "layers": (4, 0)} if BACKBONE in arguments else {}
    package, saved = converted(*arguments, **options)
    assert {output.name: (output.dtype, output.shape) for output in package.outputs} == (
        saved.interface()
    )


# Values, in PyTorch; that a package computes what its module computes is for parity to show.


def exported(checkpoint, kind, **options):
    size = checkpoint.config.image_hw
    inputs = bake_preprocessing(
        checkpoint.image_processor.replace(do_normalize=False), checkpoint.config.num_channels, size
    )
    module = export_model(build_model(checkpoint), inputs, kind, **options)

    def run(pixel_values):
        with torch.inference_mode():
            return dict(zip(module.output_names, module(pixel_values), strict=True))

    return run


CONFIGS = {
    "mobilevit": MobileViTConfig(
        hidden_sizes=(16, 24, 32),
        neck_hidden_sizes=(8, 8, 8, 16, 16, 16, 32),
        image_size=64,
        output_stride=16,
        id2label=dict(enumerate(LABELS)),
    ),
    "mobilevitv2": MobileViTV2Config(
        width_multiplier=0.25, image_size=64, output_stride=16, id2label=dict(enumerate(LABELS))
    ),
    "mobilenet_v2": MobileNetV2Config(
        depth_multiplier=0.25, image_size=64, output_stride=16, id2label=dict(enumerate(LABELS))
    ),
}


def tensor(pixels):
    return torch.tensor(pixels.transpose(2, 0, 1)[None]).float() / 255


def pair(family, task):
    """Return a checkpoint, and transformers' model of the same weights."""
    checkpoint = make_checkpoint(CONFIGS[family], task, 64)
    theirs = reference(checkpoint.config, task, (64, 64))
    theirs.load_state_dict(checkpoint.weights)
    if task == SEGMENTER:
        # Random scores of some class are the highest everywhere; without their mean none is.
        with torch.inference_mode():
            mean = theirs(tensor(image())).logits.mean((0, 2, 3))
        (name,) = (n for n in checkpoint.weights if n.endswith("classifier.convolution.bias"))
        checkpoint.weights[name].sub_(mean)
        theirs.load_state_dict(checkpoint.weights)
    assert type(theirs).__name__ == name_of(checkpoint.config, task)
    return checkpoint, theirs


@pytest.fixture(scope="module")
def pixel_values():
    return tensor(image())


@pytest.mark.parametrize("family", CONFIGS)
def test_scores_of_classifiers(family, pixel_values):
    checkpoint, theirs = pair(family, CLASSIFIER)
    with torch.inference_mode():
        expected = theirs(pixel_values).logits
    (logits,) = exported(checkpoint, "logits")(pixel_values).values()
    (scores,) = exported(checkpoint, "probabilities")(pixel_values).values()
    assert relative_error(logits, expected) < 1e-4
    assert relative_error(scores, expected.softmax(-1)) < 1e-3


@pytest.mark.parametrize("family", CONFIGS)
def test_maps_of_segmenters_are_those_of_transformers_post_processing(family, pixel_values):
    checkpoint, theirs = pair(family, SEGMENTER)
    with torch.inference_mode():
        output = theirs(pixel_values)
    processor = transformers.MobileViTImageProcessorPil()
    (expected,) = processor.post_process_semantic_segmentation(output, [(64, 64)])
    classes = exported(checkpoint, "classes")(pixel_values)["classes"]
    assert classes.dtype == torch.int32
    assert classes.shape == (64, 64)
    assert len(classes.unique()) > 3
    assert (classes == expected).float().mean() > 0.999
    logits = exported(checkpoint, "logits", map_size="logits")(pixel_values)["logits"]
    assert relative_error(logits, output.logits) < 1e-4
    scores = exported(checkpoint, "probabilities")(pixel_values)["probabilities"]
    assert scores.shape == (1, len(LABELS), 64, 64)
    assert torch.allclose(scores.sum(1), torch.ones(1, 64, 64), atol=1e-5)
    assert (scores.argmax(1)[0] == expected).float().mean() > 0.999


@pytest.mark.parametrize("task", [CLASSIFIER, SEGMENTER, BACKBONE])
@pytest.mark.parametrize("family", CONFIGS)
def test_features_are_those_of_transformers(family, task, pixel_values):
    checkpoint, theirs = pair(family, task)
    backbone = theirs if task == BACKBONE else getattr(theirs, checkpoint.family)
    with torch.inference_mode():
        expected = backbone(pixel_values, output_hidden_states=True)
    count = len(expected.hidden_states)
    layers = (count - 1, 0, 2)
    found = exported(checkpoint, "features", layers=layers)(pixel_values)
    assert relative_error(found["last_hidden_state"], expected.last_hidden_state) < 1e-4
    mean = expected.last_hidden_state.mean((-2, -1))
    assert relative_error(found["pooler_output"], mean) < 1e-4
    for layer in layers:
        assert relative_error(found[f"hidden_state_{layer}"], expected.hidden_states[layer]) < 1e-4


# What does not apply.


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (CLASSIFIER, {"output": "classes"}, "'classes' does not apply to image-classification"),
        (BACKBONE, {"output": "logits"}, "'logits' does not apply to backbone; it has features"),
        (CLASSIFIER, {"layers": (1,)}, r"hidden states \(1\) come with output 'features' only"),
        (CLASSIFIER, {"output": "features", "layers": (3, 5)}, "layer 5 .*states 0 to 4"),
        (CLASSIFIER, {"output": "features", "layers": (-1,)}, "layer -1 does not exist"),
        (CLASSIFIER, {"output": "features", "layers": (2, 2)}, "layer of 2, 2 is given twice"),
        (CLASSIFIER, {"map_size": (8, 8)}, "map size does not apply to the probabilities of"),
        (SEGMENTER, {"output": "features", "map_size": "logits"}, "map size does not apply"),
        (SEGMENTER, {"layers": (1,)}, "come with output 'features' only"),
    ],
)
def test_what_does_not_apply_is_refused(task, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        convert(
            small_checkpoint("mobilevit", task),
            ConvertOptions(bits=None, **options),
            tmp_path / "x.mlpackage",
        )
    assert list(tmp_path.iterdir()) == []


def test_every_task_has_a_first_kind_and_features():
    assert {task: kinds[0] for task, kinds in OUTPUTS_OF_TASK.items()} == {
        CLASSIFIER: "probabilities",
        SEGMENTER: "classes",
        BACKBONE: "features",
    }
    assert all("features" in kinds for kinds in OUTPUTS_OF_TASK.values())


def test_exporting_leaves_the_model_alone():
    checkpoint = small_checkpoint("mobilenet_v2")
    model = build_model(checkpoint)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    processor = checkpoint.image_processor.replace(do_normalize=True, image_std=(0.1, 0.2, 0.3))
    export_model(model, bake_preprocessing(processor, 3, (64, 64)), "logits")
    assert all(np.array_equal(tensor, before[name]) for name, tensor in model.state_dict().items())
