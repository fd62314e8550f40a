"""Opening packages and checkpoints side by side."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from packages import LABELS, converted, image, small_checkpoint

from mvit_coreml.errors import CheckpointError, InputError, PackageError
from mvit_coreml.evaluation.open_targets import OpenOptions, is_package, open_targets

CLASSIFIER, SEGMENTER = "mobilevit", "mobilenet_v2"
SEGMENTATION = "semantic-segmentation"


def package(family=CLASSIFIER, task="image-classification", **options):
    return converted(family, task, **options)[1].path


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Write a small checkpoint as transformers reads it."""

    def write(family=CLASSIFIER, task="image-classification"):
        folder = tmp_path_factory.getbasetemp() / f"{family}-{task}"
        if not folder.is_dir():
            small_checkpoint(family, task).save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def foreign(tmp_path):
    """Copy a package without what this project writes into its metadata."""

    def copy(path):
        from mvit_coreml.export.coremltools_import import load_coremltools

        target = tmp_path / path.name
        shutil.copytree(path, target)
        tools = load_coremltools()
        model = next(target.rglob("*.mlmodel"))
        spec = tools.utils.load_spec(str(path))
        spec.description.metadata.userDefined.clear()
        model.write_bytes(spec.SerializeToString())
        return target

    return copy


def test_a_package_is_told_from_a_checkpoint(tmp_path):
    assert is_package("missing.mlpackage")
    assert is_package(package())
    assert not is_package("apple/mobilevit-small")
    assert not is_package(tmp_path)
    renamed = tmp_path / "renamed"
    shutil.copytree(package(), renamed)
    assert is_package(renamed)


@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_a_classifiers_classes_are_known_whatever_it_answers(output):
    (opened,) = open_targets([package(output=output)])
    assert opened.task == "image-classification"
    assert opened.classes.count == len(LABELS)
    # The checkpoint's two "crane" and two "maillot" were told apart.
    assert opened.classes.labels == (*LABELS[:5], "crane (5)", "maillot (6)")
    assert (opened.declared_order, opened.engine) == ("BGR", "portable")


@pytest.mark.parametrize("output", ["classes", "logits"])
def test_a_checkpoint_beside_a_segmenter_answers_maps_of_its_size(output, source):
    saved = package(SEGMENTER, SEGMENTATION, output=output)
    opened = open_targets([saved, source(SEGMENTER, SEGMENTATION)])
    assert [found.task for found in opened] == [SEGMENTATION] * 2
    assert [found.classes.count for found in opened] == [len(LABELS)] * 2
    photo = image((50, 90))
    ours, reference = (next(iter(found.target.answer([photo]))) for found in opened)
    assert ours.placement == reference.placement
    assert ours.class_map().shape == reference.class_map().shape
    assert (ours.class_map() == reference.class_map()).mean() > 0.95


def test_a_checkpoint_is_run_with_the_fit_and_size_of_the_package_beside_it(source):
    saved = package(fit="stretch", image_sizes=((96, 64),))
    opened = open_targets([source(), saved])
    assert opened[0].target.fit == "stretch"
    answers = [next(iter(found.target.answer([image((80, 50))]))) for found in opened]
    assert answers[0].placement == answers[1].placement
    assert answers[0].placement.input_size == (96, 64)


@pytest.mark.parametrize(("task", "fit"), [("image-classification", "crop"), (SEGMENTATION, "pad")])
def test_a_checkpoint_alone_is_run_as_convert_would_fit_it(task, fit, source):
    (opened,) = open_targets([source(SEGMENTER, task)])
    assert opened.target.fit == fit
    (other,) = open_targets([source(SEGMENTER, task)], OpenOptions(fit="stretch"))
    assert other.target.fit == "stretch"


def test_the_other_colour_order_swaps_what_the_weights_get(source):
    photo = image((64, 64))
    for path in (package(), source()):
        plain, same, swapped = (
            open_targets([path], OpenOptions(color_order=order))[0]
            for order in (None, "BGR", "RGB")
        )
        assert (swapped.declared_order, swapped.color_order) == ("BGR", "RGB")
        scores = [
            next(iter(found.target.answer([pixels]))).scores()
            for found, pixels in (
                (plain, photo),
                (same, photo),
                (swapped, photo[..., ::-1]),
                (swapped, photo),
            )
        ]
        # Models opened one by one lie elsewhere in memory, and add in another order: some 1e-6.
        np.testing.assert_allclose(scores[1], scores[0], atol=1e-4)
        np.testing.assert_allclose(scores[2], scores[0], atol=1e-4)
        assert np.abs(scores[0] - scores[3]).max() > 1e-3


def test_the_order_applies_to_the_first_of_two(source):
    opened = open_targets([package(), source()], OpenOptions(color_order="RGB"))
    assert [found.color_order for found in opened] == ["RGB", "BGR"]


def test_a_package_of_another_tool_is_prepared_as_the_checkpoint_beside_it(source, foreign):
    path = foreign(package())
    (alone,) = open_targets([path])
    assert "they are stretched to 64x64 pixels, as Core ML does by itself" in alone.notes[0]
    assert alone.target.preparation.fit == "stretch"
    opened, reference = open_targets([path, source()])
    assert "does not say how photos are prepared" in opened.notes[0]
    photo = image((70, 90))
    scores = next(iter(opened.target.answer([photo]))).scores()
    logits = next(iter(reference.target.answer([photo]))).scores()
    assert np.abs(scores - np.exp(logits) / np.exp(logits).sum()).max() < 0.01


def test_a_package_of_another_tool_is_prepared_and_named_as_asked(foreign, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"name {index}" for index in range(len(LABELS))))
    path = foreign(package(output="logits"))
    loading = {"labels": names}
    (opened,) = open_targets([path], OpenOptions(resize=80, loading=loading))
    assert opened.notes == ()
    assert opened.classes.labels[2] == "name 2"
    (placement,) = [one.placement for one in opened.target.answer([image((100, 200))])]
    # torchvision's Resize(80) and CenterCrop(64) of 200x100 pixels
    assert placement.resized_size == (80, 160)
    assert placement.input_size == (64, 64)
    with pytest.raises(InputError, match="--resize cuts out the centre, --fit pad does not"):
        open_targets([path], OpenOptions(resize=80, fit="pad"))
    with pytest.raises(InputError, match="less than the input of 64x64"):
        open_targets([path], OpenOptions(resize=60))
    with pytest.raises(InputError, match="--resize is for packages that do not"):
        open_targets([package()], OpenOptions(resize=80))


def test_what_cannot_be_scored_or_compared_is_refused(source):
    with pytest.raises(InputError, match="features, not classes"):
        open_targets([package(output="features")])
    with pytest.raises(InputError, match="do not compare: one is for image-classification"):
        open_targets([package(), package(SEGMENTER, SEGMENTATION)])
    with pytest.raises(CheckpointError, match="no such file or folder"):
        open_targets(["./nothing-here"])
    with pytest.raises(PackageError, match=r"missing\.mlpackage"):
        open_targets(["missing.mlpackage"])


def test_options_of_the_other_kind_are_refused(source):
    with pytest.raises(InputError, match="whose fit was settled"):
        open_targets([package()], OpenOptions(fit="pad"))
    with pytest.raises(InputError, match="whose output stride was settled"):
        open_targets([package()], OpenOptions(loading={"output_stride": 8}))
    assert open_targets([package()], OpenOptions(loading={"local_files_only": True}))
    with pytest.raises(InputError, match="only packages have functions"):
        open_targets([source()], OpenOptions(function="main"))
